"""Endpoints as numbers; see endpoints.pyx."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from collector.shards.http.fields cimport fields_t, request_t

cdef extern from *:
    """
    #include <stdint.h>
    /* The two halves of a product of 128 bits, folded: each bit of the result depends on all bits of both factors. */
    static inline uint64_t collector_mix(uint64_t a, uint64_t b)
    {
        unsigned __int128 product = (unsigned __int128)a * b;
        return (uint64_t)product ^ (uint64_t)(product >> 64);
    }
    """
    uint64_t mix "collector_mix"(uint64_t a, uint64_t b) noexcept nogil

cdef uint64_t hash_text(uint64_t h, const uint8_t* p, size_t n) noexcept nogil
cdef uint64_t endpoint_of(uint64_t seed, uint32_t direction, const request_t* request, const fields_t* fields) noexcept nogil
