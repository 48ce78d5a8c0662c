"""Paths with their identifiers folded; see folding.pyx."""

from libc.stdint cimport uint8_t


cdef struct segment_t:
    const uint8_t* end      # where it ends: at `/`, `?`, `#` or the target's end
    size_t n                # bytes of it that count: those before a `;`
    bint identifier

cdef segment_t segment_at(const uint8_t* p, const uint8_t* end) noexcept nogil
cdef const uint8_t* path_of(const uint8_t* p, const uint8_t* end, const uint8_t** host, size_t* host_len) noexcept nogil
cdef size_t fold(const uint8_t* p, const uint8_t* end, uint8_t* out, size_t most) noexcept nogil
