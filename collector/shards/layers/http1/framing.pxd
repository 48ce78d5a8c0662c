"""The framing of one direction; see framing.pyx."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from collector.shards.http.exchanges cimport side_t, REQUEST, RESPONSE
from collector.shards.layers.http1.pairing cimport message_done
from collector.shards.layers.http1.state cimport *
from collector.shards.memory cimport buf_t
from collector.shards.state cimport FEED_ALL, FEED_SWITCH, ctx_t, feed_t, flow_t

cdef feed_t http1_data(ctx_t* ctx, flow_t* flow, uint32_t d, const uint8_t* p, size_t n, uint64_t ts,
                       size_t* used) noexcept
cdef void read_parked(ctx_t* ctx, http1_t* c, uint32_t d, uint64_t ts) noexcept
cdef void let_parked(ctx_t* ctx, http1_t* c, uint64_t ts) noexcept
cdef void it_is_a_body(ctx_t* ctx, http1_t* c, uint32_t d, half_t* h, uint64_t ts) noexcept
cdef bint salvage_head(ctx_t* ctx, http1_t* c, half_t* h, uint32_t d, uint64_t ts) noexcept


cdef inline side_t side_of(http1_t* c, uint32_t d) noexcept nogil:
    """Whose bytes go in this direction."""
    return REQUEST if d == c.conn.dir_request else RESPONSE


cdef inline void advance_body(ctx_t* ctx, http1_t* c, half_t* h, side_t side, uint64_t n) noexcept:
    """`n` of the bytes that are `remaining` are done with."""
    h.remaining -= n
    if h.remaining == 0:
        if h.state == H_BODY:
            message_done(ctx, c, h, side)
        else:
            h.state = H_CHUNK_END
            h.inside_line = 0


cdef inline bint refused(half_t* h) noexcept nogil:
    """Any final answer refuses (RFC 9110 section 10.1.1)."""
    return h.current.resp.started


cdef inline bint body_not_owed(half_t* h) noexcept nogil:
    """The client asked for 100 (Continue) and did not get it, and nothing of the body was sent: it may have been refused, by
    an answer that is lost or still to come, and go on without the body (RFC 9110 section 10.1.1)."""
    return ((h.state == H_BODY or h.state == H_CHUNK_DATA or (h.state == H_CHUNK_SIZE and h.part.bytes.len == 0))
            and h.current != NULL and h.current.notes & NOTE_EXPECT and not h.current.notes & NOTE_CONTINUED
            and h.current.req.size == 0)


cdef inline feed_t over(ctx_t* ctx, http1_t* c) noexcept nogil:
    """Whose the rest of the connection is."""
    if not c.left:
        return FEED_ALL
    ctx.handoff.protocol = b"tunnel"
    if c.upgraded != NULL:
        ctx.handoff.protocol = c.upgraded_to
        ctx.handoff.exchange = c.upgraded
        c.upgraded = NULL
    ctx.handoff.kept = c.rest
    ctx.handoff.kept_dir = c.rest_dir
    ctx.handoff.kept_ns = c.rest_ns
    memset(&c.rest, 0, sizeof(buf_t))
    return FEED_SWITCH
