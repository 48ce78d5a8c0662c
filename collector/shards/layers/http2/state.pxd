"""The state of HTTP/2 on one connection (RFC 9113), and what is known of one header block."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from collector.shards.http.fields cimport fields_t, request_t, response_t
from collector.shards.http.message cimport exchange_t
from collector.shards.layers.http2.hpack cimport hpack_t
from collector.shards.memory cimport buf_t
from collector.shards.receive cimport receive_t
from collector.shards.state cimport conn_t, flow_t


cdef enum:  # frame_type, section 6
    FRAME_DATA = 0
    FRAME_HEADERS = 1
    FRAME_PRIORITY = 2
    FRAME_RST_STREAM = 3
    FRAME_SETTINGS = 4
    FRAME_PUSH_PROMISE = 5
    FRAME_PING = 6
    FRAME_GOAWAY = 7
    FRAME_WINDOW_UPDATE = 8
    FRAME_CONTINUATION = 9
    FRAMES

cdef enum:  # flags of frames
    FLAG_ACK = 0x1           # SETTINGS and PING
    FLAG_END_STREAM = 0x1    # DATA and HEADERS
    FLAG_END_HEADERS = 0x4
    FLAG_PADDED = 0x8
    FLAG_PRIORITY = 0x20

cdef enum:
    FRAME_HEADER_BYTES = 9
    FRAME_LEAST = 16384      # SETTINGS_MAX_FRAME_SIZE, unless the other end says otherwise
    FRAME_MOST = 16777215
    PREFACE_BYTES = 24
    SETTINGS_MOST = 768      # of a frame that is read: 128 settings, where there are ten
    BLOCK_MOST = 1 << 18     # of a header block that is decoded; of a longer one nothing is known

cdef struct frame_t:
    uint32_t length
    uint32_t stream
    uint8_t type             # enum frame_type, or one that nobody knows
    uint8_t flags


# What is wrong with a message by RFC 9113: what gets by one end and means something else to the next. Bits of
# exchange_t.reasons; layer.pyx has their names.
cdef enum:  # malformed
    BAD_PSEUDO = 1 << 0          # section 8.3: missing, twice, unknown, behind a field
    BAD_NAME = 1 << 1            # section 8.2.1: upper case, or no token
    BAD_VALUE = 1 << 2           # section 8.2.1: a control character, or blanks around it
    BAD_CONNECTION = 1 << 3      # section 8.2.2: a field of HTTP/1's connections
    BAD_LENGTH = 1 << 4          # section 8.1.1: content-length is not what the DATA frames have
    BAD_HOST = 1 << 5            # :authority and Host differ, or there are two
    BAD_FRAME = 1 << 6           # a frame of the stream is not as section 6 has it

cdef enum:  # pseudo-header fields
    PSEUDO_METHOD = 1
    PSEUDO_PATH = 2
    PSEUDO_SCHEME = 4
    PSEUDO_AUTHORITY = 8
    PSEUDO_STATUS = 16
    PSEUDO_PROTOCOL = 32         # RFC 8441


# One header block; pointers into the bytes that it was decoded to.
cdef struct head_t:
    request_t request
    response_t response
    uint32_t bad               # enum malformed
    uint32_t unknown           # fields of which the name or the value is not known
    uint8_t pseudo             # those that are here
    uint8_t pseudo_unknown     # of these, those without a known value
    uint8_t has_length         # Content-Length
    uint8_t named              # :authority says which host
    uint8_t websocket          # :protocol says so
    uint64_t content_length
    fields_t fields


cdef enum:  # exchange_t.notes
    NOTE_REQUEST = 1           # its request's head was read
    NOTE_REQUEST_LENGTH = 2    # a Content-Length is checked against the body
    NOTE_RESPONSE_LENGTH = 4
    NOTE_HEAD = 8              # the method was HEAD
    NOTE_WEBSOCKET = 32        # an extended CONNECT that asks for a WebSocket (RFC 8441)
    NOTE_END_IN_DOUBT = 16     # bytes are missing that may have ended it
    NOTE_ORPHAN = 64           # its request was not seen, and will not be
    NOTE_OPENS = 128           # answered with 2xx before its request was seen: a WebSocket, if it asks for one,
    NOTE_EXTENSION = 256       # with these: times enum extension


cdef enum:  # half_state
    H_PREFACE        # the client's first bytes
    H_FRAME          # between frames, or inside a frame's header
    H_PAD_LENGTH     # of a DATA frame
    H_BODY           # `remaining` bytes of a DATA frame, of which the last `padding` are none of the body
    H_KEEP           # `remaining` bytes of a payload that is read when it is whole
    H_SKIP           # `remaining` bytes that say nothing
    H_RESYNC         # framing lost: skip until an event begins like a frame

cdef enum:  # block_state
    BLOCK_NONE
    BLOCK_MORE       # CONTINUATION frames follow
    BLOCK_LOST       # they follow, and something before them is missing

cdef struct half_t:
    receive_t part           # a frame's header or payload that is not whole yet
    buf_t block              # a header block that is not whole yet
    hpack_t table            # as the decoder of these bytes has it
    frame_t frame            # that is being read
    frame_t begun            # the one that began the header block
    uint64_t frame_ns        # when it began
    uint64_t block_ns
    uint32_t promised        # stream of a PUSH_PROMISE whose block is not whole yet
    uint32_t remaining
    uint32_t padding
    uint32_t frame_most      # SETTINGS_MAX_FRAME_SIZE of who reads these bytes
    uint32_t allowed         # SETTINGS_HEADER_TABLE_SIZE of who reads them, once its SETTINGS are acknowledged
    uint8_t state            # enum half_state
    uint8_t in_block         # enum block_state
    uint8_t allowed_new      # and they are not yet
    uint8_t ended
    uint8_t lost             # H_RESYNC: bytes were lost on the way; else they were not copied
    uint8_t missed           # heads may have gone by that nobody saw
    exchange_t* current      # the exchange that a DATA frame is a part of, or NULL


cdef enum:
    BUCKETS = 32             # of streams, by number: most connections have some tens at a time
    KNOWN_STREAMS = 1024     # a power of two
    MAX_STREAMS = 1024       # tracked at a time; servers allow 100 to 250

cdef struct http2_t:
    conn_t* conn
    flow_t* flow
    half_t half[2]           # by enum event_dir
    exchange_t* open[32]     # streams, by number (exchange_t.pos); chains through exchange_t.next
    exchange_t* first        # those that are complete, and wait for FACT_RELEASED; oldest first
    exchange_t* last
    uint32_t count           # of open
    uint32_t unasked         # of these, at most so many whose answer was seen before their request
    uint32_t newest          # number of the client's newest stream
    uint32_t promised        # of the server's
    uint64_t known[16]       # of the client's newest KNOWN_STREAMS: whose requests were seen; with ctx_t.orphan_responses
    uint8_t joined           # the next request is the first after bytes that nobody saw
