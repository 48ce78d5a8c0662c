"""Decoders seen from below; see codings.pyx."""

from libc.stdint cimport int64_t, uint8_t

from collector.shards.records.zlib cimport z_stream

cdef enum:
    CODED_ENDED = 0         # at the end that the coding itself names
    CODED_CUT = 1           # the bytes given are over before that
    CODED_LONGER = 2        # there is more output than the limit
    CODED_BROKEN = 3        # this is no such coding
    CODED_OVER = 4          # more work than the allowance


cdef class Inflater:
    cdef z_stream stream
    cdef bint made
    cdef uint8_t* out
    cdef size_t room
    cdef int begin(self, int window_bits) except -1
    cdef int reserve(self, size_t room) except -1
    cdef int run(self, const uint8_t* start, size_t size, int window_bits, size_t limit, int64_t allowance, bint members,
                 size_t* made, size_t* behind, int64_t* worked) except -1
