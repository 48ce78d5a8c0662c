"""The PROXY protocol as a layer; see layer.pyx."""

from collector.shards.state cimport layer_t

cdef const layer_t* proxy_layer() noexcept nogil
