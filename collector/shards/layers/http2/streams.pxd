"""Streams and what they carry; see streams.pyx."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from collector.shards.http.exchanges cimport RESPONSE, REQUEST, side_t
from collector.shards.http.message cimport exchange_t
from collector.shards.layers.http2.state cimport frame_t, half_t, head_t, http2_t
from collector.shards.marks cimport MARK_STATUS_UNKNOWN
from collector.shards.state cimport ctx_t

cdef exchange_t* find_stream(ctx_t* ctx, http2_t* c, uint32_t stream, uint64_t ts) noexcept
cdef void head_here(ctx_t* ctx, http2_t* c, uint32_t d, const frame_t* frame, const head_t* head, uint64_t first_ns,
                    uint64_t ts) noexcept
cdef void head_lost(ctx_t* ctx, http2_t* c, uint32_t d, const frame_t* frame, bint lost, uint64_t ts) noexcept
cdef void promise_here(ctx_t* ctx, http2_t* c, uint32_t promised, const head_t* head, uint64_t first_ns,
                       uint64_t ts) noexcept
cdef void adopt(ctx_t* ctx, http2_t* c, exchange_t* ex) noexcept
cdef bint has_ended(const exchange_t* ex, side_t side) noexcept nogil
cdef void side_ends(ctx_t* ctx, http2_t* c, exchange_t* ex, side_t side) noexcept
cdef void stream_reset(ctx_t* ctx, http2_t* c, exchange_t* ex) noexcept
cdef void bytes_missing(ctx_t* ctx, http2_t* c, side_t side, bint lost, uint64_t ts) noexcept
cdef void direction_ends(ctx_t* ctx, http2_t* c, side_t side) noexcept
cdef void record_all(ctx_t* ctx, http2_t* c, uint32_t marks) noexcept
cdef void released(ctx_t* ctx, http2_t* c) noexcept
cdef uint64_t give_up_silent(ctx_t* ctx, http2_t* c, uint64_t now) noexcept


cdef inline void head_unseen(exchange_t* ex, uint64_t ts) noexcept nogil:
    """An answer goes on whose head nobody saw."""
    ex.resp.started = 1
    ex.resp.first_ns = ts
    ex.marks |= MARK_STATUS_UNKNOWN


cdef inline side_t side_of(http2_t* c, uint32_t d) noexcept nogil:
    return REQUEST if d == c.conn.dir_request else RESPONSE
