"""Patterns in which `*` stands for any bytes, none included, and nothing else means anything: compiled once, matched without
memory and without backtracking. Most are literal, a beginning or an end, which is one comparison."""

from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport calloc, free
from libc.string cimport memchr, memcpy

cdef extern from "<string.h>" nogil:
    void* memmem(const void* haystack, size_t haystack_len, const void* needle, size_t needle_len)
    void* memrchr(const void* s, int c, size_t n)


cdef globs_t globs_make(patterns) except *:
    """Of a sequence of bytes. The caller frees it. Raises MemoryError."""
    cdef globs_t out
    cdef glob_t* glob
    cdef uint8_t* text
    cdef const uint8_t* star
    cdef bytes pattern
    out.count = <uint32_t>len(patterns)
    out.items = NULL
    if out.count == 0:
        return out
    out.items = <glob_t*>calloc(1, out.count * sizeof(glob_t) + <size_t>sum(map(len, patterns)) + 1)
    if out.items == NULL:
        raise MemoryError
    text = <uint8_t*>(out.items + out.count)
    for i, pattern in enumerate(patterns):
        glob = &out.items[<uint32_t>i]
        glob.text = text
        glob.length = <uint32_t>len(pattern)
        memcpy(text, <const char*>pattern, glob.length)
        star = <const uint8_t*>memchr(text, c'*', glob.length)
        glob.star = star != NULL
        glob.head = glob.length
        if star != NULL:
            glob.head = <uint32_t>(star - text)
            star = <const uint8_t*>memrchr(text, c'*', glob.length)
            glob.tail = <uint32_t>(text + glob.length - star) - 1
        text += glob.length
    return out


cdef void globs_free(globs_t* globs) noexcept nogil:
    free(globs.items)
    globs.items = NULL
    globs.count = 0


cdef bint glob_middle(const glob_t* glob, const uint8_t* p, uint32_t n) noexcept nogil:
    """Are the pieces between the stars there, one behind the other? Each is taken where it comes first: if that leaves no
    room for the next ones, no other place does."""
    cdef const uint8_t* piece = glob.text + glob.head + 1
    cdef const uint8_t* last = glob.text + glob.length - glob.tail - 1      # the last star
    cdef const uint8_t* star
    cdef const uint8_t* at = p + glob.head
    cdef const uint8_t* end = p + n - glob.tail
    cdef const uint8_t* found
    while piece < last:
        star = <const uint8_t*>memchr(piece, c'*', <size_t>(last - piece) + 1)
        if star != piece:
            found = <const uint8_t*>memmem(at, <size_t>(end - at), piece, <size_t>(star - piece))
            if found == NULL:
                return False
            at = found + (star - piece)
        piece = star + 1
    return True


def matches(pattern not None, text not None):
    """Does the text fit the pattern? Both bytes; for tests."""
    cdef bytes what = text
    cdef globs_t globs = globs_make([pattern])
    cdef bint out = globs_fit(&globs, <const uint8_t*><const char*>what, <uint32_t>len(what))
    globs_free(&globs)
    return out
