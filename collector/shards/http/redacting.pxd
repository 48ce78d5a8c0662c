"""Heads that were written under another policy; see redacting.pyx."""

from collector.shards.http.message cimport exchange_t
from collector.shards.state cimport ctx_t

cdef int redact_anew(ctx_t* ctx, exchange_t* ex) noexcept
