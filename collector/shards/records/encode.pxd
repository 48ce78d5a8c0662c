"""Record building; see encode.pyx."""

from libc.stdint cimport uint64_t

from collector.shards.state cimport conn_t, ctx_t, exchange_t

cdef void emit_record(ctx_t* ctx, conn_t* conn, exchange_t* ex, uint64_t end_ns) noexcept
