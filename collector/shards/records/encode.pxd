"""Escaping and record building; see encode.pyx."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from collector.shards.state cimport buf_t, conn_t, ctx_t, exchange_t, pool_t


cdef enum:  # text_mode
    TEXT_STRICT = 0    # NULL when the bytes are not UTF-8
    TEXT_LATIN1 = 1    # a byte that is not part of UTF-8 stands for the ISO-8859-1 character

# Room needed in `out`: 6 bytes a byte for escape_json, 7 for escape_json_twice, and 32 more.
cdef char* escape_json(char* out, const uint8_t* p, const uint8_t* end, int mode) noexcept nogil
cdef char* escape_json_twice(char* out, const uint8_t* p, const uint8_t* end) noexcept nogil
cdef char* put_u64(char* out, uint64_t v) noexcept nogil
cdef char* put_hex(char* out, uint64_t v) noexcept nogil
cdef int build_constant(ctx_t* ctx, conn_t* conn, uint32_t tgid) noexcept
cdef void emit_record(ctx_t* ctx, conn_t* conn, exchange_t* ex, uint64_t end_ns) noexcept
