"""Which answer belongs to which request. Responses belong to requests in order (RFC 9112 section 9.3).

What is not known about a connection is kept as `http1_t.doubt` (state.pxd): after a join or a hole of unknown framing nobody
knows how many messages went by, nor whether what looks like one is part of a body. From there on every exchange is marked,
those that were complete before are not; in the direction of a hole older requests that wait are given up (recorded without
an answer), the newest one stays. Doubt ends when the connection was provably quiet (after_silence; docs/decisions/0011).

An exchange that was recorded as it stood (unanswered) stays in the queue as a ghost, without bytes, and swallows its
late answer, so that it cannot be taken for the next one's.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp

from collector.abi cimport DIR_IN
from collector.shards.http.exchanges cimport *
from collector.shards.http.fields cimport field_t, fields_t, same_name, F_UPGRADE, MAX_FIELDS
from collector.shards.http.message cimport *
from collector.shards.layers.websocket.handshake cimport agreed_extensions, upgrades_to_websocket, CLIENT_BEGAN
from collector.shards.receive cimport receive_clear
from collector.shards.state cimport *

cdef enum:
    OWED_MOST = 8                 # answers outstanding of a connection that is given up and can go on
    PAUSE_NS = 10000000           # pauses count when they are PAUSE_RATIO times as long as any answer took:
    PAUSE_RATIO = 8
    PAUSES = 8                    # so many of them,
    PAUSE_ANSWERS = 16            # among so many answers
    MAX_QUEUED = 1024             # exchanges outstanding on one connection; browsers and proxies stay below 100


# ---- the queue ---------------------------------------------------------------------------------------------------

cdef void http1_emit(ctx_t* ctx, http1_t* c, exchange_t* ex) noexcept:
    """Record it, and say what it is in doubt of for where it stood in the queue."""
    if ex.notes & (NOTE_BEHIND | NOTE_BODY):
        ex.marks |= MARK_PAIRING | MARK_REQUEST_FRAMING
    exchange_emit(ctx, c.flow, ex)


cdef void emit_queue(ctx_t* ctx, http1_t* c, uint32_t marks) noexcept:
    """Record all that waits as it stands, with `marks`; the queue is empty then."""
    cdef exchange_t* ex = c.first
    cdef exchange_t* following
    c.first = NULL
    c.last = NULL
    c.queued = 0
    while ex != NULL:
        following = ex.next
        ex.marks |= marks
        http1_emit(ctx, c, ex)
        exchange_free(ctx, ex)
        ex = following


cdef void pop_done(ctx_t* ctx, http1_t* c) noexcept:
    """Record what is complete at the head of the queue, unless something holds it back."""
    cdef exchange_t* ex = c.first
    while ex != NULL and ex.req.done and ex.resp.done and not exchange_waits(ctx, c.conn, ex):
        c.first = ex.next
        if ex.next == NULL:
            c.last = NULL
        c.queued -= 1
        http1_emit(ctx, c, ex)
        exchange_free(ctx, ex)
        ex = c.first


cdef void give_up_queue(ctx_t* ctx, http1_t* c) noexcept:
    """Too many requests without answers: record them as they stand and begin anew."""
    cdef exchange_t* ex = c.first
    c.half[0].current = NULL
    c.half[1].current = NULL
    raise_doubt(c, DOUBT_ALL)
    c.half[1 - c.conn.dir_request].state = H_RESYNC
    drop_part(ctx, &c.half[1 - c.conn.dir_request])
    ctx.counters[C_EVICTED_BUDGET] += 1
    while ex != NULL:
        mark_incomplete(ex)
        ex = ex.next
    emit_queue(ctx, c, MARK_EVICTED)


cdef void enqueue(http1_t* c, exchange_t* ex) noexcept nogil:
    if c.last != NULL:
        c.last.next = ex
    else:
        c.first = ex
    c.last = ex
    c.queued += 1


cdef void answers_follow(http1_t* c, exchange_t* ex) noexcept nogil:
    """A request of HTTP/0.9 that was answered with a status line: a line without a version is odd to who reads HTTP/1."""
    ambiguous(c, ex, AMB_START_LINE, REQUEST)
    ex.req.done = 1
    enqueue(c, ex)
    c.requests = 1


# ---- message ends ------------------------------------------------------------------------------------------------

cdef void message_done(ctx_t* ctx, http1_t* c, half_t* h, side_t side) noexcept:
    cdef exchange_t* ex = h.current
    h.current = NULL
    h.state = H_START
    if ex != NULL:
        message_of(ex, side).done = 1
        pop_done(ctx, c)


cdef inline bint tunnel_possible(http1_t* c) noexcept nogil:
    """An answer that is not here may make another protocol of the connection. The newest exchange knows: it is such a
    request itself, or behind one."""
    cdef exchange_t* ex = c.last
    return ex != NULL and (ex.notes & NOTE_BEHIND != 0
                           or (ex.notes & (NOTE_CONNECT | NOTE_UPGRADE) != 0 and not ex.resp.done))


cdef inline void no_tunnel(exchange_t* ex) noexcept nogil:
    """This CONNECT or upgrade was answered, and HTTP goes on: the requests behind it are requests."""
    ex = ex.next
    while ex != NULL:
        ex.notes &= ~NOTE_BEHIND & 0xFFFF
        if ex.notes & (NOTE_CONNECT | NOTE_UPGRADE):
            return
        ex = ex.next


cdef void lose_framing(ctx_t* ctx, http1_t* c, half_t* h, side_t side) noexcept:
    """What comes next in this direction is not known: skip to something that looks like a message."""
    cdef exchange_t* ex = h.current
    h.current = NULL
    ctx.counters[C_SKIPPED_BYTES] += h.part.bytes.len
    h.part.bytes.len = 0
    h.parked = 0
    h.state = H_RESYNC
    doubt_framing(c, side)
    if side == RESPONSE and tunnel_possible(c):
        raise_doubt(c, DOUBT_ALL)
    if ex != NULL:
        ex.marks |= mark_of(side, MARK_REQUEST_INCOMPLETE, MARK_RESPONSE_INCOMPLETE)
        message_of(ex, side).done = 1
    if side == RESPONSE:
        ex = c.first
        while ex != NULL:
            if not ex.resp.done:
                ex.marks |= MARK_PAIRING
            ex = ex.next
    pop_done(ctx, c)


cdef void drop_part(ctx_t* ctx, half_t* h) noexcept:
    """What was kept of a head or chunk line that nobody will end."""
    ctx.counters[C_SKIPPED_BYTES] += h.part.bytes.len
    receive_clear(&ctx.pool, &h.part)
    h.start_seen = 0
    h.inside_line = 0
    h.parked = 0


cdef void resynchronised(ctx_t* ctx, http1_t* c, half_t* h, side_t side) noexcept:
    cdef exchange_t* ex
    ctx.counters[C_RESYNCS] += 1
    drop_part(ctx, h)
    h.state = H_START
    if side == REQUEST:
        return
    # whichever answers were in the hole, they belonged to the older requests
    ex = c.first
    while ex != NULL and ex.next != NULL:
        if not ex.resp.done:
            ex.resp.done = 1
            if not ex.req.done:
                ex.marks |= MARK_REQUEST_INCOMPLETE
                ex.req.done = 1
                if c.half[c.conn.dir_request].current == ex:
                    c.half[c.conn.dir_request].current = NULL
        ex = ex.next
    pop_done(ctx, c)


# ---- heads -------------------------------------------------------------------------------------------------------

cdef object unlisted_fields(const fields_t* fields):
    """Lower-case name to values of the fields beyond the MAX_FIELDS that are listed, as parse_head reads them."""
    cdef const field_t* last = &fields.items[MAX_FIELDS - 1]
    cdef const uint8_t* p = last.value + last.value_len
    found = {}
    name = None
    for line in (<const char*>p)[:fields.end - p].split(b"\n")[1:]:
        line = line.removesuffix(b"\r")
        if not line:
            break
        if line[:1] in b" \t":
            if name is not None:
                values = found[name]
                # no negative index: wraparound is off
                values.append((values.pop() + b" " + line.strip(b" \t")).strip(b" "))
            continue
        key, colon, value = line.partition(b":")
        if not colon:
            continue
        name = key.rstrip(b" \t").lower()
        found.setdefault(name, []).append(value.strip(b" \t"))
    return found


cdef inline void note_ambiguity(http1_t* c, exchange_t* ex, const head_t* head, side_t side) noexcept nogil:
    if head.ambiguity:
        ambiguous(c, ex, head.ambiguity, side)
    if head.fields.overflow or head.ambiguity & AMB_BAD_HEADER_LINE:
        ex.marks |= MARK_HEADERS_UNCERTAIN


cdef inline void skip_head(half_t* h) noexcept nogil:
    """Look for the empty line from where the kept part of the head ends (`part` is still readable)."""
    cdef char* end = h.part.bytes.data + h.part_parsed
    h.state = H_HEAD_SKIP
    h.inside_line = 1
    if h.part_parsed and ((end - 1)[0] == c'\n' or (
            h.part_parsed > 1 and (end - 1)[0] == c'\r' and (end - 2)[0] == c'\n')):
        h.inside_line = 0


cdef void http1_request(ctx_t* ctx, http1_t* c, half_t* h, head_t* head, uint64_t first_ns, uint64_t ts, bint cut) noexcept:
    """A request begins: its head, which began at h.head_pos. `cut`: its fields are not all here."""
    cdef exchange_t* ex
    if c.queued >= MAX_QUEUED:
        give_up_queue(ctx, c)
    ex = exchange_open(ctx, c.flow)
    if ex == NULL:
        lose_framing(ctx, c, h, REQUEST)
        return
    if tunnel_possible(c):
        ex.notes |= NOTE_BEHIND
    enqueue(c, ex)
    c.requests += 1
    ex.pos = h.head_pos
    ex.tgid = c.conn.stream[c.conn.dir_request].tgid
    ex.req.started = 1
    ex.req.first_ns = first_ns
    ex.req.last_ns = ts
    if c.joined:
        ex.marks |= MARK_JOINED
        c.joined = 0
    if c.doubt:
        if c.doubt & DOUBT_PAIRING:
            ex.marks |= MARK_PAIRING
            ex.notes |= NOTE_DOUBT
        if c.doubt & DOUBT_REQUEST_FRAMING:
            ex.marks |= MARK_REQUEST_FRAMING
    note_ambiguity(c, ex, head, REQUEST)
    if head.request.method_len == 4 and memcmp(head.request.method, b"HEAD", 4) == 0:
        ex.notes |= NOTE_HEAD
    elif head.request.method_len == 7 and memcmp(head.request.method, b"CONNECT", 7) == 0:
        ex.notes |= NOTE_CONNECT
    if head.expect:
        ex.notes |= NOTE_EXPECT
    if head.upgrade:
        ex.notes |= NOTE_UPGRADE
    if ex.notes & NOTE_DOUBT and ex.notes & (NOTE_CONNECT | NOTE_UPGRADE):
        raise_doubt(c, DOUBT_ALL)        # its answer may go unknown: what follows may be another protocol
    ex.req.passed_on = head.te_coding
    if cut:
        ex.marks |= MARK_HEADERS_CUT
    head.fields.unknown = cut       # any field may be among those that are missing
    exchange_request(ctx, c.flow, ex, &head.request, &head.fields, unlisted_fields)
    if ex.notes & NOTE_CONNECT and (head.has_te or (head.has_cl and head.content_length)):
        ambiguous(c, ex, AMB_NO_BODY_ALLOWED, REQUEST)      # RFC 9110 section 9.3.6; some servers read one
    h.current = ex
    if cut:
        ex.client_source = CLIENT_NONE      # what is behind the cut may say otherwise
        skip_head(h)
    elif head.has_te:
        if head.chunked:
            h.state = H_CHUNK_SIZE
        else:
            lose_framing(ctx, c, h, REQUEST)
    elif head.has_cl:
        if not head.cl_valid or head.ambiguity & AMB_CL_INVALID:
            lose_framing(ctx, c, h, REQUEST)
        elif head.content_length == 0:
            message_done(ctx, c, h, REQUEST)
        else:
            h.state = H_BODY
            h.remaining = head.content_length
            exchange_expect(ctx, ex, REQUEST, head.content_length)
    else:
        message_done(ctx, c, h, REQUEST)
    if c.half[1 - c.conn.dir_request].parked:
        c.unparked = 1


cdef void leave_http(ctx_t* ctx, http1_t* c, bint doubt) noexcept:
    """101 or CONNECT: what follows is another protocol (RFC 9110 sections 7.8 and 9.3.6). With `doubt` it may have been
    another request's answer: go on where something looks like a message."""
    cdef uint32_t i
    cdef side_t side
    cdef half_t* h
    ctx.counters[C_UPGRADED] += 1
    for i in range(2):
        h = &c.half[i]
        side = REQUEST if i == c.conn.dir_request else RESPONSE
        if h.current != NULL and not message_of(h.current, side).done:
            h.current.marks |= mark_of(side, MARK_REQUEST_INCOMPLETE, MARK_RESPONSE_INCOMPLETE)
            message_of(h.current, side).done = 1
        h.current = NULL
        h.state = H_RESYNC
        if doubt:
            drop_part(ctx, h)
        else:
            receive_clear(&ctx.pool, &h.part)
    if doubt:
        raise_doubt(c, DOUBT_ALL)
    else:
        c.left = 1


cdef void hand_over(ctx_t* ctx, http1_t* c, const char* protocol) noexcept:
    """The oldest request is another layer's from here on, and what follows."""
    cdef exchange_t* ex = c.first
    c.first = ex.next
    if c.first == NULL:
        c.last = NULL
    c.queued -= 1
    ex.next = NULL
    c.upgraded = ex
    c.upgraded_to = protocol
    leave_http(ctx, c, False)


cdef inline bint begun_behind_request(const http1_t* c) noexcept nogil:
    """Have bytes of the client come that were read as HTTP and are none? Events of the two directions may come in either
    order."""
    cdef const half_t* h = &c.half[c.conn.dir_request]
    return h.state != H_START or h.part.bytes.len != 0


cdef inline bint to_http2(const head_t* head) noexcept nogil:
    """Does the server go on with HTTP/2 in clear?"""
    cdef uint32_t i
    for i in range(head.fields.count):
        if head.fields.items[i].id == F_UPGRADE:
            return head.fields.items[i].value_len == 3 and same_name(head.fields.items[i].value, b"h2c", 3)
    return False


cdef exchange_t* open_orphan(ctx_t* ctx, http1_t* c, half_t* h, const head_t* head, uint64_t first_ns,
                             uint64_t ts) noexcept:
    """An exchange for an answer whose request was not seen, or NULL. What is read of the connection must not depend on
    whether there is one."""
    cdef uint32_t answers = 1 - c.conn.dir_request
    cdef exchange_t* ex = exchange_open(ctx, c.flow)
    if ex == NULL:
        return NULL
    if c.last != NULL:
        ex.notes |= c.last.notes & NOTE_BEHIND
    enqueue(c, ex)
    ex.tgid = c.conn.stream[answers if c.conn.dir_request == DIR_IN else c.conn.dir_request].tgid
    ex.status = <uint16_t>head.response.status
    ex.resp.started = 1
    ex.resp.first_ns = first_ns
    ex.resp.last_ns = ts
    exchange_orphan(ctx, c.flow, ex, h.head_pos, first_ns, b"")
    if c.doubt & DOUBT_ANSWER_FRAMING or (
            ex.status >= 200 and ex.status < 300 and not head.has_te and not head.has_cl):
        ex.marks |= MARK_RESPONSE_FRAMING       # what follows an answer to CONNECT is a tunnel
    if head.ambiguity:
        ex.marks |= MARK_AMBIGUOUS
        ex.reasons |= head.ambiguity
    if head.fields.overflow or head.ambiguity & AMB_BAD_HEADER_LINE:
        ex.marks |= MARK_HEADERS_UNCERTAIN
    exchange_response(ctx, c.flow, ex, &head.response, &head.fields)
    return ex


cdef void http1_response(ctx_t* ctx, http1_t* c, half_t* h, head_t* head, uint64_t first_ns, uint64_t ts,
                         bint cut) noexcept:
    """An answer begins: its head. `cut`: its fields are not all here."""
    cdef uint32_t status = head.response.status
    cdef exchange_t* ex
    cdef bint empty
    head.fields.unknown = cut
    if head.te_coding:      # of an answer that nobody needs to guess; a request may be meant for one who does not undo it
        head.ambiguity &= ~<uint32_t>AMB_TE_OBFUSCATED
    ex = awaiting(c)
    empty = status == 204 or status == 304 or (status >= 100 and status < 200)
    if head.odd_status:     # RFC 9112 section 4: three digits; some read 0199 as interim, some as final
        doubt_framing(c, RESPONSE)
        empty = False
    elif status >= 100 and status < 200 and status != 101:
        ctx.counters[C_INTERIM] += 1
        h.state = H_START
        if ex == NULL:      # nobody has asked
            raise_doubt(c, DOUBT_REQUESTS)
        else:
            if status == 100:
                ex.notes |= NOTE_CONTINUED
            if head.has_te or head.has_cl:
                head.ambiguity |= AMB_NO_BODY_ALLOWED   # RFC 9110 section 8.6, RFC 9112 section 6.1: some clients read one
            if head.ambiguity:
                ambiguous(c, ex, head.ambiguity, RESPONSE)
            if head.ambiguity & AMB_FRAMING:
                ex.notes |= NOTE_DOUBT        # what comes next may be the rest of this one
        if cut:
            lose_framing(ctx, c, h, RESPONSE)
        return
    if ex == NULL:
        ctx.counters[C_ORPHAN_RESPONSES] += 1
        # to an unseen CONNECT or upgrade: what follows may be a tunnel
        raise_doubt(c, DOUBT_ALL if status == 101 or (
            status >= 200 and status < 300 and not head.has_te and not head.has_cl) else DOUBT_REQUESTS)
        if ctx.orphan_responses:
            ex = open_orphan(ctx, c, h, head, first_ns, ts)
    else:
        ex.resp.started = 1
        ex.resp.first_ns = first_ns
        ex.resp.last_ns = ts
        ex.status = <uint16_t>status
        if c.conn.dir_request == DIR_IN:      # served by whoever answers
            ex.tgid = c.conn.stream[1 - c.conn.dir_request].tgid
        if c.doubt or ex.notes & NOTE_DOUBT:
            under_doubt(c, ex, ts)
        note_ambiguity(c, ex, head, RESPONSE)
        if ex.notes & (NOTE_CONNECT | NOTE_UPGRADE | NOTE_BODY) and not ex.notes & NOTE_DOUBT:
            if ex.notes & (NOTE_CONNECT | NOTE_UPGRADE) and status != 101 and (
                    not ex.notes & NOTE_CONNECT or status >= 300):
                no_tunnel(ex)
            ex.notes &= ~NOTE_BODY & 0xFFFF       # it came behind the body: no refusal was there before
        ex.resp.passed_on = head.te_coding
        if cut:
            ex.marks |= MARK_HEADERS_CUT
        exchange_response(ctx, c.flow, ex, &head.response, &head.fields)
        if ex.notes & NOTE_HEAD:
            if ex.notes & NOTE_DOUBT and not empty and (head.has_te or not head.has_cl or head.content_length):
                raise_doubt(c, DOUBT_ANSWER_FRAMING)     # if it is another request's answer, its body follows
                ex.marks |= MARK_RESPONSE_FRAMING
            empty = True
        if ex.notes & NOTE_CONNECT and status >= 200 and status < 300 and (head.has_te or head.has_cl):
            # a server that means a tunnel sends neither (RFC 9110 section 9.3.6); some serve CONNECT like any method
            ambiguous(c, ex, AMB_NO_BODY_ALLOWED, RESPONSE)
            ex.marks |= MARK_PAIRING
            ex.notes |= NOTE_DOUBT
        if not head.odd_status and (status == 101 or (
                ex.notes & NOTE_CONNECT and status >= 200 and status < 300)):
            if not ex.req.done:
                ex.marks |= MARK_REQUEST_INCOMPLETE
                ex.req.done = 1
            if cut:
                ex.marks |= MARK_HEADERS_CUT
            if status == 101 and not ex.notes & NOTE_UPGRADE:
                ex.marks |= MARK_PAIRING        # nobody has asked for it (RFC 9110 section 15.2.2)
                ex.notes |= NOTE_DOUBT
            if status == 101 and not cut and ex == c.first and not ex.notes & NOTE_DOUBT:
                if ex.marks == 0 and to_http2(head):
                    exchange_unanswered(ex)     # RFC 7540 section 3.2: the answer comes on stream 1
                    hand_over(ctx, c, b"http2")
                    return
                if not ex.flags & EX_DROP and upgrades_to_websocket(&head.fields):
                    ex.resp.done = 1
                    ex.notes = agreed_extensions(&head.fields)
                    if begun_behind_request(c):
                        ex.notes |= CLIENT_BEGAN
                    hand_over(ctx, c, b"websocket")
                    return
            ex.resp.done = 1
            if ex.notes & NOTE_DOUBT:
                ex.marks |= MARK_RESPONSE_FRAMING
            leave_http(ctx, c, ex.notes & NOTE_DOUBT != 0)
            pop_done(ctx, c)
            return
    h.current = ex
    if cut:
        if ex != NULL:
            ex.marks |= MARK_HEADERS_CUT
        skip_head(h)
    elif empty:
        message_done(ctx, c, h, RESPONSE)
    elif head.has_te:
        h.state = H_CHUNK_SIZE if head.chunked else H_UNTIL_CLOSE
        h.body_begins = c.doubt != 0
    elif head.has_cl and head.cl_valid and not head.ambiguity & AMB_CL_INVALID:
        if head.content_length == 0:
            message_done(ctx, c, h, RESPONSE)
        else:
            h.state = H_BODY
            h.body_begins = c.doubt != 0
            h.remaining = head.content_length
            if ex != NULL:
                exchange_expect(ctx, ex, RESPONSE, head.content_length)
    else:
        h.state = H_UNTIL_CLOSE
        h.body_begins = c.doubt != 0
        if ex != NULL and ex.notes & NOTE_DOUBT and status >= 200 and status < 300:
            ex.marks |= MARK_RESPONSE_FRAMING       # if it is the answer to an unseen CONNECT, what follows is a tunnel
            raise_doubt(c, DOUBT_ALL)


# ---- doubt -------------------------------------------------------------------------------------------------------

cdef inline void under_doubt(http1_t* c, exchange_t* ex, uint64_t ts) noexcept nogil:
    """An answer begins that may be another's. How long it took is what a pause is compared with (http1_quiet)."""
    cdef uint64_t took = ts - ex.req.first_ns if ts > ex.req.first_ns else 0
    cdef uint32_t us = <uint32_t>(took // 1000 + 1) if took >> 41 == 0 else 0x7FFFFFFF
    if ex.notes & NOTE_DOUBT or c.doubt & DOUBT_ANSWERS:
        ex.marks |= MARK_PAIRING
        ex.notes |= NOTE_DOUBT
    if c.doubt & DOUBT_ANSWER_FRAMING:
        ex.marks |= MARK_RESPONSE_FRAMING
    if us > c.longest_us:
        c.longest_us = us
        c.pauses = 0
    if c.answers < 255:
        c.answers += 1


cdef void after_silence(ctx_t* ctx, http1_t* c, uint64_t quiet_ns) noexcept nogil:
    """A request begins after a silence of `quiet_ns`, and there is doubt: is it over? With nothing outstanding that we know
    of, a request that nobody saw would have been answered in the silence; a body that pauses for `unanswered_ns` is given
    up anywhere else too."""
    cdef uint32_t i
    cdef uint64_t longest_ns = <uint64_t>c.longest_us * 1000
    if c.answers == 0 or awaiting(c) != NULL:
        return
    for i in range(2):
        if c.half[i].state != H_START or c.half[i].part.bytes.len:
            return
    if quiet_ns >= PAUSE_NS and quiet_ns // PAUSE_RATIO >= longest_ns and c.pauses < 255:
        c.pauses += 1
    if quiet_ns >= ctx.unanswered_ns or (
            c.pauses >= PAUSES and c.answers >= PAUSE_ANSWERS):
        c.doubt = 0
        c.answers = 0
        c.pauses = 0
        c.longest_us = 0


cdef uint64_t resting(const http1_t* c) noexcept nogil:
    """The requests that wait for their answers, when both directions stand between messages and there is no doubt, so that
    the connection can be given up and go on: how many (at most OWED_MOST), and from bit 8 on which of them are HEAD. Else
    NOT_AT_REST."""
    cdef uint32_t i
    cdef uint64_t owed = 0
    cdef uint64_t heads = 0
    cdef exchange_t* ex = c.first
    if c.doubt or c.left or c.joined or c.conn.dir_request == DIR_UNKNOWN or c.conn.flags & CONN_IGNORED:
        return <uint64_t>NOT_AT_REST
    for i in range(2):
        if c.half[i].state != H_START or c.half[i].part.bytes.len or c.half[i].ended:
            return <uint64_t>NOT_AT_REST
    while ex != NULL:
        if not ex.resp.done:
            if owed == OWED_MOST or ex.notes & (NOTE_CONNECT | NOTE_UPGRADE | NOTE_BEHIND | NOTE_BODY | NOTE_DOUBT):
                return <uint64_t>NOT_AT_REST
            if ex.notes & NOTE_HEAD:
                heads |= <uint64_t>1 << owed
            owed += 1
        ex = ex.next
    return owed | heads << 8


cdef int owe(ctx_t* ctx, http1_t* c, uint64_t word) noexcept:
    """Requests that were recorded when the connection was given up, and whose answers are still to come, in the word of
    `resting`. 0, or -1 when memory is out."""
    cdef uint64_t i
    cdef exchange_t* ex
    for i in range(word & 0xFF):
        ex = exchange_open(ctx, c.flow)
        if ex == NULL:
            return -1
        ex.flags = EX_EMITTED
        if word >> 8 + i & 1:
            ex.notes = NOTE_HEAD
        ex.req.started = 1
        ex.req.done = 1
        enqueue(c, ex)
    return 0
