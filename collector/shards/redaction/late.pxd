"""Heads that were read under another policy; see late.pyx."""

from collector.shards.http.message cimport exchange_t
from collector.shards.state cimport ctx_t

cdef bint redact_again(ctx_t* ctx, exchange_t* ex) noexcept
