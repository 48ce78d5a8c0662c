"""What an exchange is, whichever protocol carried it: opened by its layer, filled with a request, an answer and their
bodies, recorded once, freed.

Which message belongs to which is the layer's business (order in HTTP/1, stream numbers in HTTP/2); what a message means -
filters, media type, codings, charsets, details, marks - is here.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset, strlen

from collector.abi cimport DIR_IN
from collector.shards.http.noise cimport noise_of
from collector.shards.http.clients cimport claim_t, read_claim, trusted
from collector.shards.http.content cimport content_facts
from collector.shards.http.fields cimport field_t, fields_t, request_t, response_t, same_name
from collector.shards.http.filtering cimport filtered
from collector.shards.http.message cimport *
from collector.shards.http.parts cimport in_parts, part_begins, part_body, part_last
from collector.shards.http.redacting cimport redact_anew
from collector.shards.http.selection cimport (
    excluded_anew, excluded_at_answer, excluded_at_end, excluded_at_request, selection_release)
from collector.shards.http.text cimport add_fields, write_details, write_request, write_response
from collector.shards.memory cimport buf_append, buf_free, buf_reserve, buf_t
from collector.shards.records.encode cimport emit_record
from collector.shards.redaction.heads cimport redact_fields, redact_request, redact_response
from collector.shards.redaction.state cimport use_rules
from collector.shards.sampling.sampler cimport sample_record, sample_request, settle_early
from collector.shards.state cimport *

cdef enum:
    FREE_EXCHANGES = 64           # kept for reuse, with buffers of at most FREE_BUFFER_BYTES each
    FREE_BUFFER_BYTES = 8192
    RESERVE_BYTES = 8192          # of an announced body; the rest as it comes

cdef uint64_t ORPHAN_BIT = <uint64_t>1 << 63
cdef fields_t UNSEEN              # of a request that was not seen


cdef exchange_t* exchange_open(ctx_t* ctx, flow_t* flow) noexcept:
    """A new exchange, or NULL when memory is out. Its layer fills in position, process and times."""
    cdef exchange_t* ex = ctx.free_exchanges
    if ex != NULL:      # its buffers are empty, and keep their memory; the rest is cleared
        ctx.free_exchanges = ex.next
        ctx.free_count -= 1
        ctx.free_bytes -= exchange_bytes(ex)
        ex.next = NULL
        memset(&ex.req.first_ns, 0, sizeof(message_t) - 2 * sizeof(buf_t))
        memset(&ex.resp.first_ns, 0, sizeof(message_t) - 2 * sizeof(buf_t))
        memset(&ex.pos, 0, sizeof(exchange_t) - sizeof(exchange_t*) - 2 * sizeof(message_t) - sizeof(buf_t))
    else:
        ex = <exchange_t*>malloc(sizeof(exchange_t))
        if ex == NULL:
            return NULL
        memset(ex, 0, sizeof(exchange_t))
        ctx.pool.bytes += sizeof(exchange_t)
    ctx.counters[G_QUEUED] += 1
    return ex


cdef void drop_buffers(ctx_t* ctx, exchange_t* ex) noexcept:
    buf_free(&ctx.pool, &ex.req.head)
    buf_free(&ctx.pool, &ex.req.body)
    buf_free(&ctx.pool, &ex.resp.head)
    buf_free(&ctx.pool, &ex.resp.body)
    buf_free(&ctx.pool, &ex.details)


cdef inline void empty(ctx_t* ctx, buf_t* b) noexcept nogil:
    if b.cap > FREE_BUFFER_BYTES:
        buf_free(&ctx.pool, b)
    b.len = 0


cdef void exchange_free(ctx_t* ctx, exchange_t* ex) noexcept:
    """Forget it. It must not be in its layer's queue any more."""
    ctx.counters[G_QUEUED] -= 1
    if ex.selection != NULL:
        selection_release(ex.selection)
    if ctx.free_count < FREE_EXCHANGES:
        empty(ctx, &ex.req.head)
        empty(ctx, &ex.req.body)
        empty(ctx, &ex.resp.head)
        empty(ctx, &ex.resp.body)
        empty(ctx, &ex.details)
        ex.next = ctx.free_exchanges
        ctx.free_exchanges = ex
        ctx.free_count += 1
        ctx.free_bytes += exchange_bytes(ex)
        return
    drop_buffers(ctx, ex)
    ctx.pool.bytes -= sizeof(exchange_t)
    free(ex)


cdef void exchange_trim(ctx_t* ctx) noexcept:
    """Give back what is kept for reuse."""
    cdef exchange_t* ex
    while ctx.free_exchanges != NULL:
        ex = ctx.free_exchanges
        ctx.free_exchanges = ex.next
        drop_buffers(ctx, ex)
        ctx.pool.bytes -= sizeof(exchange_t)
        free(ex)
    ctx.free_count = 0
    ctx.free_bytes = 0


cdef inline bint believed(ctx_t* ctx, conn_t* conn) noexcept nogil:
    """Is the client's end of the connection a proxy that may name its client in a header?"""
    return trusted(ctx.trusted, ctx.trusted_count, &conn.remote[0] if conn.dir_request == DIR_IN else &conn.local[0])


cdef void claimed_client(ctx_t* ctx, conn_t* conn, exchange_t* ex, const fields_t* fields) noexcept nogil:
    """Whom the configured header names, if it comes from a proxy that is believed."""
    cdef const field_t* f
    cdef claim_t claim
    cdef uint32_t i
    if not conn.holds & HOLD_PEER and not believed(ctx, conn):
        return
    memset(&claim, 0, sizeof(claim_t))
    for i in range(fields.count):
        f = &fields.items[i]
        if f.name_len == ctx.real_ip_len and same_name(f.name, ctx.real_ip_name, f.name_len):
            read_claim(&claim, ctx.real_ip_kind, f.value, f.value_len, ctx.trusted, ctx.trusted_count)
    if claim.found and not fields.overflow and not fields.unknown:      # one that is not listed may say otherwise
        ex.client_source = CLIENT_HEADER
        memcpy(ex.client, claim.address, 16)
        ex.client_port = claim.port


cdef void choose_rules(ctx_t* ctx, exchange_t* ex, const request_t* request, const fields_t* fields) noexcept:
    """The policy's own rules for this host and path."""
    cdef const field_t* host = fields.host
    try:
        ex.redaction_rules = (<object>ctx.redaction.owner).rule_number(
            (<const char*>host.value)[:host.value_len] if host != NULL else b"",
            (<const char*>request.target)[:request.target_len])
    except Exception:
        ctx.counters[C_CALLBACK_ERRORS] += 1
        ex.flags |= EX_DROP     # what they say is not known


cdef inline void count_redacted(ctx_t* ctx, exchange_t* ex, int count) noexcept nogil:
    """So many values of a head were replaced; below zero: it could not be done, so it must not be shown."""
    if count >= 0:
        ex.redacted += <uint32_t>count
        return
    ex.flags |= EX_DROP
    ctx.counters[C_RECORDS_DROPPED_SIZE] += 1


cdef void leave_out(ctx_t* ctx, exchange_t* ex) noexcept:
    """It is followed and not recorded: nothing of it is kept."""
    ex.flags |= EX_DROP
    drop_buffers(ctx, ex)


cdef void exchange_request(ctx_t* ctx, flow_t* flow, exchange_t* ex, const request_t* request, const fields_t* fields,
                           unlisted_t unlisted) noexcept:
    """The head of the request: filters, facts of its content, text of the record. A filtered exchange is followed, so that
    what comes later is right, and not recorded. `unlisted`: the fields beyond those that are listed, or NULL."""
    cdef request_t line
    cdef bint cut
    if ctx.input_limit and ctx.input_used > ctx.input_limit:
        ex.flags |= EX_DROP         # over the minute's allowance
        ctx.counters[C_SAMPLED_OUT] += 1
        return
    if ((ctx.rule_count or ctx.ignore_ip_hosts or ctx.ignore_metadata)
            and filtered(ctx, flow.conn, fields, unlisted)):
        ex.flags |= EX_DROP
        return
    ex.noise = noise_of(request, fields)
    if ctx.ignore_noise >> ex.noise & 1:
        ex.flags |= EX_DROP
        ctx.counters[C_FILTERED_NOISE] += 1
        return
    if ctx.selection != NULL and excluded_at_request(ctx, flow.conn, ex, request, fields):
        ex.flags |= EX_DROP
        if ex.resp.started:     # whose answer was seen first
            drop_buffers(ctx, ex)
        return
    if ctx.sampler != NULL:
        sample_request(ctx, flow.conn, ex, request, fields)
        if ex.flags & EX_DROP:
            return
    if ctx.trusted_count and flow.conn.client_source not in (CLIENT_PROXY_V1, CLIENT_PROXY_V2):
        claimed_client(ctx, flow.conn, ex, fields)
    content_facts(ctx, fields, &ex.req)
    if ctx.redaction != NULL:
        line = request[0]
        request = &line
        if ctx.redaction.ruled:
            choose_rules(ctx, ex, &line, fields)
        ex.redaction_version = ctx.redaction.version
        use_rules(ctx.redaction, ex.redaction_rules, ex.redaction_version)
        cut = ex.marks & MARK_HEADERS_CUT != 0
        count_redacted(ctx, ex, redact_request(ctx.redaction, &line, cut and fields.count == 0))
        count_redacted(ctx, ex, redact_fields(ctx.redaction, &fields, cut))
    if in_parts(&ex.req) and ex.req.media >= MEDIA_GRPC:
        ex.flags |= EX_PARTS
    if write_request(ctx, request, fields, &ex.req) < 0:
        ex.flags |= EX_DROP
        ctx.counters[C_RECORDS_DROPPED_SIZE] += 1
    if ctx.want_details:
        write_details(ctx, request, fields, ex)


cdef void exchange_orphan(ctx_t* ctx, flow_t* flow, exchange_t* ex, uint64_t pos, uint64_t ts,
                          const char* version) noexcept:
    """In the place of a request that nobody saw; its `version` may be known, or is empty. Its answer began at `pos` and at
    time `ts`. Of its fields filters cannot say anything, and so leave it out."""
    cdef request_t request
    memset(&request, 0, sizeof(request_t))
    request.version = <const uint8_t*>version
    request.version_len = <uint32_t>strlen(version)
    UNSEEN.unknown = 1
    ex.pos = pos | ORPHAN_BIT       # no request has this position
    ex.marks |= MARK_ORPHAN | MARK_METHOD_UNKNOWN | MARK_PATH_UNKNOWN
    ex.req.first_ns = ts
    if ex.req.last_ns == 0:
        ex.req.last_ns = ts
    ex.req.done = 1
    exchange_request(ctx, flow, ex, &request, &UNSEEN, NULL)


cdef void exchange_response(ctx_t* ctx, flow_t* flow, exchange_t* ex, const response_t* response,
                            const fields_t* fields) noexcept:
    """The head of the final answer."""
    cdef response_t line
    if ex.flags & (EX_DROP | EX_EMITTED):
        return
    if ex.selection != NULL:
        if excluded_at_answer(ctx, flow.conn, ex, response.status, fields):
            leave_out(ctx, ex)
            return
        if ex.selection == NULL and ex.flags & EX_PART_HELD:    # its parts waited for this
            part_begins(flow, ex, ex.resp.last_ns)
    if ctx.sampler != NULL:
        settle_early(ctx, ex)
        if ex.flags & EX_DROP:
            return
    content_facts(ctx, fields, &ex.resp)
    if ctx.redaction != NULL:
        line = response[0]
        response = &line
        use_rules(ctx.redaction, ex.redaction_rules, ex.redaction_version)
        count_redacted(ctx, ex, redact_response(ctx.redaction, &line))
        count_redacted(ctx, ex, redact_fields(ctx.redaction, &fields, ex.marks & MARK_HEADERS_CUT != 0))
    if in_parts(&ex.resp):
        ex.flags |= EX_PARTS
        if ex.part_ns == 0:
            part_begins(flow, ex, ex.resp.last_ns)
    if write_response(ctx, response, fields, &ex.resp) < 0:
        ex.flags |= EX_DROP
        ctx.counters[C_RECORDS_DROPPED_SIZE] += 1


cdef void exchange_trailers(ctx_t* ctx, exchange_t* ex, const fields_t* fields) noexcept:
    """Fields behind the body of the answer: among those of its head, unless that has them already (RFC 9110 section 6.5)."""
    if ex.flags & (EX_DROP | EX_EMITTED) or ex.resp.head.len == 0:
        return
    if ctx.redaction != NULL:
        use_rules(ctx.redaction, ex.redaction_rules, ex.redaction_version)
        count_redacted(ctx, ex, redact_fields(ctx.redaction, &fields, False))
    if add_fields(ctx, fields, &ex.resp) < 0:
        ex.flags |= EX_DROP
        ctx.counters[C_RECORDS_DROPPED_SIZE] += 1


cdef void exchange_expect(ctx_t* ctx, exchange_t* ex, side_t side, uint64_t length) noexcept:
    """A body of `length` bytes was announced: make room for its beginning."""
    if length <= ctx.body_bytes and not ex.flags & (EX_DROP | EX_EMITTED) and (side == REQUEST or ctx.response_bodies):
        buf_reserve(&ctx.pool, &message_of(ex, side).body, <size_t>length if length < RESERVE_BYTES else RESERVE_BYTES)


cdef void exchange_body(ctx_t* ctx, flow_t* flow, exchange_t* ex, side_t side, const uint8_t* p, size_t n,
                        uint64_t ts) noexcept:
    """Bytes of a body: counted, and kept up to the cap."""
    cdef message_t* m = message_of(ex, side)
    cdef size_t room
    if ex.flags & EX_PARTS and not ex.flags & (EX_DROP | EX_EMITTED):
        part_body(ctx, flow, ex, side == REQUEST, p, n, ts)
        return
    m.size += n
    m.last_ns = ts
    if ex.flags & (EX_DROP | EX_EMITTED) or m.body_stopped or (side == RESPONSE and not ctx.response_bodies):
        return
    room = ctx.body_bytes - m.body.len
    if n > room:
        ex.marks |= mark_of(side, MARK_REQUEST_CUT, MARK_RESPONSE_CUT)
        m.body_stopped = 1
        n = room
    if n and buf_append(&ctx.pool, &m.body, p, n) < 0:
        ex.marks |= mark_of(side, MARK_REQUEST_CUT, MARK_RESPONSE_CUT)
        m.body_stopped = 1


cdef inline void settle_claim(ctx_t* ctx, conn_t* conn, exchange_t* ex) noexcept nogil:
    """Whose claim of a client counts is decided by what is known of the socket now; it may not have been known when the
    request was read."""
    if conn.client_source == CLIENT_INVALID:
        ex.marks |= MARK_PROXY_INVALID
    if ex.client_source != CLIENT_NONE and (
            conn.client_source == CLIENT_PROXY_V1 or conn.client_source == CLIENT_PROXY_V2 or not believed(ctx, conn)):
        ex.client_source = CLIENT_NONE


cdef void exchange_emit(ctx_t* ctx, flow_t* flow, exchange_t* ex) noexcept:
    """Record it, or the last part of it, unless it was recorded, filtered or held back."""
    cdef uint64_t end = ex.resp.last_ns if ex.resp.last_ns > ex.req.last_ns else ex.req.last_ns
    if ex.flags & EX_PARTS:
        part_last(ctx, flow, ex, end)
    if not ex.resp.started:
        ex.marks |= MARK_NO_RESPONSE
    exchange_tell(ctx, flow, ex, end)


cdef void exchange_tell(ctx_t* ctx, flow_t* flow, exchange_t* ex, uint64_t end) noexcept:
    """As exchange_emit, of what is here at `end`."""
    cdef conn_t* conn = flow.conn
    cdef bint excluded
    if ex.flags & (EX_EMITTED | EX_DROP) and not ex.sampling & SAMPLE_OUT:     # which is to be counted
        return
    if conn.flags & (CONN_DROP | CONN_IGNORED) or ctx.silent:
        return
    if ctx.any_chosen and conn.holds & HOLD_PEER:   # no port, so none that was chosen
        return
    if conn.holds & HOLD_SOCKET:            # nobody could say that this is a socket: no record
        ctx.counters[C_UNCONFIRMED] += 1
        return
    if not ex.flags & EX_DROP and (ctx.selection != NULL or ex.selection != NULL):
        if ctx.selection != NULL and ctx.selection.version != ex.rules:     # another policy came meanwhile
            excluded = excluded_anew(ctx, conn, ex)
        else:
            excluded = ex.selection != NULL and excluded_at_end(ctx, conn, ex)
        if excluded:
            leave_out(ctx, ex)
            return
    if conn.client_source or ex.client_source:
        settle_claim(ctx, conn, ex)
    if ctx.sampler != NULL and not sample_record(ctx, conn, ex):
        return
    if (ctx.redaction != NULL and ex.redaction_version != ctx.redaction.version and not ex.flags & EX_DROP
            and redact_anew(ctx, ex) < 0):      # its heads are by another policy
        leave_out(ctx, ex)
        ctx.counters[C_RECORDS_DROPPED_SIZE] += 1
        return
    emit_record(ctx, flow, ex, end)


cdef void exchange_recorded(ctx_t* ctx, exchange_t* ex) noexcept:
    """It was recorded as it stood. It stays in its layer's queue without bytes, and swallows its late answer, so that this
    cannot be taken for another one's."""
    ex.flags |= EX_EMITTED
    drop_buffers(ctx, ex)
