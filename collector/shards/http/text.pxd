"""Heads as JSON text; see text.pyx."""

from libc.stdint cimport uint8_t

from collector.shards.http.fields cimport fields_t, request_t, response_t
from collector.shards.http.message cimport exchange_t, message_t
from collector.shards.state cimport ctx_t

cdef const uint8_t* target_host(const request_t* h, const uint8_t** stop) noexcept nogil
cdef int write_request(ctx_t* ctx, const request_t* request, const fields_t* fields, message_t* m) noexcept
cdef int add_fields(ctx_t* ctx, const fields_t* fields, message_t* m) noexcept
cdef int write_response(ctx_t* ctx, const response_t* response, const fields_t* fields, message_t* m) noexcept
cdef void write_details(ctx_t* ctx, const request_t* request, const fields_t* fields, exchange_t* ex) noexcept
