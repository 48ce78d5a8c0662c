"""What nobody wants of a connection, in words that the kernel reads before it copies (bpf/capture.h not_wanted)."""

from libc.stdint cimport uint32_t, uint64_t

from collector.shards.layers.stack cimport flow_unwanted
from collector.shards.numbers cimport scatter, word_at
from collector.shards.state cimport CONN_IGNORED, conn_t, ctx_t

cdef enum:
    UNWANTED_ALL = 0xFFFFFFFFFFFF


cdef void publish(ctx_t* ctx, conn_t* conn, uint32_t d, uint64_t pos) noexcept:
    """Tell the kernel up to where it needs to copy no more bytes of this direction, if that is known and far."""
    cdef uint64_t until = UNWANTED_ALL if conn.flags & CONN_IGNORED else flow_unwanted(ctx, &conn.flow, d, pos)
    if ctx.unwanted == NULL or until <= pos + UNWANTED_LEAST or until == conn.stream[d].unwanted:
        return
    say(ctx, conn, d, until if until < UNWANTED_ALL else UNWANTED_ALL)
    conn.stream[d].unwanted = until


cdef void withdraw(ctx_t* ctx, conn_t* conn) noexcept:
    """All bytes may matter again."""
    cdef uint32_t d
    for d in range(2):
        if conn.stream[d].unwanted:
            say(ctx, conn, d, 0)
            conn.stream[d].unwanted = 0


cdef void take_back(ctx_t* ctx, conn_t* conn) noexcept:
    """All bytes matter, whatever was said of this connection before it was known here."""
    if ctx.unwanted != NULL:
        say(ctx, conn, 0, 0)
        say(ctx, conn, 1, 0)


cdef inline void say(ctx_t* ctx, conn_t* conn, uint32_t d, uint64_t until) noexcept nogil:
    cdef uint64_t h = scatter(conn.id)
    # one aligned store: the kernel reads it whole
    ctx.unwanted[word_at(h, d, ctx.unwanted_words)] = h >> 48 << 48 | until
