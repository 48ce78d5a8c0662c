"""Protobuf messages as JSON; see transcode.pyx."""

from libc.stdint cimport uint8_t, uint64_t

from collector.shards.http.message cimport exchange_t, message_t
from collector.shards.state cimport conn_t, ctx_t

cdef enum:
    WITHOUT_JSON = 0x7FFFFFFF   # a limit of body bytes: none, but leave the JSON out

cdef void keep_body(ctx_t* ctx, const message_t* m, const uint8_t* p, size_t n, bint cut) noexcept
cdef int put_json(ctx_t* ctx, conn_t* conn, exchange_t* ex, bint is_request, size_t limit, uint64_t now) noexcept
cdef void count_messages(ctx_t* ctx) noexcept nogil
