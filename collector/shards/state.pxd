"""The state of one shard, as C structs: who owns what, and how long it lives.

    pool        counts every byte held for connections; the byte budget is compared with it
    conn        one connection, from its first event to its CLOSE, EXIT, eviction or successor; owned by the table
    half        one direction of a connection: stream position and message state; part of its conn
    exchange    one request and its response; owned by its conn's queue until both are done, emitted or given up
    ctx         everything of one shard; handed as the first argument through all layers

Nothing here is shared between processes or threads, so nothing is locked.
"""

from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from collector.shards.memory cimport buf_t, pool_t
from collector.shards.packing cimport batch_t


# What is missing from, or doubtful about, an exchange. Names and counts are printed by records/marks.pyx.
cdef enum:  # mark_bit
    MARK_REQUEST_CUT = 1 << 0            # body longer than the cap, or bytes the kernel did not copy
    MARK_RESPONSE_CUT = 1 << 1
    MARK_REQUEST_LOST = 1 << 2           # a hole: bytes were dropped on the way to us
    MARK_RESPONSE_LOST = 1 << 3
    MARK_REQUEST_INCOMPLETE = 1 << 4     # its end was not seen (idle, evicted, closed before)
    MARK_RESPONSE_INCOMPLETE = 1 << 5
    MARK_JOINED = 1 << 6                 # the connection was joined in the middle
    MARK_NO_RESPONSE = 1 << 7
    MARK_END_UNSEEN = 1 << 8             # the connection's end was not seen
    MARK_HEADERS_UNCERTAIN = 1 << 9      # more header fields than we list, or bytes that are not text
    MARK_PEER_UNKNOWN = 1 << 10          # an address is 0.0.0.0:0
    MARK_AMBIGUOUS = 1 << 11             # see ambiguity bits
    MARK_PAIRING = 1 << 12               # after a hole of unknown framing: request and response may not belong together
    MARK_REQUEST_OMITTED = 1 << 13       # a binary media type, left out
    MARK_RESPONSE_OMITTED = 1 << 14
    MARK_REQUEST_UNDECODED = 1 << 15     # content coding unknown or broken: body as on the wire
    MARK_RESPONSE_UNDECODED = 1 << 16
    MARK_HEADERS_CUT = 1 << 17           # header block longer than COLLECTOR_HEADER_BYTES
    MARK_EVICTED = 1 << 18               # flushed to stay within a limit
    MARK_REQUEST_TRAILING = 1 << 19      # bytes behind the end of a content coding
    MARK_RESPONSE_TRAILING = 1 << 20
    MARK_REQUEST_REFUSED = 1 << 21       # why it is undecoded: it would cost too much
    MARK_RESPONSE_REFUSED = 1 << 22
    MARK_REQUEST_FRAMING = 1 << 23       # found by searching, or behind one of unknown length: see enum doubt
    MARK_RESPONSE_FRAMING = 1 << 24

# Why framing is ambiguous: what a smuggling attempt looks like from outside (RFC 9112 section 11.2).
cdef enum:  # ambiguity_bit
    AMB_CL_AND_TE = 1 << 0
    AMB_CL_CONFLICT = 1 << 1
    AMB_CL_INVALID = 1 << 2
    AMB_TE_NOT_CHUNKED = 1 << 3
    AMB_TE_HTTP10 = 1 << 4
    AMB_BARE_LF = 1 << 5
    AMB_OBS_FOLD = 1 << 6
    AMB_SPACE_BEFORE_COLON = 1 << 7
    AMB_BAD_HEADER_LINE = 1 << 8
    AMB_START_LINE = 1 << 9
    AMB_BAD_CHUNK = 1 << 10
    AMB_NUL = 1 << 11
    AMB_MULTIPLE_HOST = 1 << 12
    AMB_TE_OBFUSCATED = 1 << 13
    AMB_CL_REPEATED = 1 << 14
    AMB_BARE_CR = 1 << 15
    AMB_CONTROL = 1 << 16        # a control character in a value or reason phrase
    AMB_NO_BODY_ALLOWED = 1 << 17    # Content-Length or Transfer-Encoding in an interim answer or a 204

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


# What may be spent on decoding: units of WORK (records/codings.pyx), which come back with event time.
cdef struct budget_t:
    int64_t left         # below zero: the last body took more than was there
    uint64_t seen_ns     # the newest time it was asked at; 0: never


# The content side of one message: what the encoder must know about its body.
cdef struct message_t:
    buf_t head           # JSON fragment, ready for the record
    buf_t body           # after transfer coding, before content coding; at most body_bytes
    uint64_t first_ns    # event time of its first and last byte
    uint64_t last_ns
    uint64_t size        # true body bytes on the wire, transfer coding removed
    uint64_t lost        # bytes in holes
    uint64_t uncaptured  # bytes that the kernel counted without copying
    uint8_t codings[4]   # enum coding, in the order they were applied; 0 ends
    uint8_t media        # enum media
    uint8_t charset      # index into the shard's charset table; 0 = none or UTF-8
    uint8_t started
    uint8_t done
    uint8_t body_stopped # a hole: later bytes are counted, not collected


cdef enum:  # exchange_flag
    EX_HEAD = 1          # the method was HEAD: the answer has no body
    EX_CONNECT = 2
    EX_DROP = 4          # filtered: followed, never recorded
    EX_EMITTED = 8       # already recorded; kept to swallow its late answer
    EX_EXPECT = 16       # Expect: 100-continue
    EX_UPGRADE = 32      # Upgrade header present
    EX_DOUBT = 64        # whose answer it gets is in doubt
    EX_CONTINUED = 128   # it got 100 (Continue)
    EX_BEHIND = 256      # a CONNECT or upgrade before it waits for its answer: this may be bytes of a tunnel
    EX_BODY = 512        # its body looks like a request, and nobody has asked for a body yet


cdef struct exchange_t:
    exchange_t* next
    message_t req
    message_t resp
    uint32_t index       # on its connection, from 0
    uint32_t tgid        # the process that served it, or that called
    uint64_t pos         # stream position of the request's first byte
    uint32_t marks
    uint32_t ambiguity
    uint32_t details_len # bytes of "host|method|path" at the start of `details`
    uint16_t status
    uint16_t flags
    buf_t details        # only filled for Kafka


cdef enum:  # half_state
    H_START = 0          # between messages, or inside a head that is not whole yet
    H_BODY = 1           # `remaining` bytes of a Content-Length body to come
    H_CHUNK_SIZE = 2
    H_CHUNK_DATA = 3     # `remaining` bytes of this chunk to come
    H_CHUNK_END = 4      # the CRLF behind a chunk
    H_TRAILER = 5
    H_UNTIL_CLOSE = 6
    H_RESYNC = 7         # framing lost: skip until an event starts like a message
    H_OPAQUE = 8         # after 101 or CONNECT, or not HTTP: counted, not read
    H_HEAD_SKIP = 9      # past the header limit: looking for the empty line


cdef struct half_t:
    uint64_t pos         # next expected stream position
    uint64_t end         # stream position behind the captured bytes of the event that is being read
    uint64_t head_pos    # stream position of the first byte of the head that is being read
    uint64_t unwanted    # up to where the kernel was told to send lengths only
    uint64_t remaining
    uint64_t last_ns
    buf_t part           # a head or chunk line that is not whole yet
    uint32_t scan        # bytes of `part` already searched for its end
    uint32_t part_len_parsed # bytes of `part` that an over-long head was parsed from
    uint32_t line_bytes  # length so far of a chunk-size or trailer line
    uint32_t tgid        # process of its newest bytes
    uint8_t state        # enum half_state
    uint8_t ended
    uint8_t known        # pos is valid
    uint8_t parked       # bytes wait in `part` for the other direction
    uint8_t body_begins  # its next byte is a body's first, if the answer is not one to HEAD
    uint64_t part_first_ns
    exchange_t* current  # the exchange this half is filling, or NULL


# What is not known of a connection's messages, from here on, until it was provably quiet (docs/decisions/0011).
cdef enum:  # doubt
    DOUBT_REQUESTS = 1        # there may be requests that nobody saw: the next answer may be theirs
    DOUBT_ANSWERS = 2         # there may be answers that nobody saw
    DOUBT_REQUEST_FRAMING = 4     # what looks like a request may be part of a body, and a body hold requests
    DOUBT_ANSWER_FRAMING = 8
    DOUBT_PAIRING = 3
    DOUBT_ALL = 15


cdef enum:  # conn_flag
    CONN_NOT_HTTP = 1
    CONN_IGNORED = 2     # port or egress filter
    CONN_TIMED = 4       # in the timer list
    CONN_JOINED = 8
    CONN_OPENED = 64     # an OPEN was seen
    CONN_TLS = 128
    CONN_DROP = 512      # it was no HTTP, or no socket, after all: nothing of it is a record
    CONN_UNCONFIRMED = 256  # perhaps no socket at all: nothing is recorded before the loader has looked


cdef struct conn_t:
    uint64_t id          # conn_id of the events
    uint32_t tgid        # process of its first event
    int32_t fd           # and its descriptor
    uint16_t ring
    uint8_t role         # enum event_role
    uint16_t flags
    uint8_t doubt        # enum doubt
    uint8_t answers      # since the doubt was raised last, at most 255
    uint8_t pauses       # of these, before how many requests it was quiet for much longer than any answer took
    uint8_t ahead        # a request is on its way whose event comes behind that of its answer
    uint8_t dir_request  # which direction carries requests; 2 = not known yet
    uint32_t lru         # when it was last moved in the LRU list, in units of 2^LRU_SHIFT ns
    half_t half[2]       # by enum event_dir
    exchange_t* first    # the queue, oldest first
    exchange_t* last
    uint32_t queued
    uint32_t next_index
    buf_t constant       # JSON fragment of the fields that are the same for all its records
    uint8_t local[16]
    uint8_t remote[16]
    uint16_t local_port
    uint16_t remote_port
    uint32_t constant_tgid # what `constant` was made for
    uint32_t constant_names
    uint32_t longest_us  # that an answer has taken while there was doubt
    char comm[16]        # the name of process constant_tgid
    size_t held          # bytes of the pool that are this connection's, itself aside
    budget_t decoding
    uint64_t seen_ns     # of its newest event
    uint64_t due_ns      # timer
    conn_t* hash_next
    conn_t* group_prev   # connections whose process ids share a bucket
    conn_t* group_next
    conn_t* lru_prev
    conn_t* lru_next
    conn_t* timer_prev
    conn_t* timer_next


cdef enum:  # counter
    C_EVENTS = 0
    C_EVENT_BYTES
    C_BAD_EVENTS
    C_OPENED
    C_CLOSED
    C_NOT_HTTP
    C_RECORDS
    C_RECORDS_MARKED
    C_RECORD_BYTES
    C_RECORDS_DROPPED_SIZE
    C_ORPHAN_RESPONSES
    C_FILTERED_RULE
    C_FILTERED_IP
    C_FILTERED_METADATA
    C_FILTERED_EGRESS
    C_FILTERED_PORT
    C_HOLES
    C_HOLE_BYTES
    C_UNCAPTURED_BYTES
    C_OVERLAPS
    C_RESYNCS
    C_SKIPPED_BYTES
    C_INTERIM
    C_UPGRADED
    C_UNDECODED
    C_EVICTED_CONNECTIONS
    C_EVICTED_BUDGET
    C_TIMED_OUT
    C_UNANSWERED
    C_SUSPECT_EVENTS
    C_CALLBACK_ERRORS
    C_UNCONFIRMED
    C_EVICTED_HELD
    C_SAMPLED_OUT
    C_BANDWIDTH
    C_EVICTED_ACTIVE
    C_REFUSED_BODIES
    G_CONNECTIONS
    G_QUEUED
    G_BUFFER_BYTES
    G_CURRENT_CONN
    G_INPUT_BYTES
    G_BUFFER_PEAK
    COUNTERS


cdef enum:
    GHOSTS = 16384                # connections given up for a limit, whose ends are still known; a power of two
    GHOST_PROBES = 8

cdef struct ghost_t:
    uint64_t id                   # 0: free
    uint64_t seen_ns
    uint8_t local[16]
    uint8_t remote[16]
    uint16_t local_port
    uint16_t remote_port
    uint8_t role
    uint8_t tls
    uint8_t unconfirmed
    int8_t owed                   # answers outstanding, between messages: it goes on where it was; -1: it does not
    uint8_t heads                 # which of them are to HEAD
    uint64_t pos[2]


cdef enum:
    NAMES = 32768                 # processes whose names a shard knows; a power of two
    NAME_PROBES = 16

cdef struct name_t:               # one process, told by EVENT_PROCESS
    uint32_t tgid                 # 0: free
    uint32_t used                 # the age of its last telling, in tellings
    char comm[16]


cdef struct rule_t:               # one entry of AKTO_MODULE_DISCOVERY_CONFIG; the regex lives in `rules`
    char name[64]                 # lower case
    uint32_t name_len
    uint8_t reject_absent


cdef struct ctx_t:
    pool_t pool                   # what connections hold
    uint64_t* counters            # in memory shared with the supervisor; this shard is the only writer
    batch_t* batch                # of records, on their way out; the packer's
    buf_t scratch
    uint32_t header_bytes
    uint32_t body_bytes
    uint32_t record_bytes         # a record never exceeds this
    uint64_t inactive_ns          # a connection that was silent for so long is no loss when it is given up
    uint64_t unanswered_ns        # silence after which what waits is recorded as it stands
    size_t conn_bytes             # what one connection may hold
    size_t free_bytes             # of the pool, in exchanges kept for reuse: nobody's
    uint64_t input_limit          # captured payload and records, bytes per minute of event time; 0: no limit
    uint64_t output_limit
    uint64_t input_used
    uint64_t output_used
    uint64_t minute
    int64_t wall_offset_ns        # CLOCK_REALTIME - CLOCK_MONOTONIC
    uint64_t now_ns               # newest event or tick
    uint8_t response_bodies
    uint8_t disable_egress
    uint8_t ignore_ip_hosts
    uint8_t ignore_metadata
    uint8_t want_details
    uint32_t tgid                 # of the event that is being read
    name_t* names                 # NAMES of them, by hash of tgid
    uint32_t names_version        # changes when a known process is told another name
    uint32_t names_told
    ghost_t* ghosts               # GHOSTS of them, by hash of conn_id
    uint64_t* unwanted            # words that the kernel reads (bpf/capture.h not_wanted), or NULL
    uint64_t unwanted_words
    exchange_t* free_exchanges
    uint32_t free_count
    rule_t rules[32]
    uint32_t rule_count
    void* filters                 # filters.Filters (borrowed; the Pipeline owns it)
    void* content                 # records.content.Decoder (borrowed)
    budget_t decoding
    char prefix[512]              # recordId prefix, set once
    uint32_t prefix_len
    char daemonset[64]
    uint32_t daemonset_len
