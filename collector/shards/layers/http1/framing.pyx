"""The framing of one direction of HTTP/1.x (RFC 9112). pairing.pyx says which answer belongs to what.

Each direction is a `half_t` in one of these states. A byte moves it along, a hole is an input like any other:

    state          a byte does                             a hole of n bytes does
    START          part of a head; whole: next state       framing lost -> RESYNC
    BODY           counted, kept up to the cap             n <= remaining: skipped, exact; more: RESYNC behind it
    CHUNK_DATA     as BODY                                 as BODY
    CHUNK_SIZE     line to its LF; bad: RESYNC             framing lost -> RESYNC
    CHUNK_END      CRLF; bad: RESYNC                       framing lost -> RESYNC
    TRAILER        line by line to the empty one           framing lost -> RESYNC
    UNTIL_CLOSE    counted, kept up to the cap             counted
    HEAD_SKIP      looked at for the empty line            framing lost -> RESYNC
    RESYNC         skipped, unless an event begins with    skipped
                   something like a message

Behind 101 or CONNECT the connection is handed on (FEED_SWITCH).

Complexity: every byte is looked at once (a head that arrives in pieces: at most twice).
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memchr

from collector.shards.http.exchanges cimport exchange_body
from collector.shards.layers.http1.chunked cimport chunk_size
from collector.shards.layers.http1.head cimport find_head_end, parse_head, start_refused, trailer_line
from collector.shards.layers.http1.layer cimport http1_guess
from collector.shards.layers.http1.pairing cimport *
from collector.shards.layers.http1.startline cimport (
    looks_like_request, looks_like_response, may_be_request, tchar, usual_method)
from collector.shards.layers.http1.state cimport *
from collector.shards.layers.http2.frames cimport looks_like_frames, OF_NOBODY
from collector.shards.memory cimport buf_append, buf_free, buf_t
from collector.shards.receive cimport *
from collector.shards.state cimport *

cdef enum:
    CHUNK_LINE_LIMIT = 4096       # size and extensions of one chunk; nginx and node allow less


cdef head_t HEAD       # the shard is one thread, and a head is used up before the next is parsed


# ---- heads -------------------------------------------------------------------------------------------------------

cdef inline void head_is_here(ctx_t* ctx, http1_t* c, half_t* h, side_t side, uint64_t first_ns, uint64_t ts,
                              bint cut) noexcept:
    """HEAD was parsed."""
    if side == REQUEST:
        http1_request(ctx, c, h, &HEAD, first_ns, ts, cut)
    else:
        http1_response(ctx, c, h, &HEAD, first_ns, ts, cut)


cdef size_t read_start(ctx_t* ctx, http1_t* c, half_t* h, uint32_t d, const uint8_t* p, size_t n, uint64_t ts) noexcept:
    """Between messages or inside a head; on return either the head was handled or all was kept."""
    cdef side_t side = side_of(c, d)
    cdef half_t* asking = &c.half[c.conn.dir_request]
    cdef int64_t length
    cdef size_t blank = 0
    if (side == RESPONSE and not h.parked and c.ahead and h.part.bytes.len == 0 and awaiting(c) == NULL
            and not c.doubt and asking.state == H_START and not asking.ended):
        # A client's send returns after its answer was read by another thread: the kernel has counted the request's
        # bytes already, so this answer is not one that nobody has asked for.
        h.parked = 1
        h.part.first_ns = ts
    if h.parked:
        if (h.part.bytes.len + n <= <size_t>ctx.header_bytes + ctx.body_bytes
                and buf_append(&ctx.pool, &h.part.bytes, p, n) == 0):
            return n
        read_parked(ctx, c, d, ts)
        return 0        # nothing used; the state may be another one now
    if side == RESPONSE and asking.part.bytes.len and awaiting(c) == NULL and asking.state == H_START:
        # answered before the request's head was whole: refused, or the rest of it was lost
        salvage_head(ctx, c, asking, c.conn.dir_request, ts)
    if h.part.bytes.len:
        return read_rest_of_head(ctx, c, h, side, p, n, ts)
    length = parse_head(&HEAD, p, p + n, side == RESPONSE, False)
    if length > 0 and length <= ctx.header_bytes:       # the common case: a whole head in one event
        if side == REQUEST:
            while p[blank] == c'\r' or p[blank] == c'\n':
                blank += 1
            h.head_pos = c.conn.stream[d].end - n + blank
        elif ctx.orphan_responses:
            h.head_pos = c.conn.stream[d].end - n
        head_is_here(ctx, c, h, side, ts, ts, False)
        return <size_t>length
    while blank < n and (p[blank] == c'\r' or p[blank] == c'\n'):
        blank += 1
    if length < 0:
        ctx.counters[C_SKIPPED_BYTES] += n - blank
        if side == REQUEST and c.requests == 0 and c.conn.flags & CONN_PREAMBLE and foreign(p + blank, n - blank):
            not_http(ctx, c)
            c.left = 1
        else:
            bad_start(ctx, c, h, side)
        return n
    if blank == n:
        return n
    h.part.first_ns = ts
    h.head_pos = c.conn.stream[d].end - n + blank
    h.part.scan = 0
    h.start_seen = 0
    return blank + read_rest_of_head(ctx, c, h, side, p + blank, n - blank, ts)


cdef inline bint foreign(const uint8_t* p, size_t n) noexcept nogil:
    """Behind a preamble, at which the kernel has stopped looking: TLS or another binary protocol. Nobody reads it, and the
    kernel need not copy it. What is text may be a request that only some servers take for one."""
    return n != 0 and not tchar[p[0]]


cdef size_t read_rest_of_head(ctx_t* ctx, http1_t* c, half_t* h, side_t side, const uint8_t* p, size_t n,
                              uint64_t ts) noexcept:
    """A head that comes in pieces, or is longer than COLLECTOR_HEADER_BYTES: `n` more bytes of it."""
    cdef buf_t* part = &h.part.bytes
    cdef size_t before = part.len
    cdef size_t take = <size_t>ctx.header_bytes - before
    cdef int64_t length
    if take > n:
        take = n
    if buf_append(&ctx.pool, part, p, take) < 0:
        ctx.counters[C_SKIPPED_BYTES] += n
        lose_framing(ctx, c, h, side)
        return n
    length = find_head_end(<const uint8_t*>part.data, part.len, &h.part.scan)
    if length == 0:
        if start_refused(&HEAD, <const uint8_t*>part.data, <uint32_t>before, part.len, side == RESPONSE, &h.start_seen):
            # no head, however it goes on: what comes next may be one
            ctx.counters[C_SKIPPED_BYTES] += n - take
            bad_start(ctx, c, h, side)
            return n
        if part.len < ctx.header_bytes:
            return n
        # too long: take the fields that are here, look for the end without keeping anything
        length = parse_head(&HEAD, <const uint8_t*>part.data, <const uint8_t*>part.data + part.len, side == RESPONSE,
                            LINE_TOO)
        if length <= 0:
            ctx.counters[C_SKIPPED_BYTES] += n - take
            bad_start(ctx, c, h, side)
            return n
        h.part_parsed = part.len
        head_is_here(ctx, c, h, side, h.part.first_ns, ts, True)
        receive_clear(&ctx.pool, &h.part)
        return take
    if parse_head(&HEAD, <const uint8_t*>part.data, <const uint8_t*>part.data + length, side == RESPONSE, False) <= 0:
        ctx.counters[C_SKIPPED_BYTES] += n - take
        bad_start(ctx, c, h, side)
        return n
    part.len = 0        # still readable: HEAD points into it
    head_is_here(ctx, c, h, side, h.part.first_ns, ts, False)
    if part.len == 0:
        receive_clear(&ctx.pool, &h.part)
    return <size_t>length - before


cdef bint salvage_head(ctx_t* ctx, http1_t* c, half_t* h, uint32_t d, uint64_t ts) noexcept:
    """A head that will not become whole: the lines that are here, as a message without its rest (`headers_cut`).
    False when not even the start line is whole; then nothing is left of it."""
    cdef side_t side = side_of(c, d)
    cdef int64_t length = 0
    if h.part.bytes.len and not h.parked:
        length = parse_head(&HEAD, <const uint8_t*>h.part.bytes.data,
                            <const uint8_t*>h.part.bytes.data + h.part.bytes.len, side == RESPONSE, True)
    if length <= 0:
        if length < 0:
            not_http(ctx, c)
        lose_framing(ctx, c, h, side)       # the rest of that line is no message of its own
        return False
    h.part_parsed = h.part.bytes.len
    h.part.bytes.len = 0
    head_is_here(ctx, c, h, side, h.part.first_ns, ts, True)
    return True


cdef void read_parked(ctx_t* ctx, http1_t* c, uint32_t d, uint64_t ts) noexcept:
    """The request never came: read what was parked as an answer without request."""
    raise_doubt(c, DOUBT_REQUESTS)
    release_parked(ctx, c, d, ts)


cdef void release_parked(ctx_t* ctx, http1_t* c, uint32_t d, uint64_t ts) noexcept:
    """Read what was parked."""
    cdef buf_t held = receive_take(&c.half[d].part)
    c.half[d].parked = 0
    read_again(ctx, c, d, &held, ts)


cdef void read_again(ctx_t* ctx, http1_t* c, uint32_t d, buf_t* held, uint64_t ts) noexcept:
    """Read bytes that had waited, and free them. What is not HTTP's any more is handed on."""
    cdef size_t used = read_half(ctx, c, d, <const uint8_t*>held.data, held.len, ts)
    if used < held.len and c.rest.len == 0 and buf_append(&ctx.pool, &c.rest, held.data + used, held.len - used) == 0:
        c.rest_dir = <uint8_t>d
        c.rest_ns = ts
    buf_free(&ctx.pool, held)


cdef inline void not_http(ctx_t* ctx, http1_t* c) noexcept nogil:
    """Count the connection, once, if nothing on it was a message."""
    if c.requests == 0 and not c.not_http:
        c.not_http = 1
        ctx.counters[C_NOT_HTTP] += 1


cdef void bad_start(ctx_t* ctx, http1_t* c, half_t* h, side_t side) noexcept:
    """Where a message should begin there is none."""
    not_http(ctx, c)
    if c.requests == 0 and not c.conn.role:
        c.conn.dir_request = DIR_UNKNOWN        # the guess may have been wrong
        drop_part(ctx, h)
        h.state = H_RESYNC
        raise_doubt(c, DOUBT_ALL)
        return
    if side == RESPONSE:
        ambiguous(c, awaiting(c), AMB_START_LINE, RESPONSE)     # to some clients it is the answer: HTTP/0.9
    lose_framing(ctx, c, h, side)


cdef size_t read_head_skip(ctx_t* ctx, http1_t* c, half_t* h, uint32_t d, const uint8_t* p, size_t n,
                           uint64_t ts) noexcept:
    """To the empty line that ends an over-long head. Nothing is kept."""
    cdef side_t side = side_of(c, d)
    cdef size_t i
    for i in range(n):
        if p[i] == c'\n':
            if not h.inside_line:
                if h.current != NULL:
                    message_of(h.current, side).last_ns = ts
                lose_framing(ctx, c, h, side)
                return i + 1
            h.inside_line = 0
        elif p[i] != c'\r':
            h.inside_line = 1
    return n


# ---- bodies ------------------------------------------------------------------------------------------------------

cdef inline void add_body(ctx_t* ctx, http1_t* c, half_t* h, side_t side, const uint8_t* p, size_t n, uint64_t ts) noexcept:
    if h.current != NULL:
        exchange_body(ctx, c.flow, h.current, side, p, n, ts)
    else:
        ctx.counters[C_SKIPPED_BYTES] += n


cdef size_t read_body(ctx_t* ctx, http1_t* c, half_t* h, uint32_t d, const uint8_t* p, size_t n, uint64_t ts) noexcept:
    cdef side_t side = side_of(c, d)
    cdef size_t take = n if n < h.remaining else <size_t>h.remaining
    add_body(ctx, c, h, side, p, take, ts)
    advance_body(ctx, c, h, side, take)
    return take


cdef size_t read_until_close(ctx_t* ctx, http1_t* c, half_t* h, uint32_t d, const uint8_t* p, size_t n,
                             uint64_t ts) noexcept:
    add_body(ctx, c, h, side_of(c, d), p, n, ts)
    return n


cdef void bad_chunk(ctx_t* ctx, http1_t* c, half_t* h, side_t side, size_t skipped) noexcept:
    """Framing is lost, from `skipped` bytes ago on."""
    ctx.counters[C_SKIPPED_BYTES] += skipped
    ambiguous(c, h.current, AMB_BAD_CHUNK, side)
    lose_framing(ctx, c, h, side)


cdef size_t read_chunk_size(ctx_t* ctx, http1_t* c, half_t* h, uint32_t d, const uint8_t* p, size_t n,
                            uint64_t ts) noexcept:
    cdef side_t side = side_of(c, d)
    cdef const uint8_t* line = NULL
    cdef size_t used = 0, length = 0
    cdef size_t before = h.part.bytes.len
    cdef int64_t size
    cdef uint32_t ambiguity = 0
    cdef line_t said = receive_line(&ctx.pool, &h.part, p, n, CHUNK_LINE_LIMIT, &used, &line, &length)
    if said == LINE_MORE:
        return n
    if said != LINE_WHOLE:
        h.part.bytes.len = <uint32_t>before     # the rest of it is counted with `n`
        bad_chunk(ctx, c, h, side, n)
        return n
    size = chunk_size(line, line + length, &ambiguity)
    receive_clear(&ctx.pool, &h.part)
    if ambiguity:
        ambiguous(c, h.current, ambiguity, side)
    if size < 0:
        bad_chunk(ctx, c, h, side, before + n)
        return n
    if size == 0:
        h.state = H_TRAILER
        h.inside_line = 0
    else:
        h.state = H_CHUNK_DATA
        h.remaining = <uint64_t>size
    return used


cdef size_t read_chunk_end(ctx_t* ctx, http1_t* c, half_t* h, uint32_t d, const uint8_t* p, size_t n,
                           uint64_t ts) noexcept:
    cdef side_t side = side_of(c, d)
    if p[0] == c'\n':
        if not h.inside_line:
            ambiguous(c, h.current, AMB_BARE_LF, side)
        h.state = H_CHUNK_SIZE
        return 1
    if p[0] == c'\r' and not h.inside_line:
        h.inside_line = 1
        return 1
    bad_chunk(ctx, c, h, side, n)
    return n


cdef size_t read_trailer(ctx_t* ctx, http1_t* c, half_t* h, uint32_t d, const uint8_t* p, size_t n,
                         uint64_t ts) noexcept:
    """One line of a trailer section, or the piece of it that is here. It is judged like a line of a head, not kept."""
    cdef side_t side = side_of(c, d)
    cdef const uint8_t* line = NULL
    cdef size_t used = 0, length = 0
    cdef uint32_t ambiguity = 0
    cdef bint last = False
    cdef line_t said
    if h.inside_line:                       # of one that is too long to be kept: look for its end
        line = <const uint8_t*>memchr(p, c'\n', n)
        h.inside_line = line == NULL
        return n if line == NULL else <size_t>(line - p) + 1
    said = receive_line(&ctx.pool, &h.part, p, n, CHUNK_LINE_LIMIT, &used, &line, &length)
    if said == LINE_MORE:
        return used
    if said == LINE_WHOLE:
        last = trailer_line(line, line + length, &ambiguity)
    else:
        # what it begins with is judged, the same bytes however it was cut; its end was not seen
        if said == LINE_LONG:
            trailer_line(line, line + length, &ambiguity)
            ambiguity &= ~<uint32_t>(AMB_BARE_LF | AMB_BARE_CR)
        h.inside_line = p[used - 1] != c'\n'
    receive_clear(&ctx.pool, &h.part)
    if ambiguity:
        ambiguous(c, h.current, ambiguity, side)
    if last:
        if h.current != NULL:
            message_of(h.current, side).last_ns = ts
        message_done(ctx, c, h, side)
    return used


# ---- under doubt -------------------------------------------------------------------------------------------------

cdef bint instead_of_body(ctx_t* ctx, http1_t* c, half_t* h, const uint8_t* p, size_t n) noexcept:
    """After Expect: 100-continue the client may send its next request instead of the body, and a body may look like one:
    what follows is in doubt. True when it is taken for a request."""
    if not c.doubt and not refused(h):
        if looks_like_request(p, p + n):
            h.current.notes |= NOTE_BODY    # a refusal may come
        return False
    if not may_be_request(p, p + n) or (h.state == H_CHUNK_SIZE and not usual_method(p, p + n)):
        return False
    doubt_framing(c, REQUEST)
    if not usual_method(p, p + n):
        return False
    h.current.marks |= MARK_REQUEST_INCOMPLETE
    message_done(ctx, c, h, REQUEST)
    return True


cdef inline bint looks_like_message(side_t side, const uint8_t* p, size_t n) noexcept nogil:
    return looks_like_request(p, p + n) if side == REQUEST else looks_like_response(p, p + n)


cdef inline bint begins_again(http1_t* c, half_t* h, side_t side, bint event_start, const uint8_t* p,
                              size_t n) noexcept nogil:
    """Inside a message, there is doubt, and what comes looks like the beginning of another one.

    The message may be none (found by searching, it may be part of a body): then its length means nothing, and it must not
    swallow real ones.
    """
    if (not event_start or not framing_doubt(c, side) or h.state == H_RESYNC
            or (h.state == H_START and (h.part.bytes.len == 0 or h.parked))):
        return False
    return looks_like_message(side, p, n)


cdef size_t read_first_of_body(ctx_t* ctx, http1_t* c, uint32_t d, half_t* h, const uint8_t* p, size_t n,
                               uint64_t ts) noexcept:
    """The answer may be one to an unseen HEAD: then what follows it is no body but the next answer. So the first bytes wait
    in `part` until they say which."""
    cdef const char* start = b"HTTP/1."
    cdef size_t i = 0
    cdef buf_t held
    while h.part.bytes.len + i < 7 and i < n and p[i] == <uint8_t>start[h.part.bytes.len + i]:
        i += 1
    if i and buf_append(&ctx.pool, &h.part.bytes, p, i) < 0:
        i = 0
    elif h.part.bytes.len == 7:
        held = receive_take(&h.part)
        h.body_begins = 0
        abandon(ctx, c, h, d, ts)
        h.part.bytes = held
        h.part.first_ns = ts
        h.head_pos = c.conn.stream[d].end - n + i - 7
        h.part.scan = 0
        h.start_seen = 0
        return i
    if i < n:
        it_is_a_body(ctx, c, d, h, ts)
    return i


cdef void it_is_a_body(ctx_t* ctx, http1_t* c, uint32_t d, half_t* h, uint64_t ts) noexcept:
    """What waited is its beginning."""
    cdef buf_t held
    h.body_begins = 0
    if h.part.bytes.len:
        held = receive_take(&h.part)
        read_again(ctx, c, d, &held, ts)


cdef void abandon(ctx_t* ctx, http1_t* c, half_t* h, uint32_t d, uint64_t ts) noexcept:
    """The message that is being read ends here, if it was one; the next byte begins another."""
    cdef side_t side = side_of(c, d)
    if h.state == H_START and not salvage_head(ctx, c, h, d, ts):
        h.state = H_START
        return
    if h.current != NULL:
        h.current.marks |= mark_of(side, MARK_REQUEST_INCOMPLETE | MARK_REQUEST_FRAMING,
                                   MARK_RESPONSE_INCOMPLETE | MARK_RESPONSE_FRAMING)
    raise_doubt(c, DOUBT_REQUEST_FRAMING if side == REQUEST else DOUBT_ANSWER_FRAMING)
    drop_part(ctx, h)
    h.body_begins = 0
    message_done(ctx, c, h, side)
    h.state = H_START


# ---- one direction -----------------------------------------------------------------------------------------------

# Bytes that a state used of the `n` at p (n > 0). 0: nothing, and the state is another one.
ctypedef size_t (*reader_t)(ctx_t* ctx, http1_t* c, half_t* h, uint32_t d, const uint8_t* p, size_t n,
                            uint64_t ts) noexcept

cdef reader_t[9] READERS    # by enum half_state; RESYNC has none: it looks at whole events (read_half)
READERS[<int>H_START] = read_start
READERS[<int>H_BODY] = read_body
READERS[<int>H_CHUNK_SIZE] = read_chunk_size
READERS[<int>H_CHUNK_DATA] = read_body
READERS[<int>H_CHUNK_END] = read_chunk_end
READERS[<int>H_TRAILER] = read_trailer
READERS[<int>H_UNTIL_CLOSE] = read_until_close
READERS[<int>H_HEAD_SKIP] = read_head_skip


cdef size_t read_half(ctx_t* ctx, http1_t* c, uint32_t d, const uint8_t* p, size_t n, uint64_t ts) noexcept:
    """Bytes used: all, unless HTTP is over."""
    cdef half_t* h = &c.half[d]
    cdef side_t side = side_of(c, d)
    cdef bint event_start = True
    cdef size_t take
    cdef size_t left = n
    while left and not c.left:
        if c.doubt:
            if h.body_begins:
                take = read_first_of_body(ctx, c, d, h, p, left, ts)
                event_start = event_start and take == 0
                p += take
                left -= take
                continue
            if begins_again(c, h, side, event_start, p, left):
                ctx.counters[C_RESYNCS] += 1
                abandon(ctx, c, h, d, ts)
                continue
        if h.state == H_RESYNC:
            # Only an event's first byte may begin a message again: a body can hold anything that looks like one.
            if not event_start or not looks_like_message(side, p, left):
                ctx.counters[C_SKIPPED_BYTES] += left
                return n
            resynchronised(ctx, c, h, side)
            continue
        if event_start and side == REQUEST and body_not_owed(h) and instead_of_body(ctx, c, h, p, left):
            continue
        take = READERS[h.state](ctx, c, h, d, p, left, ts)
        event_start = False
        p += take
        left -= take
        if c.unparked:
            let_parked(ctx, c, ts)
    return n - left


cdef void let_parked(ctx_t* ctx, http1_t* c, uint64_t ts) noexcept:
    """Has a request come that an answer had waited for? Read it."""
    c.unparked = 0
    if c.half[1 - c.conn.dir_request].parked:
        release_parked(ctx, c, 1 - c.conn.dir_request, ts)


cdef feed_t http1_data(ctx_t* ctx, flow_t* flow, uint32_t d, const uint8_t* p, size_t n, uint64_t ts,
                       size_t* used) noexcept:
    """layer_t.data."""
    cdef http1_t* c = <http1_t*>flow.state
    cdef half_t* h = &c.half[d]
    if c.left:
        used[0] = 0
        return over(ctx, c)
    if (c.joined and c.requests == 0 and h.state == H_RESYNC and c.half[1 - d].state == H_RESYNC
            and looks_like_frames(p, n, OF_NOBODY, 0, 0)):
        used[0] = 0             # nothing was a message so far, and what it had begun with was in the midst of a frame
        flow.conn.flags |= CONN_JOINED
        ctx.handoff.protocol = b"http2"
        return FEED_SWITCH
    if (c.conn.role == 0 or c.conn.dir_request == DIR_UNKNOWN) and not http1_guess(ctx, c, d, p, n):
        return FEED_ALL
    if d == c.conn.dir_request:
        c.ahead = 0         # the bytes that were on their way
        if c.doubt and ts > c.conn.seen_ns:
            after_silence(ctx, c, ts - c.conn.seen_ns)
    if h.ended:             # bytes after an end: it was not the end
        if h.ended == END_INSIDE:
            doubt_framing(c, side_of(c, d))
        h.ended = 0
    used[0] = read_half(ctx, c, d, p, n, ts)
    return over(ctx, c)
