"""Include and exclude rules; see selection.pyx."""

from libc.stdint cimport uint32_t

from collector.shards.http.fields cimport fields_t, request_t
from collector.shards.http.message cimport exchange_t
from collector.shards.http.rules cimport selection_t
from collector.shards.state cimport conn_t, ctx_t

cdef selection_t* selection_make(rules) except? NULL
cdef void selection_release(selection_t* selection) noexcept nogil
cdef bint excluded_at_request(ctx_t* ctx, conn_t* conn, exchange_t* ex, const request_t* request,
                              const fields_t* fields) noexcept
cdef bint excluded_at_answer(ctx_t* ctx, conn_t* conn, exchange_t* ex, uint32_t status, const fields_t* fields) noexcept
cdef bint excluded_anew(ctx_t* ctx, conn_t* conn, exchange_t* ex) noexcept
cdef bint excluded_at_end(ctx_t* ctx, conn_t* conn, exchange_t* ex) noexcept
