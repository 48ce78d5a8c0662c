"""Bodies as JSON text; see bodies.pyx."""

from libc.stdint cimport uint32_t, uint64_t

from collector.shards.http.message cimport message_t
from collector.shards.records.marks cimport shown_t
from collector.shards.state cimport conn_t, ctx_t

cdef int put_body(ctx_t* ctx, conn_t* conn, message_t* m, bint is_request, uint32_t* marks, shown_t* shown, size_t limit,
                  uint64_t now) noexcept
