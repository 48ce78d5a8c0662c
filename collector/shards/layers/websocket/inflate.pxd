"""permessage-deflate undone; see inflate.pyx."""

from libc.stdint cimport int64_t, uint8_t

from collector.shards.memory cimport buf_t, pool_t

cdef struct inflater_t:
    void* stream             # z_stream, or NULL before the first compressed message

cdef enum undone_t:
    UNDONE
    UNDONE_BROKEN            # this is not deflate, or memory is out
    UNDONE_OVER              # it costs more than the allowance

cdef undone_t inflate_more(pool_t* pool, inflater_t* z, const uint8_t* p, size_t n, buf_t* out, size_t most, bint* more,
                           int64_t* work, int64_t allowance) noexcept
cdef undone_t inflate_end(pool_t* pool, inflater_t* z, buf_t* out, size_t most, bint* more, int64_t* work,
                          int64_t allowance) noexcept
cdef void inflate_anew(inflater_t* z) noexcept
cdef void inflate_free(pool_t* pool, inflater_t* z) noexcept
