"""Start lines and header fields; see heads.pyx."""

from libc.stdint cimport uint8_t, uint32_t

from collector.shards.http.fields cimport fields_t, request_t, response_t
from collector.shards.redaction.state cimport redaction_t

cdef int redact_fields(redaction_t* r, const fields_t** fields, bint cut) noexcept
cdef int redact_request(redaction_t* r, request_t* request, bint cut) noexcept
cdef int redact_response(redaction_t* r, response_t* response) noexcept
