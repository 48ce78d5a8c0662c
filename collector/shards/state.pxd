"""The state of one shard, as C structs: who owns what, and how long it lives.

    conn        one connection, from its first event to its CLOSE, EXIT, eviction or successor; owned by the table
    stream      one direction of a connection: where it stands, and when it moved last; part of its conn
    flow        what a layer runs on: a connection, or a stream inside one; part of its conn, or of the layer that made it
    ctx         everything of one shard; handed as the first argument through all stages

A connection is named, bounded and timed here; what its bytes mean is its layer's business (layers/table.pyx). Nothing here
is shared between processes or threads, so nothing is locked.
"""

from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from collector.shards.http.clients cimport cidr_t, claim_kind
from collector.shards.http.message cimport exchange_t
from collector.shards.http.rules cimport selection_t
from collector.shards.memory cimport buf_t, pool_t
from collector.shards.packing cimport batch_t
from collector.shards.redaction.state cimport redaction_t
from collector.shards.sampling.table cimport sampler_t


# What may be spent on decoding: units of WORK (records/codings.pyx), which come back with event time.
cdef struct budget_t:
    int64_t left         # below zero: the last body took more than was there
    uint64_t seen_ns     # the newest time it was asked at; 0: never


cdef struct stream_t:
    uint64_t pos         # of the next byte that is expected
    uint64_t end         # behind the bytes that are being read: those at p, n bytes, begin at end - n
    uint64_t unwanted    # up to where the kernel was told to send lengths only
    uint64_t last_ns     # when its newest bytes came
    uint32_t tgid        # the process that moved them
    uint8_t known        # pos is valid


cdef enum:
    DIR_UNKNOWN = 2      # beside DIR_IN and DIR_OUT


cdef enum feed_t:
    FEED_ALL             # all bytes are used, or kept
    FEED_SWITCH          # the rest of them is another layer's: ctx.handoff says whose
    FEED_NOT_MINE        # the layer was opened in vain: all bytes that it kept are in ctx.handoff.kept


cdef struct layer_t

# What a layer knows that hands a flow on.
cdef struct handoff_t:
    const char* protocol # name of the layer that it is for; NULL: whichever finds its beginning in what follows
    buf_t kept           # bytes that were taken and not read, and their direction
    uint8_t kept_dir
    uint64_t kept_ns     # when the first of them came
    exchange_t* exchange # a request that the layer behind is to see answered, or NULL: open() takes it over
    const layer_t* asked # the layer that has read it


cdef enum:  # client_source: where the claimed client stands
    CLIENT_NONE = 0
    CLIENT_PROXY_V1 = 1
    CLIENT_PROXY_V2 = 2
    CLIENT_HEADER = 3    # of one request only
    CLIENT_INVALID = 4   # in a preamble that is to be refused: no claim


cdef enum fact_t:        # what may become known of a connection that is no byte of it
    FACT_AHEAD           # bytes of the client are on their way whose event comes behind that of the answer
    FACT_RESET           # the peer has reset the connection
    FACT_RELEASED        # nothing holds its records back any more


cdef struct flow_t
cdef struct conn_t
cdef struct ctx_t


cdef struct flow_t:
    conn_t* conn
    const layer_t* layer # NULL: nothing was read yet
    void* state          # the layer's
    uint8_t passed       # entries of the table of layers that need not be asked any more


# What a protocol is to the rest of the shard: one constant each, listed in layers/table.pyx. `d` is a direction as the
# traced process sees it, `ts` and `now` are event time (ns). Nothing of it raises, blocks or asks for the time.
cdef struct layer_t:
    const char* name             # `protocol` in the record
    const char* const* reasons   # names of the bits of exchange_t.reasons, NULL at the end; or NULL
    uint8_t joins                # can begin in the middle of a connection
    # Is this how it begins? On a NULL layer, with the first bytes of the client. What may become a beginning is one. With
    # CONN_JOINED: may this be in the midst of it? The first bytes of an event of either side.
    bint (*detect)(const flow_t* flow, const uint8_t* p, size_t n) noexcept nogil
    # Is this how its server begins, before anything of its client is seen? NULL: its server never does.
    bint (*answers)(const uint8_t* p, size_t n) noexcept nogil
    # Makes flow.state; CONN_JOINED: bytes went by that nobody saw. 0, or -1 when memory is out.
    int (*open)(ctx_t* ctx, flow_t* flow) noexcept
    # `n` bytes, all of one event, at the expected position. Unless FEED_ALL, `used` are used.
    feed_t (*data)(ctx_t* ctx, flow_t* flow, uint32_t d, const uint8_t* p, size_t n, uint64_t ts, size_t* used) noexcept
    # `n` bytes are missing: lost on the way, or never copied. What stands before them may end in a switch.
    feed_t (*hole)(ctx_t* ctx, flow_t* flow, uint32_t d, uint64_t n, bint lost, uint64_t ts) noexcept
    # No more bytes in this direction.
    void (*end)(ctx_t* ctx, flow_t* flow, uint32_t d) noexcept
    # It holds too much, or was misled about the direction: record what waits, with `marks`, and begin anew in the middle.
    void (*rejoin)(ctx_t* ctx, flow_t* flow, uint32_t marks) noexcept
    # Do what is due. When to look again, 0: not before the next byte.
    uint64_t (*idle)(ctx_t* ctx, flow_t* flow, uint64_t now) noexcept
    # Up to which position only the lengths matter, `pos` being reached; 0: all bytes may matter.
    uint64_t (*unwanted)(ctx_t* ctx, flow_t* flow, uint32_t d, uint64_t pos) noexcept nogil
    # A fact that is no byte.
    void (*told)(ctx_t* ctx, flow_t* flow, fact_t fact) noexcept
    # Could it be closed and opened again without a loss, and with what word in hand? NOT_AT_REST: no.
    uint64_t (*rest)(const flow_t* flow) noexcept nogil
    # Open it again where it rested. 0, or -1 when memory is out.
    int (*resume)(ctx_t* ctx, flow_t* flow, uint64_t word) noexcept
    # Records what waits as it stands, with `marks`, and frees the state.
    void (*close)(ctx_t* ctx, flow_t* flow, uint32_t marks) noexcept

cdef enum:
    NOT_AT_REST = -1

cdef enum:
    SHARES = 65536       # all connections (ctx_t.share, conn_t.turn)


# Who may set and clear a flag: P pipeline.pyx and connections/ends.pyx, T connections/table.pyx, L the connection's layer.
#
#     flag        set   cleared   while it is set
#     IGNORED     P T   P         nothing is read; positions go on (left_out: until it has its turn again)
#     TIMED       T     T         it is in the wheel of timers
#     JOINED      P L   P L       its layer begins in the middle; the first record says so
#     OPENED      P     -         an OPEN was seen: a second one only tells ends
#     TLS         P T   -         its bytes are plaintext of a TLS library
#     DROP        P     -         nothing of it becomes a record: it ends as no HTTP
#     AHEAD       P     L         FACT_AHEAD came before there was a layer
#     PREAMBLE    L     -         it began with one, so the kernel did not look at what follows: what is no HTTP is left out
cdef enum:  # conn_flag
    CONN_IGNORED = 1     # port or egress filter, or beyond the share
    CONN_TIMED = 2
    CONN_JOINED = 4
    CONN_OPENED = 8
    CONN_TLS = 16
    CONN_DROP = 32
    CONN_AHEAD = 64
    CONN_PREAMBLE = 128


# Why records that are complete wait (conn_t.holds), and what becomes of those for which nobody came.
#
#     hold      until                                                 else                                    counter
#     SOCKET    the loader has found that its descriptor is a socket  no record: when the connection ends, or C_UNCONFIRMED
#                                                                     is silent for `unanswered_ns`
#     PEER      BIND has told which socket a library's object is      recorded without ends, PEER_WAIT_NS     C_PEER_UNKNOWN
#                                                                     after the first of them was complete,
#                                                                     or when it holds PEER_WAIT_BYTES, ends
#                                                                     or gives way; the next ones wait for
#                                                                     PEER_AGAIN_NS only
#     OWNER    OWNER has told who owns its process, which was not     recorded without, owner_wait_ns after   C_OWNER_UNKNOWN
#              known when that was asked first                        that, or when it gives way
cdef enum:  # hold
    HOLD_SOCKET = 1
    HOLD_PEER = 2
    HOLD_OWNER = 4

cdef enum:
    # The socket is found out when it carries the ciphertext of this very exchange, so what comes comes within milliseconds;
    # where the probes that look for it have to be attached first, within some tenths of a second.
    PEER_WAIT_NS = 1000000000
    PEER_AGAIN_NS = 50000000
    PEER_WAIT_BYTES = 1 << 18     # what comes out at once has to fit a batch with its bodies (packing.pxd batch_t.most)


# What a library has told of its connection (EVENT_TLS); as long as its texts are. 0: not known.
cdef struct tls_t:
    uint16_t version     # as in the protocol
    uint16_t library     # ctx_t.libraries
    uint8_t alpn_len     # of text: the protocol that was agreed on, then the name of the server
    uint8_t sni_len
    char text[80]


cdef struct conn_t:
    uint64_t id          # conn_id of the events
    uint64_t socket      # EVENT_BIND: the second name that it goes by; 0: none
    uint32_t tgid        # process of its first event
    int32_t fd           # and its descriptor
    uint16_t ring
    uint8_t role         # enum event_role
    uint8_t source       # enum event_source: whose bytes its positions count
    uint8_t flags        # enum conn_flag
    uint8_t holds        # enum hold
    uint8_t dir_request  # the direction of the client's bytes; 2 = not known yet
    uint8_t client_source    # enum client_source, of a PROXY preamble
    uint8_t peer_late    # what waited for BIND has gone out without ends before
    uint8_t left_out     # IGNORED because it is beyond ctx_t.share, and for no other reason
    uint8_t unix_socket  # it has no addresses
    uint8_t over         # it has ended, and waits for its owner: nothing comes any more
    uint64_t beyond_ns   # since when it is beyond ctx_t.share, and in the middle of something; unless before ctx_t.share_ns
    uint16_t turn        # from its id: it has its turn when the share is above this
    uint32_t lru         # when it was last moved in the LRU list, in units of 2^LRU_SHIFT ns
    stream_t stream[2]   # by enum event_dir
    flow_t flow
    buf_t constant       # JSON fragment of the fields that are the same for all its records
    uint8_t local[16]
    uint8_t remote[16]
    uint8_t client[16]   # what the preamble claims
    uint16_t local_port
    uint16_t remote_port
    uint16_t client_port
    uint32_t constant_tgid # what `constant` was made for
    uint32_t constant_names
    const char* constant_protocol
    char comm[16]        # the name of process constant_tgid
    size_t held          # bytes of the pool that are this connection's, itself aside
    budget_t decoding
    budget_t transcoding
    tls_t* tls           # of the pool; NULL: nothing was told
    uint64_t seen_ns     # of its newest event
    uint64_t due_ns      # timer
    uint64_t peer_due_ns # HOLD_PEER: when what waits goes out without ends; 0: nothing waits
    uint64_t owner_due_ns # HOLD_OWNER: the same, without an owner
    uint64_t soon_ns     # when its layer wants to look earlier than it has said; 0: not
    conn_t* hash_next
    conn_t* socket_next  # of those with two names, in the table of second names
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
    C_FILTERED_POLICY
    C_FILTERED_POLICY_DOUBT
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
    C_OTHER_SOURCE_BYTES
    C_PEER_UNKNOWN
    C_LEFT_OUT
    C_LEFT_OUT_BYTES
    C_MESSAGES_TRANSCODED
    C_MESSAGES_NOT_TRANSCODED
    C_UNKNOWN_METHODS
    C_REDACTED
    C_SAMPLED_PLAIN
    C_SAMPLED_ERRORS
    C_SAMPLED_MARKED
    C_SAMPLED_TOLD
    C_SAMPLED_HEADS
    C_SAMPLED_SHARED
    C_OWNER_UNKNOWN
    C_UNSELECTED
    C_FILTERED_NOISE
    G_CONNECTIONS
    G_QUEUED
    G_BUFFER_BYTES
    G_CURRENT_CONN
    G_INPUT_BYTES
    G_BUFFER_PEAK
    G_ENDPOINTS
    COUNTERS


cdef enum:
    GHOSTS = 16384                # connections given up for a limit, whose ends are still known; a power of two
    GHOST_PROBES = 8

cdef struct ghost_t:
    uint64_t id                   # 0: free
    uint64_t seen_ns
    uint64_t word                 # its layer's, when that was at rest: it goes on where it was; NOT_AT_REST: it does not
    uint64_t pos[2]
    const layer_t* layer
    uint8_t local[16]
    uint8_t remote[16]
    uint8_t client[16]
    uint16_t local_port
    uint16_t remote_port
    uint16_t client_port
    uint8_t client_source
    uint8_t role
    uint8_t source
    uint8_t tls
    uint8_t holds
    uint8_t dir_request
    uint64_t socket               # its second name
    tls_t* facts                  # conn_t.tls; of the heap, and not counted: they are few and small


cdef enum:
    NAMES = 32768                 # processes whose names a shard knows; a power of two
    NAME_PROBES = 16

    OWNER_TEXTS = 1024            # of which it is known who has the same; a power of two

cdef struct owner_t:              # told by EVENT_OWNER; one for all that are told the same (names.pyx)
    uint32_t len
    uint32_t references
    char fields[1]                # of its records: `"name":"value",...`


cdef struct name_t:               # one process, told by EVENT_PROCESS
    uint32_t tgid                 # 0: free
    uint32_t used                 # the age of its last telling, in tellings
    char comm[16]
    uint64_t start_ns             # 0: not known
    uint64_t pending_ns           # since when its owner is looked for; 0: it is not
    owner_t* owner                # NULL: not told, or nobody
    uint8_t unselected            # nothing of it is wanted


cdef enum:
    LIBRARIES = 1024              # numbers of libraries (bpf/maps.h LIBRARY_NUMBERS); 0 is none

cdef struct library_t:            # told by EVENT_LIBRARY
    char name[48]                 # NUL padded


cdef enum:  # port_rule
    PORT_IGNORED = 1
    PORT_CHOSEN = 2


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
    uint8_t websocket_control     # control frames are events too
    uint8_t ignore_noise          # a bit for each enum noise: left out
    uint8_t orphan_responses      # answers without a request are recorded
    uint32_t tgid                 # of the event that is being read
    handoff_t handoff             # from the layer that has just said so
    uint8_t silent                # the end: nothing is recorded any more
    uint8_t any_ignored           # in port_rule
    uint8_t any_chosen
    uint64_t share_ns             # when it became larger last
    uint32_t share                # of the connections, in SHARES: what there is CPU for (supervisor/thermostat.py)
    name_t* names                 # NAMES of them, by hash of tgid
    owner_t** owner_texts         # OWNER_TEXTS of them, by hash of the text; NULL: none was told
    uint32_t names_version        # changes when a known process, or a library, is told another name
    uint32_t names_told
    uint32_t pending_owners       # so many processes whose owner is looked for
    uint64_t owner_wait_ns        # so long a record waits for that at most
    uint8_t owners                # are they told at all?
    uint8_t any_unselected
    void* peers                   # of addresses (peers.pyx); NULL: none was told
    uint64_t peers_told
    library_t* libraries          # LIBRARIES of them, by number
    ghost_t* ghosts               # GHOSTS of them, by hash of conn_id
    uint32_t ghosts_told          # so many of them have facts
    uint64_t* unwanted            # words that the kernel reads (bpf/capture.h not_wanted), or NULL
    uint64_t unwanted_words
    exchange_t* free_exchanges
    uint32_t free_count
    cidr_t* trusted               # proxies that are believed when they name a client in a header
    uint32_t trusted_count
    char real_ip_name[64]         # of that header, in lower case
    uint32_t real_ip_len
    claim_kind real_ip_kind
    rule_t rules[32]
    uint32_t rule_count
    redaction_t* redaction        # of the policy, or NULL: nothing is redacted (borrowed)
    selection_t* selection        # rules of the policy (http/selection.pyx); NULL: none
    sampler_t* sampler            # NULL: everything is recorded
    void* filters                 # filters.Filters (borrowed; the Pipeline owns it)
    void* content                 # records.content.Decoder (borrowed)
    void* inflater                # its records.codings.Inflater
    budget_t decoding
    budget_t transcoding          # protobuf messages to JSON (records/transcode.pyx)
    uint8_t transcodes            # there are descriptor sets
    uint8_t json_there            # of the record that is being written: has it a field of JSON?
    uint32_t json_messages        # so many messages,
    uint32_t json_failed          # of them so many as null
    uint32_t redacted             # values of its bodies
    uint32_t payload_at           # in the batch: the text of its newest payload, and its end
    uint32_t payload_end
    char prefix[512]              # recordId prefix, set once
    uint32_t prefix_len
    char daemonset[64]
    uint32_t daemonset_len
    uint8_t port_rule[65536]      # enum port_rule
