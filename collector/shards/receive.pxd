"""The receive buffer: bytes of one direction that wait for the rest of a head, a line or a frame header; see receive.pyx."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memchr, memset

from collector.shards.memory cimport buf_append, buf_free, buf_t, pool_t


cdef struct receive_t:
    buf_t bytes
    uint32_t scan        # of them were searched for an end already
    uint64_t first_ns    # event time of the first


cdef enum line_t:
    LINE_WHOLE           # the line is here, without its LF
    LINE_MORE            # all bytes are kept: its end is still to come
    LINE_LONG            # longer than the limit: here are as many of its first bytes as that
    LINE_NO_MEMORY


cdef inline void receive_clear(pool_t* pool, receive_t* r) noexcept nogil:
    """Nothing waits any more."""
    buf_free(pool, &r.bytes)
    r.scan = 0


cdef inline buf_t receive_take(receive_t* r) noexcept nogil:
    """What waits, which is the caller's from now on."""
    cdef buf_t taken = r.bytes
    memset(&r.bytes, 0, sizeof(buf_t))
    r.scan = 0
    return taken


cdef inline line_t receive_line(pool_t* pool, receive_t* r, const uint8_t* p, size_t n, size_t limit, size_t* used,
                                const uint8_t** line, size_t* length) noexcept nogil:
    """The next line of the bytes that wait and the `n` at `p`, of which `used` are used: to its LF, or all. A line lies in
    the buffer when it came in pieces; receive_clear when it was read. With its LF it may be `limit` bytes long."""
    cdef const uint8_t* lf = <const uint8_t*>memchr(p, c'\n', n)
    cdef size_t here = n if lf == NULL else <size_t>(lf - p) + 1
    used[0] = here
    if r.bytes.len + here > limit:
        length[0] = limit
        line[0] = p
        if r.bytes.len:
            if buf_append(pool, &r.bytes, p, limit - r.bytes.len) < 0:
                return LINE_NO_MEMORY
            line[0] = <const uint8_t*>r.bytes.data
        return LINE_LONG
    if lf != NULL and r.bytes.len == 0:
        line[0] = p
        length[0] = here - 1
        return LINE_WHOLE
    if buf_append(pool, &r.bytes, p, here) < 0:
        return LINE_NO_MEMORY
    if lf == NULL:
        return LINE_MORE
    line[0] = <const uint8_t*>r.bytes.data
    length[0] = r.bytes.len - 1
    return LINE_WHOLE
