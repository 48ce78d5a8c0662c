"""The preamble of the PROXY protocol in front of another one: a claim for all records of the connection.

A receiver must be told to expect a preamble; who only overhears cannot know. So what begins like one waits until it is one,
or cannot become one any more. It stands at position 0 of the client's direction only: a connection that was joined in
the middle has none. What a receiver has to refuse is marked, and what stands behind it is read all the same.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memcpy, memset

from collector.abi cimport SOURCE_SYSCALL
from collector.shards.layers.proxy.preamble cimport parse_preamble, preamble_t
from collector.shards.memory cimport buf_append
from collector.shards.receive cimport receive_clear, receive_t, receive_take
from collector.shards.state cimport *

cdef enum:
    LINE_START = 11     # PROXY TCP4 and a blank
    LINE_LIMIT = 108    # with its CRLF a line of version 1 has at most 107 bytes


cdef int64_t tolerated_line(const uint8_t* p, size_t n) noexcept nogil:
    """A line of version 1 that the specification refuses, and some servers accept: a port with leading zeros, a blank too
    much.
    Its length with CRLF; 0: more bytes are needed; -1: none. What ends like a request line is one."""
    cdef size_t i = LINE_START
    if n < LINE_START:
        return -1       # parse_preamble says whether it may become one
    if memcmp(p, b"PROXY TCP4 ", LINE_START) != 0 and memcmp(p, b"PROXY TCP6 ", LINE_START) != 0:
        return -1
    while i < n and i < LINE_LIMIT:
        if p[i] == c'\n':
            if (i >= LINE_START + 9 and memcmp(p + i - 9, b"HTTP/1.", 7) == 0) or p[i - 1] != c'\r':
                return -1
            return <int64_t>i + 1
        i += 1
    return 0 if n < LINE_LIMIT else -1


cdef int64_t read_preamble(const uint8_t* p, size_t n, preamble_t* preamble) noexcept nogil:
    """As parse_preamble, with lines that only some accept as invalid preambles."""
    cdef int64_t length = parse_preamble(p, n, preamble)
    if length < 0:
        length = tolerated_line(p, n)
        if length > 0:
            memset(preamble, 0, sizeof(preamble_t))
            preamble.version = 1
            preamble.invalid = 1
    return length


cdef bint proxy_detect(const flow_t* flow, const uint8_t* p, size_t n) noexcept nogil:
    """In front of the bytes of a socket only: inside TLS the client could claim whatever it likes."""
    cdef preamble_t preamble
    return flow.conn.source == SOURCE_SYSCALL and read_preamble(p, n, &preamble) >= 0


cdef int proxy_open(ctx_t* ctx, flow_t* flow) noexcept:
    cdef receive_t* part = <receive_t*>malloc(sizeof(receive_t))
    if part == NULL:
        return -1
    memset(part, 0, sizeof(receive_t))
    ctx.pool.bytes += sizeof(receive_t)
    flow.state = part
    return 0


cdef void proxy_close(ctx_t* ctx, flow_t* flow, uint32_t marks) noexcept:
    cdef receive_t* part = <receive_t*>flow.state
    ctx.counters[C_SKIPPED_BYTES] += part.bytes.len
    receive_clear(&ctx.pool, part)
    ctx.pool.bytes -= sizeof(receive_t)
    free(part)
    flow.state = NULL


cdef feed_t not_mine(ctx_t* ctx, flow_t* flow) noexcept nogil:
    """No preamble: what waited belongs to another protocol."""
    cdef receive_t* part = <receive_t*>flow.state
    ctx.handoff.kept = receive_take(part)
    ctx.handoff.kept_dir = flow.conn.dir_request
    ctx.handoff.kept_ns = part.first_ns
    return FEED_NOT_MINE


cdef feed_t proxy_data(ctx_t* ctx, flow_t* flow, uint32_t d, const uint8_t* p, size_t n, uint64_t ts,
                       size_t* used) noexcept:
    cdef receive_t* part = <receive_t*>flow.state
    cdef conn_t* conn = flow.conn
    cdef size_t before = part.bytes.len
    cdef preamble_t preamble
    cdef int64_t length
    used[0] = 0
    if conn.dir_request == DIR_UNKNOWN:
        conn.dir_request = <uint8_t>d       # who sends a preamble is the client
    if d != conn.dir_request:
        return not_mine(ctx, flow)          # the server does not wait for the rest of it
    if before == 0:
        part.first_ns = ts
        length = read_preamble(p, n, &preamble)
    elif buf_append(&ctx.pool, &part.bytes, p, n) < 0:
        return not_mine(ctx, flow)
    else:
        length = read_preamble(<const uint8_t*>part.bytes.data, part.bytes.len, &preamble)
    if length == 0 and (before or buf_append(&ctx.pool, &part.bytes, p, n) == 0):
        return FEED_ALL
    if length <= 0:
        part.bytes.len = <uint32_t>before
        return not_mine(ctx, flow)
    part.bytes.len = 0                      # it was read
    used[0] = <size_t>length - before
    conn.flags |= CONN_PREAMBLE
    claim(conn, &preamble)
    if preamble.invalid:
        ctx.counters[C_SKIPPED_BYTES] += <uint64_t>length
    ctx.handoff.protocol = NULL
    return FEED_SWITCH


cdef void claim(conn_t* conn, const preamble_t* preamble) noexcept nogil:
    if preamble.invalid:
        conn.client_source = CLIENT_INVALID
    elif preamble.family:
        conn.client_source = CLIENT_PROXY_V1 if preamble.version == 1 else CLIENT_PROXY_V2
        memcpy(conn.client, preamble.src, 16)
        conn.client_port = preamble.src_port


cdef feed_t proxy_hole(ctx_t* ctx, flow_t* flow, uint32_t d, uint64_t n, bint lost, uint64_t ts) noexcept:
    return not_mine(ctx, flow)


cdef void proxy_end(ctx_t* ctx, flow_t* flow, uint32_t d) noexcept:
    pass


cdef uint64_t proxy_idle(ctx_t* ctx, flow_t* flow, uint64_t now) noexcept:
    return 0


cdef uint64_t proxy_unwanted(ctx_t* ctx, flow_t* flow, uint32_t d, uint64_t pos) noexcept nogil:
    return 0


cdef void proxy_told(ctx_t* ctx, flow_t* flow, fact_t fact) noexcept:
    if fact == FACT_AHEAD:
        flow.conn.flags |= CONN_AHEAD       # of interest to who reads what stands behind


cdef uint64_t proxy_rest(const flow_t* flow) noexcept nogil:
    return <uint64_t>NOT_AT_REST


cdef int proxy_resume(ctx_t* ctx, flow_t* flow, uint64_t word) noexcept:
    return -1


cdef layer_t LAYER
LAYER.name = b"proxy"
LAYER.reasons = NULL
LAYER.joins = 0
LAYER.detect = proxy_detect
LAYER.answers = NULL
LAYER.open = proxy_open
LAYER.data = proxy_data
LAYER.hole = proxy_hole
LAYER.end = proxy_end
LAYER.rejoin = NULL
LAYER.idle = proxy_idle
LAYER.unwanted = proxy_unwanted
LAYER.told = proxy_told
LAYER.rest = proxy_rest
LAYER.resume = proxy_resume
LAYER.close = proxy_close


cdef const layer_t* proxy_layer() noexcept nogil:
    return &LAYER
