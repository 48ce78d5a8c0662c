"""All layers, in the order in which they are asked for a connection's beginning; see table.pyx."""

from libc.stdint cimport uint32_t

from collector.shards.state cimport layer_t

cdef const layer_t* LAYERS[16]
cdef uint32_t LAYER_COUNT

cdef int insert_layer(const layer_t* layer) except -1
