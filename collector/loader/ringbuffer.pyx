"""The consumer side of a BPF ring buffer, without a callback per event and without a copy.

The loader (`Ring`) walks record headers to find whole spans and announces them by position; the shard (`RingView`, a
read-only mapping) reads them where the kernel put them; when the shard has acknowledged a span, the loader stores the
consumer position, and only then may the kernel overwrite it. So a span survives the death of either process.

Layout (kernel/bpf/ringbuf.c): one page with the consumer position, one with the producer position, then the data,
mapped twice so that a record that wraps is contiguous. A record is an 8-byte header (length, two flag bits) and the
sample, rounded up to 8.

A memfd of the same layout serves tests and benchmarks; there the second mapping of the data is made by hand.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.errno cimport errno
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

import os

from collector.abi cimport *


cdef extern from "sys/mman.h" nogil:
    void* mmap(void* addr, size_t length, int prot, int flags, int fd, int64_t offset)
    int munmap(void* addr, size_t length)
    enum:
        PROT_NONE
        PROT_READ
        PROT_WRITE
        MAP_SHARED
        MAP_PRIVATE
        MAP_ANONYMOUS
        MAP_FIXED
    void* MAP_FAILED

cdef extern from *:
    """
    #define ATOMIC_LOAD64(p) __atomic_load_n((p), __ATOMIC_ACQUIRE)
    #define ATOMIC_LOAD32(p) __atomic_load_n((p), __ATOMIC_ACQUIRE)
    #define ATOMIC_STORE64(p, v) __atomic_store_n((p), (v), __ATOMIC_RELEASE)
    """
    uint64_t ATOMIC_LOAD64(uint64_t* p) nogil
    uint32_t ATOMIC_LOAD32(uint32_t* p) nogil
    void ATOMIC_STORE64(uint64_t* p, uint64_t v) nogil

cdef enum:
    PAGE = 4096


cdef class Ring:
    """One ring. ``fd``: a BPF ring buffer map of ``size`` bytes (a power of two), or with ``memfd`` a file of
    2 * 4096 + size bytes. The descriptor stays the caller's. Raises OSError, ValueError."""

    cdef uint64_t* consumer
    cdef uint64_t* producer
    cdef uint8_t* data
    cdef uint64_t mask
    cdef readonly uint64_t size
    cdef readonly uint64_t high_water
    cdef readonly uint64_t announced
    cdef size_t mapped

    def __cinit__(self, int fd, uint64_t size, *, bint memfd=False):
        cdef uint8_t* base
        if size < PAGE or size & (size - 1):
            raise ValueError("ring size must be a power of two and at least a page")
        self.size = size
        self.mask = size - 1
        self.consumer = <uint64_t*>mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)
        if <void*>self.consumer == MAP_FAILED:
            self.consumer = NULL
            raise OSError(errno, os.strerror(errno))
        self.mapped = PAGE + 2 * size
        if memfd:
            base = <uint8_t*>mmap(NULL, self.mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
            if <void*>base == MAP_FAILED:
                raise OSError(errno, os.strerror(errno))
            self.producer = <uint64_t*>base
            if (mmap(base, PAGE + size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, PAGE) == MAP_FAILED
                    or mmap(base + PAGE + size, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd,
                            2 * PAGE) == MAP_FAILED):
                raise OSError(errno, os.strerror(errno))
        else:
            base = <uint8_t*>mmap(NULL, self.mapped, PROT_READ, MAP_SHARED, fd, PAGE)
            if <void*>base == MAP_FAILED:
                raise OSError(errno, os.strerror(errno))
            self.producer = <uint64_t*>base
        self.data = base + PAGE
        self.announced = self.consumer[0]

    def __dealloc__(self):
        if self.producer != NULL:
            munmap(self.producer, self.mapped)
        if self.consumer != NULL:
            munmap(self.consumer, PAGE)

    def next_span(self, uint64_t max_bytes):
        """(position, bytes) of the next span of whole records that was not announced yet - at least one record, else
        at most ``max_bytes`` - or None when nothing is ready. Positions count from the ring's beginning and never
        wrap."""
        cdef uint64_t start = self.announced
        cdef uint64_t at = start
        cdef uint64_t end = ATOMIC_LOAD64(self.producer)
        cdef uint32_t length
        cdef uint64_t step
        if end - self.consumer[0] > self.high_water:
            self.high_water = end - self.consumer[0]
        while at < end:
            length = ATOMIC_LOAD32(<uint32_t*>(self.data + (at & self.mask)))
            if length & RING_BUSY:
                break
            step = ring_advance(length)
            if at + step - start > max_bytes and at != start:
                break
            at += step
        if at == start:
            return None
        self.announced = at
        return start, at - start

    def release(self, uint64_t position):
        """Everything before ``position`` is done with: the kernel may use its room again."""
        if position > self.consumer[0]:
            ATOMIC_STORE64(self.consumer, position)

    def copy(self, uint64_t position, uint64_t length):
        """The bytes of an announced span."""
        return PyBytes_FromStringAndSize(<char*>(self.data + (position & self.mask)), <Py_ssize_t>length)

    def drain(self, uint64_t max_bytes):
        """The next span as bytes, released at once; None when nothing is ready."""
        span = self.next_span(max_bytes)
        if span is None:
            return None
        data = self.copy(span[0], span[1])
        self.release(span[0] + span[1])
        return data

    def produced(self):
        """The kernel's position: everything before it was put in already."""
        return ATOMIC_LOAD64(self.producer)

    def pending(self):
        """Bytes between consumer and producer now."""
        return ATOMIC_LOAD64(self.producer) - self.consumer[0]

    def put(self, const unsigned char[::1] records not None):
        """Act as the kernel, on a memfd: append whole ring records. False when there is no room."""
        cdef uint64_t at = self.producer[0]
        cdef uint64_t n = <uint64_t>records.shape[0]
        if at + n - ATOMIC_LOAD64(self.consumer) > self.size:
            return False
        memcpy(self.data + (at & self.mask), &records[0], n)
        ATOMIC_STORE64(self.producer, at + n)
        return True


cdef class RingView:
    """A read-only mapping of a ring's data, for a shard. ``fd`` may be closed afterwards. Raises OSError."""

    cdef uint8_t* base
    cdef uint64_t size
    cdef uint64_t offset
    cdef size_t mapped

    def __cinit__(self, int fd, uint64_t size, *, bint memfd=False):
        cdef uint8_t* base
        self.size = size
        self.mapped = PAGE + 2 * size
        if memfd:
            base = <uint8_t*>mmap(NULL, self.mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
            if <void*>base == MAP_FAILED:
                raise OSError(errno, os.strerror(errno))
            self.base = base
            if (mmap(base + PAGE, size, PROT_READ, MAP_SHARED | MAP_FIXED, fd, 2 * PAGE) == MAP_FAILED
                    or mmap(base + PAGE + size, size, PROT_READ, MAP_SHARED | MAP_FIXED, fd, 2 * PAGE) == MAP_FAILED):
                raise OSError(errno, os.strerror(errno))
        else:
            base = <uint8_t*>mmap(NULL, self.mapped, PROT_READ, MAP_SHARED, fd, PAGE)
            if <void*>base == MAP_FAILED:
                raise OSError(errno, os.strerror(errno))
            self.base = base

    def __dealloc__(self):
        if self.base != NULL:
            munmap(self.base, self.mapped)

    def view(self, uint64_t position, uint64_t length):
        """The span's bytes in place. Valid until the span is acknowledged. Raises ValueError."""
        if length == 0 or length > self.size:
            raise ValueError("span longer than its ring")
        return <const uint8_t[:length]>(self.base + PAGE + (position & (self.size - 1)))


def memfd_ring(uint64_t size):
    """A descriptor of a memfd with the layout of a ring of ``size`` bytes."""
    fd = os.memfd_create("ring", os.MFD_CLOEXEC)
    os.ftruncate(fd, 2 * PAGE + size)
    return fd
