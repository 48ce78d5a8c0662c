"""Which answer belongs to which request, and what is doubtful about it; see pairing.pyx."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from collector.shards.http.exchanges cimport *
from collector.shards.http.message cimport exchange_t
from collector.shards.layers.http1.state cimport *
from collector.shards.state cimport ctx_t

cdef void http1_request(ctx_t* ctx, http1_t* c, half_t* h, head_t* head, uint64_t first_ns, uint64_t ts, bint cut) noexcept
cdef void http1_response(ctx_t* ctx, http1_t* c, half_t* h, head_t* head, uint64_t first_ns, uint64_t ts,
                         bint cut) noexcept
cdef void answers_follow(http1_t* c, exchange_t* ex) noexcept nogil
cdef void http1_emit(ctx_t* ctx, http1_t* c, exchange_t* ex) noexcept
cdef void emit_queue(ctx_t* ctx, http1_t* c, uint32_t marks) noexcept
cdef void pop_done(ctx_t* ctx, http1_t* c) noexcept
cdef void message_done(ctx_t* ctx, http1_t* c, half_t* h, side_t side) noexcept
cdef void lose_framing(ctx_t* ctx, http1_t* c, half_t* h, side_t side) noexcept
cdef void drop_part(ctx_t* ctx, half_t* h) noexcept
cdef void resynchronised(ctx_t* ctx, http1_t* c, half_t* h, side_t side) noexcept
cdef void after_silence(ctx_t* ctx, http1_t* c, uint64_t quiet_ns) noexcept nogil
cdef uint64_t resting(const http1_t* c) noexcept nogil
cdef int owe(ctx_t* ctx, http1_t* c, uint64_t word) noexcept


cdef inline exchange_t* awaiting(http1_t* c) noexcept nogil:
    """The exchange whose answer comes next, or NULL."""
    cdef exchange_t* ex = c.first
    while ex != NULL and ex.resp.done:
        ex = ex.next
    return ex


cdef inline void raise_doubt(http1_t* c, uint32_t what) noexcept nogil:
    """`what`: enum doubt."""
    c.doubt |= <uint8_t>what
    c.answers = 0
    c.pauses = 0


cdef inline void doubt_framing(http1_t* c, side_t side) noexcept nogil:
    """Where messages end in this direction is not known: nor how many there were."""
    raise_doubt(c, DOUBT_REQUESTS | DOUBT_REQUEST_FRAMING if side == REQUEST else DOUBT_ANSWERS | DOUBT_ANSWER_FRAMING)


cdef inline bint framing_doubt(http1_t* c, side_t side) noexcept nogil:
    return c.doubt & (DOUBT_REQUEST_FRAMING if side == REQUEST else DOUBT_ANSWER_FRAMING) != 0


cdef inline void ambiguous(http1_t* c, exchange_t* ex, uint32_t bits, side_t side) noexcept nogil:
    """Mark the exchange; and when the end of its message is in doubt, doubt what follows."""
    if ex != NULL:
        ex.reasons |= bits
        ex.marks |= MARK_AMBIGUOUS
    if bits & AMB_FRAMING:
        if ex != NULL and side == REQUEST:
            ex.notes |= NOTE_DOUBT
        doubt_framing(c, side)
