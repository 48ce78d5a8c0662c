"""A made-up line protocol, to show what a layer needs: this file and a line in the table of layers.

    client: `TOY` LF, then `ASK` SP name LF ...      server: `SAY` SP text LF ...

Answers come in the order of the questions. A question that is not answered for ten seconds is recorded without one.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memset

from collector.shards.http.exchanges cimport *
from collector.shards.http.fields cimport fields_t, request_t, response_t
from collector.shards.http.message cimport exchange_t
from collector.shards.layers.table cimport insert_layer
from collector.shards.receive cimport *
from collector.shards.state cimport *

cdef enum:
    LINE_LIMIT = 1000
    PATIENCE_NS = 10000000000

cdef struct toy_t:
    receive_t part[2]
    exchange_t* first       # questions without answers, oldest first
    exchange_t* last
    uint8_t greeted


cdef bint toy_detect(const flow_t* flow, const uint8_t* p, size_t n) noexcept nogil:
    return memcmp(p, b"TOY\n", n if n < 4 else 4) == 0


cdef int toy_open(ctx_t* ctx, flow_t* flow) noexcept:
    flow.state = malloc(sizeof(toy_t))
    if flow.state == NULL:
        return -1
    memset(flow.state, 0, sizeof(toy_t))
    ctx.pool.bytes += sizeof(toy_t)
    return 0


cdef void finish(ctx_t* ctx, flow_t* flow, toy_t* toy, uint32_t marks) noexcept:
    cdef exchange_t* ex = toy.first
    toy.first = ex.next
    if toy.first == NULL:
        toy.last = NULL
    ex.marks |= marks
    exchange_emit(ctx, flow, ex)
    exchange_free(ctx, ex)


cdef void toy_close(ctx_t* ctx, flow_t* flow, uint32_t marks) noexcept:
    cdef toy_t* toy = <toy_t*>flow.state
    while toy.first != NULL:
        finish(ctx, flow, toy, marks)
    receive_clear(&ctx.pool, &toy.part[0])
    receive_clear(&ctx.pool, &toy.part[1])
    ctx.pool.bytes -= sizeof(toy_t)
    free(toy)
    flow.state = NULL


cdef void asked(ctx_t* ctx, flow_t* flow, toy_t* toy, const uint8_t* name, size_t n, uint64_t pos, uint64_t ts) noexcept:
    cdef exchange_t* ex = exchange_open(ctx, flow)
    cdef request_t request
    cdef fields_t fields
    if ex == NULL:
        return
    memset(&fields, 0, sizeof(fields_t))
    request.method, request.method_len = b"ASK", 3
    request.target, request.target_len = name, <uint32_t>n
    request.version, request.version_len = b"TOY/1", 5
    ex.pos = pos
    ex.tgid = ctx.tgid
    ex.req.started = ex.req.done = 1
    ex.req.first_ns = ex.req.last_ns = ts
    exchange_request(ctx, flow, ex, &request, &fields, NULL)
    if toy.last != NULL:
        toy.last.next = ex
    else:
        toy.first = ex
    toy.last = ex


cdef void answered(ctx_t* ctx, flow_t* flow, toy_t* toy, const uint8_t* text, size_t n, uint64_t ts) noexcept:
    cdef exchange_t* ex = toy.first
    cdef response_t response
    cdef fields_t fields
    if ex == NULL:
        return
    memset(&fields, 0, sizeof(fields_t))
    response.reason, response.reason_len, response.status = b"SAY", 3, 200
    ex.status = 200
    ex.resp.started = ex.resp.done = 1
    ex.resp.first_ns = ts
    exchange_response(ctx, flow, ex, &response, &fields)
    exchange_body(ctx, flow, ex, RESPONSE, text, n, ts)
    finish(ctx, flow, toy, 0)


cdef feed_t toy_data(ctx_t* ctx, flow_t* flow, uint32_t d, const uint8_t* p, size_t n, uint64_t ts,
                     size_t* used) noexcept:
    cdef toy_t* toy = <toy_t*>flow.state
    cdef receive_t* part = &toy.part[d]
    cdef const uint8_t* line = NULL
    cdef size_t take = 0, length = 0, left = n
    cdef uint64_t begin = flow.conn.stream[d].end - n
    cdef line_t said
    if not toy.greeted and flow.conn.dir_request == DIR_UNKNOWN:    # who is the client? HTTP can tell from its own words
        used[0] = 0
        return FEED_NOT_MINE
    while left:
        said = receive_line(&ctx.pool, part, p, left, LINE_LIMIT, &take, &line, &length)
        if said == LINE_MORE:
            return FEED_ALL
        p += take
        left -= take
        if d == flow.conn.dir_request and not toy.greeted:
            if said != LINE_WHOLE or length != 3 or memcmp(line, b"TOY", 3) != 0:
                if part.bytes.len == 0:
                    used[0] = 0         # nothing of it was kept
                    return FEED_NOT_MINE
                part.bytes.len -= <uint32_t>take
                ctx.handoff.kept = receive_take(part)
                ctx.handoff.kept_dir = <uint8_t>d
                ctx.handoff.kept_ns = ts
                used[0] = 0
                return FEED_NOT_MINE
            toy.greeted = 1
        elif said == LINE_WHOLE and length >= 4 and d == flow.conn.dir_request:
            asked(ctx, flow, toy, line + 4, length - 4, begin, ts)
        elif said == LINE_WHOLE and length >= 4:
            answered(ctx, flow, toy, line + 4, length - 4, ts)
        receive_clear(&ctx.pool, part)
        begin = flow.conn.stream[d].end - left
    return FEED_ALL


cdef feed_t toy_hole(ctx_t* ctx, flow_t* flow, uint32_t d, uint64_t n, bint lost, uint64_t ts) noexcept:
    cdef toy_t* toy = <toy_t*>flow.state
    receive_clear(&ctx.pool, &toy.part[d])
    while toy.first != NULL:
        finish(ctx, flow, toy, MARK_PAIRING)
    return FEED_ALL


cdef void toy_end(ctx_t* ctx, flow_t* flow, uint32_t d) noexcept:
    pass


cdef uint64_t toy_idle(ctx_t* ctx, flow_t* flow, uint64_t now) noexcept:
    cdef toy_t* toy = <toy_t*>flow.state
    while toy.first != NULL and toy.first.req.first_ns + PATIENCE_NS <= now:
        finish(ctx, flow, toy, 0)
    return toy.first.req.first_ns + PATIENCE_NS if toy.first != NULL else 0


cdef uint64_t toy_unwanted(ctx_t* ctx, flow_t* flow, uint32_t d, uint64_t pos) noexcept nogil:
    return 0


cdef void toy_told(ctx_t* ctx, flow_t* flow, fact_t fact) noexcept:
    pass


cdef uint64_t toy_rest(const flow_t* flow) noexcept nogil:
    cdef const toy_t* toy = <const toy_t*>flow.state
    if toy.first != NULL or toy.part[0].bytes.len or toy.part[1].bytes.len or not toy.greeted:
        return <uint64_t>NOT_AT_REST
    return 1


cdef int toy_resume(ctx_t* ctx, flow_t* flow, uint64_t word) noexcept:
    if toy_open(ctx, flow) < 0:
        return -1
    (<toy_t*>flow.state).greeted = 1
    return 0


cdef layer_t LAYER
LAYER.name = b"toy"
LAYER.reasons = NULL
LAYER.joins = 0
LAYER.detect = toy_detect
LAYER.open = toy_open
LAYER.data = toy_data
LAYER.hole = toy_hole
LAYER.end = toy_end
LAYER.rejoin = NULL
LAYER.idle = toy_idle
LAYER.unwanted = toy_unwanted
LAYER.told = toy_told
LAYER.rest = toy_rest
LAYER.resume = toy_resume
LAYER.close = toy_close

insert_layer(&LAYER)
