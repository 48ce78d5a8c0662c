"""Sums of requests by process, host and endpoint; see tally.pyx."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from collector.shards.eyes.scan cimport seen_t


cdef enum:
    ROWS = 256           # one of them for what has none
    HEADS = 512          # a power of two
    PROCESS_BYTES = 96   # as it is escaped
    HOST_BYTES = 128
    METHOD_BYTES = 24
    PATH_BYTES = 168
    KEY_BYTES = PROCESS_BYTES + HOST_BYTES + METHOD_BYTES + 1 + PATH_BYTES
    BUCKETS = 304        # of the histogram; see bucket_of
    NO_ROW = 0xFFFF

cdef struct row_t:
    uint32_t hash
    uint16_t next        # of those with the same head, or NO_ROW
    uint16_t process_len # the key is process, host and endpoint, back to back
    uint16_t host_len
    uint16_t key_len
    uint8_t direction    # c'1' or c'2', as in the record
    uint8_t[417] key
    uint64_t requests
    uint64_t client_errors   # 4xx
    uint64_t server_errors   # 5xx
    uint64_t unanswered
    uint64_t marked
    uint64_t request_bytes
    uint64_t response_bytes
    uint32_t[304] durations  # requests by bucket

cdef class Tally:
    cdef row_t* rows     # the first one is "other"
    cdef uint32_t count
    cdef uint32_t sweep  # where the next victim is looked for
    cdef uint16_t[512] heads
    cdef readonly uint64_t exchanges
    cdef void add(self, const seen_t* seen) noexcept
    cdef row_t* row(self, const row_t* wanted) noexcept
    cdef uint16_t evict(self) noexcept
    cdef void clear(self) noexcept
