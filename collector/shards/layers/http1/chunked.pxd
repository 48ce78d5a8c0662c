"""Chunk sizes; see chunked.pyx."""

from libc.stdint cimport int64_t, uint8_t, uint32_t

cdef int64_t chunk_size(const uint8_t* p, const uint8_t* end, uint32_t* ambiguity) noexcept nogil
