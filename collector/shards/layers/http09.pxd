"""HTTP/0.9 as a layer; see http09.pyx."""

from collector.shards.state cimport layer_t

cdef const layer_t* http09_layer() noexcept nogil
