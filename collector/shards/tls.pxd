"""What a library tells of its connections; see tls.pyx."""

from libc.stdlib cimport free

from collector.abi cimport event_tls
from collector.shards.state cimport conn_t, ctx_t, tls_t

cdef void told_tls(ctx_t* ctx, conn_t* conn, event_tls* e) noexcept nogil


cdef inline size_t tls_bytes(const tls_t* tls) noexcept nogil:
    """What it takes, as long as its texts are."""
    return sizeof(tls_t) - sizeof(tls.text) + tls.alpn_len + tls.sni_len


cdef inline void tls_free(ctx_t* ctx, conn_t* conn) noexcept nogil:
    if conn.tls != NULL:
        ctx.pool.bytes -= tls_bytes(conn.tls)
        free(conn.tls)
        conn.tls = NULL
