"""Bytes that connections hold: buffers that grow, and the pool that counts them."""

from libc.stdint cimport uint32_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy


# The byte budget of a shard is compared with this.
cdef struct pool_t:
    size_t bytes


# A growable byte buffer whose capacity is counted in a pool.
cdef struct buf_t:
    char* data
    uint32_t len
    uint32_t cap


cdef inline int buf_reserve(pool_t* pool, buf_t* b, size_t more) noexcept nogil:
    """Room for `more` further bytes. 0, or -1 when memory is out or the buffer would pass 1 GiB."""
    cdef size_t need = <size_t>b.len + more
    cdef size_t cap = b.cap
    cdef char* p
    if need <= cap:
        return 0
    if need > 0x40000000:
        return -1
    if cap < 256:
        cap = 256
    while cap < need:
        cap += cap >> 1
    cap = (cap + 63) & ~<size_t>63
    p = <char*>realloc(b.data, cap)
    if p == NULL:
        return -1
    pool.bytes += cap - b.cap
    b.data = p
    b.cap = <uint32_t>cap
    return 0


cdef inline int buf_append(pool_t* pool, buf_t* b, const void* p, size_t n) noexcept nogil:
    """Add `n` bytes. 0, or -1 as buf_reserve."""
    if buf_reserve(pool, b, n) < 0:
        return -1
    memcpy(b.data + b.len, p, n)
    b.len += <uint32_t>n
    return 0


cdef inline int buf_copy(pool_t* pool, buf_t* b, const void* p, size_t n) noexcept nogil:
    """Fill an empty buffer that will not grow: `n` bytes, and room for no more. 0, or -1 when memory is out."""
    b.data = <char*>malloc(n)
    if b.data == NULL:
        return -1
    memcpy(b.data, p, n)
    b.len = <uint32_t>n
    b.cap = <uint32_t>n
    pool.bytes += n
    return 0


cdef inline void buf_free(pool_t* pool, buf_t* b) noexcept nogil:
    """Give the memory back; the buffer is empty and can be used again."""
    if b.data != NULL:
        pool.bytes -= b.cap
        free(b.data)
        b.data = NULL
    b.len = 0
    b.cap = 0
