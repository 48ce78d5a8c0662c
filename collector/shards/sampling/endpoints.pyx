"""What an endpoint is: direction, host, method and path, the path without its query and with its identifiers folded
(collector/shards/folding.pyx).

An endpoint is known by a hash of 64 bits, which begins with a seed that a client does not know, so that nobody can make two
endpoints meet.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from collector.shards.folding cimport path_of, segment_at, segment_t
from collector.shards.http.fields cimport fields_t, request_t

cdef uint64_t MULTIPLIER = 0x9E3779B97F4A7C15ULL
cdef uint64_t FOLDED = 0xD6E8FEB86659FD93ULL       # in place of a segment
cdef uint64_t LOWER = 0x2020202020202020ULL


cdef inline uint64_t word_at(const uint8_t* p, size_t n) noexcept nogil:
    """The `n` bytes at p, at most 8, as a number."""
    cdef uint64_t word = 0
    cdef uint32_t first, last
    if n == 8:
        memcpy(&word, p, 8)
        return word
    if n >= 4:
        memcpy(&first, p, 4)
        memcpy(&last, p + n - 4, 4)
        return <uint64_t>first << 32 | last
    if n:
        word = <uint64_t>p[0] << 16 | <uint64_t>p[n >> 1] << 8 | p[n - 1]
    return word


cdef inline uint64_t hash_words(uint64_t h, const uint8_t* p, size_t n, uint64_t lower) noexcept nogil:
    cdef size_t i = 0
    if n <= 8:
        return mix(h ^ (word_at(p, n) | lower), MULTIPLIER ^ n)
    while n - i > 8:
        h = mix(h ^ (word_at(p + i, 8) | lower), MULTIPLIER)
        i += 8
    return mix(h ^ (word_at(p + n - 8, 8) | lower), MULTIPLIER ^ n)


cdef uint64_t hash_text(uint64_t h, const uint8_t* p, size_t n) noexcept nogil:
    """`n` bytes at p, after what gave `h`."""
    return hash_words(h, p, n, 0)


cdef uint64_t endpoint_of(uint64_t seed, uint32_t direction, const request_t* request,
                          const fields_t* fields) noexcept nogil:
    """The number of a request's endpoint: the same for the same direction, host (in any case), method and folded path."""
    cdef const uint8_t* end = request.target + request.target_len
    cdef const uint8_t* host = NULL
    cdef const uint8_t* p
    cdef size_t n
    cdef segment_t segment
    cdef uint64_t h = hash_text(seed ^ direction, request.method, request.method_len)
    p = path_of(request.target, end, &host, &n)
    if fields.host != NULL:
        host = fields.host.value
        n = fields.host.value_len
    h = hash_words(h, host, n, LOWER)
    while True:
        segment = segment_at(p, end)
        h = mix(h ^ FOLDED, FOLDED) if segment.identifier else hash_text(h, p, segment.n)
        if segment.end == end or segment.end[0] != c'/':
            return h
        p = segment.end + 1
