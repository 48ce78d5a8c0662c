"""The receive buffer, for tests; layers use the functions of receive.pxd.

A layer gets bytes as they went through system calls, cut anywhere. What it cannot use yet waits here, and is looked at once:
a line that is whole within one event is never copied.
"""

from libc.stdint cimport uint8_t
from libc.string cimport memset

from collector.shards.memory cimport pool_t
from collector.shards.receive cimport *

RESULTS = {LINE_WHOLE: "whole", LINE_MORE: "more", LINE_LONG: "long", LINE_NO_MEMORY: "no memory"}


cdef class Lines:
    """receive_line over a buffer of its own, with lines of at most ``limit`` bytes."""

    cdef receive_t buffer
    cdef pool_t pool
    cdef size_t limit

    def __cinit__(self, size_t limit):
        memset(&self.buffer, 0, sizeof(receive_t))
        memset(&self.pool, 0, sizeof(pool_t))
        self.limit = limit

    def __dealloc__(self):
        receive_clear(&self.pool, &self.buffer)

    def feed(self, bytes data not None):
        """(what receive_line said, bytes used, the line or None); a line that is long or whole is forgotten."""
        cdef const uint8_t* p = data
        cdef const uint8_t* line = NULL
        cdef size_t used = 0, length = 0
        cdef line_t said = receive_line(&self.pool, &self.buffer, p, <size_t>len(data), self.limit, &used, &line, &length)
        found = (<const char*>line)[:length] if said == LINE_WHOLE or said == LINE_LONG else None
        if found is not None:
            receive_clear(&self.pool, &self.buffer)
        return RESULTS[said], used, found

    def waiting(self):
        """The bytes that wait, and what they hold of the pool."""
        return (self.buffer.bytes.data[:self.buffer.bytes.len] if self.buffer.bytes.len else b""), self.pool.bytes
