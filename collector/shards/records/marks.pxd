"""Marks as text; see marks.pyx."""

from libc.stdint cimport uint64_t

from collector.shards.http.message cimport exchange_t


cdef struct shown_t:
    uint64_t wire           # body bytes of the wire that the record stands for
    uint64_t behind         # bytes behind the end of a content coding

cdef char* put_marks(char* out, exchange_t* ex, const char* const* reasons, shown_t* req, shown_t* resp) noexcept nogil
