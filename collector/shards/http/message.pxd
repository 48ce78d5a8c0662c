"""One HTTP exchange as the record will show it, whichever protocol carried it: what exchanges.pyx fills in.

    message     the content side of a request or an answer: its head as JSON text, its body, its times
    exchange    one request and its answer; its layer owns it until it is recorded or given up
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from collector.shards.http.rules cimport selection_t
from collector.shards.memory cimport buf_t

cdef enum:  # coding
    CODING_NONE = 0
    CODING_GZIP = 1
    CODING_DEFLATE = 2
    CODING_BR = 3
    CODING_ZSTD = 4
    CODING_UNKNOWN = 5

cdef enum:  # media
    MEDIA_ABSENT = 0
    MEDIA_JSON = 1       # exactly application/json
    MEDIA_OTHER = 2
    MEDIA_BINARY = 3     # listed: left out of the record
    MEDIA_EVENTS = 4     # text/event-stream
    MEDIA_LINES = 5      # JSON texts, one a line
    MEDIA_GRPC = 6       # from here on: messages, each with its length (records/messages.py)
    MEDIA_GRPC_WEB = 7
    MEDIA_GRPC_WEB_TEXT = 8
    MEDIA_CONNECT = 9


# exchange_open relies on the order: buffers first, then what is cleared.
cdef struct message_t:
    buf_t head           # JSON fragment, ready for the record
    buf_t body           # after transfer coding, before content coding; at most body_bytes
    uint64_t first_ns    # event time of its first and last byte
    uint64_t last_ns
    uint64_t size        # true body bytes on the wire, transfer coding removed
    uint64_t lost        # bytes in holes
    uint64_t uncaptured  # bytes that the kernel counted without copying
    uint64_t announced   # its layer's: the length that the head gives
    uint64_t told        # of its size, what earlier parts have had
    uint64_t skip        # parts.pyx: so many bytes still belong to what was cut; SKIP_TO_NEXT: up to the next boundary
    uint8_t codings[4]   # enum coding, in the order they were applied; 0 ends
    uint8_t passed_on    # enum coding, set by its layer before the head: a transfer coding that is still on the body
    uint8_t media        # enum media
    uint8_t inner_coding # enum coding: of the messages in it
    uint8_t charset      # index into the shard's charset table; 0 = none or UTF-8
    uint8_t protobuf     # its messages, or the whole body, are protobuf (of gRPC and the like; else only if anybody asks)
    uint8_t form         # application/x-www-form-urlencoded
    uint8_t started
    uint8_t done
    uint8_t body_stopped # a hole: later bytes are counted, not collected
    uint8_t cut          # parts.pyx: the last message in `body` is the beginning of one, and stays so


cdef enum:  # exchange_flag
    EX_DROP = 1          # filtered: followed, never recorded
    EX_EMITTED = 2       # already recorded; kept to swallow its late answer
    EX_NUMBERED = 4      # `pos` is the number of a stream
    EX_PARTS = 8         # its bodies are messages one behind the other, and recorded in parts (parts.pyx)
    EX_LAST = 16         # the last of its parts
    EX_WEBSOCKET = 32    # it opens a WebSocket, or has messages of one
    EX_PART_HELD = 64    # its next part was due, and something holds it back (exchange_waits)

# What sampling makes of it (sampling/sampler.pyx). PLAIN, ERROR and MARKED: it is recorded whole if it is that.
cdef enum:  # exchange_t.sampling
    SAMPLE_DECIDED = 1       # it has a verdict: the others of these, and its endpoint
    SAMPLE_PLAIN = 2         # neither an error nor marked
    SAMPLE_ERROR = 4
    SAMPLE_MARKED = 8
    SAMPLE_HEADS = 16        # recorded without bodies, where it is not recorded whole
    SAMPLE_SETTLED = 32      # what it is is known, or does not matter any more
    SAMPLE_OUT = 64          # not recorded, and not counted yet
    SAMPLE_BODILESS = 128    # recorded without bodies


cdef struct exchange_t:
    exchange_t* next     # in its layer's queue
    message_t req
    message_t resp
    buf_t details        # "host|method|path", where the destination wants it
    uint64_t pos         # stream position of the request's first byte; number of its stream (EX_NUMBERED)
    uint64_t body_ns     # of what is recorded in parts: when its newest byte came
    uint64_t part_ns     # when its next part is due; 0: nothing has come since the last one
    uint64_t endpoint    # SAMPLE_DECIDED: its number (sampling/endpoints.pyx)
    void* inner          # its layer's: the flow of another protocol that its bodies are, or NULL
    const buf_t* events  # of a WebSocket: its messages, a JSON array without the end; NULL: none
    uint32_t redacted    # values of its heads, or of its events, that were replaced
    selection_t* selection # the rules that have not decided yet whether it is recorded (selection.pyx), or NULL
    uint64_t candidates  # those of them that may: a bit for each
    uint64_t doubts      # those that ask for something that will not be known
    uint32_t rules       # selection_t.version of the rules that it was decided by; 0: of none
    uint32_t part        # number of the newest part; 0: it is whole, so far
    uint32_t tgid        # the process that served it, or that called
    uint32_t marks       # enum mark (marks.pxd)
    uint32_t reasons     # why MARK_AMBIGUOUS: bits that its layer names (layer_t.reasons)
    uint16_t status
    uint16_t flags       # enum exchange_flag
    uint16_t notes       # its layer's
    uint16_t unknown     # header fields whose name or value is not known
    uint16_t redaction_version # redaction_t.version that it was read under
    uint16_t redaction_rules # number of those in force (redaction/rules.py)
    uint16_t client_port # the client that a header claims, when client_source says so
    uint8_t client_source
    uint8_t answered     # the rules have seen the head of the answer
    uint8_t sampling     # enum SAMPLE_...
    uint8_t noise        # enum noise (noise.pxd)
    uint8_t client[16]
