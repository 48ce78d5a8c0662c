"""Header blocks as heads; see fields.pyx."""

from collector.shards.layers.http2.hpack cimport hpack_field_t
from collector.shards.layers.http2.state cimport head_t

cdef void read_fields(head_t* head, const hpack_field_t* found, int count, bint overflow, const void* end) noexcept nogil
