"""HTTP/2 as a layer (state.pxd layer_t): what happens to one connection, for frames.pyx (what the bytes are) and streams.pyx
(what belongs to which stream).
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memset

from collector.abi cimport DIR_IN, DIR_OUT, ROLE_CLIENT, ROLE_SERVER
from collector.shards.http.exchanges cimport *
from collector.shards.http.message cimport EX_DROP
from collector.shards.layers.http2.frames cimport *
from collector.shards.layers.http2.hpack cimport *
from collector.shards.layers.http2.state cimport *
from collector.shards.layers.http2.streams cimport *
from collector.shards.marks cimport MARK_END_UNSEEN
from collector.shards.state cimport *


cdef bint http2_detect(const flow_t* flow, const uint8_t* p, size_t n) noexcept nogil:
    """The client's preface (RFC 9113 section 3.4), or what may become it; from the middle on, what only frames look like."""
    if flow.conn.flags & CONN_JOINED:
        return looks_like_frames(p, n, OF_NOBODY, 0, 0)
    return memcmp(p, PREFACE, n if n < PREFACE_BYTES else PREFACE_BYTES) == 0


cdef bint http2_answers(const uint8_t* p, size_t n) noexcept nogil:
    """A server may send its SETTINGS before it has seen anything."""
    return n >= FRAME_HEADER_BYTES and p[3] == FRAME_SETTINGS and p[4] == 0 and looks_like_frames(p, n, OF_SERVER, 0, 0)


cdef int http2_open(ctx_t* ctx, flow_t* flow) noexcept:
    cdef http2_t* c = <http2_t*>malloc(sizeof(http2_t))
    cdef uint32_t i
    if c == NULL:
        return -1
    memset(c, 0, sizeof(http2_t))
    ctx.pool.bytes += sizeof(http2_t)
    c.conn = flow.conn
    c.flow = flow
    flow.state = c
    flow.conn.flags &= ~CONN_AHEAD & 0xFF   # the two directions may come in either order
    for i in range(2):
        hpack_init(&c.half[i].table)
        c.half[i].frame_most = FRAME_LEAST
        c.half[i].state = H_FRAME
    if flow.conn.dir_request != DIR_UNKNOWN:
        c.half[flow.conn.dir_request].state = H_PREFACE
    if ctx.handoff.exchange != NULL:
        adopt(ctx, c, ctx.handoff.exchange)
        ctx.handoff.exchange = NULL
    if flow.conn.flags & CONN_JOINED:
        flow.conn.flags &= ~CONN_JOINED & 0xFF
        begin_in_the_middle(ctx, c)
    return 0


cdef void begin_in_the_middle(ctx_t* ctx, http2_t* c) noexcept:
    """Bytes went by that nobody saw: search for frames in both directions, with tables that are not known."""
    cdef uint32_t i
    c.joined = 1
    c.newest = 0
    memset(c.known, 0, sizeof(c.known))
    c.promised = 0
    for i in range(2):
        drop_frame(ctx, &c.half[i])
        c.half[i].state = H_RESYNC
        c.half[i].lost = 1
        c.half[i].ended = 0
        c.half[i].allowed_new = 0
        c.half[i].missed = 1
        c.half[i].frame_most = FRAME_MOST
        hpack_allow(&c.half[i].table, HPACK_KEPT_BYTES)
        hpack_miss(&c.half[i].table)


cdef inline bint direction_known(ctx_t* ctx, http2_t* c, uint32_t d, const uint8_t* p, size_t n) noexcept:
    """Who asks: where nobody has told, the client is who has sent the preface, or heads of requests."""
    cdef whose_t whose
    if c.conn.dir_request == DIR_UNKNOWN:
        if c.conn.role == ROLE_SERVER:
            c.conn.dir_request = DIR_IN
        elif c.conn.role == ROLE_CLIENT:
            c.conn.dir_request = DIR_OUT
        elif not c.joined:
            c.conn.dir_request = <uint8_t>(1 - d if http2_answers(p, n) else d)
            c.half[c.conn.dir_request].state = H_PREFACE
        else:
            whose = who_sends(ctx, p, n)
            if whose == OF_NOBODY:
                return False
            c.conn.dir_request = <uint8_t>(d if whose == OF_CLIENT else 1 - d)
    return True


cdef feed_t http2_data(ctx_t* ctx, flow_t* flow, uint32_t d, const uint8_t* p, size_t n, uint64_t ts, size_t* used) noexcept:
    cdef http2_t* c = <http2_t*>flow.state
    cdef feed_t said
    cdef size_t taken = 0
    if not direction_known(ctx, c, d, p, n):
        ctx.counters[C_SKIPPED_BYTES] += n
        return FEED_ALL
    c.half[d].ended = 0
    if c.half[d].state == H_PREFACE:
        said = read_preface(ctx, c, d, p, n, ts, &taken)
        if said != FEED_ALL:
            used[0] = taken
            return said
    return read_frames(ctx, c, d, p + taken, n - taken, ts)


cdef feed_t http2_hole(ctx_t* ctx, flow_t* flow, uint32_t d, uint64_t n, bint lost, uint64_t ts) noexcept:
    cdef http2_t* c = <http2_t*>flow.state
    if c.conn.dir_request == DIR_UNKNOWN:
        return FEED_ALL
    c.half[d].ended = 0
    skip_bytes(ctx, c, d, n, lost, ts)
    return FEED_ALL


cdef void http2_end(ctx_t* ctx, flow_t* flow, uint32_t d) noexcept:
    cdef http2_t* c = <http2_t*>flow.state
    if c.conn.dir_request == DIR_UNKNOWN or c.half[d].ended:
        return
    c.half[d].ended = 1
    direction_ends(ctx, c, side_of(c, d))


cdef void http2_close(ctx_t* ctx, flow_t* flow, uint32_t marks) noexcept:
    cdef http2_t* c = <http2_t*>flow.state
    cdef uint32_t i
    record_all(ctx, c, marks)
    for i in range(2):
        drop_frame(ctx, &c.half[i])
        hpack_free(&ctx.pool, &c.half[i].table)
    ctx.pool.bytes -= sizeof(http2_t)
    free(c)
    flow.state = NULL


cdef void http2_rejoin(ctx_t* ctx, flow_t* flow, uint32_t marks) noexcept:
    cdef http2_t* c = <http2_t*>flow.state
    record_all(ctx, c, marks | MARK_END_UNSEEN)
    begin_in_the_middle(ctx, c)


cdef uint64_t http2_idle(ctx_t* ctx, flow_t* flow, uint64_t now) noexcept:
    return give_up_silent(ctx, <http2_t*>flow.state, now)


cdef uint64_t http2_unwanted(ctx_t* ctx, flow_t* flow, uint32_t d, uint64_t pos) noexcept nogil:
    """The rest of a DATA frame of a body beyond its cap, or one that is not recorded. Frames are short: it is little."""
    cdef http2_t* c = <http2_t*>flow.state
    cdef half_t* h = &c.half[d]
    if h.state != H_BODY or c.conn.dir_request == DIR_UNKNOWN:
        return 0
    if h.current != NULL and h.current.inner != NULL:
        return 0
    if h.current != NULL and not message_of(h.current, side_of(c, d)).body_stopped and not h.current.flags & EX_DROP:
        return 0
    return pos + h.remaining


cdef void http2_told(ctx_t* ctx, flow_t* flow, fact_t fact) noexcept:
    if fact == FACT_RELEASED:
        released(ctx, <http2_t*>flow.state)


cdef uint64_t http2_rest(const flow_t* flow) noexcept nogil:
    """Never: the tables of header fields go with it."""
    return <uint64_t>NOT_AT_REST


cdef int http2_resume(ctx_t* ctx, flow_t* flow, uint64_t word) noexcept:
    return -1


cdef const char* REASONS[8]        # by bit of enum malformed
REASONS[0] = b"pseudo_header"
REASONS[1] = b"header_name"
REASONS[2] = b"header_value"
REASONS[3] = b"connection_header"
REASONS[4] = b"content_length_conflict"
REASONS[5] = b"multiple_host"
REASONS[6] = b"frame"
REASONS[7] = NULL


cdef layer_t LAYER
LAYER.name = b"http2"
LAYER.reasons = <const char* const*>REASONS
LAYER.joins = 1
LAYER.detect = http2_detect
LAYER.answers = http2_answers
LAYER.open = http2_open
LAYER.data = http2_data
LAYER.hole = http2_hole
LAYER.end = http2_end
LAYER.rejoin = http2_rejoin
LAYER.idle = http2_idle
LAYER.unwanted = http2_unwanted
LAYER.told = http2_told
LAYER.rest = http2_rest
LAYER.resume = http2_resume
LAYER.close = http2_close


cdef const layer_t* http2_layer() noexcept nogil:
    return &LAYER


def http2_reason_words():
    """The reasons that may follow `ambiguous_framing:`, those of HTTP/1 aside."""
    return [REASONS[i].decode() for i in range(7)]
