"""Which exchanges are recorded, and what is told of the others; see sampler.pyx."""

from collector.shards.http.fields cimport fields_t, request_t
from collector.shards.http.message cimport exchange_t
from collector.shards.state cimport conn_t, ctx_t

cdef int use_sampling(ctx_t* ctx, sampling) except -1
cdef void forget_sampling(ctx_t* ctx) noexcept
cdef void sample_request(ctx_t* ctx, const conn_t* conn, exchange_t* ex, const request_t* request,
                         const fields_t* fields) noexcept nogil
cdef void settle_early(ctx_t* ctx, exchange_t* ex) noexcept nogil
cdef bint sample_record(ctx_t* ctx, const conn_t* conn, exchange_t* ex) noexcept nogil
cdef char* put_sampling(char* out, const ctx_t* ctx, const exchange_t* ex) noexcept nogil
cdef void record_told(ctx_t* ctx, const exchange_t* ex) noexcept nogil
