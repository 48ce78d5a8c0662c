"""Streams of HTTP/2 as exchanges: which head, body and end belongs to what (RFC 9113 sections 5 and 8).

A stream is known by its number from the first head that is seen of it, the answer's included: events of the two directions
may come in either order. It is recorded when both sides have ended or it was reset. Numbers of the client only grow, so one
that is not tracked and not larger than the newest is over, and what still comes of it is nobody's.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memset

from collector.abi cimport DIR_IN
from collector.shards.http.exchanges cimport *
from collector.shards.http.message cimport *
from collector.shards.http.parts cimport part_due, part_released
from collector.shards.layers.http2.state cimport *
from collector.shards.layers.stack cimport flow_close, flow_data, flow_hole, flow_idle, flow_told
from collector.shards.layers.websocket.handshake cimport agreed_extensions
from collector.shards.layers.websocket.layer cimport websocket_layer
from collector.shards.memory cimport buf_free, buf_t
from collector.shards.state cimport *


# ---- the table of streams

cdef inline uint32_t bucket_of(uint64_t stream) noexcept nogil:
    return <uint32_t>(stream >> 1) & (BUCKETS - 1)      # a client's numbers are odd


cdef inline uint64_t last_ns(const exchange_t* ex) noexcept nogil:
    return ex.resp.last_ns if ex.resp.last_ns > ex.req.last_ns else ex.req.last_ns


cdef inline bint goes_on(const exchange_t* ex) noexcept nogil:
    """It is recorded in parts, or holds another protocol, and may be silent for long; unless its end may have gone by that
    nobody saw."""
    return (ex.part != 0 or ex.inner != NULL) and not ex.notes & NOTE_END_IN_DOUBT


cdef void unlink(http2_t* c, exchange_t* ex) noexcept nogil:
    cdef exchange_t** at = &c.open[bucket_of(ex.pos)]
    while at[0] != ex:
        at = &at[0].next
    at[0] = ex.next
    ex.next = NULL
    c.count -= 1
    if c.half[0].current == ex:
        c.half[0].current = NULL
    if c.half[1].current == ex:
        c.half[1].current = NULL


cdef exchange_t* find_stream(ctx_t* ctx, http2_t* c, uint32_t stream, uint64_t ts) noexcept:
    """The exchange of a stream, or NULL. One that was silent for too long is given up, whenever the timers are looked at."""
    cdef exchange_t* ex = c.open[bucket_of(stream)]
    while ex != NULL and ex.pos != stream:
        ex = ex.next
    if ex != NULL and ts > last_ns(ex) and ts - last_ns(ex) >= ctx.unanswered_ns and not goes_on(ex):
        time_out(ctx, c, ex)
        return NULL
    return ex


cdef exchange_t* new_stream(ctx_t* ctx, http2_t* c, uint32_t stream) noexcept:
    """NULL when memory is out."""
    cdef exchange_t* ex
    if c.count >= MAX_STREAMS:
        ctx.counters[C_EVICTED_BUDGET] += 1
        record_open(ctx, c, MARK_EVICTED)
    ex = exchange_open(ctx, c.flow)
    if ex == NULL:
        ctx.counters[C_RECORDS_DROPPED_SIZE] += 1
        return NULL
    ex.pos = stream
    ex.flags = EX_NUMBERED
    ex.tgid = c.conn.stream[c.conn.dir_request].tgid
    ex.next = c.open[bucket_of(stream)]
    c.open[bucket_of(stream)] = ex
    c.count += 1
    return ex


# ---- streams whose requests were seen, where answers without one are wanted

cdef inline void newest_is(ctx_t* ctx, http2_t* c, uint32_t stream) noexcept nogil:
    """The client has opened a stream of a larger number."""
    cdef uint32_t i
    if ctx.orphan_responses:
        if stream - c.newest >= 2 * KNOWN_STREAMS:
            memset(c.known, 0, sizeof(c.known))
        else:
            for i in range((c.newest + 1) >> 1, (stream >> 1) + 1):
                c.known[i >> 6 & 15] &= ~(<uint64_t>1 << (i & 63))
    c.newest = stream


cdef inline void request_seen(ctx_t* ctx, http2_t* c, uint32_t stream) noexcept nogil:
    """From here on an answer on this stream is this request's, or comes too late."""
    cdef uint32_t i = stream >> 1
    if ctx.orphan_responses:
        c.known[i >> 6 & 15] |= <uint64_t>1 << (i & 63)


cdef inline bint never_asked(ctx_t* ctx, http2_t* c, uint32_t stream) noexcept nogil:
    """Is an answer on this stream, whose request does not come any more, one to be recorded?"""
    cdef uint32_t i = stream >> 1
    return (ctx.orphan_responses and stream & 1 and stream <= c.newest and c.newest - stream < 2 * KNOWN_STREAMS
            and not c.known[i >> 6 & 15] >> (i & 63) & 1)


cdef void adopt(ctx_t* ctx, http2_t* c, exchange_t* ex) noexcept:
    """A request of HTTP/1, which is answered on stream 1 (RFC 7540 section 3.2)."""
    ex.pos = 1
    ex.flags |= EX_NUMBERED
    ex.notes = NOTE_REQUEST
    ex.next = NULL
    c.open[bucket_of(1)] = ex
    c.count = 1
    newest_is(ctx, c, 1)
    request_seen(ctx, c, 1)


# ---- records

cdef void emit(ctx_t* ctx, http2_t* c, exchange_t* ex) noexcept:
    """Record it, unless nobody knows what was asked, and forget it. It is in no list any more."""
    cdef flow_t* inner = <flow_t*>ex.inner
    if inner != NULL:
        flow_close(ctx, inner, ex.marks & (MARK_EVICTED | MARK_END_UNSEEN))
        ctx.pool.bytes -= sizeof(flow_t)
        free(inner)
    if not ex.notes & NOTE_REQUEST:
        ctx.counters[C_ORPHAN_RESPONSES] += 1
        if not ctx.orphan_responses or not ex.resp.started or (ex.marks & MARK_STATUS_UNKNOWN and ex.resp.size == 0):
            exchange_free(ctx, ex)
            return
        # nothing of its request is shown: where what is here of the body stood in it is not known
        ex.req.size = ex.req.lost = ex.req.uncaptured = ex.req.body.len = 0
        ex.marks &= ~<uint32_t>(MARK_REQUEST_INCOMPLETE | MARK_REQUEST_LOST | MARK_REQUEST_CUT)
        exchange_orphan(ctx, c.flow, ex, ex.pos, ex.resp.first_ns, b"HTTP/2.0")
    exchange_emit(ctx, c.flow, ex)
    exchange_free(ctx, ex)


cdef void complete(ctx_t* ctx, http2_t* c, exchange_t* ex) noexcept:
    """Nothing more comes of it."""
    unlink(c, ex)
    if not exchange_waits(ctx, c.conn, ex):
        emit(ctx, c, ex)
        return
    if c.last != NULL:
        c.last.next = ex
    else:
        c.first = ex
    c.last = ex


cdef void released(ctx_t* ctx, http2_t* c) noexcept:
    """Nothing holds back what is complete, parts, and what is inside streams."""
    cdef exchange_t* ex
    cdef uint32_t i
    while c.first != NULL and not exchange_waits(ctx, c.conn, c.first):
        ex = c.first
        c.first = ex.next
        if c.first == NULL:
            c.last = NULL
        emit(ctx, c, ex)
    for i in range(<uint32_t>BUCKETS):
        ex = c.open[i]
        while ex != NULL:
            part_released(ctx, c.flow, ex)
            if ex.inner != NULL:
                flow_told(ctx, <flow_t*>ex.inner, FACT_RELEASED)
            ex = ex.next


cdef inline void check_length(exchange_t* ex, side_t side) noexcept nogil:
    """RFC 9113 section 8.1.1. A body of which bytes are missing has its length all the same; one that went on behind lost
    framing does not."""
    cdef message_t* m = message_of(ex, side)
    cdef uint16_t note = NOTE_REQUEST_LENGTH if side == REQUEST else NOTE_RESPONSE_LENGTH
    if not ex.notes & note or m.body_stopped:
        return
    if side == RESPONSE and m.size == 0 and (ex.notes & NOTE_HEAD or ex.status == 304):
        return
    if m.size != m.announced:
        ex.marks |= MARK_AMBIGUOUS
        ex.reasons |= BAD_LENGTH


cdef inline bint has_its_length(exchange_t* ex, side_t side) noexcept nogil:
    """The body has gone by that its head has announced, kept or not: who closes then does not read END_STREAM."""
    cdef message_t* m = message_of(ex, side)
    return (ex.notes & (NOTE_REQUEST_LENGTH if side == REQUEST else NOTE_RESPONSE_LENGTH) != 0
            and m.size == m.announced)


cdef void stands(exchange_t* ex) noexcept nogil:
    """It is recorded as it stands."""
    if has_its_length(ex, REQUEST):
        ex.req.done = 1
    if has_its_length(ex, RESPONSE):
        ex.resp.done = 1
    mark_incomplete(ex)


cdef bint has_ended(const exchange_t* ex, side_t side) noexcept nogil:
    """END_STREAM of this side was seen. (The end of its connection was not always the end: bytes may follow.)"""
    cdef bint done = ex.req.done if side == REQUEST else ex.resp.done
    return done and not ex.marks & mark_of(side, MARK_REQUEST_INCOMPLETE, MARK_RESPONSE_INCOMPLETE)


cdef void side_ends(ctx_t* ctx, http2_t* c, exchange_t* ex, side_t side) noexcept:
    """END_STREAM."""
    check_length(ex, side)
    message_of(ex, side).done = 1
    if ex.req.done and ex.resp.done:
        complete(ctx, c, ex)


cdef void stream_reset(ctx_t* ctx, http2_t* c, exchange_t* ex) noexcept:
    """RST_STREAM: recorded as it stands."""
    stands(ex)
    complete(ctx, c, ex)


cdef void time_out(ctx_t* ctx, http2_t* c, exchange_t* ex) noexcept:
    """Neither side has sent a byte of it for `unanswered_ns`: recorded as it stands."""
    if not c.conn.holds & HOLD_SOCKET:      # else it is counted as what was held
        ctx.counters[C_UNANSWERED if ex.req.done and not ex.resp.started else C_TIMED_OUT] += 1
    stands(ex)
    unlink(c, ex)
    emit(ctx, c, ex)


cdef uint64_t give_up_silent(ctx_t* ctx, http2_t* c, uint64_t now) noexcept:
    """Record what was silent for too long. When to look again; 0: nothing waits."""
    cdef uint64_t due = 0, then
    cdef exchange_t* ex
    cdef exchange_t* following
    cdef uint32_t i
    if c.count == 0:
        return 0
    for i in range(<uint32_t>BUCKETS):
        ex = c.open[i]
        while ex != NULL:
            following = ex.next
            if ex.part_ns:
                part_due(ctx, c.flow, ex, now)
            then = ex.part_ns
            if ex.inner != NULL:
                then = flow_idle(ctx, <flow_t*>ex.inner, now)
            if then == 0 and not goes_on(ex):
                then = last_ns(ex) + ctx.unanswered_ns
            if then == 0:
                pass
            elif then <= now:
                time_out(ctx, c, ex)
            elif due == 0 or then < due:
                due = then
            ex = following
    return due


cdef void record_open(ctx_t* ctx, http2_t* c, uint32_t marks) noexcept:
    """Record all streams as they stand, in the order of their numbers as far as they share no bucket."""
    cdef exchange_t* ex
    cdef uint32_t i
    for i in range(<uint32_t>BUCKETS):
        while c.open[i] != NULL:
            ex = c.open[i]
            ex.marks |= marks
            stands(ex)
            unlink(c, ex)
            emit(ctx, c, ex)


cdef void record_all(ctx_t* ctx, http2_t* c, uint32_t marks) noexcept:
    """Record all that waits as it stands."""
    cdef exchange_t* ex = c.first
    cdef exchange_t* following
    c.first = NULL
    c.last = NULL
    while ex != NULL:
        following = ex.next
        ex.marks |= marks
        emit(ctx, c, ex)
        ex = following
    record_open(ctx, c, marks)


cdef void bytes_missing(ctx_t* ctx, http2_t* c, side_t side, bint lost, uint64_t ts) noexcept:
    """Bytes of this direction are missing, and nobody knows of which streams."""
    cdef exchange_t* ex
    cdef uint32_t i
    for i in range(<uint32_t>BUCKETS):
        ex = c.open[i]
        while ex != NULL:
            if ex.inner != NULL:
                flow_hole(ctx, <flow_t*>ex.inner, c.conn.dir_request if side == REQUEST else 1 - c.conn.dir_request, 0, lost,
                          ts)
                ex.notes |= NOTE_END_IN_DOUBT
            elif not message_of(ex, side).done:
                exchange_lost(ctx, c.flow, ex, side, 0, lost, ts)
                ex.notes |= NOTE_END_IN_DOUBT
            ex = ex.next


cdef void direction_ends(ctx_t* ctx, http2_t* c, side_t side) noexcept:
    """No more bytes of a side: what it has not ended it will not."""
    cdef exchange_t* ex
    cdef exchange_t* following
    cdef message_t* m
    cdef uint32_t i
    for i in range(<uint32_t>BUCKETS):
        ex = c.open[i]
        while ex != NULL:
            following = ex.next
            m = message_of(ex, side)
            if not m.done:
                if (side == REQUEST or m.started) and not has_its_length(ex, side):
                    ex.marks |= mark_of(side, MARK_REQUEST_INCOMPLETE, MARK_RESPONSE_INCOMPLETE)
                m.done = 1
                if ex.req.done and ex.resp.done:
                    complete(ctx, c, ex)
            ex = following


# ---- heads

cdef void note_bad(exchange_t* ex, const head_t* head) noexcept nogil:
    if head.bad:
        ex.marks |= MARK_AMBIGUOUS
        ex.reasons |= head.bad
    if head.fields.overflow:
        ex.marks |= MARK_HEADERS_UNCERTAIN
    if head.unknown:
        ex.marks |= MARK_HEADERS_UNKNOWN
        ex.unknown = <uint16_t>(ex.unknown + head.unknown if ex.unknown + head.unknown < 0xFFFF else 0xFFFF)


cdef void note_trailers(exchange_t* ex, const head_t* head, bint missed) noexcept nogil:
    """Section 8.1: no pseudo-header fields in trailers. Unless heads were `missed`: then these may be none."""
    note_bad(ex, head)
    if head.pseudo and not missed:
        ex.marks |= MARK_AMBIGUOUS
        ex.reasons |= BAD_PSEUDO


cdef void request_here(ctx_t* ctx, http2_t* c, exchange_t* ex, const head_t* head, uint64_t first_ns, uint64_t ts) noexcept:
    cdef uint8_t seen = head.pseudo
    cdef uint8_t of_target = PSEUDO_SCHEME | PSEUDO_PATH
    cdef bint connect = head.request.method_len == 7 and memcmp(head.request.method, b"CONNECT", 7) == 0
    ex.notes |= NOTE_REQUEST
    request_seen(ctx, c, <uint32_t>ex.pos)
    ex.req.started = 1
    ex.req.first_ns = first_ns
    ex.req.last_ns = ts
    if c.joined:
        ex.marks |= MARK_JOINED
        c.joined = 0
    note_bad(ex, head)
    if head.unknown or head.pseudo_unknown:
        # a field whose name is not known may be any of these
        if head.pseudo_unknown & PSEUDO_METHOD or (head.unknown and not seen & PSEUDO_METHOD):
            ex.marks |= MARK_METHOD_UNKNOWN
        if head.pseudo_unknown & PSEUDO_PATH or (head.unknown and not seen & PSEUDO_PATH and not connect):
            ex.marks |= MARK_PATH_UNKNOWN
        if head.pseudo_unknown & PSEUDO_AUTHORITY:
            ex.marks |= MARK_HEADERS_UNKNOWN
            ex.unknown += 1
    elif (head.request.method_len == 0 or seen & PSEUDO_STATUS or (seen & PSEUDO_PATH and head.request.target_len == 0)
            or (seen & of_target != of_target and (not connect or seen & PSEUDO_PROTOCOL))):
        ex.marks |= MARK_AMBIGUOUS
        ex.reasons |= BAD_PSEUDO
        if head.request.method_len == 0:
            ex.marks |= MARK_METHOD_UNKNOWN     # nobody has said one
    if head.request.method_len == 4 and memcmp(head.request.method, b"HEAD", 4) == 0:
        ex.notes |= NOTE_HEAD
    elif connect and head.websocket:
        ex.notes |= NOTE_WEBSOCKET
    exchange_request(ctx, c.flow, ex, &head.request, &head.fields, NULL)
    if head.has_length:
        ex.notes |= NOTE_REQUEST_LENGTH
        ex.req.announced = head.content_length
        exchange_expect(ctx, ex, REQUEST, head.content_length)


cdef void response_here(ctx_t* ctx, http2_t* c, exchange_t* ex, const head_t* head, bint ends_stream, uint64_t first_ns,
                        uint64_t ts) noexcept:
    ex.resp.started = 1
    ex.resp.first_ns = first_ns
    ex.resp.last_ns = ts
    ex.status = <uint16_t>head.response.status
    if c.conn.dir_request == DIR_IN:      # served by whoever answers
        ex.tgid = c.conn.stream[1 - c.conn.dir_request].tgid
    note_bad(ex, head)
    if head.pseudo_unknown & PSEUDO_STATUS or (head.unknown and not head.pseudo & PSEUDO_STATUS):
        ex.marks |= MARK_STATUS_UNKNOWN
    elif head.pseudo != PSEUDO_STATUS:
        ex.marks |= MARK_AMBIGUOUS
        ex.reasons |= BAD_PSEUDO
    exchange_response(ctx, c.flow, ex, &head.response, &head.fields)
    if (ex.notes & NOTE_WEBSOCKET and head.response.status >= 200 and head.response.status < 300
            and not ex.flags & (EX_DROP | EX_EMITTED) and not ends_stream and ex.part == 0):
        open_websocket(ctx, c, ex, agreed_extensions(&head.fields))
        return
    if not ex.notes & NOTE_REQUEST and head.response.status >= 200 and head.response.status < 300:
        ex.notes |= NOTE_OPENS | agreed_extensions(&head.fields) * NOTE_EXTENSION
    if head.has_length:
        ex.notes |= NOTE_RESPONSE_LENGTH
        ex.resp.announced = head.content_length
        exchange_expect(ctx, ex, RESPONSE, head.content_length)


cdef void read_early(ctx_t* ctx, flow_t* inner, message_t* m, uint32_t d) noexcept:
    """What has come of a WebSocket before it was known to be one, and was taken for a body."""
    cdef uint64_t missing = m.size - m.body.len
    if inner.layer != NULL and m.body.len:
        flow_data(ctx, inner, d, <const uint8_t*>m.body.data, m.body.len, m.last_ns)
    if inner.layer != NULL and (missing or m.body_stopped):
        flow_hole(ctx, inner, d, missing, m.lost != 0 or missing == 0, m.last_ns)
    buf_free(&ctx.pool, &m.body)


cdef void open_websocket(ctx_t* ctx, http2_t* c, exchange_t* ex, uint16_t extension) noexcept:
    """RFC 8441: from here on the DATA of this stream is a WebSocket's. The exchange is its handshake; another one stands for
    the stream. Events of the two directions may come in either order: DATA that is here already is the WebSocket's too."""
    cdef flow_t* inner = <flow_t*>malloc(sizeof(flow_t))
    cdef exchange_t* place
    cdef uint32_t d = c.conn.dir_request
    cdef bint asking = c.half[d].current == ex, answering = c.half[1 - d].current == ex
    cdef message_t asked = ex.req, answered = ex.resp
    unlink(c, ex)
    place = new_stream(ctx, c, <uint32_t>ex.pos)
    if inner == NULL or place == NULL:
        free(inner)             # there is no memory: the handshake, and nothing behind it
        emit(ctx, c, ex)
        return
    ctx.pool.bytes += sizeof(flow_t)
    memset(inner, 0, sizeof(flow_t))
    inner.conn = c.conn
    place.flags |= EX_EMITTED
    place.notes = NOTE_REQUEST
    place.inner = inner
    place.tgid = ex.tgid
    place.req.started = place.resp.started = 1
    place.req.last_ns, place.resp.last_ns = asked.last_ns, answered.last_ns
    place.req.done = ex.req.done
    if asking:
        c.half[d].current = place
    if answering:
        c.half[1 - d].current = place
    memset(&ex.req.body, 0, sizeof(buf_t))
    memset(&ex.resp.body, 0, sizeof(buf_t))
    ex.req.size = ex.req.lost = ex.resp.size = ex.resp.lost = 0
    ex.marks &= ~<uint32_t>(MARK_REQUEST_CUT | MARK_REQUEST_LOST | MARK_RESPONSE_CUT | MARK_RESPONSE_LOST)
    ex.flags &= ~EX_PARTS & 0xFFFF
    ex.req.done = ex.resp.done = 1
    ex.notes = extension
    ctx.handoff.exchange = ex
    ctx.handoff.asked = c.flow.layer
    if websocket_layer().open(ctx, inner) == 0:
        inner.layer = websocket_layer()
    elif ctx.handoff.exchange != NULL:
        ctx.handoff.exchange = NULL
        exchange_free(ctx, ex)
    read_early(ctx, inner, &asked, d)
    read_early(ctx, inner, &answered, 1 - d)


cdef inline void is_orphan(ctx_t* ctx, http2_t* c, exchange_t* ex) noexcept nogil:
    """The request of this answer was not seen, and does not come any more."""
    ex.notes |= NOTE_ORPHAN
    ex.req.done = 1
    request_seen(ctx, c, <uint32_t>ex.pos)


cdef void forget_unasked(ctx_t* ctx, http2_t* c, uint32_t stream) noexcept:
    """Requests come in the order of their numbers: an answer to an older one that was not seen belongs to none."""
    cdef exchange_t* ex
    cdef exchange_t* following
    cdef uint32_t i
    c.unasked = 0
    for i in range(<uint32_t>BUCKETS):
        ex = c.open[i]
        while ex != NULL:
            following = ex.next
            if not ex.notes & (NOTE_REQUEST | NOTE_ORPHAN):
                if ex.pos >= stream:
                    c.unasked += 1
                elif ctx.orphan_responses:
                    is_orphan(ctx, c, ex)       # to its end
                    if ex.resp.done:
                        complete(ctx, c, ex)
                else:
                    unlink(c, ex)
                    emit(ctx, c, ex)
            ex = following


cdef void head_here(ctx_t* ctx, http2_t* c, uint32_t d, const frame_t* frame, const head_t* head, uint64_t first_ns,
                    uint64_t ts) noexcept:
    """A HEADERS frame with all that continues it."""
    cdef side_t side = side_of(c, d)
    cdef uint32_t stream = frame.stream
    cdef exchange_t* ex = find_stream(ctx, c, stream, ts)
    cdef message_t* m
    cdef bint orphan = False
    if ex == NULL:
        orphan = side == RESPONSE and head.pseudo & PSEUDO_STATUS and never_asked(ctx, c, stream)
        if (stream & 1 == 0 or stream <= c.newest) and not orphan:
            if side == RESPONSE and head.pseudo & PSEUDO_STATUS:
                ctx.counters[C_ORPHAN_RESPONSES] += 1
            return                      # of a stream that is over, or of one that was never seen
        if side == RESPONSE and not head.pseudo & PSEUDO_STATUS:
            return                      # trailers
        if side == REQUEST and c.half[d].missed and head.pseudo == 0:
            newest_is(ctx, c, stream)   # trailers of a request that was not seen
            return
        ex = new_stream(ctx, c, stream)
        if ex == NULL:
            return
        if side == RESPONSE:
            ex.req.first_ns = first_ns
            if orphan:
                is_orphan(ctx, c, ex)
            else:
                c.unasked += 1
    m = message_of(ex, side)
    if side == REQUEST and ex.notes & NOTE_ORPHAN and head.pseudo == 0:
        return                          # trailers of the request that was not seen
    if has_ended(ex, side):             # section 5.1: no part of what was ended
        ex.marks |= MARK_AMBIGUOUS
        ex.reasons |= BAD_FRAME
        return
    if side == REQUEST:
        if stream > c.newest:
            newest_is(ctx, c, stream)
        if not ex.notes & NOTE_REQUEST and c.half[d].missed and head.pseudo == 0:
            m.last_ns = ts              # trailers of a request that was not seen, though its answer was
        elif not ex.notes & NOTE_REQUEST:
            request_here(ctx, c, ex, head, first_ns, ts)
            if c.unasked:
                forget_unasked(ctx, c, stream)
            if (ex.notes & NOTE_WEBSOCKET and ex.notes & NOTE_OPENS and not ex.flags & (EX_DROP | EX_EMITTED)
                    and not ex.resp.done and not frame.flags & FLAG_END_STREAM and ex.part == 0):
                open_websocket(ctx, c, ex, ex.notes // NOTE_EXTENSION)
                return
        else:
            m.last_ns = ts
            note_trailers(ex, head, c.half[d].missed)
    elif not ex.resp.started or (ex.marks & MARK_STATUS_UNKNOWN and head.pseudo & PSEUDO_STATUS and m.size == 0):
        ex.marks &= ~<uint32_t>MARK_STATUS_UNKNOWN      # what was taken for the answer was an interim one
        ex.resp.started = 0
        if head.response.status >= 100 and head.response.status < 200 and not frame.flags & FLAG_END_STREAM:
            ctx.counters[C_INTERIM] += 1
            ex.resp.last_ns = ts
            return
        if c.half[d].missed and head.pseudo == 0 and head.unknown == 0:
            head_unseen(ex, first_ns)   # trailers
            m.last_ns = ts
        else:
            response_here(ctx, c, ex, head, frame.flags & FLAG_END_STREAM != 0, first_ns, ts)
    else:
        m.last_ns = ts
        note_trailers(ex, head, c.half[d].missed)
        exchange_trailers(ctx, ex, &head.fields)
    if frame.flags & FLAG_END_STREAM and not m.done:
        side_ends(ctx, c, ex, side)


cdef void head_lost(ctx_t* ctx, http2_t* c, uint32_t d, const frame_t* frame, bint lost, uint64_t ts) noexcept:
    """A HEADERS frame of which nothing is known but whose it is."""
    cdef side_t side = side_of(c, d)
    cdef exchange_t* ex = find_stream(ctx, c, frame.stream, ts)
    if side == REQUEST and frame.stream > c.newest and frame.stream & 1:
        newest_is(ctx, c, frame.stream)
    if ex == NULL:
        return                          # a request that is not known, or nobody's
    exchange_lost(ctx, c.flow, ex, side, 0, lost, ts)
    message_of(ex, side).last_ns = ts
    if side == RESPONSE and not ex.resp.started:
        head_unseen(ex, ts)
    if frame.flags & FLAG_END_STREAM and not message_of(ex, side).done:
        side_ends(ctx, c, ex, side)


cdef void promise_here(ctx_t* ctx, http2_t* c, uint32_t promised, const head_t* head, uint64_t first_ns,
                       uint64_t ts) noexcept:
    """PUSH_PROMISE (section 8.4): the server says what it answers without being asked."""
    cdef exchange_t* ex
    if promised & 1 or promised <= c.promised:
        return
    c.promised = promised
    ex = new_stream(ctx, c, promised)
    if ex == NULL:
        return
    request_here(ctx, c, ex, head, first_ns, ts)
    ex.req.done = 1
