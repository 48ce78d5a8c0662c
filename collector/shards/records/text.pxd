"""Bytes as JSON text; see text.pyx."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, strlen


cdef enum:  # text_mode
    TEXT_STRICT = 0    # NULL when the bytes are not UTF-8
    TEXT_LATIN1 = 1    # a byte that is not part of UTF-8 stands for the ISO-8859-1 character

# Room needed in `out`: 6 bytes a byte for escape_json, 7 for escape_json_twice, and 32 more.
cdef char* escape_json(char* out, const uint8_t* p, const uint8_t* end, int mode) noexcept nogil
cdef char* escape_json_twice(char* out, const uint8_t* p, const uint8_t* end) noexcept nogil
cdef size_t escaped_prefix(const uint8_t* p, size_t n, size_t most) noexcept nogil
cdef size_t close_json(char* out, const uint8_t* p, const uint8_t* end) noexcept nogil
cdef int utf8_length(const uint8_t* p, const uint8_t* end) noexcept nogil
cdef char* put_address(char* out, const uint8_t* a, uint16_t port) noexcept nogil


cdef inline char* put_text(char* out, const char* s) noexcept nogil:
    """A literal, as it is."""
    cdef size_t n = strlen(s)
    memcpy(out, s, n)
    return out + n


cdef inline char* put_u64(char* out, uint64_t v) noexcept nogil:
    """In decimal."""
    cdef char[24] tmp
    cdef int i = 24
    while True:
        i -= 1
        tmp[i] = <char>(c'0' + v % 10)
        v = v // 10
        if v == 0:
            break
    memcpy(out, &tmp[i], 24 - i)
    return out + (24 - i)


cdef inline char* put_hex(char* out, uint64_t v) noexcept nogil:
    """In hexadecimal, without leading zeros."""
    cdef char[16] tmp
    cdef int i = 16
    while True:
        i -= 1
        tmp[i] = <char>(c'0' + (v & 15) if v & 15 < 10 else c'a' + (v & 15) - 10)
        v >>= 4
        if v == 0:
            break
    memcpy(out, &tmp[i], 16 - i)
    return out + (16 - i)


cdef inline char* put_millis(char* out, uint64_t ns) noexcept nogil:
    """Nanoseconds as milliseconds with three decimals."""
    cdef uint64_t us = ns // 1000
    cdef unsigned frac = <unsigned>(us % 1000)
    out = put_u64(out, us // 1000)
    out[0] = c'.'
    out[1] = <char>(c'0' + frac // 100)
    out[2] = <char>(c'0' + frac // 10 % 10)
    out[3] = <char>(c'0' + frac % 10)
    return out + 4


cdef inline bint address_known(const uint8_t* a) noexcept nogil:
    """Is it not all zero?"""
    cdef uint64_t[2] words
    memcpy(words, a, 16)
    return (words[0] | words[1]) != 0
