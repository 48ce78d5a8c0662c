"""What bytes are that nobody has said anything of; see sniffing.pyx."""

from libc.stdint cimport uint8_t

cdef bint is_text(const uint8_t* p, size_t n) noexcept nogil
cdef bint is_utf16(const uint8_t* p, size_t n) noexcept nogil
cdef bint is_number(const uint8_t* p, size_t n) noexcept nogil


cdef inline bint is_blank(uint8_t c) noexcept nogil:
    """Between the values of JSON (RFC 8259 section 2)."""
    return c == c' ' or c == c'\n' or c == c'\r' or c == c'\t'
