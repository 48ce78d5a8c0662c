"""Long streams in parts, so that nothing waits for an end that may be hours away: server-sent events (WHATWG HTML section
9.2.6), JSON lines, messages of gRPC and Connect.

A part has the messages that became whole since the one before it. It is recorded PART_NS after its first byte, or when a
body has reached its cap and more messages come; what ends earlier is one record, without parts. A message beyond the cap is
shown by its beginning, as any body is, and the ones behind it are found again:

    media             a message ends                          behind one that was cut, and behind a hole
    EVENTS            at an empty line                        at the next empty line
    LINES             at a line feed                          at the next line feed
    GRPC, CONNECT     where the length in its prefix says     exact, as long as the hole ends within the message; else the
                                                              rest of this side is counted only

Decided by event time, before the event that comes behind a deadline or by the timer, whichever is earlier: the same parts.
An ordinary body on the other side is in one part only, the one that comes behind its end.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memchr, memmove

from collector.shards.http.exchanges cimport exchange_tell, exchange_waits, mark_of, message_of, REQUEST, RESPONSE, side_t
from collector.shards.http.message cimport *
from collector.shards.marks cimport *
from collector.shards.memory cimport buf_append, buf_free
from collector.shards.state cimport conn_t, ctx_t, flow_t

cdef enum:
    PART_NS = 1000000000
    PREFIX_BYTES = 5        # of a message of gRPC or Connect: flags, length
    KEPT_BYTES = 8192       # of an empty buffer
    # What is said of the bodies of one part, and not of the next one
    OF_REQUEST = (MARK_REQUEST_CUT | MARK_REQUEST_LOST | MARK_REQUEST_UNDECODED | MARK_REQUEST_REFUSED
                  | MARK_REQUEST_OMITTED | MARK_REQUEST_TRAILING)
    OF_RESPONSE = (MARK_RESPONSE_CUT | MARK_RESPONSE_LOST | MARK_RESPONSE_UNDECODED | MARK_RESPONSE_REFUSED
                   | MARK_RESPONSE_OMITTED | MARK_RESPONSE_TRAILING)

cdef uint64_t SKIP_TO_NEXT = 0xFFFFFFFFFFFFFFFF


cdef bint in_parts(const message_t* m) noexcept nogil:
    """Can its body be taken apart between messages, as it comes?"""
    return (m.media >= MEDIA_EVENTS and m.media != MEDIA_GRPC_WEB_TEXT and m.codings[0] == CODING_NONE
            and m.charset == 0)


cdef inline bint has_lengths(const message_t* m) noexcept nogil:
    return m.media >= MEDIA_GRPC


# ---- where messages end

cdef inline uint64_t message_bytes(const uint8_t* p) noexcept nogil:
    """Of a message of gRPC or Connect, its prefix included."""
    return PREFIX_BYTES + (<uint64_t>p[1] << 24 | <uint64_t>p[2] << 16 | <uint64_t>p[3] << 8 | p[4])


cdef inline bint ends_event(const uint8_t* p, size_t i) noexcept nogil:
    """Is p[i] the end of an empty line? Lines end with CRLF, LF or CR; of CRLF the LF is the end."""
    if p[i] == c'\n':
        return i != 0 and (p[i - 1] == c'\n' or (p[i - 1] == c'\r' and i > 1 and (p[i - 2] == c'\n' or p[i - 2] == c'\r')))
    return p[i] == c'\r' and i != 0 and (p[i - 1] == c'\r' or p[i - 1] == c'\n')


cdef uint32_t whole(const message_t* m) noexcept nogil:
    """So many of the bytes that are here are whole messages."""
    cdef const uint8_t* p = <const uint8_t*>m.body.data
    cdef size_t n = m.body.len, at = 0
    cdef uint64_t size
    if n == 0 or not in_parts(m):
        return 0
    if m.cut:
        return m.body.len
    if has_lengths(m):
        while n - at >= PREFIX_BYTES:
            size = message_bytes(p + at)
            if size > n - at:
                break
            at += <size_t>size
        return <uint32_t>at
    while n and not (p[n - 1] == c'\n' if m.media == MEDIA_LINES else ends_event(p, n - 1)):
        n -= 1
    return <uint32_t>n


cdef size_t skipped(message_t* m, const uint8_t* p, size_t n) noexcept nogil:
    """Of the `n` bytes at p, so many still belong to what was cut."""
    cdef size_t i = 0
    cdef const uint8_t* lf
    if m.skip != SKIP_TO_NEXT:
        i = n if n < m.skip else <size_t>m.skip
        m.skip -= i
        return i
    if m.media == MEDIA_LINES:
        lf = <const uint8_t*>memchr(p, c'\n', n)
        if lf == NULL:
            return n
        m.skip = 0
        return <size_t>(lf - p) + 1
    while i < n and not ends_event(p, i):   # one whose empty line lies in two pieces takes the next one with it
        i += 1
    if i == n:
        return n
    m.skip = 0
    return i + 1


# ---- parts

cdef inline bint comes_later(const message_t* m) noexcept nogil:
    """An ordinary body beside one that is recorded in parts: it is shown whole, once its end is here."""
    return not in_parts(m) and not m.done


cdef uint64_t set_aside(message_t* m, uint32_t shown) noexcept nogil:
    """Leave so many bytes of its body to the part. How many of its size are set aside."""
    cdef uint64_t rest = m.size - m.told if comes_later(m) else m.body.len - shown
    m.body.len = shown
    m.size -= rest
    return rest


cdef void give_back(ctx_t* ctx, message_t* m, uint32_t shown, uint32_t held, uint64_t rest) noexcept nogil:
    """What a part has shown of the `held` bytes is over; the rest stays."""
    m.size += rest
    m.body.len = held - shown
    if comes_later(m):
        return
    if m.body.len:
        memmove(m.body.data, m.body.data + shown, m.body.len)
    elif m.body.cap > KEPT_BYTES:
        buf_free(&ctx.pool, &m.body)
    m.cut = 0
    m.told = m.size - rest
    m.lost = 0
    m.uncaptured = 0


cdef void record_part(ctx_t* ctx, flow_t* flow, exchange_t* ex, uint32_t of_request, uint32_t of_response) noexcept:
    """So many bytes of both bodies as a part."""
    cdef uint32_t request_held = ex.req.body.len, response_held = ex.resp.body.len
    cdef uint64_t request_rest = set_aside(&ex.req, of_request), response_rest = set_aside(&ex.resp, of_response)
    cdef uint32_t later = 0, over = OF_REQUEST | OF_RESPONSE
    if comes_later(&ex.req):
        later = OF_REQUEST
    if comes_later(&ex.resp):
        later |= OF_RESPONSE
    later &= ex.marks
    ex.marks &= ~later
    ex.part += 1
    if ex.req.body_stopped and in_parts(&ex.req):       # then it holds for the next part too
        over &= ~<uint32_t>(MARK_REQUEST_CUT | MARK_REQUEST_LOST)
    if ex.resp.body_stopped and in_parts(&ex.resp):
        over &= ~<uint32_t>(MARK_RESPONSE_CUT | MARK_RESPONSE_LOST)
    exchange_tell(ctx, flow, ex, ex.body_ns)
    if ex.flags & EX_DROP:      # by now it is left out: nothing of it is kept
        return
    give_back(ctx, &ex.req, of_request, request_held, request_rest)
    give_back(ctx, &ex.resp, of_response, response_held, response_rest)
    if ex.flags & EX_DROP:      # sampling leaves it out
        buf_free(&ctx.pool, &ex.req.body)
        buf_free(&ctx.pool, &ex.resp.body)
    ex.marks = ex.marks & ~over | later


cdef inline bint recordable(ctx_t* ctx, flow_t* flow, const exchange_t* ex) noexcept nogil:
    """Nothing that is still to come is needed for a record: the request, where its event comes behind that of the answer;
    whose the connection is; whether it is to be recorded at all."""
    return ex.req.head.len != 0 and ex.selection == NULL and not exchange_waits(ctx, flow.conn, ex)


cdef void part_now(ctx_t* ctx, flow_t* flow, exchange_t* ex) noexcept:
    """Record what is whole, if anything is, or if the answer has just begun."""
    cdef uint32_t of_request = whole(&ex.req)
    cdef uint32_t of_response = whole(&ex.resp)
    ex.part_ns = 0
    ex.flags &= ~EX_PART_HELD & 0xFFFF
    if not recordable(ctx, flow, ex):
        ex.flags |= EX_PART_HELD
        return
    if not in_parts(&ex.req) and ex.req.done:       # an ordinary body: all of it, once
        of_request = ex.req.body.len
    if not in_parts(&ex.resp) and ex.resp.done:
        of_response = ex.resp.body.len
    if of_request or of_response or (ex.part == 0 and ex.resp.started):
        record_part(ctx, flow, ex, of_request, of_response)


cdef inline void overdue(ctx_t* ctx, flow_t* flow, exchange_t* ex, uint64_t now) noexcept:
    if ex.part_ns and now >= ex.part_ns:
        part_now(ctx, flow, ex)


cdef void part_begins(flow_t* flow, exchange_t* ex, uint64_t ts) noexcept nogil:
    """Something is here: it is recorded within PART_NS."""
    cdef conn_t* conn = flow.conn
    ex.body_ns = ts
    ex.part_ns = ts + PART_NS
    if conn.soon_ns == 0 or ex.part_ns < conn.soon_ns:
        conn.soon_ns = ex.part_ns


cdef inline void cut_message(message_t* m, uint64_t more) noexcept nogil:
    """The message that is being read is shown by its beginning, marked by now; `more` bytes of it are still to come."""
    m.cut = m.body.len != 0
    m.skip = more


cdef uint64_t rest_of_message(const message_t* m) noexcept nogil:
    """So many bytes are missing of the message that is being read. 0: nobody knows."""
    cdef uint32_t at = whole(m)
    if not has_lengths(m):
        return SKIP_TO_NEXT if m.body.len > at else 0
    if m.body.len - at < PREFIX_BYTES:
        return 0
    return message_bytes(<const uint8_t*>m.body.data + at) - (m.body.len - at)


cdef void part_body(ctx_t* ctx, flow_t* flow, exchange_t* ex, bint is_request, const uint8_t* p, size_t n,
                    uint64_t ts) noexcept:
    """Bytes of a body."""
    cdef side_t side = REQUEST if is_request else RESPONSE
    cdef message_t* m = message_of(ex, side)
    cdef size_t room, take
    cdef uint64_t rest
    overdue(ctx, flow, ex, ts)
    m.last_ns = ts
    ex.body_ns = ts
    while n:
        if ex.flags & EX_DROP:
            m.size += n
            return
        if m.skip:
            take = skipped(m, p, n)
            m.size += take
            ex.marks |= mark_of(side, MARK_REQUEST_CUT, MARK_RESPONSE_CUT)
            p += take
            n -= take
            continue
        if m.cut:
            part_now(ctx, flow, ex)
            if m.cut:           # what it waits for is not here
                m.cut = 0
                m.body_stopped = 1
        if ex.part_ns == 0:
            part_begins(flow, ex, ts)
        room = ctx.body_bytes - m.body.len if ctx.body_bytes > m.body.len else 0
        if m.body_stopped or (not is_request and not ctx.response_bodies):
            m.size += n
            return
        take = n if n < room else room
        if take and buf_append(&ctx.pool, &m.body, p, take) < 0:
            m.size += n
            m.body_stopped = 1
            ex.marks |= mark_of(side, MARK_REQUEST_CUT, MARK_RESPONSE_CUT)
            return
        m.size += take
        p += take
        n -= take
        if n == 0:
            return
        if whole(m) and recordable(ctx, flow, ex):
            part_now(ctx, flow, ex)
            continue
        ex.marks |= mark_of(side, MARK_REQUEST_CUT, MARK_RESPONSE_CUT)
        rest = rest_of_message(m) if in_parts(m) and whole(m) == 0 else 0
        if rest == 0:
            m.body_stopped = 1
        else:
            cut_message(m, rest)


cdef void part_lost(ctx_t* ctx, flow_t* flow, exchange_t* ex, bint is_request, uint64_t n, bint lost, uint64_t ts) noexcept:
    """`n` bytes of a body are missing: lost on the way, or never copied; 0: nobody knows how many."""
    cdef side_t side = REQUEST if is_request else RESPONSE
    cdef message_t* m = message_of(ex, side)
    cdef uint64_t rest
    overdue(ctx, flow, ex, ts)
    if lost:
        m.lost += n
        ex.marks |= mark_of(side, MARK_REQUEST_LOST, MARK_RESPONSE_LOST)
    else:
        m.uncaptured += n
        ex.marks |= mark_of(side, MARK_REQUEST_CUT, MARK_RESPONSE_CUT)
    m.size += n
    if m.body_stopped:
        return
    if m.skip and m.skip != SKIP_TO_NEXT and n and n <= m.skip:
        m.skip -= n
        return
    rest = 0 if m.skip or m.cut or not in_parts(m) else rest_of_message(m)
    if in_parts(m) and not has_lengths(m):
        cut_message(m, SKIP_TO_NEXT)
    elif n and n <= rest:
        cut_message(m, rest - n)
    else:
        m.body_stopped = 1
        m.skip = 0


cdef void part_due(ctx_t* ctx, flow_t* flow, exchange_t* ex, uint64_t now) noexcept:
    """Record what has waited long enough. When to look again is in ex.part_ns; 0: not before the next byte."""
    overdue(ctx, flow, ex, now)


cdef void part_released(ctx_t* ctx, flow_t* flow, exchange_t* ex) noexcept:
    """Nothing holds back its parts."""
    if ex.flags & EX_PART_HELD:
        part_now(ctx, flow, ex)


cdef void part_last(ctx_t* ctx, flow_t* flow, exchange_t* ex, uint64_t end) noexcept:
    """It is about to be recorded for good."""
    overdue(ctx, flow, ex, end)
    if ex.part:
        ex.part += 1
        ex.flags |= EX_LAST
