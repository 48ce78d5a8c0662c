"""What bytes are that nobody has said anything of, or not the truth."""

from libc.stdint cimport uint8_t
from libc.string cimport memchr

cdef enum:
    UTF16_SNIFF = 64        # bytes looked at
    UTF16_LEAST = 8


cdef bint is_text(const uint8_t* p, size_t n) noexcept nogil:
    """Text in ASCII or something that contains it, and no message of Protobuf: those have bytes that texts do not have, or
    begin with a line feed, the tag of their first field."""
    cdef size_t i
    if n == 0 or p[0] == c'\n':
        return False
    for i in range(n):
        if p[i] < c' ' and p[i] != c'\n' and p[i] != c'\r' and p[i] != c'\t' or p[i] == 0x7F:
            return False
    return True


cdef bint is_utf16(const uint8_t* p, size_t n) noexcept nogil:
    """A mark that says so (RFC 2781 section 3.2), or of every other byte at least a quarter is zero, and hardly any of those
    between: ASCII and other letters in UTF-16, for as far as is looked."""
    cdef size_t i, most = n if n < UTF16_SNIFF else UTF16_SNIFF
    cdef size_t first = 0, second = 0
    if n < UTF16_LEAST:
        return False
    if p[0] == 0xFF and p[1] == 0xFE or p[0] == 0xFE and p[1] == 0xFF:
        return True
    if memchr(p, 0, most) == NULL:
        return False
    for i in range(0, most - 1, 2):
        first += p[i] == 0
        second += p[i + 1] == 0
    return first * 8 >= most and second * 4 <= first or second * 8 >= most and first * 4 <= second


cdef bint is_number(const uint8_t* p, size_t n) noexcept nogil:
    """Digits and nothing else but blanks: JSON, of which a text has to be made."""
    cdef size_t i
    for i in range(n):
        if not (p[i] >= c'0' and p[i] <= c'9' or is_blank(p[i])):
            return False
    return True
