"""Paths with their identifiers folded, so that `/users/7` and `/users/8` are one endpoint: by the form of each segment.

Folded to `{id}`: numbers, UUIDs, hexadecimal of 16 letters and more, and long mixtures of letters and digits. The query is
left away, and of an absolute target the scheme and the authority.
"""

from libc.stdint cimport uint8_t
from libc.string cimport memchr, memcpy

from collector.shards.eyes.scan cimport unit

cdef enum:
    HEX_LETTERS = 16     # from here on hexadecimal with a digit in it is no word
    MIXED_LETTERS = 20   # and a mixture with MIXED_DIGITS digits
    MIXED_DIGITS = 4


cdef bint is_id(const uint8_t* p, size_t n) noexcept nogil:
    """Has this segment the form of an identifier?"""
    cdef size_t i, digits = 0, hexadecimal = 0, dashes = 0, letters = 0
    cdef uint8_t c
    for i in range(n):
        c = p[i]
        if c'0' <= c <= c'9':
            digits += 1
        elif c'a' <= c | 0x20 <= c'f':
            hexadecimal += 1
        elif c'a' <= c | 0x20 <= c'z':
            letters += 1
        elif c == c'-' or c == c'_':
            dashes += 1
        else:
            return False
    if digits == 0:
        return False
    if digits == n or n == 36 and dashes == 4 and letters == 0:
        return True
    if n >= HEX_LETTERS and letters == dashes == 0:
        return True
    return n >= MIXED_LETTERS and digits >= MIXED_DIGITS


cdef size_t fold(const uint8_t* p, const uint8_t* end, uint8_t* out, size_t most) noexcept nogil:
    """Write the folded form of the target from p to `end`, text of a JSON string, and return its length: at most ``most``
    bytes, cut behind a whole character."""
    cdef const uint8_t* stop
    cdef size_t used = 0, n
    if end - p > 8 and p[0] != c'/':        # RFC 9112 section 3.2.2
        stop = <const uint8_t*>memchr(p, c':', <size_t>(end - p) - 2)
        if stop != NULL and stop[1] == c'/' and stop[2] == c'/':
            stop = <const uint8_t*>memchr(stop + 3, c'/', <size_t>(end - stop) - 3)
            p = stop if stop != NULL else end
    while p < end and p[0] != c'?':
        stop = p
        while stop < end and stop[0] != c'/' and stop[0] != c'?':
            stop += 1
        if is_id(p, <size_t>(stop - p)):
            if used + 4 > most:
                return used
            memcpy(out + used, b"{id}", 4)
            used += 4
            p = stop
        if stop < end and stop[0] == c'/':
            stop += 1
        while p < stop:
            n = unit(p, stop)
            if used + n > most:
                return used
            memcpy(out + used, p, n)
            used += n
            p += n
    return used


def folded(const uint8_t[::1] path not None, size_t most=192):
    """The folded form, as bytes. For tests."""
    cdef uint8_t[256] out
    cdef size_t n = path.shape[0]
    if n == 0:
        return b""
    n = fold(&path[0], &path[0] + n, out, min(most, <size_t>256))
    return (<const char*>out)[:n]
