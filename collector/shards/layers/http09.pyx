"""HTTP/0.9: a request line without a version, and an answer that is a body and nothing else, up to the end of the connection
(Simple-Request and Simple-Response of RFC 1945 section 4.1).

    GET /path CRLF      ->  the body; then the server closes

A line like that may be one of another protocol - to Redis it reads a key -, and a body may be anything. So the whole
connection has to bear it out before there is a record, which is why this is made at the end of the connection:

* The line is the first thing that the client sends, and the only one: GET, one blank, an absolute path, CRLF or LF. An empty
  line may follow, for which some servers wait (Python's http.server).
* The answer begins like markup, for which HTTP/0.9 was made, or like JSON, which is what APIs send. Or the kernel sends a
  file.
* The server ends the connection, within KEPT_OPEN_NS of its last byte. Where the client is seen to have ended its side
  before, any server would: then only markup will do.

Whatever does not fit is handed on, and counted as no HTTP where other connections are. An answer with a status line makes
HTTP/1 of the connection, which takes the request over.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memcpy, memset

from collector.abi cimport DIR_IN, ROLE_SERVER
from collector.shards.http.exchanges cimport *
from collector.shards.http.fields cimport fields_t, request_t
from collector.shards.http.message cimport exchange_t
from collector.shards.layers.http1.startline cimport looks_like_response
from collector.shards.memory cimport buf_append
from collector.shards.receive cimport receive_clear, receive_t, receive_take
from collector.shards.state cimport *

cdef enum:
    TARGET = 4                  # where it begins: behind GET and a blank
    BEGINNING = 16              # bytes of an answer that are looked at
    STATUS_LINE = 12            # of these, a status line up to its code
    EVERYTHING = -1             # unwanted: up to the end
    KEPT_OPEN_NS = 5000000000   # servers of other protocols give up a silent client after 10 s and more


cdef enum page_t:
    PAGE_BLANK           # nothing of it is here yet
    PAGE_MARKUP
    PAGE_JSON
    PAGE_NONE            # of these


cdef struct simple_t:
    receive_t part       # the request line
    uint32_t line        # its length without the LF; 0: it is not whole yet
    uint64_t pos         # of its first byte
    exchange_t* ex       # since the line is whole, as long as it may become a record
    uint8_t beginning[16]       # of the answer
    uint8_t seen         # bytes of that
    uint8_t client_ended # its side, and the server had not
    uint8_t server_ended # the connection: the answer is whole, or reset


cdef fields_t NONE       # of a request without fields


# ---- what it looks like ------------------------------------------------------------------------------------------

cdef bint line_goes_on(const uint8_t* p, size_t before, size_t n, uint32_t* length) noexcept nogil:
    """Are these `n` bytes, of which `before` were found to be, the beginning of a request line or all of it, and nothing but
    an empty line behind? `length` is set to that of the line, without its LF, once that is here."""
    cdef const char* start = b"GET /"
    cdef size_t i
    for i in range(before, n):
        if i <= TARGET:
            if p[i] != <uint8_t>start[i]:
                return False
        elif length[0]:         # of the empty line: CRLF or LF
            if not (i == length[0] + 1 and p[i] in (c'\r', c'\n') or (
                    i == length[0] + 2 and p[i - 1] == c'\r' and p[i] == c'\n')):
                return False
        elif p[i] == c'\n':
            length[0] = <uint32_t>i
        elif p[i - 1] == c'\r' or (p[i] != c'\r' and (p[i] <= 0x20 or p[i] >= 0x7F)):
            return False
    return True


cdef bint begins_a_status_line(const uint8_t* p, size_t n) noexcept nogil:
    """As far as it goes, so that one in pieces is waited for."""
    return n < STATUS_LINE and memcmp(p, b"HTTP/1.", n if n < 7 else 7) == 0


cdef page_t like_a_page(const uint8_t* p, size_t n) noexcept nogil:
    """What an answer is by its first bytes, behind a byte order mark and white space. With more bytes, only PAGE_BLANK
    becomes another."""
    cdef const char* mark = b"\xef\xbb\xbf"
    cdef size_t i = 0
    while i < n and i < 3 and p[i] == <uint8_t>mark[i]:
        i += 1
    if i < 3 and i < n and i:
        return PAGE_NONE
    while i < n and p[i] in (c' ', c'\t', c'\r', c'\n'):
        i += 1
    if i == n:
        return PAGE_BLANK
    if p[i] == c'<':
        return PAGE_MARKUP
    return PAGE_JSON if p[i] in (c'{', c'[') else PAGE_NONE


# ---- the connection ----------------------------------------------------------------------------------------------

cdef bint http09_detect(const flow_t* flow, const uint8_t* p, size_t n) noexcept nogil:
    """Of a client that is known to be one: a guess would be made of this very line."""
    cdef uint32_t line = 0
    return flow.conn.role != 0 and line_goes_on(p, 0, n, &line)


cdef int http09_open(ctx_t* ctx, flow_t* flow) noexcept:
    cdef simple_t* s = <simple_t*>malloc(sizeof(simple_t))
    if s == NULL:
        return -1
    memset(s, 0, sizeof(simple_t))
    ctx.pool.bytes += sizeof(simple_t)
    flow.state = s
    return 0


cdef void give_up(ctx_t* ctx, simple_t* s) noexcept:
    """There will be no record."""
    if s.ex != NULL:
        ctx.counters[C_SKIPPED_BYTES] += s.ex.resp.size - s.ex.resp.lost - s.ex.resp.uncaptured
        exchange_free(ctx, s.ex)
        s.ex = NULL


cdef feed_t not_mine(ctx_t* ctx, flow_t* flow) noexcept:
    """What the client has said belongs to another protocol, and HTTP/1 counts it."""
    cdef simple_t* s = <simple_t*>flow.state
    give_up(ctx, s)
    if s.part.bytes.len == 0:           # recorded before: what follows has no beginning
        flow.conn.flags |= CONN_JOINED
    ctx.handoff.kept = receive_take(&s.part)
    ctx.handoff.kept_dir = flow.conn.dir_request
    ctx.handoff.kept_ns = s.part.first_ns
    return FEED_NOT_MINE


cdef feed_t read_line(ctx_t* ctx, flow_t* flow, simple_t* s, const uint8_t* p, size_t n, uint64_t ts) noexcept:
    """`n` bytes of the client, which `end` at the position that its stream has reached."""
    cdef stream_t* stream = &flow.conn.stream[flow.conn.dir_request]
    cdef uint32_t before = s.part.bytes.len
    cdef uint32_t line = s.line
    if before + n > ctx.header_bytes or buf_append(&ctx.pool, &s.part.bytes, p, n) < 0:
        return not_mine(ctx, flow)
    if before == 0:
        s.part.first_ns = ts
        s.pos = stream.end - n
    if not line_goes_on(<const uint8_t*>s.part.bytes.data, before, s.part.bytes.len, &line):
        s.part.bytes.len = before
        return not_mine(ctx, flow)
    if line and not s.line:
        s.ex = exchange_open(ctx, flow)
        if s.ex == NULL:
            s.part.bytes.len = before
            return not_mine(ctx, flow)
        s.line = line
        s.ex.pos = s.pos
        s.ex.tgid = stream.tgid
        s.ex.req.started = 1
        s.ex.req.done = 1
        s.ex.req.first_ns = s.part.first_ns
        s.ex.req.last_ns = ts
    return FEED_ALL


cdef void fill_in_request(ctx_t* ctx, flow_t* flow, simple_t* s) noexcept:
    """It is HTTP: the line becomes the request of the exchange."""
    cdef request_t request
    request.method = <const uint8_t*>s.part.bytes.data
    request.method_len = TARGET - 1
    request.target = request.method + TARGET
    request.target_len = s.line - TARGET
    if request.target[request.target_len - 1] == c'\r':
        request.target_len -= 1
    request.version = <const uint8_t*>b"HTTP/0.9"
    request.version_len = 8
    exchange_request(ctx, flow, s.ex, &request, &NONE, NULL)


cdef inline void answer_begins(ctx_t* ctx, flow_t* flow, simple_t* s, uint64_t ts) noexcept nogil:
    if not s.ex.resp.started:
        s.ex.resp.started = 1
        s.ex.resp.first_ns = ts
        if flow.conn.dir_request == DIR_IN:     # served by whoever answers
            s.ex.tgid = ctx.tgid
    s.ex.resp.last_ns = ts
    s.server_ended = 0          # bytes after an end: it was not the end


cdef feed_t to_http1(ctx_t* ctx, flow_t* flow, simple_t* s) noexcept:
    """The answer has a status line."""
    fill_in_request(ctx, flow, s)
    ctx.handoff.kept_ns = s.ex.resp.first_ns
    exchange_unanswered(s.ex)
    ctx.handoff.protocol = b"http1"
    ctx.handoff.exchange = s.ex
    ctx.handoff.kept_dir = <uint8_t>(1 - flow.conn.dir_request)
    if s.seen:
        buf_append(&ctx.pool, &ctx.handoff.kept, s.beginning, s.seen)
    s.ex = NULL
    s.part.bytes.len = 0
    return FEED_SWITCH


cdef feed_t read_answer(ctx_t* ctx, flow_t* flow, simple_t* s, const uint8_t* p, size_t n, uint64_t ts) noexcept:
    cdef size_t take = BEGINNING - s.seen
    if s.ex == NULL:
        return not_mine(ctx, flow)
    if take > n:
        take = n
    if take:
        memcpy(s.beginning + s.seen, p, take)
        if s.seen < STATUS_LINE and looks_like_response(s.beginning, s.beginning + s.seen + take):
            return to_http1(ctx, flow, s)
        if like_a_page(s.beginning, s.seen + take) == PAGE_NONE and not begins_a_status_line(s.beginning, s.seen + take):
            return not_mine(ctx, flow)
        s.seen += <uint8_t>take
    answer_begins(ctx, flow, s, ts)
    exchange_body(ctx, flow, s.ex, RESPONSE, p, n, ts)
    return FEED_ALL


cdef feed_t http09_data(ctx_t* ctx, flow_t* flow, uint32_t d, const uint8_t* p, size_t n, uint64_t ts,
                        size_t* used) noexcept:
    used[0] = 0
    if d == flow.conn.dir_request:
        return read_line(ctx, flow, <simple_t*>flow.state, p, n, ts)
    return read_answer(ctx, flow, <simple_t*>flow.state, p, n, ts)


cdef feed_t http09_hole(ctx_t* ctx, flow_t* flow, uint32_t d, uint64_t n, bint lost, uint64_t ts) noexcept:
    """A file that the kernel sends by itself is not copied: it is an answer all the same. One whose beginning was lost is
    anything."""
    cdef simple_t* s = <simple_t*>flow.state
    if d == flow.conn.dir_request or s.ex == NULL or (lost and s.seen < BEGINNING):
        return not_mine(ctx, flow)
    answer_begins(ctx, flow, s, ts)
    exchange_lost(ctx, flow, s.ex, RESPONSE, n, lost, ts)
    return FEED_ALL


# ---- its end -----------------------------------------------------------------------------------------------------

cdef void server_ends(ctx_t* ctx, simple_t* s, uint32_t marks) noexcept:
    """The connection; time is that of the event that says so."""
    cdef page_t page = like_a_page(s.beginning, s.seen)
    if s.ex == NULL or s.server_ended:
        return
    if s.seen == 0 and s.ex.resp.size:
        page = PAGE_JSON        # a file: the kernel has sent it, and nobody has looked at it
    if ((page != PAGE_MARKUP and (page != PAGE_JSON or s.client_ended))
            or ctx.now_ns > s.ex.resp.last_ns + KEPT_OPEN_NS):
        give_up(ctx, s)
        return
    s.server_ended = 1
    s.ex.resp.done = 1
    s.ex.marks |= marks


cdef void record(ctx_t* ctx, flow_t* flow, simple_t* s) noexcept:
    fill_in_request(ctx, flow, s)
    exchange_emit(ctx, flow, s.ex)
    exchange_free(ctx, s.ex)
    s.ex = NULL
    s.part.bytes.len = 0


cdef void http09_end(ctx_t* ctx, flow_t* flow, uint32_t d) noexcept:
    cdef simple_t* s = <simple_t*>flow.state
    if d != flow.conn.dir_request:
        server_ends(ctx, s, 0)
    elif not s.server_ended:
        s.client_ended = 1


cdef void http09_told(ctx_t* ctx, flow_t* flow, fact_t fact) noexcept:
    cdef simple_t* s = <simple_t*>flow.state
    if fact == FACT_AHEAD:
        flow.conn.flags |= CONN_AHEAD       # of interest to who reads what follows
    elif fact == FACT_RESET and s.ex != NULL and not s.server_ended:
        if flow.conn.role == ROLE_SERVER:   # the client has; whether the answer went out to its end is not known
            s.client_ended = 1
        server_ends(ctx, s, MARK_RESPONSE_INCOMPLETE)


cdef void http09_close(ctx_t* ctx, flow_t* flow, uint32_t marks) noexcept:
    cdef simple_t* s = <simple_t*>flow.state
    if marks == 0 and flow.conn.role == ROLE_SERVER:
        server_ends(ctx, s, 0)              # who closes is the traced process
    if s.ex != NULL and s.server_ended:
        record(ctx, flow, s)
    give_up(ctx, s)
    ctx.counters[C_SKIPPED_BYTES] += s.part.bytes.len
    if s.part.bytes.len and s.line and not flow.conn.flags & CONN_DROP:
        ctx.counters[C_NOT_HTTP] += 1
    receive_clear(&ctx.pool, &s.part)
    ctx.pool.bytes -= sizeof(simple_t)
    free(s)
    flow.state = NULL


cdef uint64_t http09_idle(ctx_t* ctx, flow_t* flow, uint64_t now) noexcept:
    """What has ended is recorded though the client keeps its descriptor; what was kept open is nothing of ours."""
    cdef simple_t* s = <simple_t*>flow.state
    if s.ex == NULL:
        return 0
    if now < flow.conn.seen_ns + ctx.unanswered_ns:
        return flow.conn.seen_ns + ctx.unanswered_ns
    if s.server_ended:
        record(ctx, flow, s)
    give_up(ctx, s)
    return 0


cdef uint64_t http09_unwanted(ctx_t* ctx, flow_t* flow, uint32_t d, uint64_t pos) noexcept nogil:
    cdef simple_t* s = <simple_t*>flow.state
    if d == flow.conn.dir_request or s.ex == NULL or not s.ex.resp.body_stopped or s.seen < BEGINNING:
        return 0
    return <uint64_t>EVERYTHING


cdef uint64_t http09_rest(const flow_t* flow) noexcept nogil:
    return <uint64_t>NOT_AT_REST


cdef int http09_resume(ctx_t* ctx, flow_t* flow, uint64_t word) noexcept:
    return -1


cdef layer_t LAYER
LAYER.name = b"http0.9"
LAYER.reasons = NULL
LAYER.joins = 0
LAYER.detect = http09_detect
LAYER.answers = NULL
LAYER.open = http09_open
LAYER.data = http09_data
LAYER.hole = http09_hole
LAYER.end = http09_end
LAYER.rejoin = NULL
LAYER.idle = http09_idle
LAYER.unwanted = http09_unwanted
LAYER.told = http09_told
LAYER.rest = http09_rest
LAYER.resume = http09_resume
LAYER.close = http09_close


cdef const layer_t* http09_layer() noexcept nogil:
    return &LAYER
