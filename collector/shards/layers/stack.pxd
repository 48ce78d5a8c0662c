"""The layers of a flow, one behind the other; see stack.pyx."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from collector.shards.state cimport CONN_AHEAD, FACT_AHEAD, FEED_ALL, ctx_t, fact_t, feed_t, flow_t

cdef void flow_read(ctx_t* ctx, flow_t* flow, uint32_t d, const uint8_t* p, size_t n, uint64_t ts) noexcept
cdef void hand_on(ctx_t* ctx, flow_t* flow, feed_t said, uint32_t d, size_t n) noexcept
cdef void flow_hole(ctx_t* ctx, flow_t* flow, uint32_t d, uint64_t n, bint lost, uint64_t ts) noexcept
cdef void flow_end(ctx_t* ctx, flow_t* flow, uint32_t d) noexcept
cdef void flow_rejoin(ctx_t* ctx, flow_t* flow, uint32_t marks) noexcept
cdef void flow_close(ctx_t* ctx, flow_t* flow, uint32_t marks) noexcept


cdef inline void flow_data(ctx_t* ctx, flow_t* flow, uint32_t d, const uint8_t* p, size_t n, uint64_t ts) noexcept:
    """`n` bytes of direction `d`, all of one event, at the expected position."""
    cdef feed_t said
    cdef size_t used = n
    if flow.layer != NULL:
        said = flow.layer.data(ctx, flow, d, p, n, ts, &used)
        if said == FEED_ALL:
            return
        hand_on(ctx, flow, said, d, n - used)
        p += used
        n -= used
    flow_read(ctx, flow, d, p, n, ts)


cdef inline void flow_told(ctx_t* ctx, flow_t* flow, fact_t fact) noexcept:
    """A fact about the connection, to whom it may concern."""
    if flow.layer != NULL:
        flow.layer.told(ctx, flow, fact)
    elif fact == FACT_AHEAD:
        flow.conn.flags |= CONN_AHEAD


cdef inline uint64_t flow_idle(ctx_t* ctx, flow_t* flow, uint64_t now) noexcept:
    """When to look again; 0: not before the next byte."""
    return flow.layer.idle(ctx, flow, now) if flow.layer != NULL else 0


cdef inline uint64_t flow_unwanted(ctx_t* ctx, flow_t* flow, uint32_t d, uint64_t pos) noexcept nogil:
    return flow.layer.unwanted(ctx, flow, d, pos) if flow.layer != NULL else 0
