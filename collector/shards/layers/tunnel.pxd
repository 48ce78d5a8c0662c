"""What nobody reads; see tunnel.pyx."""

from collector.shards.state cimport layer_t

cdef const layer_t* tunnel_layer() noexcept nogil
