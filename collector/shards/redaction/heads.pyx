"""Start lines and header fields of a message, as the record shows them.

What is returned points into memory of this module, which the next head uses again: a head is written into the record's text
at once.
"""

from os import urandom

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport realloc
from libc.string cimport memchr, memcmp, memcpy, memset

from collector.shards.http.fields cimport *
from collector.shards.redaction.edits cimport *
from collector.shards.redaction.names cimport find_name, may_be_name
from collector.shards.redaction.pairs cimport end_of_name, scan_pair, scan_pairs
from collector.shards.redaction.scan cimport scan_text
from collector.shards.redaction.sniffing cimport is_blank
from collector.shards.redaction.state cimport *
from collector.shards.redaction.strict cimport strict_pairs, strict_path

cdef extern from * nogil:
    """
    typedef unsigned __int128 uint128_t;
    """
    ctypedef unsigned long long uint128_t      # wider in fact

cdef extern from "<string.h>" nogil:
    void* memrchr(const void* s, int c, size_t n)
    void* memmem(const void* haystack, size_t haystack_len, const void* needle, size_t needle_len)

cdef enum:
    VALUE_LEAST = 13        # bytes: nothing with a form is shorter
    BLANKS_MOST = 8         # between a name and its value, colon included
    SEEN_FIELDS = 4096
    SEEN_MOST = 512         # bytes of a value
    SCHEME_MOST = 24        # bytes

# A value that was replaced: of which field, and where in PLACE.
cdef struct moved_t:
    uint32_t field
    uint32_t length
    size_t at

cdef fields_t FIELDS
cdef moved_t[512] MOVED
cdef edits_t VALUE          # of one value
cdef edits_t TARGET
cdef edits_t REASON
cdef char* PLACE = NULL     # of all values of a head
cdef size_t PLACE_BYTES = 0
memset(&VALUE, 0, sizeof(edits_t))
memset(&TARGET, 0, sizeof(edits_t))
memset(&REASON, 0, sizeof(edits_t))

# Hashes of fields that were looked at lately and have nothing in them: clients send the same ones with every request.
cdef uint64_t[4096] SEEN
cdef uint64_t[3] SEED
memset(SEEN, 0, sizeof(SEEN))
for _i in range(3):
    SEED[<uint32_t>_i] = int.from_bytes(urandom(8), "little") | 1

# Fields that say what a message is, and nothing of what is in it: they stay under `strict`.
_STAY = (
    b"host", b"content-type", b"content-length", b"content-encoding", b"transfer-encoding", b"connection", b"upgrade",
    b"accept", b"accept-encoding", b"grpc-status", b"grpc-encoding", b"grpc-accept-encoding", b"te", b"trailer", b"allow",
    b"vary", b"cache-control", b"date", b"server", b"sec-websocket-version", b"sec-websocket-extensions",
    b"http2-settings", b"expect", b"keep-alive",
)
cdef enum:
    STAY = 24
cdef const char* STAY_NAMES[24]
cdef uint32_t[24] STAY_LENGTHS
assert len(_STAY) == STAY
for _i, _name in enumerate(_STAY):
    STAY_NAMES[<uint32_t>_i] = <const char*><bytes>_name
    STAY_LENGTHS[<uint32_t>_i] = <uint32_t>len(_name)


# Of cookies, with values (RFC 6265 section 5.2, the draft that replaces it, RFC 2109, browsers).
_ATTRIBUTES = (
    b"path", b"samesite", b"max-age", b"expires", b"domain", b"priority", b"version", b"comment", b"httponly", b"secure",
    b"partitioned", b"port", b"commenturl",
)
cdef enum:
    ATTRIBUTES = 13
cdef const char* ATTRIBUTE_NAMES[13]
cdef uint32_t[13] ATTRIBUTE_LENGTHS
assert len(_ATTRIBUTES) == ATTRIBUTES
for _i, _name in enumerate(_ATTRIBUTES):
    ATTRIBUTE_NAMES[<uint32_t>_i] = <const char*><bytes>_name
    ATTRIBUTE_LENGTHS[<uint32_t>_i] = <uint32_t>len(_name)


cdef bint stays(const field_t* f) noexcept nogil:
    cdef uint32_t i
    for i in range(<uint32_t>STAY):
        if f.name_len == STAY_LENGTHS[i] and same_name(f.name, STAY_NAMES[i], f.name_len):
            return True
    return False


cdef int keep(size_t* used, uint32_t* count, uint32_t field, const edits_t* e) noexcept nogil:
    """The text of VALUE becomes that of a field. 0, or -1 when memory is out."""
    global PLACE, PLACE_BYTES
    cdef size_t size = PLACE_BYTES if PLACE_BYTES else 4096
    cdef char* p
    if used[0] + e.len > PLACE_BYTES:
        while size < used[0] + e.len:
            size *= 2
        p = <char*>realloc(PLACE, size)
        if p == NULL:
            return -1
        PLACE = p
        PLACE_BYTES = size
    memcpy(PLACE + used[0], e.data, e.len)
    MOVED[count[0]].field = field
    MOVED[count[0]].length = <uint32_t>e.len
    MOVED[count[0]].at = used[0]
    used[0] += e.len
    count[0] += 1
    return 0


cdef void behind_scheme(redaction_t* r, edits_t* e, uint32_t kind) noexcept:
    """Credentials (RFC 9110 section 11.4): the scheme stays, if there is one."""
    cdef const uint8_t* p = e.begin
    while p < e.end and p[0] != c' ' and p[0] != c'\t':
        p += 1
    if p == e.end or not is_scheme(e.begin, p):
        p = e.begin
    while p < e.end and (p[0] == c' ' or p[0] == c'\t'):
        p += 1
    replace(r, e, p, e.end, kind, NULL, 0)


cdef bint is_scheme(const uint8_t* p, const uint8_t* end) noexcept nogil:
    """A word such as those that are registered: Bearer, AWS4-HMAC-SHA256. A key has digits among its letters."""
    cdef const uint8_t* q = p
    if end - p > SCHEME_MOST:
        return False
    while q < end:
        if q[0] >= c'0' and q[0] <= c'9':
            if q == p or q + 1 < end and (q[1] | 0x20) >= c'a' and (q[1] | 0x20) <= c'z':
                return False
        elif not ((q[0] | 0x20) >= c'a' and (q[0] | 0x20) <= c'z' or q[0] == c'-' or q[0] == c'_'):
            return False
        q += 1
    return True


cdef void cookie(redaction_t* r, edits_t* e) noexcept:
    """Of Set-Cookie (RFC 6265 section 4.1): the value; name and attributes stay. Where several fields were joined, which
    some proxies do though it is not allowed (section 3), there are further cookies among the attributes."""
    cdef const uint8_t* p = e.begin
    cdef const uint8_t* end
    cdef const uint8_t* sign
    while p < e.end:
        end = <const uint8_t*>memchr(p, c';', <size_t>(e.end - p))
        if end == NULL:
            end = e.end
        sign = end_of_name(p, end)
        if p == e.begin:
            value_of_cookie(r, e, p if sign == NULL else sign + 1, end)
        elif sign != NULL and not is_attribute(p, sign):
            value_of_cookie(r, e, sign + 1, end)
        elif sign != NULL:
            sign = <const uint8_t*>memchr(sign + 1, c'=', <size_t>(end - sign - 1))
            if sign != NULL:
                value_of_cookie(r, e, sign + 1, end)
        p = end + 1


cdef void value_of_cookie(redaction_t* r, edits_t* e, const uint8_t* p, const uint8_t* end) noexcept:
    if r.mode != MODE_STRICT:
        replace(r, e, p, end, <uint32_t>r.kind_of[FORM_COOKIE], NULL, 0)
    else:
        replace_size(e, p, end, b"string", False)


cdef bint is_attribute(const uint8_t* p, const uint8_t* end) noexcept nogil:
    cdef uint32_t i
    if p < end and p[0] == c' ':
        p += 1
    for i in range(<uint32_t>ATTRIBUTES):
        if <size_t>(end - p) == ATTRIBUTE_LENGTHS[i] and same_name(p, ATTRIBUTE_NAMES[i], ATTRIBUTE_LENGTHS[i]):
            return True
    return False


cdef void subprotocols(redaction_t* r, edits_t* e) noexcept:
    """Of Sec-WebSocket-Protocol (RFC 6455 section 11.3.4): browsers cannot set other fields, so tokens stand there, behind
    `bearer`, or at the end of `base64url.bearer.authorization.k8s.io.TOKEN`, or for themselves."""
    cdef const uint8_t* p = e.begin
    cdef const uint8_t* end
    cdef const uint8_t* next
    cdef const uint8_t* q
    cdef bint secret = False    # the one before has said so
    while p < e.end:
        next = <const uint8_t*>memchr(p, c',', <size_t>(e.end - p))
        if next == NULL:
            next = e.end
        end = next
        while p < end and is_blank(p[0]):
            p += 1
        while end > p and is_blank((end - 1)[0]):
            end -= 1
        q = p if secret else behind_token(r, p, end)
        if secret or q > p or looks_random(p, end):
            secret = False
            replace(r, e, q, end, <uint32_t>r.kind_of[FORM_BEARER], NULL, 0)
        else:
            secret = find_name(r, p, end) != NULL
        p = next + 1
    if e.count == 0 and r.mode == MODE_SECRETS:
        scan_text(r, e)


cdef const uint8_t* behind_token(const redaction_t* r, const uint8_t* p, const uint8_t* end) noexcept nogil:
    """What follows `access_token.` or the last dot of a name with `bearer.` in it, or `p`."""
    cdef const uint8_t* q = p
    if memmem(p, <size_t>(end - p), b"bearer.", 7) != NULL:
        return <const uint8_t*>memrchr(p, c'.', <size_t>(end - p)) + 1
    while q < end and q[0] != c'.' and q[0] != c':' and q[0] != c'=':
        q += 1
    return q + 1 if q < end and find_name(r, p, q) != NULL else p


cdef bint looks_random(const uint8_t* p, const uint8_t* end) noexcept nogil:
    """As keys do, and names of protocols do not."""
    cdef const uint8_t* q = p
    cdef uint32_t digits = 0, small = 0, large = 0
    while q < end:
        digits += q[0] >= c'0' and q[0] <= c'9'
        small += q[0] >= c'a' and q[0] <= c'z'
        large += q[0] >= c'A' and q[0] <= c'Z'
        q += 1
    return end - p >= 16 and digits > 1 and small and large > 1 or end - p >= 24 and digits > 5


cdef inline bint is_no_name(const field_t* f) noexcept nogil:
    """A line that is no field, as there are blanks before its colon (RFC 9112 section 5.1)."""
    return (memchr(f.name, c' ', f.name_len) != NULL and f.value > f.name
            and f.value - f.name - f.name_len < BLANKS_MOST)


cdef bint plain_line(redaction_t* r, const field_t* f) noexcept:
    """Of such a line, is nothing secret in it, from its beginning on?"""
    edits_begin(&VALUE, f.name, f.value + f.value_len, False, 0)
    scan_text(r, &VALUE)
    return VALUE.count == 0 and not VALUE.failed


cdef inline uint64_t mixed(uint64_t a, uint64_t b) noexcept nogil:
    """Both halves of a product of 128 bits."""
    cdef uint128_t product = <uint128_t>a * b
    return <uint64_t>product ^ <uint64_t>(product >> 64)


cdef inline uint64_t hashed(const uint8_t* p, size_t n, uint64_t hash) noexcept nogil:
    """With the bytes at `p`, of which there is at least one."""
    cdef const uint8_t* last
    cdef uint64_t word = 0
    if n < 8:
        memcpy(&word, p, n)
        return mixed(hash ^ word ^ n, SEED[1])
    last = p + n - 8
    while p < last:
        memcpy(&word, p, 8)
        hash = mixed(hash ^ word, SEED[1])
        p += 8
    memcpy(&word, last, 8)
    return mixed(hash ^ word ^ n << 32, SEED[1])


cdef inline uint64_t hash_of_field(const field_t* f) noexcept nogil:
    """Of its name and value. Nobody outside of this process can find two fields that have the same one (field_t.hash is for
    all to see)."""
    return mixed(hashed(f.value, f.value_len, hashed(f.name, f.name_len, SEED[0])), SEED[2]) | 1


cdef void redact_value(redaction_t* r, const field_t* f, edits_t* e) noexcept:
    cdef const known_t* entry = NULL
    if r.mode == MODE_OFF:
        return
    if f.id == F_COOKIE:
        if r.mode == MODE_STRICT:
            strict_pairs(e, c';')
        else:
            scan_pairs(r, e, c';')
        return
    if f.id == F_SET_COOKIE:
        cookie(r, e)
        return
    if f.name_len == 22 and same_name(f.name, b"sec-websocket-protocol", 22):
        subprotocols(r, e)
        return
    if f.name_len == 13 and r.mode == MODE_SECRETS and not r.rules and same_name(f.name, b"authorization", 13):
        behind_scheme(r, e, <uint32_t>r.kind_of[FORM_AUTHORIZATION])        # the most frequent one
        return
    if may_be_name(r, f.name, f.name + f.name_len):
        entry = find_name(r, f.name, f.name + f.name_len)
    if entry != NULL and not entry.flags & NAME_PAIR:
        if entry.kind == r.kind_of[FORM_AUTHORIZATION]:
            behind_scheme(r, e, entry.kind)
        else:
            replace(r, e, e.begin, e.end, entry.kind, NULL, 0)
    elif r.mode == MODE_STRICT:
        if not stays(f):
            replace_size(e, e.begin, e.end, b"string", False)
    elif e.end - e.begin >= VALUE_LEAST or e.cut:
        scan_text(r, e)


cdef int redact_fields(redaction_t* r, const fields_t** fields, bint cut) noexcept:
    """The fields with other values, if any has to have another one. How many; -1 when memory is out. ``cut``: more of the
    head is not here."""
    cdef const fields_t* given = fields[0]
    cdef const field_t* f
    cdef size_t used = 0
    cdef uint32_t i, moved = 0, count = 0
    cdef uint64_t hash
    cdef bint may_be_seen, whole, read
    r.spent = 0     # what a body has spent: a head is bounded by COLLECTOR_HEADER_BYTES
    for i in range(given.count):
        f = &given.items[i]
        if f.value_len == 0 or f.id == F_HOST:
            continue
        whole = not cut or i + 1 < given.count
        may_be_seen = r.mode == MODE_SECRETS and not r.rules and whole and f.value_len <= SEEN_MOST and f.name_len
        hash = hash_of_field(f) if may_be_seen else 0
        if may_be_seen and SEEN[hash & (SEEN_FIELDS - 1)] == hash:
            continue
        read = r.mode != MODE_SECRETS or not is_no_name(f) or plain_line(r, f)
        edits_begin(&VALUE, f.value, f.value + f.value_len, not whole, 0)
        if r.rules:
            edits_ruled(r, &VALUE, RULED_FIELD, f.name, f.name_len)
        if read:
            redact_value(r, f, &VALUE)
        else:
            replace(r, &VALUE, VALUE.begin, VALUE.end, <uint32_t>r.kind_of[FORM_UNREAD], NULL, 0)
        if edits_end(&VALUE) or VALUE.failed:
            if VALUE.failed or keep(&used, &moved, i, &VALUE) < 0:
                return -1
            count += VALUE.count
        elif may_be_seen:
            SEEN[hash & (SEEN_FIELDS - 1)] = hash
    if moved == 0:
        return 0
    # all but the fields that are not there
    memcpy(&FIELDS, given, sizeof(fields_t) - (512 - given.count) * sizeof(field_t))
    if given.host != NULL:
        FIELDS.host = &FIELDS.late_host if given.host == &given.late_host else &FIELDS.items[given.host - given.items]
    for i in range(moved):
        FIELDS.items[MOVED[i].field].value = <const uint8_t*>PLACE + MOVED[i].at
        FIELDS.items[MOVED[i].field].value_len = MOVED[i].length
        FIELDS.items[MOVED[i].field].plain_value = 0
    fields[0] = &FIELDS
    return <int>count


cdef void segments(redaction_t* r, edits_t* e, const uint8_t* p, const uint8_t* end) noexcept:
    """Of a path, one by one: what separates them could be part of base64."""
    cdef const uint8_t* q
    while p < end:
        q = <const uint8_t*>memchr(p, c'/', <size_t>(end - p))
        if q == NULL:
            q = end
        scan_pair(r, e, p, q)
        p = q + 1


cdef const uint8_t* end_of_path(const uint8_t* p, const uint8_t* end) noexcept nogil:
    """Where a query begins, or a fragment, which no target should have."""
    cdef const uint8_t* query = <const uint8_t*>memchr(p, c'?', <size_t>(end - p))
    cdef const uint8_t* fragment
    if query == NULL:
        query = end
    fragment = <const uint8_t*>memchr(p, c'#', <size_t>(query - p))
    return query if fragment == NULL else fragment


cdef void authority(redaction_t* r, edits_t* e, const uint8_t* p, const uint8_t* end) noexcept:
    """Its password; user information that is but one word may be a token."""
    cdef const uint8_t* at = <const uint8_t*>memrchr(p, c'@', <size_t>(end - p))
    cdef const uint8_t* colon
    if at == NULL and e.cut and end == e.end:
        at = end        # which may be further on
        colon = <const uint8_t*>memchr(p, c':', <size_t>(at - p))
        if colon == NULL:
            return
    if at == NULL:
        return
    colon = <const uint8_t*>memchr(p, c':', <size_t>(at - p))
    replace(r, e, p if colon == NULL else colon + 1, at, <uint32_t>r.kind_of[FORM_URL], NULL, 0)


cdef int redact_request(redaction_t* r, request_t* request, bint cut) noexcept:
    """The target with other values, if it has to have some. How many; -1 when memory is out."""
    cdef const uint8_t* p = request.target
    cdef const uint8_t* end = p + request.target_len
    cdef const uint8_t* query
    cdef const uint8_t* at
    if request.target_len == 0:
        return 0
    r.spent = 0
    query = end_of_path(p, end)
    edits_begin(&TARGET, p, end, cut, 0)
    if r.rules:
        edits_ruled(r, &TARGET, RULED_TARGET, NULL, 0)
        p = TARGET.begin
        end = TARGET.end
        query = end_of_path(p, end)
    if r.mode == MODE_OFF:
        pass
    elif p[0] != c'/' and p[0] != c'*':       # absolute: its authority first (RFC 9112 section 3.2.2)
        at = <const uint8_t*>memchr(p, c':', <size_t>(query - p))
        if at != NULL and query - at > 3 and memcmp(at, b"://", 3) == 0:
            p = <const uint8_t*>memchr(at + 3, c'/', <size_t>(query - at - 3))
            if p == NULL:
                p = query
            authority(r, &TARGET, at + 3, p)
    if r.mode == MODE_OFF:
        pass
    elif r.mode == MODE_STRICT:
        path_and_query(&TARGET, p, query, end)
    else:
        segments(r, &TARGET, p, query)
        if query < end:
            pairs_of(r, &TARGET, query + 1, end)
    if not edits_end(&TARGET) and not TARGET.failed:
        return 0
    if TARGET.failed:
        return -1
    request.target = <const uint8_t*>TARGET.data
    request.target_len = <uint32_t>TARGET.len
    return <int>TARGET.count


cdef void pairs_of(redaction_t* r, edits_t* e, const uint8_t* p, const uint8_t* end) noexcept:
    """The query, and what may stand behind it."""
    cdef const uint8_t* begin = e.begin
    e.begin = p
    scan_pairs(r, e, c'&')
    e.begin = begin


cdef void path_and_query(edits_t* e, const uint8_t* p, const uint8_t* query, const uint8_t* end) noexcept nogil:
    cdef const uint8_t* begin = e.begin
    e.begin = p
    e.end = query
    strict_path(e)
    e.end = end
    if query < end:
        e.begin = query + 1
        strict_pairs(e, c'&')
    e.begin = begin


cdef int redact_response(redaction_t* r, response_t* response) noexcept:
    """The code and phrase, likewise. Servers put what went wrong there."""
    if response.reason_len < VALUE_LEAST or r.mode == MODE_OFF:
        return 0
    r.spent = 0
    edits_begin(&REASON, response.reason, response.reason + response.reason_len, False, 0)
    if r.mode == MODE_STRICT:
        replace_size(&REASON, response.reason + (4 if response.reason_len > 4 else 0), REASON.end, b"string", False)
    else:
        scan_text(r, &REASON)
    if not edits_end(&REASON) and not REASON.failed:
        return 0
    if REASON.failed:
        return -1
    response.reason = <const uint8_t*>REASON.data
    response.reason_len = <uint32_t>REASON.len
    return <int>REASON.count
