"""All layers: a new protocol is a module beside this one, and a line here. docs/adding-a-protocol.md says how.

The first layer that takes the first bytes of a connection's client for its beginning reads them; the last one takes
everything.
"""

from libc.string cimport strcmp

from collector.shards.layers.http09 cimport http09_layer
from collector.shards.layers.http1.layer cimport http1_layer
from collector.shards.layers.http2.layer cimport http2_layer
from collector.shards.layers.proxy.layer cimport proxy_layer
from collector.shards.layers.tunnel cimport tunnel_layer
from collector.shards.layers.websocket.layer cimport websocket_layer

LAYERS[0] = proxy_layer()
LAYERS[1] = tunnel_layer()
LAYERS[2] = websocket_layer()
LAYERS[3] = http2_layer()
LAYERS[4] = http09_layer()
LAYERS[5] = http1_layer()
LAYER_COUNT = 6


cdef int insert_layer(const layer_t* layer) except -1:
    """Put a layer in front of all others, or in the place of one of its name: for tests, before the first connection."""
    global LAYER_COUNT
    cdef uint32_t i
    for i in range(LAYER_COUNT):
        if strcmp(LAYERS[i].name, layer.name) == 0:
            LAYERS[i] = layer
            return 0
    if LAYER_COUNT == 16:
        raise ValueError("too many layers")
    for i in range(LAYER_COUNT, 0, -1):
        LAYERS[i] = LAYERS[i - 1]
    LAYERS[0] = layer
    LAYER_COUNT += 1
    return 0


def layer_names():
    """What `protocol` in a record may be, in the order of the table."""
    return [LAYERS[i].name.decode() for i in range(LAYER_COUNT)]
