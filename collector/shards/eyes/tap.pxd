"""What leaves a shard, for those who look at it; see tap.pyx."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from collector.shards.eyes.scan cimport seen_t, text_t
from collector.shards.eyes.tally cimport Tally
from collector.shards.memory cimport buf_t, pool_t


cdef enum:
    GLOB_MOST = 256
    CODES = 1000
    VIEWS = 8

cdef struct glob_t:      # a pattern with `*` and `?`; n 0: everything fits
    size_t n
    uint8_t[256] text

cdef struct view_t:      # one viewer of records
    uint32_t number      # 0: free
    bint whole           # records as they leave
    bint some_codes
    uint8_t direction    # c'1', c'2', or 0 for both
    glob_t host
    glob_t path
    glob_t process
    uint64_t process_id  # 0: any
    uint8_t[1000] codes
    buf_t lines          # those that wait to be sent
    uint32_t count
    uint32_t lost        # there was no memory for them

cdef bint fits(const glob_t* glob, const text_t* text) noexcept nogil

cdef class Tap:
    cdef view_t[8] views
    cdef uint32_t used   # views up to the last one that is not free
    cdef pool_t pool
    cdef Tally tally     # None while nobody wants figures
    cdef void see(self, const uint8_t* records, size_t n) noexcept
