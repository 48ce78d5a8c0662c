"""The framing of one direction of HTTP/2 (RFC 9113 sections 4 and 6). streams.pyx says what belongs to which stream.

Each direction is a `half_t` in one of these states. A hole is an input like any other:

    state        a byte does                              a hole of n bytes does
    PREFACE      compared with the client's preface       framing lost -> RESYNC
    FRAME        part of a frame's nine bytes             framing lost -> RESYNC
    PAD_LENGTH   how much of a DATA frame is padding      n <= rest of the frame: its body is missing; more: RESYNC
    BODY         counted, kept up to the cap              n <= rest of the frame: exact; more: RESYNC
    KEEP         kept until the payload is whole          n <= rest of the frame: what it said is lost; more: RESYNC
    SKIP         nothing                                  n <= rest of the frame: nothing; more: RESYNC
    RESYNC       skipped, unless an event begins          skipped
                 with what only frames look like

A header block that is lost makes the table of its direction unknown (hpack.pyx), nothing else. Where framing is lost, bodies
of that direction have bytes missing, and nobody knows which streams began or ended in between.

Complexity: every byte is looked at once (a payload that arrives in pieces: at most twice).
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memset

from collector.shards.http.exchanges cimport exchange_body, exchange_lost, message_of, RESPONSE, side_t
from collector.shards.http.fields cimport MAX_FIELDS
from collector.shards.http.message cimport exchange_t
from collector.shards.layers.http2.fields cimport read_fields
from collector.shards.layers.http2.hpack cimport *
from collector.shards.layers.http2.state cimport *
from collector.shards.layers.http2.streams cimport *
from collector.shards.layers.stack cimport flow_data, flow_hole
from collector.shards.marks cimport MARK_AMBIGUOUS
from collector.shards.memory cimport buf_append, buf_free, buf_reserve, buf_t
from collector.shards.receive cimport receive_clear
from collector.shards.state cimport *

cdef enum:
    SETTING_HEADER_TABLE_SIZE = 1
    SETTING_MAX_FRAME_SIZE = 5
    # A frame that is found by searching has a number that is not so far beyond the newest, nor one that few ever get to.
    STREAMS_AHEAD = 4000
    MOST_STREAM = 1 << 28

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

# The shard is one thread, and a head is used up before the next is decoded.
cdef head_t HEAD
cdef hpack_field_t[512] FOUND

# What section 6 says of each type: flags, and whether it belongs to a stream.
cdef uint8_t[10] FLAGS
FLAGS[FRAME_DATA] = FLAG_END_STREAM | FLAG_PADDED
FLAGS[FRAME_HEADERS] = FLAG_END_STREAM | FLAG_END_HEADERS | FLAG_PADDED | FLAG_PRIORITY
FLAGS[FRAME_PRIORITY] = 0
FLAGS[FRAME_RST_STREAM] = 0
FLAGS[FRAME_SETTINGS] = FLAG_ACK
FLAGS[FRAME_PUSH_PROMISE] = FLAG_END_HEADERS | FLAG_PADDED
FLAGS[FRAME_PING] = FLAG_ACK
FLAGS[FRAME_GOAWAY] = 0
FLAGS[FRAME_WINDOW_UPDATE] = 0
FLAGS[FRAME_CONTINUATION] = FLAG_END_HEADERS


# ---- one frame's header

cdef inline frame_t frame_of(const uint8_t* p) noexcept nogil:
    cdef frame_t f
    f.length = <uint32_t>p[0] << 16 | <uint32_t>p[1] << 8 | p[2]
    f.type = p[3]
    f.flags = p[4]
    f.stream = (<uint32_t>p[5] << 24 | <uint32_t>p[6] << 16 | <uint32_t>p[7] << 8 | p[8]) & 0x7FFFFFFF
    return f


cdef bint as_specified(const frame_t* f) noexcept nogil:
    """Stream and length are such as the type may have (section 6)."""
    if f.type == FRAME_SETTINGS or f.type == FRAME_PING or f.type == FRAME_GOAWAY:
        if f.stream != 0:
            return False
        if f.type == FRAME_SETTINGS:
            return f.length % 6 == 0 and (f.length == 0 or not f.flags & FLAG_ACK)
        return f.length == 8 if f.type == FRAME_PING else f.length >= 8
    if f.type == FRAME_WINDOW_UPDATE:
        return f.length == 4
    if f.type >= FRAMES:
        return True
    if f.stream == 0:
        return False
    if f.type == FRAME_RST_STREAM:
        return f.length == 4
    if f.type == FRAME_PRIORITY:
        return f.length == 5
    if f.type == FRAME_DATA or f.type == FRAME_HEADERS:
        return f.length >= (<uint32_t>1 if f.flags & FLAG_PADDED else 0) + (5 if (
            f.type == FRAME_HEADERS and f.flags & FLAG_PRIORITY) else 0)
    if f.type == FRAME_PUSH_PROMISE:
        return f.length >= (<uint32_t>5 if f.flags & FLAG_PADDED else 4)
    return True


cdef bint looks_like_frames(const uint8_t* p, size_t n, whose_t whose, uint32_t newest, uint32_t promised) noexcept nogil:
    """Do these bytes, the first of an event, look like frames and like nothing else? As many of them are looked at as there
    are; the last may be longer than the event. `newest`, `promised`: numbers of the newest streams, 0 when none is known."""
    cdef size_t at = 0
    cdef uint32_t frames = 0
    cdef frame_t f
    while n - at >= FRAME_HEADER_BYTES and frames < 8:
        f = frame_of(p + at)
        if (f.type >= FRAMES or f.flags & ~FLAGS[f.type] or f.length > FRAME_LEAST or p[at + 5] & 0x80
                or not as_specified(&f)):
            return False
        if f.type == FRAME_PUSH_PROMISE and (whose == OF_CLIENT or f.stream & 1 == 0):
            return False
        if (f.stream & 1 == 0 and f.stream != 0 and f.type != FRAME_PRIORITY
                and (whose == OF_CLIENT or (promised and f.stream > promised))):
            return False
        if f.stream > MOST_STREAM or (newest and f.stream & 1 and f.stream > newest + STREAMS_AHEAD):
            return False
        if f.type == FRAME_SETTINGS and f.length > SETTINGS_MOST:
            return False
        if f.type == FRAME_CONTINUATION and frames == 0:
            return False        # what it continues is not here
        if f.type == FRAME_HEADERS and f.length == 0:
            return False
        at += FRAME_HEADER_BYTES + f.length
        frames += 1
        if at >= n:
            break
    return frames != 0


cdef whose_t who_sends(ctx_t* ctx, const uint8_t* p, size_t n) noexcept:
    """Whose frames are these? What the first head that is whole among them has says so."""
    cdef hpack_t table
    cdef buf_t text
    cdef frame_t f
    cdef uint8_t overflow = 0
    cdef size_t at = 0, begin, end
    cdef int count
    while n - at > FRAME_HEADER_BYTES:
        f = frame_of(p + at)
        begin = at + FRAME_HEADER_BYTES
        at = end = begin + f.length
        if at > n:
            break
        if f.type != FRAME_HEADERS or not f.flags & FLAG_END_HEADERS:
            continue
        if f.flags & FLAG_PADDED:
            end -= p[begin]
            begin += 1
        if f.flags & FLAG_PRIORITY:
            begin += 5
        if begin >= end or end > n:
            continue
        hpack_init(&table)
        hpack_allow(&table, HPACK_KEPT_BYTES)
        hpack_miss(&table)
        memset(&text, 0, sizeof(buf_t))
        count = hpack_decode(&ctx.pool, &table, p + begin, end - begin, &text, FOUND, MAX_FIELDS, ctx.header_bytes,
                             &overflow)
        if count >= 0:
            read_fields(&HEAD, FOUND, count, overflow, text.data + text.len)
        buf_free(&ctx.pool, &text)
        hpack_free(&ctx.pool, &table)
        if count < 0 or HEAD.bad:
            return OF_NOBODY
        if HEAD.pseudo:
            return OF_SERVER if HEAD.pseudo == PSEUDO_STATUS else OF_CLIENT
    return OF_NOBODY


# ---- losses

cdef void drop_frame(ctx_t* ctx, half_t* h) noexcept:
    """Forget what was kept of a frame and of a header block."""
    receive_clear(&ctx.pool, &h.part)
    buf_free(&ctx.pool, &h.block)
    h.in_block = BLOCK_NONE
    h.current = NULL


cdef void lose_framing(ctx_t* ctx, http2_t* c, uint32_t d, bint lost, uint64_t ts) noexcept:
    """What comes next in this direction is not known: skip to something that looks like frames. `lost`: on the way, else it
    was not copied."""
    cdef half_t* h = &c.half[d]
    ctx.counters[C_SKIPPED_BYTES] += h.part.bytes.len + h.block.len
    drop_frame(ctx, h)
    h.state = H_RESYNC
    h.lost = lost
    h.missed = 1
    hpack_miss(&h.table)
    settings_unknown(c, d)
    bytes_missing(ctx, c, side_of(c, d), lost, ts)


cdef void settings_unknown(http2_t* c, uint32_t d) noexcept nogil:
    """Settings may have gone by in direction d: they are about what goes the other way."""
    hpack_allow(&c.half[1 - d].table, HPACK_KEPT_BYTES if c.half[1 - d].table.limit < HPACK_KEPT_BYTES
                else c.half[1 - d].table.limit)
    c.half[1 - d].frame_most = FRAME_MOST


cdef void block_lost(ctx_t* ctx, http2_t* c, uint32_t d, const frame_t* frame, bint lost, uint64_t ts) noexcept:
    """Of a header block a part is missing: `frame` began it, and its rest may still come."""
    cdef half_t* h = &c.half[d]
    buf_free(&ctx.pool, &h.block)
    h.missed = 1
    hpack_miss(&h.table)
    if frame.type == FRAME_HEADERS:
        head_lost(ctx, c, d, frame, lost, ts)


cdef void payload_lost(ctx_t* ctx, http2_t* c, uint32_t d, bint lost, uint64_t ts) noexcept:
    """The payload of the frame that is being read is not whole."""
    cdef half_t* h = &c.half[d]
    cdef frame_t f = h.frame
    receive_clear(&ctx.pool, &h.part)
    if f.type == FRAME_SETTINGS:
        settings_unknown(c, d)
    elif f.type == FRAME_HEADERS or f.type == FRAME_PUSH_PROMISE:
        block_lost(ctx, c, d, &f, lost, ts)
        h.in_block = BLOCK_NONE if f.flags & FLAG_END_HEADERS else BLOCK_LOST
    elif f.type == FRAME_CONTINUATION:
        if h.in_block == BLOCK_MORE:
            block_lost(ctx, c, d, &h.begun, lost, ts)
        else:
            hpack_miss(&h.table)
        h.in_block = BLOCK_NONE if f.flags & FLAG_END_HEADERS else BLOCK_LOST


cdef void skip_bytes(ctx_t* ctx, http2_t* c, uint32_t d, uint64_t n, bint lost, uint64_t ts) noexcept:
    """A hole of `n` bytes."""
    cdef half_t* h = &c.half[d]
    cdef uint32_t body
    if h.state == H_RESYNC:
        h.lost = h.lost or lost
        bytes_missing(ctx, c, side_of(c, d), lost, ts)       # of streams that began since, too
        return
    if h.state == H_PREFACE or h.state == H_FRAME or n > h.remaining:
        lose_framing(ctx, c, d, lost, ts)
        return
    if h.state == H_PAD_LENGTH:         # how much of it is padding is not known
        h.state = H_BODY
        h.padding = 0
    if h.state == H_BODY:
        body = h.remaining - h.padding if h.remaining > h.padding else 0
        if h.current != NULL and h.current.inner != NULL:
            flow_hole(ctx, <flow_t*>h.current.inner, d, n if n < body else body, lost, ts)
        elif h.current != NULL:
            exchange_lost(ctx, c.flow, h.current, side_of(c, d), n if n < body else body, lost, ts)
    elif h.state == H_KEEP:
        payload_lost(ctx, c, d, lost, ts)
        h.state = H_SKIP
    h.remaining -= <uint32_t>n
    if h.remaining == 0:
        frame_ends(ctx, c, d, ts)


# ---- what a frame is

cdef void malformed(ctx_t* ctx, http2_t* c, uint32_t d, const frame_t* f, uint64_t ts) noexcept:
    """Not as section 6 has it; the ends of the connection will say so. Its length is what it says."""
    cdef exchange_t* ex = find_stream(ctx, c, f.stream, ts) if f.stream else NULL
    if ex != NULL:
        ex.marks |= MARK_AMBIGUOUS
        ex.reasons |= BAD_FRAME
    if f.type == FRAME_HEADERS or f.type == FRAME_PUSH_PROMISE or f.type == FRAME_CONTINUATION:
        hpack_miss(&c.half[d].table)


cdef void begin_frame(ctx_t* ctx, http2_t* c, uint32_t d, uint64_t ts) noexcept:
    """Its nine bytes were read."""
    cdef half_t* h = &c.half[d]
    cdef frame_t* f = &h.frame
    h.frame_ns = ts
    h.remaining = f.length
    h.padding = 0
    h.state = H_SKIP
    if f.length > h.frame_most and f.length > FRAME_LEAST:
        lose_framing(ctx, c, d, True, ts)       # no end of a connection would read it
        return
    if h.in_block != BLOCK_NONE and (f.type != FRAME_CONTINUATION or f.stream != h.begun.stream):
        if h.in_block == BLOCK_MORE:
            block_lost(ctx, c, d, &h.begun, True, ts)
        h.in_block = BLOCK_NONE
    if not as_specified(f) or (f.type == FRAME_CONTINUATION and h.in_block == BLOCK_NONE):
        malformed(ctx, c, d, f, ts)
    elif f.type == FRAME_DATA:
        h.current = find_stream(ctx, c, f.stream, ts)
        if h.current != NULL and has_ended(h.current, side_of(c, d)):
            if f.length and not h.current.notes & NOTE_ORPHAN:
                malformed(ctx, c, d, f, ts)
            h.current = NULL        # section 5.1: no part of what was ended
        elif h.current != NULL and not h.current.resp.started and side_of(c, d) == RESPONSE:
            head_unseen(h.current, ts)
        h.state = H_PAD_LENGTH if f.flags & FLAG_PADDED else H_BODY
    elif f.type == FRAME_HEADERS or f.type == FRAME_RST_STREAM or f.type == FRAME_PUSH_PROMISE:
        h.state = H_KEEP
    elif f.type == FRAME_CONTINUATION:
        if h.in_block == BLOCK_MORE:
            h.state = H_KEEP
        elif f.flags & FLAG_END_HEADERS:
            h.in_block = BLOCK_NONE
    elif f.type == FRAME_SETTINGS:
        if f.length <= SETTINGS_MOST:
            h.state = H_KEEP
        else:
            settings_unknown(c, d)
    if h.remaining == 0:
        if h.state == H_KEEP:
            read_payload(ctx, c, d, <const uint8_t*>PREFACE, ts)    # no byte of it is read
        frame_ends(ctx, c, d, ts)


cdef void frame_ends(ctx_t* ctx, http2_t* c, uint32_t d, uint64_t ts) noexcept:
    cdef half_t* h = &c.half[d]
    cdef exchange_t* ex = h.current
    cdef side_t side = side_of(c, d)
    h.current = NULL
    if h.state == H_RESYNC:
        return
    h.state = H_FRAME
    if ex != NULL and h.frame.type == FRAME_DATA and h.frame.flags & FLAG_END_STREAM:
        message_of(ex, side).last_ns = ts
        if not message_of(ex, side).done:
            side_ends(ctx, c, ex, side)


cdef void read_payload(ctx_t* ctx, http2_t* c, uint32_t d, const uint8_t* p, uint64_t ts) noexcept:
    """A payload that is whole."""
    cdef half_t* h = &c.half[d]
    cdef frame_t f = h.frame
    cdef uint32_t n = f.length, padding = 0
    cdef exchange_t* ex
    if f.type == FRAME_SETTINGS:
        read_settings(c, d, p, n)
        return
    if f.type == FRAME_RST_STREAM:
        ex = find_stream(ctx, c, f.stream, ts)
        if ex != NULL:
            message_of(ex, side_of(c, d)).last_ns = ts
            stream_reset(ctx, c, ex)
        return
    if f.type == FRAME_CONTINUATION:
        continue_block(ctx, c, d, p, n, ts)
        return
    h.begun = f
    h.block_ns = h.frame_ns
    h.promised = 0
    if f.flags & FLAG_PADDED:
        padding = p[0]
        p += 1
        n -= 1
    if f.type == FRAME_PUSH_PROMISE:
        h.promised = (<uint32_t>p[0] << 24 | <uint32_t>p[1] << 16 | <uint32_t>p[2] << 8 | p[3]) & 0x7FFFFFFF
        p += 4
        n -= 4
    elif f.flags & FLAG_PRIORITY:
        p += 5
        n -= 5
    if padding > n:
        malformed(ctx, c, d, &f, ts)
        return
    n -= padding
    if f.flags & FLAG_END_HEADERS:
        block_here(ctx, c, d, p, n, ts)
        return
    h.in_block = BLOCK_MORE
    if buf_reserve(&ctx.pool, &h.block, n + 1) < 0 or buf_append(&ctx.pool, &h.block, p, n) < 0:
        block_lost(ctx, c, d, &f, True, ts)
        h.in_block = BLOCK_LOST


cdef void continue_block(ctx_t* ctx, http2_t* c, uint32_t d, const uint8_t* p, uint32_t n, uint64_t ts) noexcept:
    cdef half_t* h = &c.half[d]
    cdef buf_t block
    if h.block.len + n > BLOCK_MOST or buf_append(&ctx.pool, &h.block, p, n) < 0:
        block_lost(ctx, c, d, &h.begun, False, ts)
        h.in_block = BLOCK_LOST
    if not h.frame.flags & FLAG_END_HEADERS:
        return
    if h.in_block == BLOCK_MORE:
        block = h.block
        memset(&h.block, 0, sizeof(buf_t))
        block_here(ctx, c, d, <const uint8_t*>block.data, block.len, ts)
        buf_free(&ctx.pool, &block)
    h.in_block = BLOCK_NONE


cdef void block_here(ctx_t* ctx, http2_t* c, uint32_t d, const uint8_t* p, uint32_t n, uint64_t ts) noexcept:
    """A header block that is whole; h.begun says whose."""
    cdef half_t* h = &c.half[d]
    cdef frame_t begun = h.begun
    cdef buf_t text
    cdef uint8_t overflow = 0
    cdef int count
    memset(&text, 0, sizeof(buf_t))
    count = hpack_decode(&ctx.pool, &h.table, p, n, &text, FOUND, MAX_FIELDS, ctx.header_bytes, &overflow)
    if count < 0:
        if begun.type == FRAME_HEADERS:
            if not (h.missed or c.half[1 - d].missed):
                malformed(ctx, c, d, &begun, ts)
            h.missed = 1
            head_lost(ctx, c, d, &begun, True, ts)
    else:
        read_fields(&HEAD, FOUND, count, overflow, text.data + text.len)
        if begun.type == FRAME_HEADERS:
            head_here(ctx, c, d, &begun, &HEAD, h.block_ns, ts)
        elif side_of(c, d) == RESPONSE:
            promise_here(ctx, c, h.promised, &HEAD, h.block_ns, ts)
    buf_free(&ctx.pool, &text)


cdef void read_settings(http2_t* c, uint32_t d, const uint8_t* p, uint32_t n) noexcept nogil:
    """Section 6.5. They say what the sender reads, that is, what goes the other way; the size of the table counts once the
    other end has acknowledged it, and by then it has said what it makes of it (RFC 7541 section 4.2)."""
    cdef half_t* other = &c.half[1 - d]
    cdef half_t* h = &c.half[d]
    cdef uint32_t i, value
    if h.frame.flags & FLAG_ACK:
        if h.allowed_new:
            h.allowed_new = 0
            hpack_allow(&h.table, h.allowed)
        return
    for i in range(0, n - n % 6, 6):
        value = <uint32_t>p[i + 2] << 24 | <uint32_t>p[i + 3] << 16 | <uint32_t>p[i + 4] << 8 | p[i + 5]
        if p[i] == 0 and p[i + 1] == SETTING_HEADER_TABLE_SIZE:
            other.allowed = value
            other.allowed_new = 1
            if value > other.table.limit:
                hpack_allow(&other.table, value)
        elif p[i] == 0 and p[i + 1] == SETTING_MAX_FRAME_SIZE and FRAME_LEAST <= value <= FRAME_MOST:
            if value > other.frame_most:
                other.frame_most = value


# ---- bytes

cdef size_t read_header(ctx_t* ctx, http2_t* c, uint32_t d, const uint8_t* p, size_t n, uint64_t ts) noexcept:
    cdef half_t* h = &c.half[d]
    cdef size_t before = h.part.bytes.len
    cdef size_t take = FRAME_HEADER_BYTES - before
    if before == 0 and n >= FRAME_HEADER_BYTES:
        h.frame = frame_of(p)
        begin_frame(ctx, c, d, ts)
        return FRAME_HEADER_BYTES
    if take > n:
        take = n
    if before == 0:
        h.part.first_ns = ts
    if buf_append(&ctx.pool, &h.part.bytes, p, take) < 0:
        lose_framing(ctx, c, d, True, ts)
        return n
    if h.part.bytes.len == FRAME_HEADER_BYTES:
        h.frame = frame_of(<const uint8_t*>h.part.bytes.data)
        ts = h.part.first_ns
        receive_clear(&ctx.pool, &h.part)
        begin_frame(ctx, c, d, ts)
    return take


cdef size_t read_body(ctx_t* ctx, http2_t* c, uint32_t d, const uint8_t* p, size_t n, uint64_t ts) noexcept:
    cdef half_t* h = &c.half[d]
    cdef uint32_t take = h.remaining if h.remaining < n else <uint32_t>n
    cdef uint32_t body = h.remaining - h.padding if h.remaining > h.padding else 0
    if body > take:
        body = take
    if h.current == NULL:
        ctx.counters[C_SKIPPED_BYTES] += body
    elif body and h.current.inner != NULL:
        message_of(h.current, side_of(c, d)).last_ns = ts
        flow_data(ctx, <flow_t*>h.current.inner, d, p, body, ts)
    elif body:
        exchange_body(ctx, c.flow, h.current, side_of(c, d), p, body, ts)
    h.remaining -= take
    if h.remaining == 0:
        frame_ends(ctx, c, d, ts)
    return take


cdef size_t read_kept(ctx_t* ctx, http2_t* c, uint32_t d, const uint8_t* p, size_t n, uint64_t ts) noexcept:
    cdef half_t* h = &c.half[d]
    cdef uint32_t take = h.remaining if h.remaining < n else <uint32_t>n
    cdef buf_t payload
    h.remaining -= take
    if h.part.bytes.len == 0 and h.remaining == 0:
        read_payload(ctx, c, d, p, ts)
        frame_ends(ctx, c, d, ts)
        return take
    if buf_append(&ctx.pool, &h.part.bytes, p, take) < 0:
        payload_lost(ctx, c, d, True, ts)
        h.state = H_SKIP
    elif h.remaining == 0:
        payload = h.part.bytes
        memset(&h.part.bytes, 0, sizeof(buf_t))
        read_payload(ctx, c, d, <const uint8_t*>payload.data, ts)
        buf_free(&ctx.pool, &payload)
    if h.remaining == 0:
        frame_ends(ctx, c, d, ts)
    return take


cdef feed_t read_preface(ctx_t* ctx, http2_t* c, uint32_t d, const uint8_t* p, size_t n, uint64_t ts, size_t* used) noexcept:
    cdef half_t* h = &c.half[d]
    cdef uint32_t before = h.part.bytes.len
    cdef uint32_t take = PREFACE_BYTES - before
    used[0] = 0
    if take > n:
        take = <uint32_t>n
    if memcmp(p, PREFACE + before, take) != 0:
        ctx.handoff.kept = h.part.bytes
        ctx.handoff.kept_dir = <uint8_t>d
        ctx.handoff.kept_ns = h.part.first_ns
        memset(&h.part.bytes, 0, sizeof(buf_t))
        return FEED_NOT_MINE
    used[0] = take
    if before + take == PREFACE_BYTES:
        receive_clear(&ctx.pool, &h.part)
        h.state = H_FRAME
        return FEED_ALL
    if before == 0:
        h.part.first_ns = ts
    if buf_append(&ctx.pool, &h.part.bytes, p, take) < 0:
        lose_framing(ctx, c, d, True, ts)
    return FEED_ALL


cdef feed_t read_frames(ctx_t* ctx, http2_t* c, uint32_t d, const uint8_t* p, size_t n, uint64_t ts) noexcept:
    """Bytes of one event, behind the preface."""
    cdef half_t* h = &c.half[d]
    cdef size_t used
    if h.state == H_RESYNC:
        bytes_missing(ctx, c, side_of(c, d), h.lost, ts)
        if not looks_like_frames(p, n, OF_CLIENT if d == c.conn.dir_request else OF_SERVER, c.newest, c.promised):
            ctx.counters[C_SKIPPED_BYTES] += n
            return FEED_ALL
        ctx.counters[C_RESYNCS] += 1
        h.state = H_FRAME
    while n:
        if h.state == H_FRAME:
            used = read_header(ctx, c, d, p, n, ts)
        elif h.state == H_BODY:
            used = read_body(ctx, c, d, p, n, ts)
        elif h.state == H_KEEP:
            used = read_kept(ctx, c, d, p, n, ts)
        elif h.state == H_SKIP:
            used = h.remaining if h.remaining < n else n
            h.remaining -= <uint32_t>used
            if h.remaining == 0:
                frame_ends(ctx, c, d, ts)
        elif h.state == H_PAD_LENGTH:
            h.padding = p[0]
            h.remaining -= 1
            h.state = H_BODY
            used = 1
            if h.padding > h.remaining:
                malformed(ctx, c, d, &h.frame, ts)
                h.padding = h.remaining
            if h.remaining == 0:
                frame_ends(ctx, c, d, ts)
        else:
            ctx.counters[C_SKIPPED_BYTES] += n      # framing was lost on the way
            return FEED_ALL
        p += used
        n -= used
    return FEED_ALL
