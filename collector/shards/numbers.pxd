"""What follows from a connection's number, here and in the kernel alike (bpf/capture.h; tests/bpf compares them)."""

from libc.stdint cimport uint16_t, uint32_t, uint64_t


cdef inline uint64_t scatter(uint64_t conn_id) noexcept nogil:
    """64 bits that differ in all places for neighbouring numbers."""
    return ((conn_id >> 12) ^ (conn_id << 52)) * 0x9E3779B97F4A7C15ULL


cdef inline uint16_t turn_of(uint64_t conn_id) noexcept nogil:
    """It is read while the share is above this: evenly spread, and not by what rings and buckets are chosen by."""
    cdef uint64_t h = scatter(conn_id)
    return <uint16_t>((h ^ h >> 32) * 0xD6E8FEB86659FD93ULL >> 48)


cdef inline uint64_t word_at(uint64_t scattered, uint32_t d, uint64_t words) noexcept nogil:
    """Where the word of direction `d` stands among `words` (a power of two)."""
    return ((scattered ^ scattered >> 32) >> 18 & (words // 2 - 1)) * 2 + d
