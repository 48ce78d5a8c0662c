"""Messages of a WebSocket as JSON objects, and the records that have them.

A record has the messages of both directions in the order in which they ended. It goes out RECORD_NS after its first message,
or when it has EVENTS_MOST of them or EVENTS_BYTES of text; by event time, so that replay gives the same records.
"""

import binascii

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from collector.shards.http.exchanges cimport *
from collector.shards.http.message cimport EX_DROP, message_t
from collector.shards.layers.websocket.state cimport *
from collector.shards.memory cimport buf_append, buf_free, buf_reserve
from collector.shards.redaction.bodies cimport *
from collector.shards.records.text cimport escape_json, escaped_prefix, put_text, put_u64, utf8_length, TEXT_STRICT
from collector.shards.redaction.state cimport use_rules
from collector.shards.state cimport ctx_t, flow_t, C_RECORDS_DROPPED_SIZE

cdef enum:
    RECORD_NS = 1000000000
    EVENTS_MOST = 256
    EVENTS_BYTES = 65536
    KEPT_BYTES = 8192        # of an empty buffer


# ---- records

cdef void shake(ctx_t* ctx, flow_t* flow, websocket_t* w) noexcept:
    """Record the handshake, as who has read it would. What is left of it then are the heads, which the records of messages
    repeat."""
    cdef exchange_t* ex = w.ex
    cdef flow_t asked = flow[0]
    if w.shook:
        return
    w.shook = 1
    asked.layer = w.asked
    exchange_emit(ctx, &asked, ex)
    buf_free(&ctx.pool, &ex.req.body)
    buf_free(&ctx.pool, &ex.resp.body)


cdef void record_events(ctx_t* ctx, flow_t* flow, websocket_t* w, uint64_t end, bint at_once) noexcept:
    """Record the messages that wait, if any do; unless something holds them back that may still come, and not `at_once`."""
    cdef exchange_t* ex = w.ex
    cdef message_t* message
    cdef uint32_t i
    if w.count == 0 or (not at_once and exchange_waits(ctx, flow.conn, ex)):
        return
    shake(ctx, flow, w)
    ex.req.first_ns = w.first_ns
    ex.resp.first_ns = w.first_ns
    ex.marks = w.marks
    ex.reasons = w.reasons
    for i in range(2):
        message = message_of(ex, REQUEST if i == flow.conn.dir_request else RESPONSE)
        message.size = w.half[i].payload
        message.lost = w.half[i].lost
        w.half[i].payload = w.half[i].lost = 0
    ex.part += 1
    ex.events = &w.events
    ex.redacted += w.redacted
    exchange_tell(ctx, flow, ex, end)
    ex.redacted -= w.redacted
    w.redacted = 0
    ex.events = NULL
    w.marks = 0
    w.reasons = 0
    w.count = 0
    w.first_ns = 0
    w.events.len = 0
    if w.events.cap > KEPT_BYTES:
        buf_free(&ctx.pool, &w.events)


cdef void record_end(ctx_t* ctx, flow_t* flow, websocket_t* w, uint64_t end) noexcept:
    """The last record of one that has had some: that it is over, even if no message waits."""
    if w.count == 0:
        if buf_append(&ctx.pool, &w.events, b"[", 1) < 0:
            return
        w.count = 1
        w.first_ns = end
    record_events(ctx, flow, w, end, True)


cdef uint64_t events_due(const websocket_t* w) noexcept nogil:
    """When what waits is to be recorded; 0: nothing waits."""
    return w.first_ns + RECORD_NS if w.first_ns else 0


cdef void overdue(ctx_t* ctx, flow_t* flow, websocket_t* w, uint64_t now) noexcept:
    if w.first_ns and now >= events_due(w):
        record_events(ctx, flow, w, events_due(w), False)


# ---- one message

cdef inline size_t most_text(const ctx_t* ctx) noexcept nogil:
    """Of one message, and of those before it: escaped once more, both fit into a record."""
    return ctx.record_bytes // 5


cdef char* begin_event(ctx_t* ctx, flow_t* flow, websocket_t* w, side_t side, uint8_t opcode, bint fin, uint64_t length,
                       size_t room, uint64_t ts) noexcept:
    """The next object, up to its payload, of which it has `room` bytes as text; NULL when memory is out."""
    cdef char* out
    cdef conn_t* conn = flow.conn
    overdue(ctx, flow, w, ts)
    if w.count >= EVENTS_MOST or (w.count and w.events.len + room > min(<size_t>EVENTS_BYTES, most_text(ctx))):
        record_events(ctx, flow, w, ts, False)
    if buf_reserve(&ctx.pool, &w.events, room + 320) < 0:
        ctx.counters[C_RECORDS_DROPPED_SIZE] += 1
        return NULL
    if w.count == 0:
        w.first_ns = ts
        if conn.soon_ns == 0 or ts + RECORD_NS < conn.soon_ns:
            conn.soon_ns = ts + RECORD_NS
    out = w.events.data + w.events.len
    out[0] = c'[' if w.count == 0 else c','
    w.count += 1
    out = put_u64(put_text(out + 1, b'{"opcode":'), opcode)
    out = put_text(out, b',"fin":true,"from":"' if fin else b',"fin":false,"from":"')
    out = put_text(out, b'client","timeMs":' if side == REQUEST else b'server","timeMs":')
    out = put_u64(out, (ts + <uint64_t>ctx.wall_offset_ns) // 1000000)
    out = put_u64(put_text(out, b',"length":'), length)
    return put_text(out, b',"payload":"')


cdef inline void end_event(websocket_t* w, char* out) noexcept:
    out[0] = c'}'
    w.events.len = <uint32_t>(out + 1 - w.events.data)


cdef size_t without_piece(const uint8_t* p, size_t n) noexcept nogil:
    """As many of them as are whole characters, where the last one may be cut."""
    cdef size_t at = n
    while at and at + 4 > n and (p[at - 1] & 0xC0) == 0x80:
        at -= 1
    if at and p[at - 1] >= 0xC0 and utf8_length(p + at - 1, p + n) == -1:
        return at - 1
    return n


cdef char* put_binary(char* out, const uint8_t* p, size_t n) noexcept:
    cdef bytes text = binascii.b2a_base64(PyBytes_FromStringAndSize(<const char*>p, <Py_ssize_t>n), newline=False)
    memcpy(out, <const char*>text, len(text))
    return put_text(out + len(text), b'","payloadEncoding":"base64"')


cdef void event_data(ctx_t* ctx, flow_t* flow, websocket_t* w, half_t* h, side_t side, bint fin, uint64_t ts) noexcept:
    """A message of which nothing more comes. Without `fin` its end was not seen."""
    cdef const uint8_t* p = <const uint8_t*>h.body.data
    cdef size_t n = 0 if h.undecoded else h.body.len
    cdef size_t most = min(2 * <size_t>ctx.body_bytes, most_text(ctx)), room, shown
    cdef bint cut = h.cut or not fin
    cdef char* out
    cdef char* done = NULL
    cdef int replaced
    if w.ex.flags & EX_DROP:
        return
    if h.message == OP_TEXT and cut:
        n = without_piece(p, n)
    if ctx.redaction != NULL and n:
        use_rules(ctx.redaction, w.ex.redaction_rules, w.ex.redaction_version)
        replaced = redact_body(ctx, flow.conn, &p, &n, SHAPE_TEXT if h.message == OP_TEXT else SHAPE_BYTES, cut, ts)
        if replaced == LEFT_OUT:
            n = 0
            w.marks |= mark_of(side, MARK_REQUEST_OMITTED, MARK_RESPONSE_OMITTED)
        else:
            w.redacted += <uint32_t>replaced
    room = n * 6 if h.message == OP_TEXT else (n // 3 + 1) * 4
    out = begin_event(ctx, flow, w, side, h.message, fin, h.size, room, ts)
    if out == NULL:
        return
    if n == 0:
        out = put_text(out, b'"')
    else:
        if h.message == OP_TEXT:
            done = escape_json(out, p, p + n, TEXT_STRICT)
            if done != NULL and <size_t>(done - out) > most:
                shown = escaped_prefix(p, n, most)
                if shown < n:
                    cut = True
                    n = shown
                    done = escape_json(out, p, p + n, TEXT_STRICT)
        if done != NULL:
            out = put_text(done, b'"')
        else:
            if n > most // 4 * 3:
                cut = True
                n = most // 4 * 3
            out = put_binary(out, p, n)
    if h.undecoded:
        out = put_text(out, b',"undecoded":true')
        w.marks |= mark_of(side, MARK_REQUEST_UNDECODED, MARK_RESPONSE_UNDECODED)
    if cut:
        out = put_text(out, b',"truncated":true')
        w.marks |= mark_of(side, MARK_REQUEST_CUT, MARK_RESPONSE_CUT)
    end_event(w, out)


cdef void event_control(ctx_t* ctx, flow_t* flow, websocket_t* w, half_t* h, side_t side, uint64_t ts) noexcept:
    """A control frame: Close with its code and reason, Ping, Pong."""
    cdef char* out
    cdef const uint8_t* p = h.control
    cdef size_t n = h.control_len
    cdef int replaced
    if w.ex.flags & EX_DROP:
        return
    out = begin_event(ctx, flow, w, side, h.opcode, True, h.control_len, 4 * CONTROL_MOST, ts)
    if out == NULL:
        return
    if ctx.redaction != NULL and n:
        use_rules(ctx.redaction, w.ex.redaction_rules, w.ex.redaction_version)
        replaced = redact_body(ctx, flow.conn, &p, &n, SHAPE_BYTES, False, ts)
        if replaced == LEFT_OUT:
            n = 0
        else:
            w.redacted += <uint32_t>replaced
    out = put_binary(out, p, n) if n else put_text(out, b'"')
    end_event(w, out)
