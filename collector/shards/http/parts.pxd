"""Exchanges whose bodies are messages one behind the other, recorded in parts; see parts.pyx."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from collector.shards.http.message cimport exchange_t, message_t
from collector.shards.state cimport ctx_t, flow_t

cdef bint in_parts(const message_t* m) noexcept nogil
cdef void part_begins(flow_t* flow, exchange_t* ex, uint64_t ts) noexcept nogil
cdef void part_body(ctx_t* ctx, flow_t* flow, exchange_t* ex, bint is_request, const uint8_t* p, size_t n,
                    uint64_t ts) noexcept
cdef void part_lost(ctx_t* ctx, flow_t* flow, exchange_t* ex, bint is_request, uint64_t n, bint lost, uint64_t ts) noexcept
cdef void part_due(ctx_t* ctx, flow_t* flow, exchange_t* ex, uint64_t now) noexcept
cdef void part_released(ctx_t* ctx, flow_t* flow, exchange_t* ex) noexcept
cdef void part_last(ctx_t* ctx, flow_t* flow, exchange_t* ex, uint64_t end) noexcept
