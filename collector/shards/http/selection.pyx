"""Which exchanges are recorded by the include and exclude rules of a policy: the first rule that fits decides, and without
one an exchange is recorded.

It is decided as early as what the rules ask for is known, so that an exchange that is left out keeps no body:

    at the head of the request    host, path, method, direction; the process; the addresses, unless they are awaited
    at the head of the answer     status, content type; the process that answers
    when it is recorded           what is known then; all of it anew, where another policy came meanwhile

A rule that asks for what is not known yet leaves the exchange undecided, unless every rule up to one that matches says the
same. What will never be known - lost header fields, an answer that did not come - lets nothing through that a rule might
hold back: it fits an exclude rule, and no include rule.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memchr

from collector.abi cimport DIR_IN
from collector.shards.connections.table cimport socket_known
from collector.shards.globs cimport globs_fit, globs_free, globs_make, globs_t
from collector.shards.http.clients cimport cidr_of, cidr_t, trusted
from collector.shards.http.fields cimport fields_t, request_t
from collector.shards.http.message cimport exchange_t
from collector.shards.http.rules cimport *
from collector.shards.http.text cimport target_host
from collector.shards.http.written cimport piece_t, written_field, written_text
from collector.shards.marks cimport (
    MARK_HEADERS_CUT, MARK_HEADERS_UNCERTAIN, MARK_HEADERS_UNKNOWN, MARK_METHOD_UNKNOWN, MARK_ORPHAN,
    MARK_PATH_UNKNOWN, MARK_STATUS_UNKNOWN)
from collector.shards.memory cimport buf_reserve
from collector.shards.names cimport process_name
from collector.shards.state cimport *

cdef extern from "<string.h>" nogil:
    size_t strnlen(const char* s, size_t most)

cdef enum:
    COMM_BYTES = 15             # of the name of a process (linux/sched.h TASK_COMM_LEN, without the NUL)
    UNSURE = MARK_HEADERS_UNKNOWN | MARK_HEADERS_CUT | MARK_HEADERS_UNCERTAIN   # there may have been fields that are not
    NO_STATUS = 1000            # there was one, which nobody knows: no rule asks for it
    SWITCHING = 101             # another answer may follow (RFC 7540 section 3.2)

cdef enum fit_t:                # of several the last one holds
    FITS
    FITS_PERHAPS                # what it asks for will not be known
    FITS_LATER                  # is not known yet
    FITS_NOT

cdef enum:  # moments, in their order
    AT_REQUEST
    AT_ANSWER
    AT_END

cdef enum decision_t:
    UNDECIDED
    INCLUDED
    EXCLUDED
    EXCLUDED_IN_DOUBT           # by a rule that asks for what is not known

# What the rules ask for. A text that is NULL is not known.
cdef struct facts_t:
    const uint8_t* host
    const uint8_t* path
    const uint8_t* method
    const uint8_t* content_type
    uint32_t host_len
    uint32_t path_len
    uint32_t method_len
    uint32_t content_type_len
    uint32_t status
    uint8_t moment


# ---- compiling

cdef selection_t* selection_make(rules) except? NULL:
    """Of collector.policy.model.Rule; NULL for none. To be released. Raises ValueError for what reading.py refuses, and
    MemoryError."""
    cdef selection_t* selection
    if not rules:
        return NULL
    if len(rules) > SELECTION_RULES:
        raise ValueError(f"policy: more than {SELECTION_RULES} rules")
    selection = <selection_t*>calloc(1, sizeof(selection_t))
    if selection == NULL:
        raise MemoryError
    selection.holders = 1
    selection.count = <uint32_t>len(rules)
    try:
        for i, rule in enumerate(rules):
            make_rule(&selection.rules[<uint32_t>i], rule)
            selection.asks_hosts |= rule.match.hosts != ()
            selection.asks_paths |= rule.match.paths != ()
    except BaseException:
        selection_release(selection)
        raise
    return selection


cdef int make_rule(selection_rule_t* out, rule) except -1:
    match = rule.match
    out.included = getattr(rule, "include")     # which is a word of Cython's
    out.hosts = globs_make([host.lower().encode() for host in match.hosts])
    out.paths = globs_make([path_pattern(path) for path in match.paths])
    out.methods = globs_make([method.replace("*", "").encode() for method in match.methods])
    out.content_types = globs_make([text.lower().encode() for text in match.content_types])
    out.processes = globs_make([process_pattern(name.encode()) for name in match.processes])
    for direction in match.directions:
        out.directions |= SELECT_INBOUND if direction.value == "inbound" else SELECT_OUTBOUND
    if match.statuses:
        out.statuses = <status_range_t*>calloc(len(match.statuses), sizeof(status_range_t))
        if out.statuses == NULL:
            raise MemoryError
        for i, (first, last) in enumerate(match.statuses):
            out.statuses[<uint32_t>i] = status_range_t(first, last)
        out.status_count = <uint32_t>len(match.statuses)
    if match.addresses:
        out.networks = <cidr_t*>calloc(len(match.addresses), sizeof(cidr_t))
        if out.networks == NULL:
            raise MemoryError
        for i, network in enumerate(match.addresses):
            out.networks[<uint32_t>i] = cidr_of(network)
        out.network_count = <uint32_t>len(match.addresses)
    return 0


cdef bytes path_pattern(str text):
    """As `plain_path` writes paths; stars stay."""
    cdef bytes wanted = text.encode()
    cdef bytearray out = bytearray(3 * len(wanted))
    cdef uint8_t[::1] room = out
    return bytes(out[:plain_path(&room[0], <const uint8_t*><const char*>wanted, <uint32_t>len(wanted))])


cdef bytes process_pattern(bytes text):
    """The kernel has the first 15 bytes of a name. A pattern whose beginning is longer is about names that were cut."""
    beginning = text.partition(b"*")[0]
    return beginning[:COMM_BYTES] if len(beginning) > COMM_BYTES else text


cdef void selection_release(selection_t* selection) noexcept nogil:
    """One holder less."""
    cdef selection_rule_t* rule
    cdef uint32_t i
    if selection == NULL:
        return
    selection.holders -= 1
    if selection.holders:
        return
    for i in range(selection.count):
        rule = &selection.rules[i]
        globs_free(&rule.hosts)
        globs_free(&rule.paths)
        globs_free(&rule.methods)
        globs_free(&rule.content_types)
        globs_free(&rule.processes)
        free(rule.statuses)
        free(rule.networks)
    free(selection)


# ---- what is asked for

cdef inline bint unreserved(uint8_t c) noexcept nogil:
    """RFC 3986 section 2.3."""
    return (c'a' <= c <= c'z') or (c'A' <= c <= c'Z') or (c'0' <= c <= c'9') or c in (c'-', c'.', c'_', c'~')


cdef inline int nibble(uint8_t c) noexcept nogil:
    if c'0' <= c <= c'9':
        return c - c'0'
    c |= 0x20
    return c - c'a' + 10 if c'a' <= c <= c'f' else -1


cdef uint32_t plain_path(uint8_t* out, const uint8_t* p, uint32_t n) noexcept nogil:
    """The path without escapes that mean nothing, and with escapes for bytes that want them (RFC 3986 section 6.2.2): one
    spelling for all that a server takes for the same. At most 3 * n bytes; how many."""
    cdef const char* digits = b"0123456789ABCDEF"
    cdef uint8_t* begin = out
    cdef uint32_t i = 0
    cdef uint8_t c
    cdef bint escaped
    while i < n:
        c = p[i]
        escaped = c == c'%' and i + 2 < n and nibble(p[i + 1]) >= 0 and nibble(p[i + 2]) >= 0
        if escaped:
            c = <uint8_t>(nibble(p[i + 1]) << 4 | nibble(p[i + 2]))
            i += 2
            escaped = not unreserved(c)
        if escaped or c <= 0x20 or c >= 0x7F:
            out[0] = c'%'
            out[1] = digits[c >> 4]
            out[2] = digits[c & 15]
            out += 3
        else:
            out[0] = c
            out += 1
        i += 1
    return <uint32_t>(out - begin)


cdef void find_path(facts_t* facts, uint8_t* room, const request_t* request) noexcept nogil:
    """The path of the target, without authority and query (RFC 9112 section 3.2)."""
    cdef const uint8_t* p = request.target
    cdef const uint8_t* end = p + request.target_len
    cdef const uint8_t* q
    cdef const uint8_t* stop = NULL
    cdef bint plain = True
    if target_host(request, &stop) != NULL:
        p = stop
    q = p
    while q < end and q[0] != c'?' and q[0] != c'#':
        if q[0] == c'%' or q[0] <= 0x20 or q[0] >= 0x7F:
            plain = False
        q += 1
    facts.path = p
    facts.path_len = <uint32_t>(q - p)
    if q == p:
        facts.path = b"/"           # of an absolute target (RFC 9110 section 4.2.3)
        facts.path_len = 1
    elif not plain:
        facts.path_len = plain_path(room, p, facts.path_len)
        facts.path = room


cdef void find_host(facts_t* facts, uint8_t* room, const uint8_t* p, uint32_t n) noexcept nogil:
    """The host without port, in lower case, without brackets and without the dot of the root."""
    cdef uint32_t i
    cdef const uint8_t* colon
    while n and p[0] <= c' ':
        p += 1
        n -= 1
    while n and p[n - 1] <= c' ':
        n -= 1
    colon = <const uint8_t*>memchr(p, c']' if n and p[0] == c'[' else c':', n)
    if n and p[0] == c'[':
        p += 1
        n = <uint32_t>(colon - p) if colon != NULL else n - 1
    elif colon != NULL and memchr(colon + 1, c':', <size_t>(p + n - colon - 1)) == NULL:
        n = <uint32_t>(colon - p)
    if n and p[n - 1] == c'.':
        n -= 1
    for i in range(n):
        room[i] = p[i] | 0x20 if c'A' <= p[i] <= c'Z' else p[i]
    facts.host = room
    facts.host_len = n


cdef int find_facts(ctx_t* ctx, const selection_t* selection, const exchange_t* ex, const request_t* request,
                    const fields_t* fields, facts_t* facts) noexcept nogil:
    """What the head of a request says, in the shard's scratch. 0, or -1 when memory is out."""
    cdef const uint8_t* host = NULL
    cdef const uint8_t* stop = NULL
    cdef uint32_t n = 0
    facts.method = request.method
    if ex.marks & MARK_METHOD_UNKNOWN:
        facts.method = NULL
    facts.method_len = request.method_len
    facts.path = NULL
    facts.host = NULL
    if selection.asks_hosts:
        if fields.host != NULL:
            host = fields.host.value
            n = fields.host.value_len
        elif not (fields.unknown or ex.marks & MARK_HEADERS_UNKNOWN):
            host = target_host(request, &stop)
            if host == NULL:
                host = <const uint8_t*>b""      # known to have none
            else:
                n = <uint32_t>(stop - host)
    ctx.scratch.len = 0
    if buf_reserve(&ctx.batch.pool, &ctx.scratch, <size_t>n + 3 * <size_t>request.target_len + 1) < 0:
        return -1
    if host != NULL:
        find_host(facts, <uint8_t*>ctx.scratch.data, host, n)
    if selection.asks_paths and not ex.marks & MARK_PATH_UNKNOWN:
        find_path(facts, <uint8_t*>ctx.scratch.data + n, request)
    return 0


cdef void find_media(facts_t* facts, uint8_t* room, uint32_t most, const uint8_t* p, uint32_t n) noexcept nogil:
    """The media type in lower case; of a longer one than there is room for the beginning."""
    cdef uint32_t i = 0
    while i < n and p[i] <= c' ':
        i += 1
    p += i
    n -= i
    i = 0
    while i < n and i < most and p[i] != c';' and p[i] > c' ' and p[i] != c',':
        room[i] = p[i] | 0x20 if c'A' <= p[i] <= c'Z' else p[i]
        i += 1
    facts.content_type = room
    facts.content_type_len = i


cdef inline void find_content_type(facts_t* facts, uint8_t* room, uint32_t most, const fields_t* fields) noexcept nogil:
    """The media type of the answer, where it is known whether it has one."""
    facts.content_type = NULL
    if fields.content_type != NULL:
        find_media(facts, room, most, fields.content_type.value, fields.content_type.value_len)
    elif not (fields.unknown or fields.overflow):
        facts.content_type = room
        facts.content_type_len = 0


# ---- asking

cdef inline fit_t worse(fit_t a, fit_t b) noexcept nogil:
    return a if a > b else b


cdef inline fit_t fit_text(const globs_t* globs, const uint8_t* p, uint32_t n, fit_t unknown) noexcept nogil:
    if globs.count == 0:
        return FITS
    if p == NULL:
        return unknown
    return FITS if globs_fit(globs, p, n) else FITS_NOT


cdef fit_t fit_request(const selection_rule_t* rule, const facts_t* facts, uint8_t direction) noexcept nogil:
    """What only the head of the request says."""
    cdef fit_t fit
    if rule.directions and not rule.directions & direction:
        return FITS_NOT
    fit = fit_text(&rule.methods, facts.method, facts.method_len, FITS_PERHAPS)
    if fit != FITS_NOT:
        fit = worse(fit, fit_text(&rule.hosts, facts.host, facts.host_len, FITS_PERHAPS))
    if fit != FITS_NOT:
        fit = worse(fit, fit_text(&rule.paths, facts.path, facts.path_len, FITS_PERHAPS))
    return fit


cdef fit_t fit_process(ctx_t* ctx, const conn_t* conn, const exchange_t* ex, const selection_rule_t* rule,
                       uint8_t moment) noexcept nogil:
    """By the process of the record. A request is read by one, and may be answered by another: then that is the record's."""
    cdef const char* name = process_name(ctx, ex.tgid)
    cdef bint settled = moment != AT_REQUEST or conn.dir_request != DIR_IN or ex.resp.started
    if name[0] == 0 and conn.constant_tgid == ex.tgid:
        name = <const char*>conn.comm
    if name[0] == 0:
        return FITS_LATER
    if globs_fit(&rule.processes, <const uint8_t*>name, <uint32_t>strnlen(name, 16)):
        return FITS if settled or not rule.included else FITS_LATER
    return FITS_NOT if settled else FITS_LATER


cdef fit_t fit_addresses(const conn_t* conn, const selection_rule_t* rule) noexcept nogil:
    if not socket_known(conn):
        return FITS_NOT if conn.unix_socket else FITS_LATER
    return FITS if (trusted(rule.networks, rule.network_count, conn.local)
                    or trusted(rule.networks, rule.network_count, conn.remote)) else FITS_NOT


cdef fit_t fit_status(const selection_rule_t* rule, const facts_t* facts) noexcept nogil:
    cdef uint32_t i
    if facts.moment == AT_REQUEST:
        return FITS_LATER
    for i in range(rule.status_count):
        if rule.statuses[i].first <= facts.status <= rule.statuses[i].last:
            return FITS
    return FITS_NOT if 0 < facts.status < NO_STATUS else FITS_PERHAPS


cdef fit_t fit_later(ctx_t* ctx, const conn_t* conn, const exchange_t* ex, const selection_rule_t* rule,
                     const facts_t* facts) noexcept nogil:
    """What may be known later only."""
    cdef fit_t fit = FITS
    if not ex.answered:
        if rule.status_count:
            fit = fit_status(rule, facts)
        if fit != FITS_NOT:
            fit = worse(fit, fit_text(&rule.content_types, facts.content_type, facts.content_type_len,
                                      FITS_LATER if facts.moment == AT_REQUEST else FITS_PERHAPS))
    if fit != FITS_NOT and rule.processes.count:
        fit = worse(fit, fit_process(ctx, conn, ex, rule, facts.moment))
    if fit != FITS_NOT and rule.network_count:
        fit = worse(fit, fit_addresses(conn, rule))
    return FITS_PERHAPS if fit == FITS_LATER and facts.moment == AT_END else fit


cdef decision_t decide(ctx_t* ctx, const conn_t* conn, exchange_t* ex, const selection_t* selection,
                       const facts_t* facts) noexcept nogil:
    """By the rules that are left in ex.candidates; those that may still decide stay there."""
    cdef uint64_t left = 0
    cdef uint32_t i
    cdef bint may_include = False, may_exclude = False
    cdef const selection_rule_t* rule
    cdef fit_t fit
    for i in range(selection.count):
        if not ex.candidates >> i & 1:
            continue
        rule = &selection.rules[i]
        fit = fit_later(ctx, conn, ex, rule, facts)
        if fit == FITS_NOT or (fit == FITS_PERHAPS and rule.included):
            continue
        if fit == FITS_PERHAPS:
            ex.doubts |= <uint64_t>1 << i
        if fit != FITS_LATER:
            if rule.included and not may_exclude:
                return INCLUDED
            if not rule.included and not may_include:
                return EXCLUDED_IN_DOUBT if ex.doubts >> i & 1 else EXCLUDED
            ex.candidates = left | <uint64_t>1 << i
            return UNDECIDED
        left |= <uint64_t>1 << i
        if rule.included:
            may_include = True
        else:
            may_exclude = True
    ex.candidates = left
    return UNDECIDED if may_exclude else INCLUDED


cdef void ask_request(const conn_t* conn, exchange_t* ex, const selection_t* selection, const facts_t* facts) noexcept nogil:
    """Which rules may decide, by the head of the request."""
    cdef uint8_t direction = SELECT_INBOUND if conn.dir_request == DIR_IN else SELECT_OUTBOUND
    cdef uint32_t i
    cdef fit_t fit
    ex.rules = selection.version
    ex.candidates = 0
    ex.doubts = 0
    ex.answered = 0
    for i in range(selection.count):
        fit = fit_request(&selection.rules[i], facts, direction)
        if fit == FITS or (fit == FITS_PERHAPS and not selection.rules[i].included):
            ex.candidates |= <uint64_t>1 << i
            if fit == FITS_PERHAPS:
                ex.doubts |= <uint64_t>1 << i


cdef inline void let_go(exchange_t* ex) noexcept nogil:
    selection_release(ex.selection)
    ex.selection = NULL


cdef inline bint is_excluded(ctx_t* ctx, decision_t decision) noexcept nogil:
    """Counts why."""
    if decision == EXCLUDED:
        ctx.counters[C_FILTERED_POLICY] += 1
    elif decision == EXCLUDED_IN_DOUBT:
        ctx.counters[C_FILTERED_POLICY_DOUBT] += 1
    return decision == EXCLUDED or decision == EXCLUDED_IN_DOUBT


# ---- the three moments

cdef bint excluded_at_request(ctx_t* ctx, conn_t* conn, exchange_t* ex, const request_t* request,
                              const fields_t* fields) noexcept:
    """Is it decided that the exchange is not recorded? It may stay undecided: then ex.selection says so. There are rules."""
    cdef selection_t* selection = ctx.selection
    cdef facts_t facts
    cdef decision_t decision
    facts.moment = AT_REQUEST
    facts.content_type = NULL
    facts.content_type_len = 0
    facts.status = 0
    if find_facts(ctx, selection, ex, request, fields, &facts) < 0:
        return is_excluded(ctx, EXCLUDED_IN_DOUBT)
    ask_request(conn, ex, selection, &facts)
    decision = decide(ctx, conn, ex, selection, &facts)
    if decision == UNDECIDED:
        selection.holders += 1
        ex.selection = selection
    return is_excluded(ctx, decision)


cdef bint excluded_at_answer(ctx_t* ctx, conn_t* conn, exchange_t* ex, uint32_t status, const fields_t* fields) noexcept:
    """The same of an exchange that is undecided, at the head of its answer."""
    cdef uint8_t room[256]
    cdef facts_t facts
    cdef decision_t decision
    if ex.selection != ctx.selection:
        let_go(ex)              # another policy came meanwhile: decided when it is recorded
        return False
    if status == SWITCHING or ex.marks & MARK_STATUS_UNKNOWN:
        return False            # the answer that counts may still come
    facts.moment = AT_ANSWER
    facts.status = status
    find_content_type(&facts, room, sizeof(room), fields)
    decision = decide(ctx, conn, ex, ex.selection, &facts)
    ex.answered = 1             # the rules that are left fit its status and content type
    if decision != UNDECIDED:
        let_go(ex)
    return is_excluded(ctx, decision)


cdef bint excluded_at_end(ctx_t* ctx, conn_t* conn, exchange_t* ex) noexcept:
    """The same when it is about to be recorded, whatever is known of it: afterwards it is decided."""
    cdef facts_t facts
    cdef decision_t decision
    facts.moment = AT_END
    facts.status = NO_STATUS if ex.marks & MARK_STATUS_UNKNOWN else ex.status
    facts.content_type = NULL
    if facts.status == SWITCHING:
        facts.content_type = b""
    facts.content_type_len = 0
    decision = decide(ctx, conn, ex, ex.selection, &facts)
    let_go(ex)
    return is_excluded(ctx, decision)


cdef int find_written(ctx_t* ctx, const exchange_t* ex, facts_t* facts) noexcept nogil:
    """What the heads say that were written. 0, or -1 when memory is out."""
    cdef request_t request
    cdef piece_t piece = written_text(&ex.req.head, b'"method":"', 10)
    facts.method = piece.p
    facts.method_len = piece.n
    if ex.marks & MARK_METHOD_UNKNOWN:
        facts.method = NULL
    ctx.scratch.len = 0
    if buf_reserve(&ctx.batch.pool, &ctx.scratch, 4 * <size_t>ex.req.head.len + <size_t>ex.resp.head.len + 1) < 0:
        return -1
    facts.path = NULL
    piece = written_text(&ex.req.head, b'","path":"', 10)
    if piece.p != NULL and not ex.marks & MARK_PATH_UNKNOWN:
        request.target = piece.p
        request.target_len = piece.n
        find_path(facts, <uint8_t*>ctx.scratch.data, &request)
    facts.host = NULL
    piece = written_field(&ex.req.head, b"host", 4)
    if piece.p != NULL and (piece.n or not ex.marks & (UNSURE | MARK_ORPHAN)):
        find_host(facts, <uint8_t*>ctx.scratch.data + 3 * <size_t>ex.req.head.len, piece.p, piece.n)
    facts.content_type = NULL
    facts.content_type_len = 0
    piece = written_field(&ex.resp.head, b"content-type", 12)
    if piece.p != NULL and (piece.n or not ex.marks & UNSURE):
        find_media(facts, <uint8_t*>ctx.scratch.data + 4 * <size_t>ex.req.head.len, ex.resp.head.len, piece.p, piece.n)
    return 0


cdef bint excluded_anew(ctx_t* ctx, conn_t* conn, exchange_t* ex) noexcept:
    """The same by all rules in force, which came after the head of the request was read."""
    cdef facts_t facts
    if ex.selection != NULL:
        let_go(ex)
    facts.moment = AT_END
    facts.status = NO_STATUS if ex.marks & MARK_STATUS_UNKNOWN else ex.status
    if find_written(ctx, ex, &facts) < 0:
        return is_excluded(ctx, EXCLUDED_IN_DOUBT)
    ask_request(conn, ex, ctx.selection, &facts)
    return is_excluded(ctx, decide(ctx, conn, ex, ctx.selection, &facts))
