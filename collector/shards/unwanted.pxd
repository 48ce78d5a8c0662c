"""The words by which the kernel is told what nobody wants; see unwanted.pyx."""

from libc.stdint cimport uint32_t, uint64_t

from collector.shards.state cimport conn_t, ctx_t

cdef enum:
    UNWANTED_LEAST = 16384  # bytes: less is not worth telling the kernel

cdef void publish(ctx_t* ctx, conn_t* conn, uint32_t d, uint64_t pos) noexcept
cdef void take_back(ctx_t* ctx, conn_t* conn) noexcept
cdef void withdraw(ctx_t* ctx, conn_t* conn) noexcept
