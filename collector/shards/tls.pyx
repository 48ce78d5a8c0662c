"""What a library tells of its connections (EVENT_TLS): version, library, the protocol agreed on, the server's name.

It may be told at any time, and again when there is more to tell; what an event does not know stays as it was. Both texts
are a stranger's: one that is longer than the event has room for, or not printable ASCII throughout, is left out.
"""

from libc.stdint cimport uint8_t
from libc.stdlib cimport malloc
from libc.string cimport memcmp, memcpy, memset

from collector.abi cimport event_tls
from collector.shards.memory cimport buf_free
from collector.shards.names cimport printable
from collector.shards.state cimport conn_t, ctx_t, tls_t


cdef inline uint8_t usable(const char* text, size_t n, size_t most) noexcept nogil:
    """Its length, or 0 for a text that is left out."""
    return <uint8_t>n if n <= most and printable(text, n) else 0


cdef void told_tls(ctx_t* ctx, conn_t* conn, event_tls* e) noexcept nogil:
    """Keep what is new for the connection's records from the next one on. Without memory for it they are without it."""
    cdef tls_t facts
    cdef tls_t* kept = conn.tls
    cdef const char* sni = e.sni
    cdef size_t size
    memset(&facts, 0, sizeof(tls_t))
    facts.version = e.version
    facts.library = e.library
    facts.alpn_len = usable(e.alpn, e.alpn_len, sizeof(e.alpn))
    memcpy(facts.text, e.alpn, facts.alpn_len)
    facts.sni_len = usable(e.sni, e.sni_len, sizeof(e.sni))
    if kept != NULL:
        facts.version = facts.version or kept.version
        facts.library = facts.library or kept.library
        if e.alpn_len == 0:
            facts.alpn_len = kept.alpn_len
            memcpy(facts.text, kept.text, kept.alpn_len)
        if e.sni_len == 0:
            facts.sni_len = kept.sni_len
            sni = kept.text + kept.alpn_len
    memcpy(facts.text + facts.alpn_len, sni, facts.sni_len)
    size = tls_bytes(&facts)
    if kept != NULL and size == tls_bytes(kept) and memcmp(kept, &facts, size) == 0:
        return
    tls_free(ctx, conn)
    buf_free(&ctx.pool, &conn.constant)
    if size == sizeof(tls_t) - sizeof(facts.text) and facts.version == 0 and facts.library == 0:
        return
    conn.tls = <tls_t*>malloc(size)
    if conn.tls != NULL:
        memcpy(conn.tls, &facts, size)
        ctx.pool.bytes += size
