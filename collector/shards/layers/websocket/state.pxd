"""The state of a WebSocket (RFC 6455)."""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from collector.shards.http.message cimport exchange_t
from collector.shards.layers.websocket.inflate cimport inflater_t
from collector.shards.memory cimport buf_t
from collector.shards.state cimport conn_t, layer_t


cdef enum:  # opcode, section 5.2
    OP_CONTINUATION = 0
    OP_TEXT = 1
    OP_BINARY = 2
    OP_CLOSE = 8
    OP_PING = 9
    OP_PONG = 10

cdef enum:
    CONTROL_MOST = 125       # bytes of a control frame's payload, section 5.5
    HEAD_MOST = 14           # bytes of a frame's header

cdef enum:  # frame_state
    W_HEAD                   # between frames, or inside a frame's header
    W_DATA                   # `remaining` bytes of a message
    W_CONTROL                # `remaining` bytes of a control frame
    W_RESYNC                 # framing lost: skip until an event is whole frames
    W_OVER                   # behind a Close frame

# Bits of exchange_t.reasons; layer.pyx has their names.
cdef enum:  # malformed
    BAD_FRAME = 1 << 0       # not as section 5.2 has it
    BAD_MASK = 1 << 1        # section 5.1: a client masks, a server does not
    BAD_DEFLATE = 1 << 2     # what is compressed does not decompress

cdef struct half_t:
    uint8_t head[14]
    uint8_t head_len
    uint8_t state            # enum frame_state
    uint8_t fin              # of the frame that is being read
    uint8_t opcode
    uint8_t masked
    uint8_t mask[4]
    uint64_t remaining
    uint64_t at              # bytes of its payload that were read: where the mask stands
    uint8_t control[125]
    uint8_t control_len
    # The message, perhaps of several frames
    uint8_t message          # enum opcode; 0: none, or one whose first frame was not seen
    uint8_t inside           # a frame without FIN was read: the next one continues it
    uint8_t compressed
    uint8_t cut              # bytes of it are missing from `body`: the cap, or a hole
    uint8_t undecoded        # nobody knows what it says
    uint64_t size            # of its payload, as on the wire
    buf_t body               # unmasked, decompressed; at most body_bytes
    int64_t work             # of decompressing it
    inflater_t inflater
    uint8_t behind           # messages were not decompressed that later ones may refer to
    uint8_t missed           # frames may have gone by that nobody saw
    uint64_t last_ns         # when its newest bytes came
    uint64_t payload         # bytes of messages since the last record
    uint64_t lost            # bytes in holes since then

cdef struct websocket_t:
    conn_t* conn
    half_t half[2]           # by enum event_dir
    exchange_t* ex           # the handshake; then its heads, for the records of messages
    const layer_t* asked     # the layer that has read the handshake
    buf_t events             # JSON array of messages, without its end
    uint32_t count           # of events
    uint16_t extension       # enum extension
    uint8_t shook            # the handshake was recorded
    uint64_t first_ns        # of the first message in `events`; 0: there is none
    # What the record of `events` will say
    uint32_t marks           # enum mark
    uint32_t reasons         # enum malformed
    uint32_t redacted        # values
