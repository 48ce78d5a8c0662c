"""WebSocket as a layer (state.pxd layer_t): frames (RFC 6455 section 5), unmasked, decompressed, put together to messages.

It gets the handshake from the layer that has read it (ctx.handoff.exchange, enum extension in its notes), records it, and
keeps its heads for the records of messages (events.pyx). Each direction is a `half_t` in one of these states:

    state      a byte does                              a hole of n bytes does
    HEAD       part of a frame's header                 framing lost -> RESYNC
    DATA       unmasked, decompressed, kept to the cap  n <= rest of the frame: exact; more: RESYNC
    CONTROL    kept                                     n <= rest of the frame: exact; more: RESYNC
    RESYNC     skipped, unless an event is whole        skipped
               frames from its first byte to its last
    OVER       skipped                                  skipped

Where messages may refer to ones before them (context takeover), a hole ends decompression in its direction: what comes then
is counted and marked, and never guessed.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from collector.shards.http.exchanges cimport *
from collector.shards.http.message cimport EX_LAST, EX_WEBSOCKET
from collector.shards.layers.websocket.events cimport *
from collector.shards.layers.websocket.handshake cimport *
from collector.shards.layers.websocket.inflate cimport *
from collector.shards.layers.websocket.state cimport *
from collector.shards.memory cimport buf_append, buf_free
from collector.shards.records.budget cimport may_spend, body_work, spend
from collector.shards.state cimport *

cdef enum:
    UNMASKED_BYTES = 4096
    KEPT_BYTES = 8192        # of an empty buffer

cdef uint8_t[4096] UNMASKED  # of what is decompressed; the shard is one thread


cdef inline side_t side_of(websocket_t* w, uint32_t d) noexcept nogil:
    return REQUEST if d == w.conn.dir_request else RESPONSE


cdef inline bint anew(websocket_t* w, side_t side) noexcept nogil:
    """Does no message of this side refer to one before it?"""
    return w.extension & (EXT_CLIENT_ANEW if side == REQUEST else EXT_SERVER_ANEW) != 0


cdef inline uint64_t last_ns(websocket_t* w) noexcept nogil:
    cdef uint64_t a = w.half[0].last_ns, b = w.half[1].last_ns
    return a if a > b else b


# ---- what a frame is

cdef inline uint32_t head_bytes(uint8_t second) noexcept nogil:
    """How long a frame's header is, by its second byte."""
    cdef uint8_t length = second & 0x7F
    return <uint32_t>(2 + (2 if length == 126 else 8 if length == 127 else 0) + (4 if second & 0x80 else 0))


cdef uint64_t payload_bytes(const uint8_t* p) noexcept nogil:
    cdef uint64_t length = p[1] & 0x7F
    cdef int i
    if length == 126:
        return <uint64_t>p[2] << 8 | p[3]
    if length == 127:
        length = 0
        for i in range(2, 10):
            length = length << 8 | p[i]
    return length


cdef bint as_specified(const uint8_t* p, uint16_t extension) noexcept nogil:
    """Reserved bits, type and length are such as section 5.2 has them; the header is whole."""
    cdef uint8_t opcode = p[0] & 0x0F
    cdef uint8_t length = p[1] & 0x7F
    cdef uint64_t size
    if (opcode > OP_BINARY and opcode < OP_CLOSE) or opcode > OP_PONG:
        return False
    if p[0] & 0x70 and not extension & EXT_UNKNOWN:
        if p[0] & 0x30 or not extension & EXT_DEFLATE or opcode == OP_CONTINUATION:
            return False
    if opcode >= OP_CLOSE:
        return p[0] & 0x80 != 0 and length <= CONTROL_MOST and not p[0] & 0x70
    size = payload_bytes(p)
    if size >> 63:
        return False
    return length <= 125 or size > 125      # the shortest form; of eight bytes some send what fits in two


cdef bint whole_frames(const uint8_t* p, size_t n, bint masked, uint16_t extension) noexcept nogil:
    """Are these bytes, all of an event, frames of this side from the first to the last byte?"""
    cdef size_t at = 0
    cdef uint32_t head
    cdef uint64_t size
    while n - at >= 2:
        head = head_bytes(p[at + 1])
        if head > n - at or (p[at + 1] & 0x80 != 0) != masked or not as_specified(p + at, extension):
            return False
        size = payload_bytes(p + at)
        if size > n - at - head:
            return False
        at += head + <size_t>size
        if at == n:
            return True
    return False


# ---- losses

cdef void forget_message(ctx_t* ctx, half_t* h) noexcept:
    h.message = 0
    h.inside = 0
    h.compressed = 0
    h.cut = 0
    h.undecoded = 0
    h.size = 0
    h.work = 0
    h.body.len = 0
    if h.body.cap > KEPT_BYTES:
        buf_free(&ctx.pool, &h.body)


cdef void message_stands(ctx_t* ctx, flow_t* flow, websocket_t* w, half_t* h, side_t side, uint64_t ts) noexcept:
    """Nobody will see the end of the message that is being read: an event as it stands."""
    if h.message:
        if h.compressed:
            h.behind = 1
            spend(ctx, w.conn, h.work)
        event_data(ctx, flow, w, h, side, False, ts)
    forget_message(ctx, h)


cdef void lose_framing(ctx_t* ctx, flow_t* flow, websocket_t* w, half_t* h, side_t side, uint64_t ts) noexcept:
    message_stands(ctx, flow, w, h, side, ts)
    h.behind = 1
    h.missed = 1
    h.head_len = 0
    h.state = W_RESYNC


cdef inline void cannot_decode(ctx_t* ctx, websocket_t* w, half_t* h, side_t side) noexcept:
    """The rest of this message, and what refers to it, stays compressed."""
    h.behind = 1
    if h.body.len == 0:
        h.undecoded = 1
    h.cut = 1


# ---- bytes

cdef void unmask(uint8_t* out, const uint8_t* p, size_t n, const half_t* h) noexcept nogil:
    """Section 5.3, eight bytes at a time."""
    cdef uint8_t[8] mask
    cdef uint64_t word, key
    cdef size_t i
    for i in range(8):
        mask[i] = h.mask[h.at + i & 3]
    memcpy(&key, mask, 8)
    i = 0
    while n - i >= 8:
        memcpy(&word, p + i, 8)
        word ^= key
        memcpy(out + i, &word, 8)
        i += 8
    while i < n:
        out[i] = p[i] ^ mask[i & 7]
        i += 1


cdef void inflate_bytes(ctx_t* ctx, websocket_t* w, half_t* h, side_t side, const uint8_t* p, size_t n) noexcept:
    """Bytes of a compressed message, unmasked."""
    cdef bint more = False
    cdef undone_t said
    if h.behind:
        return
    said = inflate_more(&ctx.pool, &h.inflater, p, n, &h.body, ctx.body_bytes, &more, &h.work, body_work(ctx))
    settle(ctx, w, h, side, said, more)


cdef void settle(ctx_t* ctx, websocket_t* w, half_t* h, side_t side, undone_t said, bint more) noexcept:
    if more:
        h.cut = 1
    if said == UNDONE_BROKEN:
        w.marks |= MARK_AMBIGUOUS
        w.reasons |= BAD_DEFLATE
    elif said == UNDONE_OVER:
        w.marks |= mark_of(side, MARK_REQUEST_REFUSED, MARK_RESPONSE_REFUSED)
    if said != UNDONE:
        cannot_decode(ctx, w, h, side)


cdef void message_bytes(ctx_t* ctx, websocket_t* w, half_t* h, side_t side, const uint8_t* p, size_t n) noexcept:
    """Bytes of a message's payload."""
    cdef size_t take
    h.size += n
    h.payload += n
    if h.message == 0:
        h.at += n
        return
    if h.compressed:
        while n:
            take = n if n < UNMASKED_BYTES else UNMASKED_BYTES
            if h.masked:
                unmask(UNMASKED, p, take, h)
                inflate_bytes(ctx, w, h, side, UNMASKED, take)
            else:
                take = n
                inflate_bytes(ctx, w, h, side, p, take)
            h.at += take
            p += take
            n -= take
        return
    take = ctx.body_bytes - h.body.len if ctx.body_bytes > h.body.len and not h.cut else 0
    if n > take:
        h.cut = 1
    else:
        take = n
    if take and buf_append(&ctx.pool, &h.body, p, take) < 0:
        h.cut = 1
    elif take and h.masked:
        unmask(<uint8_t*>h.body.data + h.body.len - take, <uint8_t*>h.body.data + h.body.len - take, take, h)
    h.at += n


cdef void begin_message(ctx_t* ctx, websocket_t* w, half_t* h, side_t side, uint64_t ts) noexcept:
    """Its first frame."""
    h.message = h.opcode
    h.compressed = h.head[0] & 0x40 != 0 and w.extension & EXT_DEFLATE != 0 and not w.extension & EXT_UNKNOWN
    if h.head[0] & 0x70 and not h.compressed:
        h.undecoded = 1
    if h.compressed:
        if anew(w, side):
            h.behind = 0
            inflate_anew(&h.inflater)
        if not h.behind and not may_spend(ctx, w.conn, ts):
            h.behind = 1
            w.marks |= mark_of(side, MARK_REQUEST_REFUSED, MARK_RESPONSE_REFUSED)
        if h.behind:
            h.undecoded = 1


cdef void frame_ends(ctx_t* ctx, flow_t* flow, websocket_t* w, half_t* h, side_t side, uint64_t ts) noexcept:
    cdef bint more = False
    cdef undone_t said
    if h.state == W_CONTROL:
        h.state = W_OVER if h.opcode == OP_CLOSE else W_HEAD
        if ctx.websocket_control:
            event_control(ctx, flow, w, h, side, ts)
        return
    h.state = W_HEAD
    if not h.fin:
        h.inside = 1
        return
    if h.message:
        if h.compressed and not h.behind:
            said = inflate_end(&ctx.pool, &h.inflater, &h.body, ctx.body_bytes, &more, &h.work, body_work(ctx))
            settle(ctx, w, h, side, said, more)
        if h.compressed:
            spend(ctx, w.conn, h.work)
        event_data(ctx, flow, w, h, side, True, ts)
    forget_message(ctx, h)


cdef void begin_frame(ctx_t* ctx, flow_t* flow, websocket_t* w, half_t* h, side_t side, uint64_t ts) noexcept:
    """Its header is here."""
    cdef const uint8_t* p = h.head
    h.head_len = 0
    h.fin = p[0] >> 7
    h.opcode = p[0] & 0x0F
    h.masked = p[1] >> 7
    h.at = 0
    h.remaining = payload_bytes(p)
    if (not as_specified(p, w.extension) or (h.inside and (h.opcode == OP_TEXT or h.opcode == OP_BINARY))
            or (h.opcode == OP_CONTINUATION and not h.inside and not h.missed)):
        w.marks |= MARK_AMBIGUOUS
        w.reasons |= BAD_FRAME
        lose_framing(ctx, flow, w, h, side, ts)     # the ends will close the connection
        return
    if h.masked:
        memcpy(h.mask, p + head_bytes(p[1]) - 4, 4)
    if h.masked != (side == REQUEST):
        w.marks |= MARK_AMBIGUOUS
        w.reasons |= BAD_MASK
    if h.opcode >= OP_CLOSE:
        h.state = W_CONTROL
        h.control_len = 0
    else:
        h.state = W_DATA
        if h.opcode != OP_CONTINUATION:
            begin_message(ctx, w, h, side, ts)
    if h.remaining == 0:
        frame_ends(ctx, flow, w, h, side, ts)


cdef size_t read_head(ctx_t* ctx, flow_t* flow, websocket_t* w, half_t* h, side_t side, const uint8_t* p, size_t n,
                      uint64_t ts) noexcept:
    cdef size_t used = 0
    while used < n:
        h.head[h.head_len] = p[used]
        h.head_len += 1
        used += 1
        if h.head_len >= 2 and h.head_len == head_bytes(h.head[1]):
            begin_frame(ctx, flow, w, h, side, ts)
            break
    return used


cdef size_t read_payload(ctx_t* ctx, flow_t* flow, websocket_t* w, half_t* h, side_t side, const uint8_t* p, size_t n,
                         uint64_t ts) noexcept:
    cdef size_t take = n if n < h.remaining else <size_t>h.remaining
    if h.state == W_DATA:
        message_bytes(ctx, w, h, side, p, take)
    else:
        memcpy(h.control + h.control_len, p, take)
        if h.masked:
            unmask(h.control + h.control_len, h.control + h.control_len, take, h)
        h.control_len += <uint8_t>take
        h.at += take
    h.remaining -= take
    if h.remaining == 0:
        frame_ends(ctx, flow, w, h, side, ts)
    return take


cdef feed_t websocket_data(ctx_t* ctx, flow_t* flow, uint32_t d, const uint8_t* p, size_t n, uint64_t ts,
                           size_t* used) noexcept:
    cdef websocket_t* w = <websocket_t*>flow.state
    cdef half_t* h = &w.half[d]
    cdef side_t side = side_of(w, d)
    cdef size_t take
    overdue(ctx, flow, w, ts)
    h.last_ns = ts
    if h.state == W_RESYNC and whole_frames(p, n, side == REQUEST, w.extension):
        ctx.counters[C_RESYNCS] += 1
        h.state = W_HEAD
    while n:
        if h.state == W_HEAD:
            take = read_head(ctx, flow, w, h, side, p, n, ts)
        elif h.state == W_DATA or h.state == W_CONTROL:
            take = read_payload(ctx, flow, w, h, side, p, n, ts)
        else:
            ctx.counters[C_SKIPPED_BYTES] += n
            break
        p += take
        n -= take
    return FEED_ALL


cdef feed_t websocket_hole(ctx_t* ctx, flow_t* flow, uint32_t d, uint64_t n, bint lost, uint64_t ts) noexcept:
    cdef websocket_t* w = <websocket_t*>flow.state
    cdef half_t* h = &w.half[d]
    cdef side_t side = side_of(w, d)
    if h.state == W_OVER:
        return FEED_ALL
    overdue(ctx, flow, w, ts)
    if lost or h.state != W_DATA:
        w.marks |= mark_of(side, MARK_REQUEST_LOST, MARK_RESPONSE_LOST)
        h.lost += n
    if h.state == W_RESYNC:
        return FEED_ALL
    if h.state == W_HEAD or n > h.remaining or n == 0:      # 0: nobody knows how many
        lose_framing(ctx, flow, w, h, side, ts)
        return FEED_ALL
    h.remaining -= n
    h.at += n
    if h.state == W_DATA:
        h.size += n
        h.payload += n
        h.cut = 1
        if h.compressed:
            cannot_decode(ctx, w, h, side)
    else:
        h.control_len = 0
    if h.remaining == 0:
        frame_ends(ctx, flow, w, h, side, ts)
    return FEED_ALL


# ---- the connection

cdef bint websocket_detect(const flow_t* flow, const uint8_t* p, size_t n) noexcept nogil:
    """Behind a handshake only."""
    return False


cdef inline void begin_in_the_middle(websocket_t* w, uint32_t d) noexcept nogil:
    """Bytes went by that nobody saw: search for frames."""
    cdef half_t* h = &w.half[d]
    if h.state != W_OVER:
        h.state = W_RESYNC
    h.head_len = 0
    h.behind = 1
    h.missed = 1


cdef int websocket_open(ctx_t* ctx, flow_t* flow) noexcept:
    cdef websocket_t* w
    if ctx.handoff.exchange == NULL:
        return -1
    w = <websocket_t*>malloc(sizeof(websocket_t))
    if w == NULL:
        return -1
    memset(w, 0, sizeof(websocket_t))
    ctx.pool.bytes += sizeof(websocket_t)
    w.conn = flow.conn
    w.ex = ctx.handoff.exchange
    w.asked = ctx.handoff.asked
    w.extension = w.ex.notes
    if w.extension & CLIENT_BEGAN:
        begin_in_the_middle(w, flow.conn.dir_request)
        w.marks = MARK_REQUEST_LOST
    w.ex.flags |= EX_WEBSOCKET
    ctx.handoff.exchange = NULL
    flow.state = w
    if not exchange_waits(ctx, flow.conn, w.ex):
        shake(ctx, flow, w)
    return 0


cdef void give_up(ctx_t* ctx, flow_t* flow, websocket_t* w, uint32_t marks) noexcept:
    """Record what waits as it stands, with `marks`."""
    cdef uint32_t i
    for i in range(2):
        message_stands(ctx, flow, w, &w.half[i], side_of(w, i), w.half[i].last_ns)
    if not w.shook:
        w.ex.marks |= marks
        shake(ctx, flow, w)
    w.marks |= marks
    if w.ex.flags & EX_LAST and w.ex.part:
        record_end(ctx, flow, w, last_ns(w))
    else:
        record_events(ctx, flow, w, last_ns(w), True)
    w.marks = 0


cdef void websocket_end(ctx_t* ctx, flow_t* flow, uint32_t d) noexcept:
    pass


cdef void websocket_close(ctx_t* ctx, flow_t* flow, uint32_t marks) noexcept:
    cdef websocket_t* w = <websocket_t*>flow.state
    cdef uint32_t i
    w.ex.flags |= EX_LAST
    give_up(ctx, flow, w, marks)
    for i in range(2):
        buf_free(&ctx.pool, &w.half[i].body)
        inflate_free(&ctx.pool, &w.half[i].inflater)
    buf_free(&ctx.pool, &w.events)
    exchange_free(ctx, w.ex)
    ctx.pool.bytes -= sizeof(websocket_t)
    free(w)
    flow.state = NULL


cdef void websocket_rejoin(ctx_t* ctx, flow_t* flow, uint32_t marks) noexcept:
    """Frames are searched for; what both have agreed on stays."""
    cdef websocket_t* w = <websocket_t*>flow.state
    cdef uint32_t i
    give_up(ctx, flow, w, marks)
    for i in range(2):
        begin_in_the_middle(w, i)
        inflate_free(&ctx.pool, &w.half[i].inflater)


cdef uint64_t websocket_idle(ctx_t* ctx, flow_t* flow, uint64_t now) noexcept:
    cdef websocket_t* w = <websocket_t*>flow.state
    overdue(ctx, flow, w, now)
    return events_due(w) if events_due(w) > now else 0      # else something holds them back


cdef uint64_t websocket_unwanted(ctx_t* ctx, flow_t* flow, uint32_t d, uint64_t pos) noexcept nogil:
    """The rest of a frame of a message beyond its cap, unless later ones may refer to it."""
    cdef websocket_t* w = <websocket_t*>flow.state
    cdef half_t* h = &w.half[d]
    if h.state == W_OVER:
        return <uint64_t>-1
    if h.state == W_DATA and (h.cut or h.message == 0) and (not h.compressed or h.behind):
        return pos + h.remaining
    return 0


cdef void websocket_told(ctx_t* ctx, flow_t* flow, fact_t fact) noexcept:
    cdef websocket_t* w = <websocket_t*>flow.state
    if fact == FACT_RELEASED:
        shake(ctx, flow, w)
        record_events(ctx, flow, w, last_ns(w), True)


cdef uint64_t websocket_rest(const flow_t* flow) noexcept nogil:
    """Never: the handshake goes with it."""
    return <uint64_t>NOT_AT_REST


cdef int websocket_resume(ctx_t* ctx, flow_t* flow, uint64_t word) noexcept:
    return -1


cdef const char* REASONS[4]        # by bit of enum malformed
REASONS[0] = b"websocket_frame"
REASONS[1] = b"websocket_mask"
REASONS[2] = b"websocket_deflate"
REASONS[3] = NULL


cdef layer_t LAYER
LAYER.name = b"websocket"
LAYER.reasons = <const char* const*>REASONS
LAYER.joins = 0
LAYER.detect = websocket_detect
LAYER.answers = NULL
LAYER.open = websocket_open
LAYER.data = websocket_data
LAYER.hole = websocket_hole
LAYER.end = websocket_end
LAYER.rejoin = websocket_rejoin
LAYER.idle = websocket_idle
LAYER.unwanted = websocket_unwanted
LAYER.told = websocket_told
LAYER.rest = websocket_rest
LAYER.resume = websocket_resume
LAYER.close = websocket_close


cdef const layer_t* websocket_layer() noexcept nogil:
    return &LAYER


def websocket_reason_words():
    """The reasons that may follow `ambiguous_framing:` in records of WebSocket messages."""
    return [REASONS[i].decode() for i in range(3)]
