"""HTTP/1.x on one connection: bytes, holes and ends in, exchanges out; see messages.pyx."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from collector.shards.state cimport conn_t, ctx_t, exchange_t

cdef void http1_data(ctx_t* ctx, conn_t* conn, uint32_t d, const uint8_t* p, size_t n, uint64_t ts) noexcept
cdef void http1_hole(ctx_t* ctx, conn_t* conn, uint32_t d, uint64_t n, bint lost) noexcept
cdef void http1_end(ctx_t* ctx, conn_t* conn, uint32_t d) noexcept
cdef void http1_close(ctx_t* ctx, conn_t* conn, uint32_t marks) noexcept
cdef void http1_reset(ctx_t* ctx, conn_t* conn, uint32_t marks) noexcept
cdef void http1_was_reset(conn_t* conn) noexcept nogil
cdef void pop_done(ctx_t* ctx, conn_t* conn) noexcept
cdef int http1_rests(conn_t* conn, uint8_t* heads) noexcept nogil
cdef bint http1_owe(ctx_t* ctx, conn_t* conn, uint32_t owed, uint8_t heads) noexcept
cdef void http1_quiet(ctx_t* ctx, conn_t* conn, uint64_t quiet_ns) noexcept nogil
cdef uint64_t http1_idle(ctx_t* ctx, conn_t* conn, uint64_t now) noexcept
cdef uint64_t http1_unwanted(ctx_t* ctx, conn_t* conn, uint32_t d, uint64_t pos) noexcept nogil
