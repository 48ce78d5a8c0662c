# distutils: libraries = z
"""permessage-deflate undone (RFC 7692 section 7.2.2), a piece at a time.

What is decompressed is priced as a body is (records/codings.pyx): by bytes in and out and by blocks, in units of WORK.
Output beyond the cap is made and dropped, for later messages may refer to it.
"""

from libc.stdint cimport int64_t, uint8_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from collector.shards.memory cimport buf_append, buf_t, pool_t
from collector.shards.records.zlib cimport *

cdef enum:
    OUT_BYTES = 16384
    STATE_BYTES = 40 << 10       # of zlib's: its state, and a window of 32 KiB

cdef uint8_t[16384] OUT          # the shard is one thread
cdef const uint8_t* TAIL = b"\x00\x00\xff\xff"


cdef z_stream* stream_of(pool_t* pool, inflater_t* z) noexcept:
    cdef z_stream* stream = <z_stream*>z.stream
    if stream == NULL:
        stream = <z_stream*>malloc(sizeof(z_stream))
        if stream == NULL:
            return NULL
        memset(stream, 0, sizeof(z_stream))
        if inflateInit2(stream, -15) != Z_OK:
            free(stream)
            return NULL
        pool.bytes += sizeof(z_stream) + STATE_BYTES
        z.stream = stream
    return stream


cdef undone_t inflate_more(pool_t* pool, inflater_t* z, const uint8_t* p, size_t n, buf_t* out, size_t most, bint* more,
                           int64_t* work, int64_t allowance) noexcept:
    """`n` bytes of a message, decompressed behind what `out` has, up to `most` bytes there; `more` is set when it would be
    longer. `work` grows by what it cost."""
    cdef z_stream* stream = stream_of(pool, z)
    cdef size_t made, room
    cdef unsigned left, block
    cdef int code
    if stream == NULL:
        return UNDONE_BROKEN
    stream.next_in = <unsigned char*>p
    stream.avail_in = <unsigned>n       # a frame comes in events: never more than a call's bytes
    block = stream.avail_in
    while True:
        left = stream.avail_in
        stream.next_out = OUT
        stream.avail_out = OUT_BYTES
        code = inflate(stream, Z_BLOCK)
        made = OUT_BYTES - stream.avail_out
        work[0] += <int64_t>(left - stream.avail_in) * WORK_IN + <int64_t>(made >> 1)
        if stream.data_type & 128 or code == Z_STREAM_END:
            work[0] += min(<int64_t>WORK_BLOCK, <int64_t>(block - stream.avail_in) * WORK_BLOCK_BYTE + WORK_BLOCK_BYTE)
            block = stream.avail_in
        room = most - out.len if most > out.len else 0
        if made > room:
            more[0] = True
        if made and room and buf_append(pool, out, OUT, made if made < room else room) < 0:
            return UNDONE_BROKEN
        if code == Z_STREAM_END:
            inflateResetKeep(stream)        # section 7.2.3.5: a final block ends no context
        elif code == Z_BUF_ERROR:
            return UNDONE
        elif code != Z_OK:
            return UNDONE_BROKEN
        if work[0] > allowance:
            return UNDONE_OVER
        if stream.avail_in == 0 and stream.avail_out != 0 and not stream.data_type & 128:
            return UNDONE


cdef undone_t inflate_end(pool_t* pool, inflater_t* z, buf_t* out, size_t most, bint* more, int64_t* work,
                          int64_t allowance) noexcept:
    """The message ends: with the bytes that its sender took away."""
    return inflate_more(pool, z, TAIL, 4, out, most, more, work, allowance)


cdef void inflate_anew(inflater_t* z) noexcept:
    """The next message does not refer to any before it."""
    if z.stream != NULL:
        inflateReset(<z_stream*>z.stream)


cdef void inflate_free(pool_t* pool, inflater_t* z) noexcept:
    if z.stream != NULL:
        inflateEnd(<z_stream*>z.stream)
        free(z.stream)
        z.stream = NULL
        pool.bytes -= sizeof(z_stream) + STATE_BYTES
