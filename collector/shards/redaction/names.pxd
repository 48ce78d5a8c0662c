"""Names of what is secret; see names.pyx."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from collector.shards.redaction.state cimport known_t, redaction_t

cdef const known_t* find_name(const redaction_t* r, const uint8_t* p, const uint8_t* end) noexcept nogil


cdef inline uint32_t ending_of(const uint8_t* end) noexcept nogil:
    """Which bit of redaction_t.endings the four bytes before `end` have, in any case."""
    cdef uint32_t word
    memcpy(&word, end - 4, 4)
    return (word | 0x20202020) * <uint32_t>0x9E3779B1 >> 18


cdef inline bint may_be_name(const redaction_t* r, const uint8_t* begin, const uint8_t* end) noexcept nogil:
    """Can a name that is secret end at `end`? `begin`: of the bytes that can be read."""
    cdef uint32_t bit
    if end - begin < 4:
        return end - begin >= 2
    bit = ending_of(end)
    return r.endings[bit >> 6] >> (bit & 63) & 1


cdef void learn(redaction_t* r, words, uint32_t kind, uint8_t flags) except *
cdef void learn_last(redaction_t* r, words)
