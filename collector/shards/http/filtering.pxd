"""Filters of requests; see filtering.pyx."""

from collector.shards.http.fields cimport fields_t, unlisted_t
from collector.shards.state cimport conn_t, ctx_t

cdef bint filtered(ctx_t* ctx, conn_t* conn, const fields_t* fields, unlisted_t unlisted) noexcept
