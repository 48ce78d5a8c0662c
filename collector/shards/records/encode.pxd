"""Record building; see encode.pyx."""

from libc.stdint cimport uint64_t

from collector.shards.http.message cimport exchange_t
from collector.shards.state cimport ctx_t, flow_t

cdef void emit_record(ctx_t* ctx, flow_t* flow, exchange_t* ex, uint64_t end_ns) noexcept
