"""Which exchanges are recorded (collector/policy/model.py Sampling), and what records tell of those that were not.

    sample_request     the head of a request: what becomes of the exchange, as far as that is known
    settle_early       the head of its answer: perhaps more is
    sample_record      its record, or the first of them, is to be made: is it?
    put_sampling       what that record says
    record_told        it was made

At its request's head an exchange gets a verdict: is it recorded if it turns out to be an error, if it has marks, and if
neither? Of each endpoint the first ones of a minute always are; of the others those are whose hash says so. Nothing that
comes later changes the verdict, nor does another policy. As soon as no answer that is still possible makes a record, nothing
more of the exchange is kept.

A record that is not made adds one to its endpoint, the next one that is made tells the sum. So what was delivered and what
was told are together what went by, whatever the policy was and whoever had to give way in the table.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from collector.abi cimport DIR_IN
from collector.shards.http.fields cimport fields_t, request_t
from collector.shards.http.message cimport *
from collector.shards.marks cimport *
from collector.shards.memory cimport buf_free, buf_t
from collector.shards.records.text cimport put_text, put_u64
from collector.shards.sampling.endpoints cimport endpoint_of, hash_text, mix
from collector.shards.sampling.table cimport *
from collector.shards.state cimport *

cdef enum:
    MINUTE_NS = 60000000000
    KEPT_BYTES = 8192        # of an empty buffer
    # What is said of how much of a body is shown, or of a connection for as long as it lasts: so ordinary for some endpoints
    # that all of their exchanges would count as marked.
    ORDINARY = (MARK_REQUEST_CUT | MARK_RESPONSE_CUT | MARK_REQUEST_OMITTED | MARK_RESPONSE_OMITTED
                | MARK_REQUEST_UNDECODED | MARK_RESPONSE_UNDECODED | MARK_REQUEST_REFUSED | MARK_RESPONSE_REFUSED
                | MARK_REQUEST_TRAILING | MARK_RESPONSE_TRAILING | MARK_PEER_UNKNOWN)

cdef uint64_t OF_ERRORS = 0xC2B2AE3D27D4EB4FULL      # so that the rates choose independently
cdef uint64_t OF_MARKED = 0x9FB21C651E98DF25ULL


# ---- policies

cdef int use_sampling(ctx_t* ctx, sampling) except -1:
    """Sample the next exchanges by ``sampling`` (collector.policy.model.Sampling), or with None not. What was left out and
    not told of stays, and is told. Raises MemoryError, and OverflowError for numbers that are not unsigned ones of 32
    bits."""
    cdef sampler_t* s = ctx.sampler
    cdef uint32_t i, used
    if sampling is None:
        if s != NULL:
            s.ended = 1
        return 0
    if s == NULL:
        s = <sampler_t*>calloc(1, sizeof(sampler_t))
        if s == NULL:
            raise MemoryError
        s.seed = hash_text(0, <const unsigned char*>ctx.prefix, ctx.prefix_len)
        ctx.sampler = s
    s.first = sampling.first
    s.one_in = sampling.one_in
    s.heads_only = bool(sampling.heads_only)
    s.errors_one_in = sampling.errors_one_in
    s.marked_one_in = sampling.marked_one_in
    s.most = sampling.endpoints
    s.ended = 0
    for i in range(<uint32_t>GROUPS):
        used = s.groups[i].used
        shrink(&s.groups[i], s.most)
        ctx.counters[G_ENDPOINTS] -= used - s.groups[i].used
    return 0


cdef void forget_sampling(ctx_t* ctx) noexcept:
    """The end."""
    cdef uint32_t i
    if ctx.sampler == NULL:
        return
    for i in range(<uint32_t>GROUPS):
        clear(&ctx.sampler.groups[i])
    free(ctx.sampler)
    ctx.sampler = NULL


# ---- verdicts

cdef inline bint chosen(uint64_t h, uint32_t one_in) noexcept nogil:
    """Is an exchange of this hash the one of so many?"""
    return one_in != 0 and (h >> 32) * one_in >> 32 == 0


cdef inline uint8_t verdict(const sampler_t* s, endpoint_t* e, uint32_t minute, uint64_t h) noexcept nogil:
    cdef uint8_t out = SAMPLE_DECIDED | (SAMPLE_HEADS if s.heads_only else 0)
    if minute > e.minute or minute + 1 < e.minute:      # far back: an event's time was wrong
        e.minute = minute
        e.count = 0
    if e.count < s.first:
        e.count += 1
        return out | SAMPLE_PLAIN | SAMPLE_ERROR | SAMPLE_MARKED
    if chosen(h, s.one_in):
        out |= SAMPLE_PLAIN
    if chosen(mix(h, OF_ERRORS), s.errors_one_in) or (s.errors_one_in == 0 and out & SAMPLE_PLAIN):
        out |= SAMPLE_ERROR
    if chosen(mix(h, OF_MARKED), s.marked_one_in) or (s.marked_one_in == 0 and out & SAMPLE_PLAIN):
        out |= SAMPLE_MARKED
    return out


cdef inline bint is_error(const exchange_t* ex) noexcept nogil:
    return ex.status >= 400 and ex.status < 600


cdef inline void drop_body(ctx_t* ctx, buf_t* body) noexcept nogil:
    body.len = 0
    if body.cap > KEPT_BYTES:
        buf_free(&ctx.pool, body)


cdef void settle_early(ctx_t* ctx, exchange_t* ex) noexcept nogil:
    """Is it certain that its bodies are not wanted, whatever follows? Then they are not kept. Called at both heads."""
    cdef uint8_t may = SAMPLE_MARKED
    if not ex.sampling & SAMPLE_DECIDED or ex.sampling & SAMPLE_SETTLED:
        return
    if not ex.resp.started:
        may |= SAMPLE_PLAIN | SAMPLE_ERROR
    else:
        may |= SAMPLE_ERROR if is_error(ex) else SAMPLE_PLAIN
    if ex.sampling & may:
        return
    ex.sampling |= SAMPLE_SETTLED
    if ex.sampling & SAMPLE_HEADS:
        ex.sampling |= SAMPLE_BODILESS
        ex.req.body_stopped = 1
        ex.resp.body_stopped = 1
    else:
        ex.sampling |= SAMPLE_OUT
        ex.flags |= EX_DROP
    drop_body(ctx, &ex.req.body)
    drop_body(ctx, &ex.resp.body)


cdef inline group_t* group_of(sampler_t* s, const conn_t* conn) noexcept nogil:
    return &s.groups[conn.ring & (GROUPS - 1)]


cdef void sample_request(ctx_t* ctx, const conn_t* conn, exchange_t* ex, const request_t* request,
                         const fields_t* fields) noexcept nogil:
    """The head of the request is here, and no filter leaves it out."""
    cdef sampler_t* s = ctx.sampler
    cdef group_t* group = group_of(s, conn)
    cdef endpoint_t* e
    cdef uint32_t minute = <uint32_t>(ex.req.first_ns // <uint64_t>MINUTE_NS), used = group.used
    if s.ended:
        if s.untold:        # recorded, and may tell
            ex.endpoint = endpoint_of(s.seed, conn.dir_request != DIR_IN, request, fields)
            ex.sampling = SAMPLE_DECIDED | SAMPLE_SETTLED
        return
    ex.endpoint = endpoint_of(s.seed, conn.dir_request != DIR_IN, request, fields)
    e = find_or_add(group, ex.endpoint, minute, s.most)
    ctx.counters[G_ENDPOINTS] += group.used - used
    ctx.counters[C_SAMPLED_SHARED] += e == &group.others
    ex.sampling = verdict(s, e, minute, mix(s.seed ^ conn.id, OF_ERRORS ^ OF_MARKED ^ ex.pos))
    settle_early(ctx, ex)


# ---- records

cdef void settle(ctx_t* ctx, exchange_t* ex) noexcept nogil:
    """Nothing more comes of it, or its first part is due. What is both an error and marked is recorded if either rate says
    so."""
    cdef uint8_t wanted = SAMPLE_ERROR if is_error(ex) else 0
    if ex.marks & ~<uint32_t>ORDINARY:
        wanted |= SAMPLE_MARKED
    ex.sampling |= SAMPLE_SETTLED
    if ex.sampling & (wanted if wanted else SAMPLE_PLAIN):
        return
    if not ex.sampling & SAMPLE_HEADS:
        ex.sampling |= SAMPLE_OUT
        return
    ex.sampling |= SAMPLE_BODILESS
    ex.req.body_stopped = 1
    ex.resp.body_stopped = 1


cdef void leave_out(ctx_t* ctx, group_t* group, endpoint_t* e, exchange_t* ex) noexcept nogil:
    """No record of it, now or later."""
    if e == NULL:
        e = &group.others
    e.untold += 1
    ctx.sampler.untold += 1
    if is_error(ex):
        ctx.counters[C_SAMPLED_ERRORS] += 1
    elif ex.marks & ~<uint32_t>ORDINARY:
        ctx.counters[C_SAMPLED_MARKED] += 1
    else:
        ctx.counters[C_SAMPLED_PLAIN] += 1
    ex.flags |= EX_DROP
    ex.sampling = 0


cdef inline void without_bodies(exchange_t* ex) noexcept nogil:
    """What there is of them stays in its buffer, which is its layer's. Their sizes, and what was lost, are true."""
    ex.req.body.len = 0
    ex.resp.body.len = 0
    ex.marks &= ~<uint32_t>(MARK_REQUEST_CUT | MARK_RESPONSE_CUT)


cdef bint sample_record(ctx_t* ctx, const conn_t* conn, exchange_t* ex) noexcept nogil:
    """Is the record of `ex` made, as far as sampling goes? If so, what it tells is prepared. If not, it has EX_DROP."""
    cdef sampler_t* s = ctx.sampler
    cdef group_t* group = group_of(s, conn)
    cdef endpoint_t* e
    s.telling = s.telling_others = 0
    if not ex.sampling & SAMPLE_DECIDED:
        return True
    e = find(group, ex.endpoint)
    if not ex.sampling & SAMPLE_SETTLED:
        settle(ctx, ex)
    if ex.sampling & SAMPLE_OUT:
        leave_out(ctx, group, e, ex)
        return False
    if ex.sampling & SAMPLE_BODILESS:
        without_bodies(ex)
    s.of_group = group
    s.of = e
    s.telling = e.untold if e != NULL else 0
    s.telling_others = group.others.untold
    return True


cdef char* put_sampling(char* out, const ctx_t* ctx, const exchange_t* ex) noexcept nogil:
    """The fields of the record, the last text left open. At most 100 bytes."""
    cdef const sampler_t* s = ctx.sampler
    if s.telling:
        out = put_u64(put_text(out, b'","sampledOut":"'), s.telling)
    if s.telling_others:
        out = put_u64(put_text(out, b'","sampledOutOthers":"'), s.telling_others)
    if ex.sampling & SAMPLE_BODILESS:
        out = put_text(out, b'","sampled":"heads')
    return out


cdef void record_told(ctx_t* ctx, const exchange_t* ex) noexcept nogil:
    """The record that `sample_record` has prepared was made."""
    cdef sampler_t* s = ctx.sampler
    if s.telling:
        s.of.untold -= s.telling
    if s.telling_others:
        s.of_group.others.untold -= s.telling_others
    s.untold -= s.telling + s.telling_others
    ctx.counters[C_SAMPLED_TOLD] += s.telling + s.telling_others
    ctx.counters[C_SAMPLED_HEADS] += ex.sampling & SAMPLE_BODILESS != 0
    s.telling = s.telling_others = 0
