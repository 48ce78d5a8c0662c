"""What bytes are that nobody has said anything of; see sniffing.pyx."""

from libc.stdint cimport uint8_t

cdef bint is_text(const uint8_t* p, size_t n) noexcept nogil
cdef bint is_utf16(const uint8_t* p, size_t n) noexcept nogil
cdef bint is_number(const uint8_t* p, size_t n) noexcept nogil
