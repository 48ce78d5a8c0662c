"""HTTP/1.x as overheard on one connection (RFC 9112): framing of both directions, and which answer belongs to what.

Each direction is a `half_t` in one of these states. A byte moves it along, a hole is an input like any other:

    state          a byte does                             a hole of n bytes does
    START          part of a head; whole: next state       framing lost -> RESYNC
    BODY           counted, kept up to the cap             n <= remaining: skipped, exact; more: RESYNC behind it
    CHUNK_DATA     as BODY                                 as BODY
    CHUNK_SIZE     line to its LF; bad: RESYNC             framing lost -> RESYNC
    CHUNK_END      CRLF; bad: RESYNC                       framing lost -> RESYNC
    TRAILER        line by line to the empty one           framing lost -> RESYNC
    UNTIL_CLOSE    counted, kept up to the cap             counted
    RESYNC         skipped, unless an event begins with    skipped
                   something like a message
    OPAQUE         skipped (after 101 / CONNECT)           skipped

Responses belong to requests in order. What is not known about a connection is kept as `conn.doubt` (state.pxd): after a
join or a hole of unknown framing nobody knows how many messages went by, nor whether what looks like one is part of a
body. From there on every exchange is marked, those that were complete before are not; in the direction of a hole
older requests that wait are given up (recorded without an answer), the newest one stays. Doubt ends when the
connection was provably quiet (http1_quiet; docs/decisions/0011).

An exchange that was recorded as it stood (unanswered) stays in the queue as a ghost, without bytes, and swallows its
late answer, so that it cannot be taken for the next one's.

Complexity: every byte is looked at once (a head that arrives in pieces: at most twice).
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memchr, memcmp, memset

from collector.abi cimport DIR_IN, DIR_OUT, ROLE_CLIENT, ROLE_SERVER
from collector.shards.dissectors.http1.head cimport *
from collector.shards.memory cimport buf_append, buf_free, buf_reserve, buf_t
from collector.shards.records.encode cimport emit_record
from collector.shards.state cimport *

cdef enum:
    DIR_UNKNOWN = 2
    END_INSIDE = 2                # half_t.ended: inside a message
    OWED_MOST = 8                 # answers outstanding of a connection that is given up and can go on
    PAUSE_NS = 10000000           # pauses count when they are PAUSE_RATIO times as long as any answer took:
    PAUSE_RATIO = 8
    PAUSES = 8                    # so many of them,
    PAUSE_ANSWERS = 16            # among so many answers
    CHUNK_LINE_LIMIT = 4096       # size and extensions of one chunk; nginx and node allow less
    FREE_EXCHANGES = 64           # kept for reuse, with buffers of at most FREE_BUFFER_BYTES each
    FREE_BUFFER_BYTES = 8192
    MAX_QUEUED = 1024             # exchanges outstanding on one connection; browsers and proxies stay below 100
    RESERVE_BYTES = 8192          # of an announced body; the rest as it comes

    # What makes it doubtful where a message ends, and so whose the next answer is (RFC 9112 section 11.2)
    AMB_FRAMING = (AMB_CL_AND_TE | AMB_CL_CONFLICT | AMB_CL_INVALID | AMB_TE_NOT_CHUNKED | AMB_TE_HTTP10 | AMB_BARE_LF
                   | AMB_OBS_FOLD | AMB_SPACE_BEFORE_COLON | AMB_BAD_HEADER_LINE | AMB_BAD_CHUNK | AMB_NUL
                   | AMB_TE_OBFUSCATED | AMB_BARE_CR | AMB_NO_BODY_ALLOWED)


# ---- exchanges ---------------------------------------------------------------------------------------------------

cdef inline void recycle_buffer(ctx_t* ctx, buf_t* b) noexcept nogil:
    if b.cap > FREE_BUFFER_BYTES:
        buf_free(&ctx.pool, b)
    b.len = 0


cdef inline size_t exchange_bytes(exchange_t* ex) noexcept nogil:
    return (sizeof(exchange_t) + ex.req.head.cap + ex.req.body.cap + ex.resp.head.cap + ex.resp.body.cap
            + ex.details.cap)


cdef exchange_t* new_exchange(ctx_t* ctx) noexcept:
    cdef exchange_t* ex = ctx.free_exchanges
    cdef buf_t a, b, c, d, e
    if ex != NULL:
        ctx.free_exchanges = ex.next
        ctx.free_count -= 1
        ctx.free_bytes -= exchange_bytes(ex)
        a = ex.req.head
        b = ex.req.body
        c = ex.resp.head
        d = ex.resp.body
        e = ex.details
        memset(ex, 0, sizeof(exchange_t))
        ex.req.head = a
        ex.req.body = b
        ex.resp.head = c
        ex.resp.body = d
        ex.details = e
        return ex
    ex = <exchange_t*>malloc(sizeof(exchange_t))
    if ex != NULL:
        memset(ex, 0, sizeof(exchange_t))
        ctx.pool.bytes += sizeof(exchange_t)
    return ex


cdef void drop_buffers(ctx_t* ctx, exchange_t* ex) noexcept:
    buf_free(&ctx.pool, &ex.req.head)
    buf_free(&ctx.pool, &ex.req.body)
    buf_free(&ctx.pool, &ex.resp.head)
    buf_free(&ctx.pool, &ex.resp.body)
    buf_free(&ctx.pool, &ex.details)


cdef void free_exchange(ctx_t* ctx, exchange_t* ex) noexcept:
    if ctx.free_count < FREE_EXCHANGES:
        recycle_buffer(ctx, &ex.req.head)
        recycle_buffer(ctx, &ex.req.body)
        recycle_buffer(ctx, &ex.resp.head)
        recycle_buffer(ctx, &ex.resp.body)
        recycle_buffer(ctx, &ex.details)
        ex.next = ctx.free_exchanges
        ctx.free_exchanges = ex
        ctx.free_count += 1
        ctx.free_bytes += exchange_bytes(ex)
        return
    drop_buffers(ctx, ex)
    ctx.pool.bytes -= sizeof(exchange_t)
    free(ex)


cdef inline exchange_t* awaiting(conn_t* conn) noexcept nogil:
    """The exchange whose answer comes next, or NULL."""
    cdef exchange_t* ex = conn.first
    while ex != NULL and ex.resp.done:
        ex = ex.next
    return ex


cdef void emit(ctx_t* ctx, conn_t* conn, exchange_t* ex) noexcept:
    cdef uint64_t end = ex.req.last_ns
    if ex.flags & (EX_EMITTED | EX_DROP) or conn.flags & (CONN_DROP | CONN_IGNORED):
        return
    if conn.flags & CONN_UNCONFIRMED:       # nobody could say that this is a socket: no record
        ctx.counters[C_UNCONFIRMED] += 1
        return
    if ex.resp.last_ns > end:
        end = ex.resp.last_ns
    if ex.flags & (EX_BEHIND | EX_BODY):
        ex.marks |= MARK_PAIRING | MARK_REQUEST_FRAMING
    if not ex.resp.started:
        ex.marks |= MARK_NO_RESPONSE
    emit_record(ctx, conn, ex, end)


cdef inline void mark_incomplete(exchange_t* ex) noexcept nogil:
    if not ex.req.done:
        ex.marks |= MARK_REQUEST_INCOMPLETE
    if ex.resp.started and not ex.resp.done:
        ex.marks |= MARK_RESPONSE_INCOMPLETE


cdef void emit_early(ctx_t* ctx, conn_t* conn, exchange_t* ex) noexcept:
    """Record it as it stands and keep it as a ghost."""
    mark_incomplete(ex)
    emit(ctx, conn, ex)
    ex.flags |= EX_EMITTED
    drop_buffers(ctx, ex)


cdef void pop_done(ctx_t* ctx, conn_t* conn) noexcept:
    cdef exchange_t* ex = conn.first
    if conn.flags & CONN_UNCONFIRMED:
        return
    while ex != NULL and ex.req.done and ex.resp.done:
        conn.first = ex.next
        if ex.next == NULL:
            conn.last = NULL
        conn.queued -= 1
        ctx.counters[G_QUEUED] -= 1
        emit(ctx, conn, ex)
        free_exchange(ctx, ex)
        ex = conn.first


# ---- message ends ------------------------------------------------------------------------------------------------

cdef inline message_t* side(exchange_t* ex, bint request) noexcept nogil:
    return &ex.req if request else &ex.resp


cdef inline void raise_doubt(conn_t* conn, uint32_t what) noexcept nogil:
    conn.doubt |= <uint8_t>what
    conn.answers = 0
    conn.pauses = 0


cdef inline bint framing_doubt(conn_t* conn, bint request) noexcept nogil:
    return conn.doubt & (DOUBT_REQUEST_FRAMING if request else DOUBT_ANSWER_FRAMING) != 0


cdef void message_done(ctx_t* ctx, conn_t* conn, half_t* h, bint request) noexcept:
    cdef exchange_t* ex = h.current
    h.current = NULL
    h.state = H_START
    if ex != NULL:
        side(ex, request).done = 1
        pop_done(ctx, conn)


cdef inline bint tunnel_possible(conn_t* conn) noexcept nogil:
    """An answer that is not here may make another protocol of the connection. The newest exchange knows: it is such a request
    itself, or behind one."""
    cdef exchange_t* ex = conn.last
    return ex != NULL and (ex.flags & EX_BEHIND != 0 or (ex.flags & (EX_CONNECT | EX_UPGRADE) != 0 and not ex.resp.done))


cdef inline void no_tunnel(exchange_t* ex) noexcept nogil:
    """This CONNECT or upgrade was answered, and HTTP goes on: the requests behind it are requests."""
    ex = ex.next
    while ex != NULL:
        ex.flags &= ~EX_BEHIND & 0xFFFF
        if ex.flags & (EX_CONNECT | EX_UPGRADE):
            return
        ex = ex.next


cdef void lose_framing(ctx_t* ctx, conn_t* conn, half_t* h, bint request) noexcept:
    """What comes next in this direction is not known: skip to something that looks like a message."""
    cdef exchange_t* ex = h.current
    h.current = NULL
    ctx.counters[C_SKIPPED_BYTES] += h.part.len
    h.part.len = 0
    h.parked = 0
    h.state = H_RESYNC
    raise_doubt(conn, DOUBT_REQUESTS | DOUBT_REQUEST_FRAMING if request else DOUBT_ANSWERS | DOUBT_ANSWER_FRAMING)
    if not request and tunnel_possible(conn):
        raise_doubt(conn, DOUBT_ALL)
    if ex != NULL:
        ex.marks |= MARK_REQUEST_INCOMPLETE if request else MARK_RESPONSE_INCOMPLETE
        side(ex, request).done = 1
    if not request:
        ex = conn.first
        while ex != NULL:
            if not ex.resp.done:
                ex.marks |= MARK_PAIRING
            ex = ex.next
    pop_done(ctx, conn)


cdef void drop_part(ctx_t* ctx, half_t* h) noexcept:
    """What was kept of a head or chunk line that nobody will end."""
    ctx.counters[C_SKIPPED_BYTES] += h.part.len
    buf_free(&ctx.pool, &h.part)
    h.scan = 0
    h.line_bytes = 0
    h.parked = 0


cdef void resynchronised(ctx_t* ctx, conn_t* conn, half_t* h, bint request) noexcept:
    cdef exchange_t* ex
    ctx.counters[C_RESYNCS] += 1
    drop_part(ctx, h)
    h.state = H_START
    if request:
        return
    # whichever answers were in the hole, they belonged to the older requests
    ex = conn.first
    while ex != NULL and ex.next != NULL:
        if not ex.resp.done:
            ex.resp.done = 1
            if not ex.req.done:
                ex.marks |= MARK_REQUEST_INCOMPLETE
                ex.req.done = 1
                if conn.half[conn.dir_request].current == ex:
                    conn.half[conn.dir_request].current = NULL
        ex = ex.next
    pop_done(ctx, conn)


cdef inline void add_body(ctx_t* ctx, exchange_t* ex, bint request, const uint8_t* p, size_t n, uint64_t ts) noexcept:
    cdef message_t* m
    cdef size_t room
    if ex == NULL:
        ctx.counters[C_SKIPPED_BYTES] += n
        return
    m = side(ex, request)
    m.size += n
    m.last_ns = ts
    if ex.flags & (EX_DROP | EX_EMITTED) or m.body_stopped or (not request and not ctx.response_bodies):
        return
    room = ctx.body_bytes - m.body.len
    if n > room:
        ex.marks |= MARK_REQUEST_CUT if request else MARK_RESPONSE_CUT
        m.body_stopped = 1
        n = room
    if n and buf_append(&ctx.pool, &m.body, p, n) < 0:
        ex.marks |= MARK_REQUEST_CUT if request else MARK_RESPONSE_CUT
        m.body_stopped = 1


# ---- heads -------------------------------------------------------------------------------------------------------

cdef head_t HEAD       # the shard is one thread and a head is used up before the next is parsed


cdef dict unlisted_fields(head_t* h):
    """Lower-case name to values of the fields beyond the MAX_FIELDS that are listed, as parse_head reads them; in the head that
    was parsed last."""
    cdef const uint8_t* p = h.fields[MAX_FIELDS - 1].value + h.fields[MAX_FIELDS - 1].value_len
    found = {}
    name = None
    for line in (<const char*>p)[:h.end - p].split(b"\n")[1:]:
        line = line.removesuffix(b"\r")
        if not line:
            break
        if line[:1] in b" \t":
            if name is not None:
                values = found[name]
                values.append((values.pop() + b" " + line.strip(b" \t")).strip(b" "))      # no negative index: wraparound is off
            continue
        key, colon, value = line.partition(b":")
        if not colon:
            continue
        name = key.rstrip(b" \t").lower()
        found.setdefault(name, []).append(value.strip(b" \t"))
    return found


cdef bint filtered(ctx_t* ctx, conn_t* conn, head_t* h) noexcept:
    """The record filters that look at the request head; counts what it drops."""
    cdef uint32_t i, j, verdict
    cdef rule_t* rule
    cdef field_t* f
    cdef bint found
    fields = None
    try:
        if ctx.ignore_ip_hosts or ctx.ignore_metadata:
            verdict = (<object>ctx.filters).host_verdict(
                (<const char*>h.host.value)[:h.host.value_len] if h.host != NULL else b"",
                ctx.ignore_ip_hosts, ctx.ignore_metadata, bytes(conn.remote[:16]) if conn.dir_request != DIR_IN else b"")
            if verdict == 1:
                ctx.counters[C_FILTERED_IP] += 1
                return True
            if verdict == 2:
                ctx.counters[C_FILTERED_METADATA] += 1
                return True
        for i in range(ctx.rule_count):
            rule = &ctx.rules[i]
            if h.overflow and fields is None:
                fields = unlisted_fields(h)
            unlisted = fields.get(rule.name[:rule.name_len], ()) if fields is not None else ()
            found = len(unlisted) != 0
            for j in range(h.count):
                f = &h.fields[j]
                if f.name_len == rule.name_len and same_name(f.name, rule.name, f.name_len):
                    found = True
                    break
            if not found:
                if rule.reject_absent:
                    ctx.counters[C_FILTERED_RULE] += 1
                    return True
                continue
            values = []
            for j in range(h.count):
                f = &h.fields[j]
                if f.name_len == rule.name_len and same_name(f.name, rule.name, f.name_len):
                    values.append((<const char*>f.value)[:f.value_len])
            values += unlisted
            if not (<object>ctx.filters).rule_matches(i, b", ".join(values)):
                ctx.counters[C_FILTERED_RULE] += 1
                return True
    except Exception:
        # a filter that fails must not let through what it might have held back
        ctx.counters[C_CALLBACK_ERRORS] += 1
        return True
    return False


cdef inline void ambiguous(conn_t* conn, exchange_t* ex, uint32_t bits, bint request) noexcept nogil:
    """Mark the exchange; and when the end of its message is in doubt, doubt what follows."""
    if ex != NULL:
        ex.ambiguity |= bits
        ex.marks |= MARK_AMBIGUOUS
    if bits & AMB_FRAMING:
        if ex != NULL and request:
            ex.flags |= EX_DOUBT
        raise_doubt(conn, DOUBT_REQUESTS | DOUBT_REQUEST_FRAMING if request else DOUBT_ANSWERS | DOUBT_ANSWER_FRAMING)


cdef inline void note_ambiguity(conn_t* conn, exchange_t* ex, head_t* head, bint request) noexcept nogil:
    if head.ambiguity:
        ambiguous(conn, ex, head.ambiguity, request)
    if head.overflow or head.ambiguity & AMB_BAD_HEADER_LINE:
        ex.marks |= MARK_HEADERS_UNCERTAIN


cdef void write_details(ctx_t* ctx, head_t* head, exchange_t* ex) noexcept:
    """`host|method|path` for the Kafka record header; left out when one of them is empty."""
    ex.details.len = 0
    if head.host == NULL or head.host.value_len == 0 or head.target_len == 0:
        return
    if buf_reserve(&ctx.pool, &ex.details, <size_t>head.host.value_len + head.method_len + head.target_len + 2) < 0:
        return
    buf_append(&ctx.pool, &ex.details, head.host.value, head.host.value_len)
    buf_append(&ctx.pool, &ex.details, b"|", 1)
    buf_append(&ctx.pool, &ex.details, head.method, head.method_len)
    buf_append(&ctx.pool, &ex.details, b"|", 1)
    buf_append(&ctx.pool, &ex.details, head.target, head.target_len)


cdef inline void skip_head(half_t* h) noexcept nogil:
    """Look for the empty line from where the kept part of the head ends (`part` is still readable)."""
    cdef char* end = h.part.data + h.part_len_parsed
    h.state = H_HEAD_SKIP
    h.line_bytes = 1
    if h.part_len_parsed and ((end - 1)[0] == c'\n' or (h.part_len_parsed > 1 and (end - 1)[0] == c'\r'
                                                        and (end - 2)[0] == c'\n')):
        h.line_bytes = 0


cdef void give_up_queue(ctx_t* ctx, conn_t* conn) noexcept:
    """Too many requests without answers: record them as they stand and begin anew."""
    cdef exchange_t* ex = conn.first
    cdef exchange_t* following
    conn.half[0].current = NULL
    conn.half[1].current = NULL
    conn.first = NULL
    conn.last = NULL
    raise_doubt(conn, DOUBT_ALL)
    conn.half[1 - conn.dir_request].state = H_RESYNC
    drop_part(ctx, &conn.half[1 - conn.dir_request])
    ctx.counters[C_EVICTED_BUDGET] += 1
    while ex != NULL:
        following = ex.next
        conn.queued -= 1
        ctx.counters[G_QUEUED] -= 1
        ex.marks |= MARK_EVICTED
        mark_incomplete(ex)
        emit(ctx, conn, ex)
        free_exchange(ctx, ex)
        ex = following


cdef void on_request(ctx_t* ctx, conn_t* conn, half_t* h, uint64_t first_ns, uint64_t ts, bint cut) noexcept:
    cdef exchange_t* ex
    cdef head_t* head = &HEAD
    cdef half_t* other
    if conn.queued >= MAX_QUEUED:
        give_up_queue(ctx, conn)
    ex = new_exchange(ctx)
    if ex == NULL:
        lose_framing(ctx, conn, h, True)
        return
    if conn.first != NULL:
        if tunnel_possible(conn):
            ex.flags |= EX_BEHIND
        conn.last.next = ex
    else:
        conn.first = ex
    conn.last = ex
    conn.queued += 1
    ctx.counters[G_QUEUED] += 1
    ex.index = conn.next_index
    conn.next_index += 1
    ex.pos = h.head_pos
    ex.tgid = h.tgid
    ex.req.started = 1
    ex.req.first_ns = first_ns
    ex.req.last_ns = ts
    if conn.flags & CONN_JOINED:
        ex.marks |= MARK_JOINED
        conn.flags &= ~CONN_JOINED & 0xFFFF
    if conn.doubt:
        if conn.doubt & DOUBT_PAIRING:
            ex.marks |= MARK_PAIRING
            ex.flags |= EX_DOUBT
        if conn.doubt & DOUBT_REQUEST_FRAMING:
            ex.marks |= MARK_REQUEST_FRAMING
    note_ambiguity(conn, ex, head, True)
    if head.method_len == 4 and memcmp(head.method, b"HEAD", 4) == 0:
        ex.flags |= EX_HEAD
    elif head.method_len == 7 and memcmp(head.method, b"CONNECT", 7) == 0:
        ex.flags |= EX_CONNECT
    if head.expect:
        ex.flags |= EX_EXPECT
    if head.upgrade:
        ex.flags |= EX_UPGRADE
    if ex.flags & EX_DOUBT and ex.flags & (EX_CONNECT | EX_UPGRADE):
        raise_doubt(conn, DOUBT_ALL)        # its answer may go unknown: what follows may be another protocol
    if ctx.input_limit and ctx.input_used > ctx.input_limit:
        # over the minute's allowance: followed, so that what comes later is right, and not recorded
        ex.flags |= EX_DROP
        ctx.counters[C_SAMPLED_OUT] += 1
    elif filtered(ctx, conn, head):
        ex.flags |= EX_DROP
    else:
        content_facts(ctx, head, &ex.req)
        if write_request_head(ctx, head, &ex.req) < 0:
            ex.flags |= EX_DROP
            ctx.counters[C_RECORDS_DROPPED_SIZE] += 1
        if ctx.want_details:
            write_details(ctx, head, ex)
    if ex.flags & EX_CONNECT and (head.has_te or (head.has_cl and head.content_length)):
        ambiguous(conn, ex, AMB_NO_BODY_ALLOWED, True)      # RFC 9110 section 9.3.6; some servers read one
    h.current = ex
    if cut:
        ex.marks |= MARK_HEADERS_CUT
        skip_head(h)
    elif head.has_te:
        if head.chunked:
            h.state = H_CHUNK_SIZE
        else:
            lose_framing(ctx, conn, h, True)
    elif head.has_cl:
        if not head.cl_valid or head.ambiguity & AMB_CL_INVALID:
            lose_framing(ctx, conn, h, True)
        elif head.content_length == 0:
            message_done(ctx, conn, h, True)
        else:
            h.state = H_BODY
            h.remaining = head.content_length
            if head.content_length <= ctx.body_bytes and not ex.flags & EX_DROP:
                buf_reserve(&ctx.pool, &ex.req.body, <size_t>head.content_length if head.content_length < RESERVE_BYTES
                            else RESERVE_BYTES)
    else:
        message_done(ctx, conn, h, True)
    other = &conn.half[1 - conn.dir_request]
    if other.parked:
        unpark(ctx, conn, other, 1 - conn.dir_request, ts)


cdef void unpark(ctx_t* ctx, conn_t* conn, half_t* h, uint32_t d, uint64_t ts) noexcept:
    """Read the answer that had arrived before its request."""
    cdef buf_t held = h.part
    memset(&h.part, 0, sizeof(buf_t))
    h.parked = 0
    http1_data(ctx, conn, d, <const uint8_t*>held.data, held.len, ts)
    buf_free(&ctx.pool, &held)


cdef void leave_http(ctx_t* ctx, conn_t* conn, bint doubt) noexcept:
    """101 or CONNECT: what follows is another protocol (RFC 9110 sections 7.8 and 9.3.6). With `doubt` it may have been another
    request's answer: go on where something looks like a message."""
    cdef uint32_t i
    ctx.counters[C_UPGRADED] += 1
    for i in range(2):
        if conn.half[i].current != NULL and not side(conn.half[i].current, i == conn.dir_request).done:
            conn.half[i].current.marks |= MARK_REQUEST_INCOMPLETE if i == conn.dir_request else MARK_RESPONSE_INCOMPLETE
            side(conn.half[i].current, i == conn.dir_request).done = 1
        conn.half[i].state = H_RESYNC if doubt else H_OPAQUE
        conn.half[i].current = NULL
        if doubt:
            drop_part(ctx, &conn.half[i])
        else:
            buf_free(&ctx.pool, &conn.half[i].part)
    if doubt:
        raise_doubt(conn, DOUBT_ALL)


cdef inline void under_doubt(conn_t* conn, exchange_t* ex, uint64_t ts) noexcept nogil:
    """An answer begins that may be another's. How long it took is what a pause is compared with (http1_quiet)."""
    cdef uint64_t took = ts - ex.req.first_ns if ts > ex.req.first_ns else 0
    cdef uint32_t us = <uint32_t>(took // 1000 + 1) if took >> 41 == 0 else 0x7FFFFFFF
    if ex.flags & EX_DOUBT or conn.doubt & DOUBT_ANSWERS:
        ex.marks |= MARK_PAIRING
        ex.flags |= EX_DOUBT
    if conn.doubt & DOUBT_ANSWER_FRAMING:
        ex.marks |= MARK_RESPONSE_FRAMING
    if us > conn.longest_us:
        conn.longest_us = us
        conn.pauses = 0
    if conn.answers < 255:
        conn.answers += 1


cdef void http1_quiet(ctx_t* ctx, conn_t* conn, uint64_t quiet_ns) noexcept nogil:
    """A request begins after a silence of `quiet_ns`, and there is doubt: is it over? With nothing outstanding that we know
    of, a request that nobody saw would have been answered in the silence; a body that pauses for `unanswered_ns` is given
    up anywhere else too."""
    cdef uint32_t i
    cdef uint64_t longest_ns = <uint64_t>conn.longest_us * 1000
    if conn.answers == 0 or awaiting(conn) != NULL:
        return
    for i in range(2):
        if conn.half[i].state != H_START or conn.half[i].part.len:
            return
    if quiet_ns >= PAUSE_NS and quiet_ns // PAUSE_RATIO >= longest_ns and conn.pauses < 255:
        conn.pauses += 1
    if quiet_ns >= ctx.unanswered_ns or (
            conn.pauses >= PAUSES and conn.answers >= PAUSE_ANSWERS):
        conn.doubt = 0
        conn.answers = 0
        conn.pauses = 0
        conn.longest_us = 0


cdef int http1_rests(conn_t* conn, uint8_t* heads) noexcept nogil:
    """How many requests wait for their answers, at most OWED_MOST, when both directions stand between messages and there is no
    doubt, so that the connection can be given up and go on; else -1. Bit i of `heads`: the i-th of them is a HEAD."""
    cdef uint32_t i
    cdef int owed = 0
    cdef exchange_t* ex = conn.first
    heads[0] = 0
    if conn.doubt or conn.dir_request == DIR_UNKNOWN or conn.flags & (CONN_JOINED | CONN_IGNORED):
        return -1
    for i in range(2):
        if conn.half[i].state != H_START or conn.half[i].part.len or conn.half[i].ended:
            return -1
    while ex != NULL:
        if not ex.resp.done:
            if owed == OWED_MOST or ex.flags & (EX_CONNECT | EX_UPGRADE | EX_BEHIND | EX_BODY | EX_DOUBT):
                return -1
            if ex.flags & EX_HEAD:
                heads[0] |= <uint8_t>(1 << owed)
            owed += 1
        ex = ex.next
    return owed


cdef bint http1_owe(ctx_t* ctx, conn_t* conn, uint32_t owed, uint8_t heads) noexcept:
    """Requests that were recorded when the connection was given up, and whose answers are still to come. False when memory
    is out."""
    cdef uint32_t i
    cdef exchange_t* ex
    for i in range(owed):
        ex = new_exchange(ctx)
        if ex == NULL:
            return False
        ex.flags = EX_EMITTED | (EX_HEAD if heads >> i & 1 else 0)
        ex.req.started = 1
        ex.req.done = 1
        conn.held += exchange_bytes(ex)
        if conn.last != NULL:
            conn.last.next = ex
        else:
            conn.first = ex
        conn.last = ex
        conn.queued += 1
        ctx.counters[G_QUEUED] += 1
    return True


cdef void on_response(ctx_t* ctx, conn_t* conn, half_t* h, uint64_t first_ns, uint64_t ts, bint cut) noexcept:
    cdef head_t* head = &HEAD
    cdef exchange_t* ex
    cdef bint empty
    ex = awaiting(conn)
    empty = head.status == 204 or head.status == 304 or (head.status >= 100 and head.status < 200)
    if head.odd_status:     # RFC 9112 section 4: three digits; some read 0199 as interim, some as final
        raise_doubt(conn, DOUBT_ANSWERS | DOUBT_ANSWER_FRAMING)
        empty = False
    elif head.status >= 100 and head.status < 200 and head.status != 101:
        ctx.counters[C_INTERIM] += 1
        h.state = H_START
        if ex == NULL:      # nobody has asked
            raise_doubt(conn, DOUBT_REQUESTS)
        else:
            if head.status == 100:
                ex.flags |= EX_CONTINUED
            if head.has_te or head.has_cl:
                head.ambiguity |= AMB_NO_BODY_ALLOWED   # RFC 9110 section 8.6, RFC 9112 section 6.1: some clients read one
            if head.ambiguity:
                ambiguous(conn, ex, head.ambiguity, False)
            if head.ambiguity & AMB_FRAMING:
                ex.flags |= EX_DOUBT        # what comes next may be the rest of this one
        if cut:
            lose_framing(ctx, conn, h, False)
        return
    if ex == NULL:
        ctx.counters[C_ORPHAN_RESPONSES] += 1
        # to an unseen CONNECT or upgrade: what follows may be a tunnel
        raise_doubt(conn, DOUBT_ALL if head.status == 101 or (
            head.status >= 200 and head.status < 300 and not head.has_te and not head.has_cl) else DOUBT_REQUESTS)
    else:
        ex.resp.started = 1
        ex.resp.first_ns = first_ns
        ex.resp.last_ns = ts
        ex.status = <uint16_t>head.status
        if conn.dir_request == DIR_IN:      # served by whoever answers
            ex.tgid = h.tgid
        if conn.doubt or ex.flags & EX_DOUBT:
            under_doubt(conn, ex, ts)
        note_ambiguity(conn, ex, head, False)
        if ex.flags & (EX_CONNECT | EX_UPGRADE | EX_BODY) and not ex.flags & EX_DOUBT:
            if ex.flags & (EX_CONNECT | EX_UPGRADE) and head.status != 101 and (
                    not ex.flags & EX_CONNECT or head.status >= 300):
                no_tunnel(ex)
            ex.flags &= ~EX_BODY & 0xFFFF       # it came behind the body: no refusal was there before
        if not ex.flags & (EX_DROP | EX_EMITTED):
            content_facts(ctx, head, &ex.resp)
            if write_response_head(ctx, head, &ex.resp) < 0:
                ex.flags |= EX_DROP
                ctx.counters[C_RECORDS_DROPPED_SIZE] += 1
        if ex.flags & EX_HEAD:
            if ex.flags & EX_DOUBT and not empty and (head.has_te or not head.has_cl or head.content_length):
                raise_doubt(conn, DOUBT_ANSWER_FRAMING)     # if it is another request's answer, its body follows
                ex.marks |= MARK_RESPONSE_FRAMING
            empty = True
        if ex.flags & EX_CONNECT and head.status >= 200 and head.status < 300 and (head.has_te or head.has_cl):
            # a server that means a tunnel sends neither (RFC 9110 section 9.3.6); some serve CONNECT like any method
            ambiguous(conn, ex, AMB_NO_BODY_ALLOWED, False)
            ex.marks |= MARK_PAIRING
            ex.flags |= EX_DOUBT
        if not head.odd_status and (head.status == 101 or (
                ex.flags & EX_CONNECT and head.status >= 200 and head.status < 300)):
            if not ex.req.done:
                ex.marks |= MARK_REQUEST_INCOMPLETE
                ex.req.done = 1
            if cut:
                ex.marks |= MARK_HEADERS_CUT
            if head.status == 101 and not ex.flags & EX_UPGRADE:
                ex.marks |= MARK_PAIRING        # nobody has asked for it (RFC 9110 section 15.2.2)
                ex.flags |= EX_DOUBT
            ex.resp.done = 1
            if ex.flags & EX_DOUBT:
                ex.marks |= MARK_RESPONSE_FRAMING
            leave_http(ctx, conn, ex.flags & EX_DOUBT != 0)
            pop_done(ctx, conn)
            return
    h.current = ex
    if cut:
        if ex != NULL:
            ex.marks |= MARK_HEADERS_CUT
        skip_head(h)
    elif empty:
        message_done(ctx, conn, h, False)
    elif head.has_te:
        h.state = H_CHUNK_SIZE if head.chunked else H_UNTIL_CLOSE
        h.body_begins = conn.doubt != 0
    elif head.has_cl and head.cl_valid and not head.ambiguity & AMB_CL_INVALID:
        if head.content_length == 0:
            message_done(ctx, conn, h, False)
        else:
            h.state = H_BODY
            h.body_begins = conn.doubt != 0
            h.remaining = head.content_length
            if (ex != NULL and ctx.response_bodies and head.content_length <= ctx.body_bytes
                    and not ex.flags & (EX_DROP | EX_EMITTED)):
                buf_reserve(&ctx.pool, &ex.resp.body, <size_t>head.content_length if head.content_length < RESERVE_BYTES
                            else RESERVE_BYTES)
    else:
        h.state = H_UNTIL_CLOSE
        h.body_begins = conn.doubt != 0
        if ex != NULL and ex.flags & EX_DOUBT and head.status >= 200 and head.status < 300:
            ex.marks |= MARK_RESPONSE_FRAMING       # if it is the answer to an unseen CONNECT, what follows is a tunnel
            raise_doubt(conn, DOUBT_ALL)


cdef size_t feed_start(ctx_t* ctx, conn_t* conn, half_t* h, bint request, const uint8_t* p, size_t n,
                       uint64_t ts) noexcept:
    """Bytes used. Between messages or inside a head; on return either the head was handled or all was kept."""
    cdef int64_t length
    cdef size_t take, before
    cdef size_t blank = 0
    cdef uint64_t first_ns
    cdef half_t* asking = &conn.half[conn.dir_request]
    if (not request and not h.parked and conn.ahead and h.part.len == 0 and awaiting(conn) == NULL
            and not conn.doubt and asking.state == H_START and not asking.ended):
        # A client's send returns after its answer was read by another thread: the kernel has counted the request's
        # bytes already, so this answer is not one that nobody has asked for.
        h.parked = 1
        h.part_first_ns = ts
    if h.parked:
        if h.part.len + n <= <size_t>ctx.header_bytes + ctx.body_bytes and buf_append(&ctx.pool, &h.part, p, n) == 0:
            return n
        before_park(ctx, conn, h, ts)
        return 0        # nothing used; the state may be another one now
    if not request and asking.part.len and awaiting(conn) == NULL and asking.state == H_START:
        # answered before the request's head was whole: refused, or the rest of it was lost
        salvage_head(ctx, conn, asking, True, ts)
    if h.part.len == 0:
        length = parse_head(&HEAD, p, p + n, not request, False)
        if length > 0 and length <= ctx.header_bytes:       # the common case: a whole head in one event
            if request:
                while p[blank] == c'\r' or p[blank] == c'\n':
                    blank += 1
                h.head_pos = h.end - n + blank
                on_request(ctx, conn, h, ts, ts, False)
            else:
                on_response(ctx, conn, h, ts, ts, False)
            return <size_t>length
        while blank < n and (p[blank] == c'\r' or p[blank] == c'\n'):
            blank += 1
        if length < 0:
            ctx.counters[C_SKIPPED_BYTES] += n - blank
            bad_start(ctx, conn, h, request)
            return n
        p += blank
        n -= blank
        if n == 0:
            return blank
        h.part_first_ns = ts
        h.head_pos = h.end - n
        h.scan = 0
        h.line_bytes = 0
    before = h.part.len
    take = <size_t>ctx.header_bytes - before
    if take > n:
        take = n
    if buf_append(&ctx.pool, &h.part, p, take) < 0:
        ctx.counters[C_SKIPPED_BYTES] += n
        lose_framing(ctx, conn, h, request)
        return blank + n
    length = find_head_end(<const uint8_t*>h.part.data, h.part.len, &h.scan)
    if length == 0:
        if start_refused(&HEAD, <const uint8_t*>h.part.data, <uint32_t>before, h.part.len, not request, &h.line_bytes):
            # no head, however it goes on: what comes next may be one
            ctx.counters[C_SKIPPED_BYTES] += n - take
            bad_start(ctx, conn, h, request)
            return blank + n
        if h.part.len < ctx.header_bytes:
            return blank + n
        # too long: take the fields that are here, look for the end without keeping anything
        length = parse_head(&HEAD, <const uint8_t*>h.part.data, <const uint8_t*>h.part.data + h.part.len,
                            not request, LINE_TOO)
        if length <= 0:
            ctx.counters[C_SKIPPED_BYTES] += n - take
            bad_start(ctx, conn, h, request)
            return blank + n
        first_ns = h.part_first_ns
        h.part_len_parsed = h.part.len
        if request:
            on_request(ctx, conn, h, first_ns, ts, True)
        else:
            on_response(ctx, conn, h, first_ns, ts, True)
        buf_free(&ctx.pool, &h.part)
        return blank + take
    if parse_head(&HEAD, <const uint8_t*>h.part.data, <const uint8_t*>h.part.data + length, not request, False) <= 0:
        ctx.counters[C_SKIPPED_BYTES] += n - take
        bad_start(ctx, conn, h, request)
        return blank + n
    first_ns = h.part_first_ns
    h.part.len = 0      # still readable: HEAD points into it
    if request:
        on_request(ctx, conn, h, first_ns, ts, False)
    else:
        on_response(ctx, conn, h, first_ns, ts, False)
    if h.part.len == 0:
        buf_free(&ctx.pool, &h.part)
    return blank + <size_t>length - before


cdef bint salvage_head(ctx_t* ctx, conn_t* conn, half_t* h, bint request, uint64_t ts) noexcept:
    """A head that will not become whole: the lines that are here, as a message without its rest (`headers_cut`).
    False when not even the start line is whole; then nothing is left of it."""
    cdef int64_t length = 0
    cdef uint64_t first_ns = h.part_first_ns
    if h.part.len and not h.parked:
        length = parse_head(&HEAD, <const uint8_t*>h.part.data, <const uint8_t*>h.part.data + h.part.len,
                            not request, True)
    if length <= 0:
        if length < 0:
            not_http(ctx, conn)
        lose_framing(ctx, conn, h, request)     # the rest of that line is no message of its own
        return False
    h.part_len_parsed = h.part.len
    h.part.len = 0
    if request:
        on_request(ctx, conn, h, first_ns, ts, True)
    else:
        on_response(ctx, conn, h, first_ns, ts, True)
    return True


cdef void before_park(ctx_t* ctx, conn_t* conn, half_t* h, uint64_t ts) noexcept:
    """The request never came: read what was parked as an answer without request."""
    cdef buf_t held = h.part
    memset(&h.part, 0, sizeof(buf_t))
    h.parked = 0
    raise_doubt(conn, DOUBT_REQUESTS)
    http1_data(ctx, conn, 1 - conn.dir_request, <const uint8_t*>held.data, held.len, ts)
    buf_free(&ctx.pool, &held)


cdef inline void not_http(ctx_t* ctx, conn_t* conn) noexcept nogil:
    """Count the connection, once, if nothing on it was a message."""
    if conn.next_index & 0xFFFFF == 0 and not conn.flags & CONN_NOT_HTTP:
        conn.flags |= CONN_NOT_HTTP
        ctx.counters[C_NOT_HTTP] += 1


cdef void bad_start(ctx_t* ctx, conn_t* conn, half_t* h, bint request) noexcept:
    """Where a message should begin there is none."""
    not_http(ctx, conn)
    if conn.next_index & 0xFFFFF == 0:
        if not conn.role:
            conn.dir_request = DIR_UNKNOWN      # the guess may have been wrong
            drop_part(ctx, h)
            h.state = H_RESYNC
            raise_doubt(conn, DOUBT_ALL)
            return
    if not request:
        ambiguous(conn, awaiting(conn), AMB_START_LINE, False)      # to some clients it is the answer: HTTP/0.9
    lose_framing(ctx, conn, h, request)


cdef inline const uint8_t* blanks(const uint8_t* p, const uint8_t* end) noexcept nogil:
    while p < end and (p[0] == c' ' or p[0] == c'\t'):
        p += 1
    return p


cdef inline const uint8_t* token(const uint8_t* p, const uint8_t* end) noexcept nogil:
    while p < end and tchar[p[0]]:
        p += 1
    return p


cdef bint chunk_extensions(const uint8_t* p, const uint8_t* end) noexcept nogil:
    """Whether p..end is what may stand behind a size: *( BWS ";" BWS name [ BWS "=" BWS value ] ), RFC 9112 section 7.1.1.
    Readers differ in how much they skip of anything else, and in where they stop."""
    cdef const uint8_t* q
    while p < end:
        p = blanks(p, end)
        if p == end or p[0] != c';':
            return False
        q = blanks(p + 1, end)
        p = token(q, end)
        if p == q:
            return False
        q = blanks(p, end)
        if q < end and q[0] == c'=':
            q = blanks(q + 1, end)
            if q < end and q[0] == c'"':
                p = q + 1
                while p < end and p[0] != c'"':
                    if p[0] == c'\\':
                        p += 1
                    if p == end or (p[0] < 0x20 and p[0] != c'\t') or p[0] == 0x7F:
                        return False
                    p += 1
                if p == end:
                    return False
                p += 1
            else:
                p = token(q, end)
                if p == q:
                    return False
    return True


cdef int64_t chunk_size(const uint8_t* p, const uint8_t* end, uint32_t* ambiguity) noexcept nogil:
    """The size in a chunk line without its LF (RFC 9112 section 7.1), or -1."""
    cdef uint64_t v = 0
    cdef int digits = 0
    cdef uint8_t c
    if end > p and (end - 1)[0] == c'\r':
        end -= 1
    else:
        ambiguity[0] |= AMB_BARE_LF
    while p < end:
        c = p[0]
        if c >= c'0' and c <= c'9':
            c -= c'0'
        elif (c | 0x20) >= c'a' and (c | 0x20) <= c'f':
            c = (c | 0x20) - c'a' + 10
        else:
            break
        if digits == 15:
            return -1
        v = v * 16 + c
        digits += 1
        p += 1
    if digits == 0:
        return -1
    if p < end:
        if memchr(p, c'\r', <size_t>(end - p)) != NULL:
            ambiguity[0] |= AMB_BARE_CR
        if p[0] != c';' and p[0] != c' ' and p[0] != c'\t':
            return -1
        if not chunk_extensions(p, end):
            ambiguity[0] |= AMB_BAD_CHUNK
            while p < end and (p[0] == c' ' or p[0] == c'\t'):
                p += 1
            if p < end and p[0] != c';':
                return -1       # "2 3": which of them is the size?
    return <int64_t>v


cdef void bad_chunk(ctx_t* ctx, conn_t* conn, half_t* h, bint request, size_t skipped) noexcept:
    """Framing is lost, from `skipped` bytes ago on."""
    ctx.counters[C_SKIPPED_BYTES] += skipped
    ambiguous(conn, h.current, AMB_BAD_CHUNK, request)
    lose_framing(ctx, conn, h, request)


cdef size_t feed_chunk_size(ctx_t* ctx, conn_t* conn, half_t* h, bint request, const uint8_t* p, size_t n) noexcept:
    cdef const uint8_t* nl = <const uint8_t*>memchr(p, c'\n', n)
    cdef size_t used
    cdef size_t before = 0
    cdef int64_t size
    cdef uint32_t ambiguity = 0
    if nl == NULL:
        if h.part.len + n > CHUNK_LINE_LIMIT or buf_append(&ctx.pool, &h.part, p, n) < 0:
            bad_chunk(ctx, conn, h, request, n)
        return n
    used = <size_t>(nl - p) + 1
    if h.part.len:
        if h.part.len + used > CHUNK_LINE_LIMIT or buf_append(&ctx.pool, &h.part, p, used) < 0:
            bad_chunk(ctx, conn, h, request, n)
            return n
        before = h.part.len - used
        size = chunk_size(<const uint8_t*>h.part.data, <const uint8_t*>h.part.data + h.part.len - 1, &ambiguity)
        buf_free(&ctx.pool, &h.part)
    elif used > CHUNK_LINE_LIMIT:
        size = -1
    else:
        size = chunk_size(p, nl, &ambiguity)
    if ambiguity:
        ambiguous(conn, h.current, ambiguity, request)
    if size < 0:
        bad_chunk(ctx, conn, h, request, before + n)
        return n
    if size == 0:
        h.state = H_TRAILER
        h.line_bytes = 0
    else:
        h.state = H_CHUNK_DATA
        h.remaining = <uint64_t>size
    return used


cdef size_t feed_trailer(ctx_t* ctx, conn_t* conn, half_t* h, bint request, const uint8_t* p, size_t n,
                         uint64_t ts) noexcept:
    """One line of a trailer section, or the piece of it that is here. It is judged like a line of a head, not kept."""
    cdef const uint8_t* nl = <const uint8_t*>memchr(p, c'\n', n)
    cdef size_t used = n if nl == NULL else <size_t>(nl - p) + 1
    cdef uint32_t ambiguity = 0
    cdef bint last
    if h.line_bytes:                        # inside a line too long to be kept: look for its end
        h.line_bytes = nl == NULL
        return used
    if h.part.len + used > CHUNK_LINE_LIMIT:
        # what it begins with is judged, the same bytes however it was cut; its end was not seen
        last = False
        if h.part.len == 0:
            trailer_line(p, p + CHUNK_LINE_LIMIT, &ambiguity)
        elif buf_append(&ctx.pool, &h.part, p, CHUNK_LINE_LIMIT - h.part.len) == 0:
            trailer_line(<const uint8_t*>h.part.data, <const uint8_t*>h.part.data + CHUNK_LINE_LIMIT, &ambiguity)
        ambiguity &= ~<uint32_t>(AMB_BARE_LF | AMB_BARE_CR)
        buf_free(&ctx.pool, &h.part)
        h.line_bytes = nl == NULL
    elif nl == NULL or h.part.len:
        if buf_append(&ctx.pool, &h.part, p, used) < 0:
            h.part.len = 0
            h.line_bytes = nl == NULL
            return used
        if nl == NULL:
            return used
        last = trailer_line(<const uint8_t*>h.part.data, <const uint8_t*>h.part.data + h.part.len - 1, &ambiguity)
        buf_free(&ctx.pool, &h.part)
    else:
        last = trailer_line(p, nl, &ambiguity)
    if ambiguity:
        ambiguous(conn, h.current, ambiguity, request)
    if last:
        if h.current != NULL:
            side(h.current, request).last_ns = ts
        message_done(ctx, conn, h, request)
    return used


cdef size_t feed_lines(ctx_t* ctx, conn_t* conn, half_t* h, bint request, const uint8_t* p, size_t n,
                       uint64_t ts) noexcept:
    """To the empty line that ends an over-long head. Nothing is kept."""
    cdef size_t i
    for i in range(n):
        if p[i] == c'\n':
            if h.line_bytes == 0:
                if h.current != NULL:
                    side(h.current, request).last_ns = ts
                lose_framing(ctx, conn, h, request)
                return i + 1
            h.line_bytes = 0
        elif p[i] != c'\r':
            h.line_bytes = 1
    return n


# ---- under doubt -------------------------------------------------------------------------------------------------

cdef inline bint refused(half_t* h) noexcept nogil:
    """Any final answer refuses (RFC 9110 section 10.1.1)."""
    return h.current.resp.started


cdef inline bint body_not_owed(half_t* h) noexcept nogil:
    """The client asked for 100 (Continue) and did not get it, and nothing of the body was sent: it may have been refused, by
    an answer that is lost or still to come, and go on without the body (RFC 9110 section 10.1.1)."""
    return ((h.state == H_BODY or h.state == H_CHUNK_DATA or (h.state == H_CHUNK_SIZE and h.part.len == 0))
            and h.current != NULL and h.current.flags & EX_EXPECT and not h.current.flags & EX_CONTINUED
            and h.current.req.size == 0)


cdef bint instead_of_body(ctx_t* ctx, conn_t* conn, half_t* h, const uint8_t* p, size_t n) noexcept:
    """After Expect: 100-continue the client may send its next request instead of the body, and a body may look like one:
    what follows is in doubt. True when it is taken for a request."""
    if not conn.doubt and not refused(h):
        if looks_like_request(p, p + n):
            h.current.flags |= EX_BODY      # a refusal may come
        return False
    if not may_be_request(p, p + n) or (h.state == H_CHUNK_SIZE and not usual_method(p, p + n)):
        return False
    raise_doubt(conn, DOUBT_REQUESTS | DOUBT_REQUEST_FRAMING)
    if not usual_method(p, p + n):
        return False
    h.current.marks |= MARK_REQUEST_INCOMPLETE
    message_done(ctx, conn, h, True)
    return True


cdef inline bint begins_again(conn_t* conn, half_t* h, bint request, bint event_start, const uint8_t* p,
                              size_t n) noexcept nogil:
    """Inside a message, there is doubt, and what comes looks like the beginning of another one.

    The message may be none (found by searching, it may be part of a body): then its length means nothing, and it must not
    swallow real ones.
    """
    if (not event_start or not framing_doubt(conn, request) or h.state == H_RESYNC or h.state == H_OPAQUE
            or (h.state == H_START and (h.part.len == 0 or h.parked))):
        return False
    return looks_like_request(p, p + n) if request else looks_like_response(p, p + n)


cdef size_t feed_first_of_body(ctx_t* ctx, conn_t* conn, uint32_t d, half_t* h, const uint8_t* p, size_t n,
                               uint64_t ts) noexcept:
    """The answer may be one to an unseen HEAD: then what follows it is no body but the next answer. So the first bytes wait
    in `part` until they say which."""
    cdef const char* start = b"HTTP/1."
    cdef size_t i = 0
    cdef buf_t held
    while h.part.len + i < 7 and i < n and p[i] == <uint8_t>start[h.part.len + i]:
        i += 1
    if i and buf_append(&ctx.pool, &h.part, p, i) < 0:
        i = 0
    elif h.part.len == 7:
        held = h.part
        memset(&h.part, 0, sizeof(buf_t))
        h.body_begins = 0
        abandon(ctx, conn, h, False, ts)
        h.part = held
        h.part_first_ns = ts
        h.scan = 0
        h.line_bytes = 0
        return i
    if i < n:
        end_doubtful(ctx, conn, d, h, ts)
    return i


cdef void end_doubtful(ctx_t* ctx, conn_t* conn, uint32_t d, half_t* h, uint64_t ts) noexcept:
    """It is a body: what waited is its beginning."""
    cdef buf_t held = h.part
    h.body_begins = 0
    if held.len:
        memset(&h.part, 0, sizeof(buf_t))
        http1_data(ctx, conn, d, <const uint8_t*>held.data, held.len, ts)
        buf_free(&ctx.pool, &held)


cdef void abandon(ctx_t* ctx, conn_t* conn, half_t* h, bint request, uint64_t ts) noexcept:
    """The message that is being read ends here, if it was one; the next byte begins another."""
    if h.state == H_START and not salvage_head(ctx, conn, h, request, ts):
        h.state = H_START
        return
    if h.current != NULL:
        if request:
            h.current.marks |= MARK_REQUEST_INCOMPLETE | MARK_REQUEST_FRAMING
        else:
            h.current.marks |= MARK_RESPONSE_INCOMPLETE | MARK_RESPONSE_FRAMING
    raise_doubt(conn, DOUBT_REQUEST_FRAMING if request else DOUBT_ANSWER_FRAMING)
    drop_part(ctx, h)
    h.body_begins = 0
    message_done(ctx, conn, h, request)
    h.state = H_START


# ---- the contract of a dissector ---------------------------------------------------------------------------------

cdef void http1_data(ctx_t* ctx, conn_t* conn, uint32_t d, const uint8_t* p, size_t n, uint64_t ts) noexcept:
    """`n` bytes of direction `d`, all of one event, at the expected stream position."""
    cdef half_t* h = &conn.half[d]
    cdef bint request
    cdef bint event_start = True
    cdef size_t take
    if conn.dir_request == DIR_UNKNOWN:
        if conn.role == ROLE_SERVER:
            conn.dir_request = DIR_IN
        elif conn.role == ROLE_CLIENT:
            conn.dir_request = DIR_OUT
        elif n >= 5 and memcmp(p, b"HTTP/", 5) == 0:
            conn.dir_request = <uint8_t>(1 - d)
        elif looks_like_request(p, p + n) or h.state != H_RESYNC:
            conn.dir_request = <uint8_t>d
        else:
            ctx.counters[C_SKIPPED_BYTES] += n
            return
    elif (conn.role == 0 and d != conn.dir_request and conn.doubt and n >= 16
            and (h.state == H_RESYNC or (h.state == H_START and h.part.len == 0)) and looks_like_request(p, p + n)):
        # the guess was made of bytes of a body: who asks here is on the other side
        http1_reset(ctx, conn, 0)
        conn.dir_request = <uint8_t>d
        buf_free(&ctx.pool, &conn.constant)
    request = d == conn.dir_request
    h.last_ns = ts
    h.tgid = ctx.tgid
    if request:
        conn.ahead = 0      # the bytes that were on their way
    if h.ended:             # bytes after an end: it was not the end
        if h.ended == END_INSIDE:
            raise_doubt(conn, DOUBT_REQUESTS | DOUBT_REQUEST_FRAMING if request else DOUBT_ANSWERS | DOUBT_ANSWER_FRAMING)
        h.ended = 0
    while n:
        if conn.doubt:
            if h.body_begins:
                take = feed_first_of_body(ctx, conn, d, h, p, n, ts)
                event_start = event_start and take == 0
                p += take
                n -= take
                continue
            if begins_again(conn, h, request, event_start, p, n):
                ctx.counters[C_RESYNCS] += 1
                abandon(ctx, conn, h, request, ts)
                continue
        if h.state == H_START:
            take = feed_start(ctx, conn, h, request, p, n, ts)
        elif event_start and request and body_not_owed(h) and instead_of_body(ctx, conn, h, p, n):
            continue
        elif h.state == H_BODY or h.state == H_CHUNK_DATA:
            take = n if n < h.remaining else <size_t>h.remaining
            add_body(ctx, h.current, request, p, take, ts)
            h.remaining -= take
            if h.remaining == 0:
                if h.state == H_BODY:
                    message_done(ctx, conn, h, request)
                else:
                    h.state = H_CHUNK_END
                    h.line_bytes = 0
        elif h.state == H_CHUNK_SIZE:
            take = feed_chunk_size(ctx, conn, h, request, p, n)
        elif h.state == H_CHUNK_END:
            if p[0] == c'\n':
                if not h.line_bytes:
                    ambiguous(conn, h.current, AMB_BARE_LF, request)
                h.state = H_CHUNK_SIZE
                take = 1
            elif p[0] == c'\r' and not h.line_bytes:
                h.line_bytes = 1
                take = 1
            else:
                bad_chunk(ctx, conn, h, request, n)
                take = n
        elif h.state == H_TRAILER:
            take = feed_trailer(ctx, conn, h, request, p, n, ts)
        elif h.state == H_HEAD_SKIP:
            take = feed_lines(ctx, conn, h, request, p, n, ts)
        elif h.state == H_UNTIL_CLOSE:
            add_body(ctx, h.current, request, p, n, ts)
            return
        elif h.state == H_RESYNC:
            # Only an event's first byte may begin a message again: a body can hold anything that looks like one.
            if not event_start or not (looks_like_request(p, p + n) if request else looks_like_response(p, p + n)):
                ctx.counters[C_SKIPPED_BYTES] += n
                return
            resynchronised(ctx, conn, h, request)
            continue
        else:
            return      # OPAQUE: not even looked at
        event_start = False
        p += take
        n -= take


cdef void http1_hole(ctx_t* ctx, conn_t* conn, uint32_t d, uint64_t n, bint lost) noexcept:
    """`n` bytes of direction `d` are missing: `lost` on the way, or never copied (size-only)."""
    cdef half_t* h = &conn.half[d]
    cdef bint request
    cdef uint64_t skip
    cdef message_t* m
    cdef exchange_t* ex
    if conn.dir_request == DIR_UNKNOWN:
        if conn.role == ROLE_SERVER:
            conn.dir_request = DIR_IN
        elif conn.role == ROLE_CLIENT:
            conn.dir_request = DIR_OUT
        else:
            h.state = H_RESYNC
            raise_doubt(conn, DOUBT_ALL)
            return
    request = d == conn.dir_request
    h.ended = 0
    if request and conn.half[1 - d].parked:     # what waits for the next request belongs to one that was not seen
        before_park(ctx, conn, &conn.half[1 - d], conn.half[1 - d].last_ns)
    if h.body_begins:
        if h.current != NULL:       # the hole may be a body, or the next answer to come behind that of a HEAD
            h.current.marks |= MARK_RESPONSE_FRAMING
        raise_doubt(conn, DOUBT_ANSWER_FRAMING)
        end_doubtful(ctx, conn, d, h, h.last_ns)
    while n:
        if h.state == H_RESYNC or h.state == H_OPAQUE:
            return
        if (h.state == H_BODY or h.state == H_CHUNK_DATA or h.state == H_UNTIL_CLOSE) and not (
                request and body_not_owed(h)):
            skip = n if h.state == H_UNTIL_CLOSE or n < h.remaining else h.remaining
            if h.current != NULL:
                m = side(h.current, request)
                m.size += skip
                m.body_stopped = 1
                if lost:
                    m.lost += skip
                    h.current.marks |= MARK_REQUEST_LOST if request else MARK_RESPONSE_LOST
                else:
                    m.uncaptured += skip
                    h.current.marks |= MARK_REQUEST_CUT if request else MARK_RESPONSE_CUT
            if h.state == H_UNTIL_CLOSE:
                return
            n -= skip
            h.remaining -= skip
            if h.remaining == 0:
                if h.state == H_BODY:
                    message_done(ctx, conn, h, request)
                else:
                    h.state = H_CHUNK_END
                    h.line_bytes = 0
            continue
        if h.state == H_START and h.part.len:
            salvage_head(ctx, conn, h, request, h.last_ns)
            if h.state == H_OPAQUE:
                return      # 101 or CONNECT: the rest of its head was lost
        if h.current != NULL:
            h.current.marks |= MARK_REQUEST_LOST if request else MARK_RESPONSE_LOST
            if not (request and body_not_owed(h)):
                side(h.current, request).lost += n
        elif not request and awaiting(conn) != NULL:
            awaiting(conn).resp.lost += n
        ex = conn.first
        while ex != NULL and not request:
            if not ex.resp.done:
                ex.marks |= MARK_RESPONSE_LOST      # its answer may have been in the hole
            ex = ex.next
        lose_framing(ctx, conn, h, request)
        return


cdef uint64_t http1_unwanted(ctx_t* ctx, conn_t* conn, uint32_t d, uint64_t pos) noexcept nogil:
    """Up to which stream position only the length of direction `d` matters, its bytes before `pos` being read; 0: all of
    them may matter. Only what cannot end early counts: a body beyond its cap, or what is not read at all."""
    cdef half_t* h = &conn.half[d]
    cdef message_t* m
    if conn.flags & CONN_IGNORED or h.state == H_OPAQUE:
        return 0xFFFFFFFFFFFFFFFF
    if h.state != H_BODY and h.state != H_CHUNK_DATA and h.state != H_UNTIL_CLOSE:
        return 0
    if h.current == NULL or h.body_begins or framing_doubt(conn, d == conn.dir_request):
        return 0        # a length that may be nobody's: each event is looked at
    m = &h.current.req if d == conn.dir_request else &h.current.resp
    if not m.body_stopped and not h.current.flags & EX_DROP:
        return 0
    return 0xFFFFFFFFFFFFFFFF if h.state == H_UNTIL_CLOSE else pos + h.remaining


cdef void http1_end(ctx_t* ctx, conn_t* conn, uint32_t d) noexcept:
    """No more bytes in direction `d`."""
    cdef half_t* h = &conn.half[d]
    cdef bint request = d == conn.dir_request
    if h.ended:
        return
    h.ended = END_INSIDE if h.current != NULL or h.part.len else 1
    if h.parked:
        before_park(ctx, conn, h, h.part_first_ns)
    if h.body_begins:
        end_doubtful(ctx, conn, d, h, h.last_ns)
    if h.state == H_START and h.part.len:
        salvage_head(ctx, conn, h, request, h.last_ns)
    if h.state == H_UNTIL_CLOSE:
        message_done(ctx, conn, h, request)
    elif h.current != NULL:
        h.current.marks |= MARK_REQUEST_INCOMPLETE if request else MARK_RESPONSE_INCOMPLETE
        message_done(ctx, conn, h, request)
    buf_free(&ctx.pool, &h.part)


cdef void http1_close(ctx_t* ctx, conn_t* conn, uint32_t marks) noexcept:
    """The connection is over (or given up): everything that waits is recorded as it stands, with `marks`."""
    cdef exchange_t* ex = conn.first
    cdef exchange_t* following
    if conn.role == ROLE_CLIENT and conn.dir_request != DIR_UNKNOWN:
        # a client that closes without having read the end may have left bytes unread
        if conn.half[1 - conn.dir_request].state == H_UNTIL_CLOSE and not conn.half[1 - conn.dir_request].ended:
            if conn.half[1 - conn.dir_request].current != NULL:
                conn.half[1 - conn.dir_request].current.marks |= MARK_END_UNSEEN
    while ex != NULL and marks:
        ex.marks |= marks
        ex = ex.next
    if conn.dir_request != DIR_UNKNOWN:
        http1_end(ctx, conn, conn.dir_request)
        http1_end(ctx, conn, 1 - conn.dir_request)
    ex = conn.first
    while ex != NULL and marks:     # and what was made of a head that had not been whole
        ex.marks |= marks
        ex = ex.next
    ex = conn.first
    conn.first = NULL
    conn.last = NULL
    while ex != NULL:
        following = ex.next
        conn.queued -= 1
        ctx.counters[G_QUEUED] -= 1
        emit(ctx, conn, ex)
        free_exchange(ctx, ex)
        ex = following


cdef void http1_was_reset(conn_t* conn) noexcept nogil:
    """The peer reset the connection: whether an answer that ends with it was whole is not known (RFC 9112 section 8)."""
    cdef half_t* h
    if conn.dir_request != DIR_UNKNOWN:
        h = &conn.half[1 - conn.dir_request]
        if h.state == H_UNTIL_CLOSE and not h.ended and h.current != NULL:
            h.current.marks |= MARK_END_UNSEEN


cdef void http1_reset(ctx_t* ctx, conn_t* conn, uint32_t marks) noexcept:
    """The connection holds too much: record what waits as it stands, with `marks`, and join it in the middle."""
    cdef uint32_t i
    http1_close(ctx, conn, marks | MARK_END_UNSEEN)
    for i in range(2):
        conn.half[i].state = H_RESYNC
        conn.half[i].current = NULL
        conn.half[i].ended = 0
        conn.half[i].parked = 0
        buf_free(&ctx.pool, &conn.half[i].part)
    raise_doubt(conn, DOUBT_ALL)
    conn.flags |= CONN_JOINED


cdef inline void stand_as_is(ctx_t* ctx, conn_t* conn, half_t* h, bint request) noexcept:
    """A head that stopped behind its start line is a message, cut."""
    if h.state == H_START and h.part.len and not h.parked and memchr(h.part.data, c'\n', h.part.len) != NULL:
        salvage_head(ctx, conn, h, request, h.last_ns)


cdef uint64_t http1_idle(ctx_t* ctx, conn_t* conn, uint64_t now) noexcept:
    """Timer: record as it stands what neither side has sent a byte of for `unanswered_ns`. Returns when to look again (ns),
    0 for never."""
    cdef exchange_t* ex = conn.first
    cdef bint waiting = conn.half[0].part.len != 0 or conn.half[1].part.len != 0
    cdef uint64_t quiet = now - conn.seen_ns if now > conn.seen_ns else 0
    if conn.flags & CONN_UNCONFIRMED:
        return now + ctx.unanswered_ns if conn.first != NULL else 0
    while ex != NULL and not waiting:
        waiting = not ex.flags & EX_EMITTED
        ex = ex.next
    if not waiting:
        return 0
    if quiet < ctx.unanswered_ns:
        return conn.seen_ns + ctx.unanswered_ns
    if conn.half[0].parked:
        before_park(ctx, conn, &conn.half[0], conn.half[0].part_first_ns)
    if conn.half[1].parked:
        before_park(ctx, conn, &conn.half[1], conn.half[1].part_first_ns)
    if conn.dir_request != DIR_UNKNOWN:
        stand_as_is(ctx, conn, &conn.half[conn.dir_request], True)
        stand_as_is(ctx, conn, &conn.half[1 - conn.dir_request], False)
    ex = conn.first
    while ex != NULL:
        if not ex.flags & EX_EMITTED:
            ctx.counters[C_UNANSWERED if ex.req.done and not ex.resp.started else C_TIMED_OUT] += 1
            emit_early(ctx, conn, ex)
        ex = ex.next
    return 0
