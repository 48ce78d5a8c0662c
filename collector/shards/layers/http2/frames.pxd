"""Frames; see frames.pyx."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from collector.shards.layers.http2.state cimport half_t, http2_t
from collector.shards.state cimport ctx_t, feed_t

cdef enum whose_t:
    OF_NOBODY            # not known
    OF_CLIENT
    OF_SERVER

cdef const char* PREFACE     # of the client (RFC 9113 section 3.4)

cdef void lose_framing(ctx_t* ctx, http2_t* c, uint32_t d, bint lost, uint64_t ts) noexcept
cdef void drop_frame(ctx_t* ctx, half_t* h) noexcept
cdef bint looks_like_frames(const uint8_t* p, size_t n, whose_t whose, uint32_t newest, uint32_t promised) noexcept nogil
cdef whose_t who_sends(ctx_t* ctx, const uint8_t* p, size_t n) noexcept
cdef feed_t read_preface(ctx_t* ctx, http2_t* c, uint32_t d, const uint8_t* p, size_t n, uint64_t ts, size_t* used) noexcept
cdef feed_t read_frames(ctx_t* ctx, http2_t* c, uint32_t d, const uint8_t* p, size_t n, uint64_t ts) noexcept
cdef void skip_bytes(ctx_t* ctx, http2_t* c, uint32_t d, uint64_t n, bint lost, uint64_t ts) noexcept
