"""What a head that is written as JSON text says; see written.pyx."""

from libc.stdint cimport uint32_t, uint8_t

from collector.shards.memory cimport buf_t

# Bytes as they were on the wire. NULL: not known.
cdef struct piece_t:
    const uint8_t* p
    uint32_t n

cdef piece_t written_text(const buf_t* head, const char* before, uint32_t n) noexcept nogil
cdef piece_t written_field(const buf_t* head, const char* name, uint32_t n) noexcept nogil
