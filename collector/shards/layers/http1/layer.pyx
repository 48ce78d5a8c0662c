"""HTTP/1.x as a layer (state.pxd layer_t): what happens to one connection, for framing.pyx (where messages begin and end)
and pairing.pyx (which answer belongs to what).
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memchr, memcmp, memset

from collector.abi cimport DIR_IN, DIR_OUT, ROLE_CLIENT, ROLE_SERVER
from collector.shards.http.exchanges cimport *
from collector.shards.http.message cimport EX_DROP, EX_EMITTED
from collector.shards.http.parts cimport part_due, part_released
from collector.shards.layers.http1.framing cimport *
from collector.shards.layers.http1.pairing cimport *
from collector.shards.layers.http1.startline cimport looks_like_request
from collector.shards.layers.http1.state cimport *
from collector.shards.memory cimport buf_free
from collector.shards.receive cimport receive_clear
from collector.shards.state cimport *

cdef enum:
    EVERYTHING = -1     # unwanted: up to the end


cdef bint http1_detect(const flow_t* flow, const uint8_t* p, size_t n) noexcept nogil:
    """Whatever no other layer has taken: what it is not, it counts."""
    return True


cdef int http1_open(ctx_t* ctx, flow_t* flow) noexcept:
    cdef http1_t* c = <http1_t*>malloc(sizeof(http1_t))
    if c == NULL:
        return -1
    memset(c, 0, sizeof(http1_t))
    ctx.pool.bytes += sizeof(http1_t)
    c.conn = flow.conn
    c.flow = flow
    flow.state = c
    if ctx.handoff.exchange != NULL:
        answers_follow(c, ctx.handoff.exchange)
        ctx.handoff.exchange = NULL
    if flow.conn.flags & CONN_AHEAD:
        flow.conn.flags &= ~CONN_AHEAD & 0xFF
        c.ahead = 1
    if flow.conn.flags & CONN_JOINED:
        flow.conn.flags &= ~CONN_JOINED & 0xFF
        begin_in_the_middle(c)
    return 0


cdef inline void begin_in_the_middle(http1_t* c) noexcept nogil:
    """Bytes went by that nobody saw: search for a message in both directions, and doubt what is found."""
    c.joined = 1
    c.half[0].state = H_RESYNC
    c.half[1].state = H_RESYNC
    raise_doubt(c, DOUBT_ALL)


cdef inline bint direction_known(http1_t* c) noexcept nogil:
    if c.conn.dir_request == DIR_UNKNOWN:
        if c.conn.role == ROLE_SERVER:
            c.conn.dir_request = DIR_IN
        elif c.conn.role == ROLE_CLIENT:
            c.conn.dir_request = DIR_OUT
        else:
            return False
    return True


cdef bint http1_guess(ctx_t* ctx, http1_t* c, uint32_t d, const uint8_t* p, size_t n) noexcept:
    """Who asks, where only the bytes can tell. False: not by these."""
    cdef half_t* h = &c.half[d]
    if not direction_known(c):
        if n >= 5 and memcmp(p, b"HTTP/", 5) == 0:
            c.conn.dir_request = <uint8_t>(1 - d)
        elif looks_like_request(p, p + n) or h.state != H_RESYNC:
            c.conn.dir_request = <uint8_t>d
        else:
            ctx.counters[C_SKIPPED_BYTES] += n
            return False
    elif (c.conn.role == 0 and d != c.conn.dir_request and c.doubt and n >= 16
            and (h.state == H_RESYNC or (h.state == H_START and h.part.bytes.len == 0))
            and looks_like_request(p, p + n)):
        # the guess was made of bytes of a body: who asks here is on the other side
        http1_rejoin(ctx, c.flow, 0)
        c.conn.dir_request = <uint8_t>d
        buf_free(&ctx.pool, &c.conn.constant)
    return True


cdef feed_t http1_hole(ctx_t* ctx, flow_t* flow, uint32_t d, uint64_t n, bint lost, uint64_t ts) noexcept:
    cdef http1_t* c = <http1_t*>flow.state
    cdef half_t* h = &c.half[d]
    cdef side_t side
    cdef uint64_t skip
    cdef exchange_t* ex
    if not direction_known(c):
        h.state = H_RESYNC
        raise_doubt(c, DOUBT_ALL)
        return FEED_ALL
    side = side_of(c, d)
    if side == REQUEST and c.doubt and ts > c.conn.seen_ns:
        after_silence(ctx, c, ts - c.conn.seen_ns)
    h.ended = 0
    if side == REQUEST and c.half[1 - d].parked:    # what waits for the next request belongs to one that was not seen
        read_parked(ctx, c, 1 - d, c.conn.stream[1 - d].last_ns)
    if h.body_begins:
        if h.current != NULL:       # the hole may be a body, or the next answer to come behind that of a HEAD
            h.current.marks |= MARK_RESPONSE_FRAMING
        raise_doubt(c, DOUBT_ANSWER_FRAMING)
        it_is_a_body(ctx, c, d, h, c.conn.stream[d].last_ns)
    while n and h.state != H_RESYNC:
        if h.state == H_UNTIL_CLOSE:
            if h.current != NULL:
                exchange_lost(ctx, flow, h.current, side, n, lost, ts)
            break
        if (h.state == H_BODY or h.state == H_CHUNK_DATA) and not (side == REQUEST and body_not_owed(h)):
            skip = n if n < h.remaining else h.remaining
            if h.current != NULL:
                exchange_lost(ctx, flow, h.current, side, skip, lost, ts)
            n -= skip
            advance_body(ctx, c, h, side, skip)
            continue
        if h.state == H_START and h.part.bytes.len:
            salvage_head(ctx, c, h, d, c.conn.stream[d].last_ns)
            if c.unparked:
                let_parked(ctx, c, ts)
            if c.left:
                break       # 101 or CONNECT: the rest of its head was lost
        if h.current != NULL:
            h.current.marks |= mark_of(side, MARK_REQUEST_LOST, MARK_RESPONSE_LOST)
            if not (side == REQUEST and body_not_owed(h)):
                message_of(h.current, side).lost += n
        elif side == RESPONSE and awaiting(c) != NULL:
            awaiting(c).resp.lost += n
        ex = c.first
        while ex != NULL and side == RESPONSE:
            if not ex.resp.done:
                ex.marks |= MARK_RESPONSE_LOST      # its answer may have been in the hole
            ex = ex.next
        lose_framing(ctx, c, h, side)
        break
    return over(ctx, c)


cdef uint64_t http1_unwanted(ctx_t* ctx, flow_t* flow, uint32_t d, uint64_t pos) noexcept nogil:
    """Only what cannot end early counts: a body beyond its cap, or one that is not recorded."""
    cdef http1_t* c = <http1_t*>flow.state
    cdef half_t* h = &c.half[d]
    if h.state != H_BODY and h.state != H_CHUNK_DATA and h.state != H_UNTIL_CLOSE:
        return 0
    if h.current == NULL or h.body_begins or framing_doubt(c, side_of(c, d)):
        return 0        # a length that may be nobody's: each event is looked at
    if not message_of(h.current, side_of(c, d)).body_stopped and not h.current.flags & EX_DROP:
        return 0
    return <uint64_t>EVERYTHING if h.state == H_UNTIL_CLOSE else pos + h.remaining


cdef void http1_end(ctx_t* ctx, flow_t* flow, uint32_t d) noexcept:
    cdef http1_t* c = <http1_t*>flow.state
    cdef half_t* h = &c.half[d]
    cdef side_t side = side_of(c, d)
    if c.conn.dir_request == DIR_UNKNOWN or h.ended:
        return
    h.ended = END_INSIDE if h.current != NULL or h.part.bytes.len else END_BETWEEN
    if h.parked:
        read_parked(ctx, c, d, h.part.first_ns)
    if h.body_begins:
        it_is_a_body(ctx, c, d, h, c.conn.stream[d].last_ns)
    if h.state == H_START and h.part.bytes.len:
        salvage_head(ctx, c, h, d, c.conn.stream[d].last_ns)
        if c.unparked:
            let_parked(ctx, c, c.conn.stream[d].last_ns)
    if h.state == H_UNTIL_CLOSE:
        message_done(ctx, c, h, side)
    elif h.current != NULL:
        h.current.marks |= mark_of(side, MARK_REQUEST_INCOMPLETE, MARK_RESPONSE_INCOMPLETE)
        message_done(ctx, c, h, side)
    receive_clear(&ctx.pool, &h.part)


cdef void record_what_waits(ctx_t* ctx, http1_t* c, uint32_t marks) noexcept:
    """Everything that waits is recorded as it stands, with `marks`."""
    cdef exchange_t* ex = c.first
    cdef half_t* answers
    if c.conn.role == ROLE_CLIENT and c.conn.dir_request != DIR_UNKNOWN:
        # a client that closes without having read the end may have left bytes unread
        answers = &c.half[1 - c.conn.dir_request]
        if answers.state == H_UNTIL_CLOSE and not answers.ended and answers.current != NULL:
            answers.current.marks |= MARK_END_UNSEEN
    while ex != NULL and marks:
        ex.marks |= marks
        ex = ex.next
    if c.conn.dir_request != DIR_UNKNOWN:
        http1_end(ctx, c.flow, c.conn.dir_request)
        http1_end(ctx, c.flow, 1 - c.conn.dir_request)
    emit_queue(ctx, c, marks)       # with what was made of a head that had not been whole


cdef void http1_close(ctx_t* ctx, flow_t* flow, uint32_t marks) noexcept:
    cdef http1_t* c = <http1_t*>flow.state
    record_what_waits(ctx, c, marks)
    if c.upgraded != NULL:
        c.upgraded.marks |= marks
        exchange_emit(ctx, flow, c.upgraded)
        exchange_free(ctx, c.upgraded)
    receive_clear(&ctx.pool, &c.half[0].part)
    receive_clear(&ctx.pool, &c.half[1].part)
    buf_free(&ctx.pool, &c.rest)
    ctx.pool.bytes -= sizeof(http1_t)
    free(c)
    flow.state = NULL


cdef void http1_rejoin(ctx_t* ctx, flow_t* flow, uint32_t marks) noexcept:
    cdef http1_t* c = <http1_t*>flow.state
    cdef uint32_t i
    record_what_waits(ctx, c, marks | MARK_END_UNSEEN)
    for i in range(2):
        c.half[i].current = NULL
        c.half[i].ended = 0
        c.half[i].parked = 0
        receive_clear(&ctx.pool, &c.half[i].part)
    begin_in_the_middle(c)


cdef void http1_told(ctx_t* ctx, flow_t* flow, fact_t fact) noexcept:
    cdef http1_t* c = <http1_t*>flow.state
    cdef half_t* answers
    cdef exchange_t* ex = c.first
    if fact == FACT_AHEAD:
        c.ahead = 1
    elif fact == FACT_RELEASED:
        while ex != NULL:
            part_released(ctx, flow, ex)
            ex = ex.next
        pop_done(ctx, c)
    elif fact == FACT_RESET and c.conn.dir_request != DIR_UNKNOWN:
        # whether an answer that ends with it was whole is not known (RFC 9112 section 8)
        answers = &c.half[1 - c.conn.dir_request]
        if answers.state == H_UNTIL_CLOSE and not answers.ended and answers.current != NULL:
            answers.current.marks |= MARK_END_UNSEEN


cdef inline void stand_as_is(ctx_t* ctx, http1_t* c, uint32_t d) noexcept:
    """A head that stopped behind its start line is a message, cut."""
    cdef half_t* h = &c.half[d]
    if (h.state == H_START and h.part.bytes.len and not h.parked
            and memchr(h.part.bytes.data, c'\n', h.part.bytes.len) != NULL):
        salvage_head(ctx, c, h, d, c.conn.stream[d].last_ns)
        if c.unparked:
            let_parked(ctx, c, c.conn.stream[d].last_ns)


cdef uint64_t http1_idle(ctx_t* ctx, flow_t* flow, uint64_t now) noexcept:
    """Record as it stands what neither side has sent a byte of for `unanswered_ns`. What is recorded in parts only waits
    for the next one."""
    cdef http1_t* c = <http1_t*>flow.state
    cdef exchange_t* ex = c.first
    cdef uint64_t due = 0
    cdef bint waiting = c.half[0].part.bytes.len != 0 or c.half[1].part.bytes.len != 0
    cdef uint64_t quiet = now - c.conn.seen_ns if now > c.conn.seen_ns else 0
    cdef uint32_t i
    while ex != NULL:
        if ex.part_ns:
            part_due(ctx, flow, ex, now)
            if ex.part_ns and (due == 0 or ex.part_ns < due):
                due = ex.part_ns
        waiting = waiting or not (ex.flags & EX_EMITTED or ex.part)
        ex = ex.next
    if not waiting or due:
        return due
    if quiet < ctx.unanswered_ns:
        return c.conn.seen_ns + ctx.unanswered_ns
    for i in range(2):
        if c.half[i].parked:
            read_parked(ctx, c, i, c.half[i].part.first_ns)
    if c.conn.dir_request != DIR_UNKNOWN:
        stand_as_is(ctx, c, c.conn.dir_request)
        stand_as_is(ctx, c, 1 - c.conn.dir_request)
    ex = c.first
    while ex != NULL:
        if not (ex.flags & EX_EMITTED or ex.part):
            if not c.conn.holds & HOLD_SOCKET:      # else it is counted as what was held
                ctx.counters[C_UNANSWERED if ex.req.done and not ex.resp.started else C_TIMED_OUT] += 1
            mark_incomplete(ex)
            http1_emit(ctx, c, ex)
            exchange_recorded(ctx, ex)
        ex = ex.next
    return 0


cdef uint64_t http1_rest(const flow_t* flow) noexcept nogil:
    return resting(<const http1_t*>flow.state)


cdef int http1_resume(ctx_t* ctx, flow_t* flow, uint64_t word) noexcept:
    if http1_open(ctx, flow) < 0:
        return -1
    if owe(ctx, <http1_t*>flow.state, word) < 0:
        http1_close(ctx, flow, 0)
        return -1
    return 0


cdef const char* REASONS[19]        # by bit of enum ambiguity
REASONS[0] = b"content_length_and_transfer_encoding"
REASONS[1] = b"content_length_conflict"
REASONS[2] = b"content_length_invalid"
REASONS[3] = b"transfer_encoding_not_chunked"
REASONS[4] = b"transfer_encoding_in_http10"
REASONS[5] = b"bare_lf"
REASONS[6] = b"obs_fold"
REASONS[7] = b"space_before_colon"
REASONS[8] = b"bad_header_line"
REASONS[9] = b"start_line"
REASONS[10] = b"bad_chunk"
REASONS[11] = b"nul"
REASONS[12] = b"multiple_host"
REASONS[13] = b"transfer_encoding_obfuscated"
REASONS[14] = b"content_length_repeated"
REASONS[15] = b"bare_cr"
REASONS[16] = b"control_character"
REASONS[17] = b"body_not_allowed"
REASONS[18] = NULL


cdef layer_t LAYER
LAYER.name = b"http1"
LAYER.reasons = <const char* const*>REASONS
LAYER.joins = 1
LAYER.detect = http1_detect
LAYER.answers = NULL
LAYER.open = http1_open
LAYER.data = http1_data
LAYER.hole = http1_hole
LAYER.end = http1_end
LAYER.rejoin = http1_rejoin
LAYER.idle = http1_idle
LAYER.unwanted = http1_unwanted
LAYER.told = http1_told
LAYER.rest = http1_rest
LAYER.resume = http1_resume
LAYER.close = http1_close


cdef const layer_t* http1_layer() noexcept nogil:
    return &LAYER


def reason_words():
    """The reasons that may follow `ambiguous_framing:`."""
    return [REASONS[i].decode() for i in range(18)]
