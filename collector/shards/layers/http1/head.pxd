"""One message head: start line and header fields as pointers into the bytes it was parsed from."""

from libc.stdint cimport int64_t, uint8_t, uint32_t

from collector.shards.layers.http1.state cimport head_t

cdef int64_t parse_head(head_t* h, const uint8_t* p, const uint8_t* end, bint response, int whole) noexcept nogil
cdef bint trailer_line(const uint8_t* p, const uint8_t* end, uint32_t* ambiguity) noexcept nogil
cdef int64_t find_head_end(const uint8_t* p, uint32_t length, uint32_t* scan) noexcept nogil
cdef bint start_refused(head_t* h, const uint8_t* p, uint32_t before, uint32_t length, bint response,
                        uint32_t* known) noexcept nogil
