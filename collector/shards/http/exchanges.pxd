"""The life of an exchange, from its first byte to its record; see exchanges.pyx."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from collector.shards.http.fields cimport fields_t, request_t, response_t, unlisted_t
from collector.shards.http.message cimport EX_PARTS, exchange_t, message_t
from collector.shards.http.parts cimport part_lost
from collector.shards.marks cimport *
from collector.shards.memory cimport buf_t
from collector.shards.names cimport process_entry
from collector.shards.state cimport HOLD_OWNER, HOLD_PEER, PEER_AGAIN_NS, PEER_WAIT_NS, conn_t, ctx_t, flow_t, name_t


cdef enum side_t:
    REQUEST = 1
    RESPONSE = 0

cdef exchange_t* exchange_open(ctx_t* ctx, flow_t* flow) noexcept
cdef void exchange_request(ctx_t* ctx, flow_t* flow, exchange_t* ex, const request_t* request, const fields_t* fields,
                           unlisted_t unlisted) noexcept
cdef void exchange_orphan(ctx_t* ctx, flow_t* flow, exchange_t* ex, uint64_t pos, uint64_t ts,
                          const char* version) noexcept
cdef void exchange_response(ctx_t* ctx, flow_t* flow, exchange_t* ex, const response_t* response,
                            const fields_t* fields) noexcept
cdef void exchange_trailers(ctx_t* ctx, exchange_t* ex, const fields_t* fields) noexcept
cdef void exchange_expect(ctx_t* ctx, exchange_t* ex, side_t side, uint64_t length) noexcept
cdef void exchange_body(ctx_t* ctx, flow_t* flow, exchange_t* ex, side_t side, const uint8_t* p, size_t n,
                        uint64_t ts) noexcept
cdef void exchange_emit(ctx_t* ctx, flow_t* flow, exchange_t* ex) noexcept
cdef void exchange_tell(ctx_t* ctx, flow_t* flow, exchange_t* ex, uint64_t end) noexcept
cdef void exchange_recorded(ctx_t* ctx, exchange_t* ex) noexcept
cdef void exchange_free(ctx_t* ctx, exchange_t* ex) noexcept
cdef void exchange_trim(ctx_t* ctx) noexcept


cdef inline message_t* message_of(exchange_t* ex, side_t side) noexcept nogil:
    return &ex.req if side == REQUEST else &ex.resp


cdef inline uint32_t mark_of(side_t side, uint32_t of_request, uint32_t of_response) noexcept nogil:
    return of_request if side == REQUEST else of_response


cdef inline size_t exchange_bytes(const exchange_t* ex) noexcept nogil:
    """What it holds of the pool."""
    return (sizeof(exchange_t) + ex.req.head.cap + ex.req.body.cap + ex.resp.head.cap + ex.resp.body.cap
            + ex.details.cap)


cdef inline void exchange_lost(ctx_t* ctx, flow_t* flow, exchange_t* ex, side_t side, uint64_t n, bint lost,
                               uint64_t ts) noexcept:
    """`n` bytes of a body are missing: lost on the way, or never copied."""
    cdef message_t* m = message_of(ex, side)
    if ex.flags & EX_PARTS:
        part_lost(ctx, flow, ex, side == REQUEST, n, lost, ts)
        return
    m.size += n
    m.body_stopped = 1
    if lost:
        m.lost += n
        ex.marks |= mark_of(side, MARK_REQUEST_LOST, MARK_RESPONSE_LOST)
    else:
        m.uncaptured += n
        ex.marks |= mark_of(side, MARK_REQUEST_CUT, MARK_RESPONSE_CUT)


cdef inline void exchange_unanswered(exchange_t* ex) noexcept nogil:
    """Forget what was seen of its answer: there is another one."""
    ex.status = 0
    ex.resp.head.len = 0
    ex.resp.body.len = 0
    memset(&ex.resp.first_ns, 0, sizeof(message_t) - 2 * sizeof(buf_t))


cdef inline void wait_for_owner(ctx_t* ctx, conn_t* conn, const exchange_t* ex) noexcept nogil:
    """Of a process that is looked up, unless that takes too long already."""
    cdef const name_t* entry
    if conn.holds & HOLD_OWNER:
        return
    entry = process_entry(ctx, ex.tgid)
    if entry != NULL and entry.pending_ns and entry.pending_ns + ctx.owner_wait_ns > ctx.now_ns:
        conn.holds |= HOLD_OWNER
        conn.owner_due_ns = entry.pending_ns + ctx.owner_wait_ns


cdef inline bint exchange_waits(ctx_t* ctx, conn_t* conn, const exchange_t* ex) noexcept nogil:
    """Is there a reason why an exchange that is complete is not recorded yet? Then FACT_RELEASED follows."""
    cdef uint64_t last, wait
    if ctx.pending_owners:
        wait_for_owner(ctx, conn, ex)
    if conn.holds == 0:
        return False
    if conn.holds & HOLD_PEER and conn.peer_due_ns == 0:
        last = ex.resp.last_ns if ex.resp.last_ns > ex.req.last_ns else ex.req.last_ns
        wait = PEER_AGAIN_NS if conn.peer_late else PEER_WAIT_NS
        conn.peer_due_ns = last + (wait if wait < ctx.unanswered_ns else ctx.unanswered_ns)
    return True


cdef inline void mark_incomplete(exchange_t* ex) noexcept nogil:
    """It is recorded as it stands: say what is not there to its end."""
    if not ex.req.done:
        ex.marks |= MARK_REQUEST_INCOMPLETE
    if ex.resp.started and not ex.resp.done:
        ex.marks |= MARK_RESPONSE_INCOMPLETE
