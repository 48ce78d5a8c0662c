"""What the content of a message is; see content.pyx."""

from libc.stdint cimport uint8_t, uint32_t

from collector.shards.http.fields cimport fields_t
from collector.shards.http.message cimport message_t
from collector.shards.state cimport ctx_t

cdef uint8_t coding_of(const uint8_t* p, uint32_t n) noexcept nogil
cdef void content_facts(ctx_t* ctx, const fields_t* fields, message_t* m) noexcept
