"""HTTP/2 as a layer; see layer.pyx."""

from collector.shards.state cimport layer_t

cdef const layer_t* http2_layer() noexcept nogil
