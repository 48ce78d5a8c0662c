"""Paths with their identifiers folded; see folding.pyx."""

from libc.stdint cimport uint8_t


cdef size_t fold(const uint8_t* p, const uint8_t* end, uint8_t* out, size_t most) noexcept nogil
