"""Requests that machines make to see whether somebody is alive; see noise.pyx."""

from libc.stdint cimport uint8_t

from collector.shards.http.fields cimport fields_t, request_t

cdef enum:  # noise
    NOISE_NONE = 0
    NOISE_PROBE
    NOISE_SCRAPE
    NOISE_MESH
    NOISE_BALANCER
    NOISES

cdef uint8_t noise_of(const request_t* request, const fields_t* fields) noexcept nogil
cdef const char* noise_name(uint8_t noise) noexcept nogil
