"""What may be spent on decoding (docs/decisions/0013): units of WORK, at worst about a nanosecond each."""

from libc.stdint cimport int64_t, uint64_t

from collector.shards.state cimport budget_t, conn_t, ctx_t

cdef enum:
    # What one body, or message, may cost: it is begun while the budgets of its shard and connection are above zero, and
    # takes what it takes, up to this.
    WORK_BODY_BYTE = 300        # for each byte of COLLECTOR_BODY_BYTES
    WORK_BODY_LEAST = 65536     # of them
    WORK_SHIFT_SHARD = 1        # the half of a core
    WORK_SHIFT_CONNECTION = 2   # a quarter
    SECOND_NS = 1000000000
    FAR_BACK_NS = 3600000000000


cdef inline void come_back(budget_t* budget, uint64_t now, int shift) noexcept nogil:
    """What time has brought back of a budget: a half, a quarter... of a unit for each nanosecond; at most that of half a
    second, because so long nobody else may be served.

    `now` is when an exchange ended. Those that were waited for in vain are recorded long after others, and bring nothing:
    otherwise everyone could have a full budget by leaving requests unanswered.
    """
    cdef int64_t whole = <int64_t>SECOND_NS >> shift + 1
    cdef uint64_t passed = now - budget.seen_ns
    if budget.seen_ns == 0:
        budget.left = whole
    elif now > budget.seen_ns:
        budget.left += <int64_t>((passed if passed < SECOND_NS else SECOND_NS) >> shift)
        if budget.left > whole:
            budget.left = whole
    elif now + FAR_BACK_NS > budget.seen_ns:
        return
    budget.seen_ns = now | 1    # (far back: the time of an event was wrong)


cdef inline bint may_spend(ctx_t* ctx, conn_t* conn, uint64_t now) noexcept nogil:
    """Is there anything left for one more?"""
    come_back(&ctx.decoding, now, WORK_SHIFT_SHARD)
    come_back(&conn.decoding, now, WORK_SHIFT_CONNECTION)
    return ctx.decoding.left > 0 and conn.decoding.left > 0


cdef inline int64_t body_work(const ctx_t* ctx) noexcept nogil:
    return WORK_BODY_BYTE * <int64_t>(ctx.body_bytes if ctx.body_bytes > WORK_BODY_LEAST else WORK_BODY_LEAST)


cdef inline void spend(ctx_t* ctx, conn_t* conn, int64_t work) noexcept nogil:
    ctx.decoding.left -= work
    conn.decoding.left -= work
