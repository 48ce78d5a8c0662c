"""WebSocket as a layer; see layer.pyx."""

from collector.shards.state cimport layer_t

cdef const layer_t* websocket_layer() noexcept nogil
