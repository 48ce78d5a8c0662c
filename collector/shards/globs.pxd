"""Patterns in which `*` stands for any bytes, none included; see globs.pyx."""

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcmp

cdef struct glob_t:
    const uint8_t* text
    uint32_t length
    uint32_t head        # bytes before the first star; without a star all of them
    uint32_t tail        # bytes behind the last star
    uint8_t star         # there is one

cdef struct globs_t:
    glob_t* items        # and behind them their texts: one block of memory
    uint32_t count

cdef globs_t globs_make(patterns) except *
cdef void globs_free(globs_t* globs) noexcept nogil
cdef bint glob_middle(const glob_t* glob, const uint8_t* p, uint32_t n) noexcept nogil


cdef inline bint glob_fits(const glob_t* glob, const uint8_t* p, uint32_t n) noexcept nogil:
    """Is the whole text like that? Linear in its length, times the number of stars."""
    if not glob.star:
        return n == glob.length and memcmp(p, glob.text, n) == 0
    if (n < glob.head + glob.tail or memcmp(p, glob.text, glob.head) != 0
            or memcmp(p + n - glob.tail, glob.text + glob.length - glob.tail, glob.tail) != 0):
        return False
    return glob.head + glob.tail + 1 == glob.length or glob_middle(glob, p, n)


cdef inline bint globs_fit(const globs_t* globs, const uint8_t* p, uint32_t n) noexcept nogil:
    """Is it like any of them?"""
    cdef uint32_t i
    for i in range(globs.count):
        if glob_fits(&globs.items[i], p, n):
            return True
    return False
