"""HTTP/1.x message heads (RFC 9112 sections 2-5, RFC 9110 section 5), as an observer reads them.

parse_head gives pointers, never copies. It is tolerant where servers are tolerant - bare LF, white space before the
colon, folded lines, garbage lines - because the peer that we overhear may have accepted it; each such thing sets an
ambiguity bit, for it is what request smuggling is made of. It refuses only what is no HTTP start line at all.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memchr, memcmp

from collector.shards.http.content cimport coding_of
from collector.shards.http.fields cimport *
from collector.shards.http.message cimport CODING_DEFLATE, CODING_GZIP, CODING_NONE
from collector.shards.layers.http1.startline cimport *
from collector.shards.layers.http1.state cimport *

cdef extern from "simd.h" nogil:
    bint has_bare_cr(const void* p, size_t n)
    const uint8_t* skip_usual(const uint8_t* p, const uint8_t* end)
    const uint8_t* find_line_end(const uint8_t* p, const uint8_t* end, unsigned* facts)
    enum:
        LINE_SPECIAL
        LINE_NUL
        LINE_BARE_CR


cdef int64_t find_head_end(const uint8_t* p, uint32_t length, uint32_t* scan) noexcept nogil:
    """Length of the head with its empty line, or 0; `scan` remembers where to go on, so no byte is searched twice."""
    cdef const uint8_t* end = p + length
    cdef const uint8_t* q
    if scan[0] > length:
        scan[0] = 0
    q = p + scan[0]
    cdef const uint8_t* nl
    while True:
        nl = <const uint8_t*>memchr(q, c'\n', <size_t>(end - q))
        if nl == NULL:
            scan[0] = length
            return 0
        q = nl + 1
        if q < end and q[0] == c'\n':
            return q + 1 - p
        if q + 1 < end and q[0] == c'\r' and q[1] == c'\n':
            return q + 2 - p
        if end - q < 2 and (q == end or q[0] == c'\r'):
            scan[0] = <uint32_t>(nl - p)        # the line end is here, what follows is not: look at it again
            return 0


cdef bint trailer_line(const uint8_t* p, const uint8_t* end, uint32_t* ambiguity) noexcept nogil:
    """What is odd about one line of a trailer section, without its LF. True when it is the empty line at the end."""
    cdef const uint8_t* q = p
    cdef uint64_t first = 0, last = 0
    cdef uint8_t what
    if end > p and (end - 1)[0] == c'\r':
        end -= 1
    else:
        ambiguity[0] |= AMB_BARE_LF
    if p == end:
        return True
    if memchr(p, c'\r', <size_t>(end - p)) != NULL:
        ambiguity[0] |= AMB_BARE_CR
    if memchr(p, 0, <size_t>(end - p)) != NULL:
        ambiguity[0] |= AMB_NUL
    if p[0] == c' ' or p[0] == c'\t':
        ambiguity[0] |= AMB_OBS_FOLD
        return False
    q = skip_token(q, end)
    # what says where a message ends or whom it is for must not come behind it (RFC 9110 section 6.5.1), lest somebody
    # take it for a field of the head
    name_words(p, <uint32_t>(q - p), <size_t>(end - p), &first, &last)
    what = field_id_of(first, last, <uint32_t>(q - p), p)
    if what == F_CONTENT_LENGTH or what == F_TRANSFER_ENCODING or what == F_HOST:
        ambiguity[0] |= AMB_BAD_HEADER_LINE
    if q > p and q < end and (q[0] == c' ' or q[0] == c'\t'):
        q = skip_blanks(q, end)
        ambiguity[0] |= AMB_SPACE_BEFORE_COLON if q < end and q[0] == c':' else AMB_BAD_HEADER_LINE
    elif q == p or q == end or q[0] != c':':
        ambiguity[0] |= AMB_BAD_HEADER_LINE
    return False


cdef uint8_t coding_below(const uint8_t* p, const uint8_t* last) noexcept nogil:
    """The coding in front of the last one of a list of two (RFC 9112 section 7), when it is one that can be undone."""
    cdef const uint8_t* end = last
    cdef uint8_t coding
    while end > p and ((end - 1)[0] == c' ' or (end - 1)[0] == c'\t'):
        end -= 1
    if end == p or (end - 1)[0] != c',':
        return CODING_NONE
    end -= 1
    while end > p and ((end - 1)[0] == c' ' or (end - 1)[0] == c'\t'):
        end -= 1
    coding = coding_of(p, <uint32_t>(end - p))
    return coding if coding == CODING_GZIP or coding == CODING_DEFLATE else CODING_NONE


cdef inline void framing_facts(head_t* h, field_t* f) noexcept nogil:
    """Content-Length and Transfer-Encoding (RFC 9112 section 6)."""
    cdef uint64_t v = 0
    cdef const uint8_t* p = f.value
    cdef const uint8_t* end = f.value + f.value_len
    cdef const uint8_t* q
    cdef bint any_digit = False
    cdef bint repeated
    if f.id == F_CONTENT_LENGTH:
        while True:
            while p < end and p[0] >= c'0' and p[0] <= c'9' and v < 100000000000000000ULL:
                v = v * 10 + (p[0] - c'0')
                any_digit = True
                p += 1
            p = skip_blanks(p, end)
            if not any_digit or (p < end and p[0] != c','):
                h.ambiguity |= AMB_CL_INVALID
                h.has_cl = 1
                return
            if h.has_cl and h.cl_valid:
                if h.content_length != v:
                    h.ambiguity |= AMB_CL_CONFLICT
                else:
                    h.ambiguity |= AMB_CL_REPEATED
            elif not h.has_cl:
                h.has_cl = 1
                h.cl_valid = 1
                h.content_length = v
            if p >= end:
                return
            p += 1      # a list "5, 5"
            p = skip_blanks(p, end)
            v = 0
            any_digit = False
    else:
        # several fields are one list (RFC 9110 section 5.3): the last coding of the last field decides, and "chunked"
        # must be it. Empty elements say nothing; `identity` was dropped in RFC 7230, servers take it for "no coding".
        repeated = h.te_seen
        if repeated:
            h.ambiguity |= AMB_TE_OBFUSCATED
        h.te_seen = 1
        while True:
            q = end
            while q > p and (q - 1)[0] != c',':
                q -= 1
            q = skip_blanks(q, end)
            if q != p:
                h.ambiguity |= AMB_TE_OBFUSCATED    # more than one coding: only the last one is undone here
            if end - q == 8 and same_name(q, b"identity", 8):
                h.ambiguity |= AMB_TE_OBFUSCATED
                if q == p:
                    return
            elif q != end or q == p:
                break
            end = q
            while end > p and ((end - 1)[0] == c',' or (end - 1)[0] == c' ' or (end - 1)[0] == c'\t'):
                end -= 1
        h.has_te = 1
        h.chunked = end - q == 7 and same_name(q, b"chunked", 7)
        h.te_coding = CODING_NONE
        if h.chunked and not repeated and end == f.value + f.value_len:
            h.te_coding = coding_below(p, q)


cdef int64_t parse_head(head_t* h, const uint8_t* p, const uint8_t* end, bint response, int whole) noexcept nogil:
    """Parse one head. Returns its length with the empty line; 0 when it is not whole yet; -1 when it is no HTTP.

    With `whole` the bytes end where the head was cut: what is complete is taken. LINE_TOO: that was the header limit, so
    that what is here of the start line is taken too.
    """
    cdef const uint8_t* start = p
    cdef const uint8_t* line            # the start line: the empty ones before it are not judged
    cdef const uint8_t* nl
    cdef const uint8_t* stop
    cdef const uint8_t* q
    cdef const uint8_t* colon
    cdef const uint8_t* plain
    cdef field_t* f
    cdef uint64_t[4] seen
    cdef uint64_t first, last
    cdef uint32_t i, n, hash
    cdef unsigned facts = 0, here
    cdef bint usual, token
    cdef bint odd = False
    cdef bint late_host = False
    cdef bint look_again = False    # lines of no usual form: NUL and bare CR are looked for once more
    cdef field_t extra
    seen[0] = seen[1] = seen[2] = seen[3] = 0
    h.fields.end = end
    h.fields.content_encoding = 0
    h.fields.count = 0
    h.ambiguity = 0
    h.fields.overflow = 0
    h.chunked = 0
    h.te_seen = 0
    h.te_coding = CODING_NONE
    h.has_te = 0
    h.has_cl = 0
    h.cl_valid = 0
    h.content_length = 0
    h.expect = 0
    h.upgrade = 0
    h.odd_status = 0
    h.fields.host = NULL
    h.fields.content_type = NULL
    # empty lines before the start line are skipped (RFC 9112 section 2.2)
    while p < end and (p[0] == c'\r' or p[0] == c'\n'):
        p += 1
    if p == end:
        return 0
    line = p
    if response:
        n = 5 if end - p > 5 else <uint32_t>(end - p)
        if memcmp(p, b"HTTP/", n) != 0:
            return -1
    elif not tchar[p[0]]:
        return -1
    nl = find_line_end(p, end, &facts)
    if nl == NULL:
        if not response:
            # a token, then a blank: anything else never becomes a request line
            q = p
            q = skip_token(q, end)
            if q < end and q[0] != c' ' and q[0] != c'\t':
                return -1
        if whole == LINE_TOO and parse_cut_line(h, p, end, response):
            return end - start
        return 0
    stop = nl
    if stop > p and (stop - 1)[0] == c'\r':
        stop -= 1
    else:
        h.ambiguity |= AMB_BARE_LF
    if response:
        if not parse_status_line(h, p, stop):
            return -1
    elif not parse_request_line(h, p, stop):
        return -1
    p = nl + 1
    while True:
        if p >= end:
            if whole:
                break
            return 0
        if p[0] == c'\r':
            if end - p < 2:
                if whole:
                    break
                return 0
            if p[1] == c'\n':
                p += 2
                break
        elif p[0] == c'\n':
            h.ambiguity |= AMB_BARE_LF
            p += 1
            break
        here = 0
        colon = skip_usual(p, end)
        usual = colon != NULL and colon[0] == c':' and colon != p
        if usual:                   # the common case: a field line whose name is of letters, digits and '-'
            nl = find_line_end(colon + 1, end, &here)
        else:
            nl = <const uint8_t*>memchr(p, c'\n', <size_t>(end - p))
            look_again = True
        if nl == NULL:
            if whole:
                if p[0] == c' ' or p[0] == c'\t':
                    h.ambiguity |= AMB_OBS_FOLD     # whatever the rest of the line holds
                break
            return 0
        facts |= here
        stop = nl
        if (stop - 1)[0] == c'\r' and stop > p:
            stop -= 1
        else:
            h.ambiguity |= AMB_BARE_LF
        if p[0] == c' ' or p[0] == c'\t':
            # obs-fold: the value goes on; what lies between becomes one blank when it is written
            h.ambiguity |= AMB_OBS_FOLD
            if h.fields.count and not h.fields.overflow:
                f = &h.fields.items[h.fields.count - 1]
                stop = trim_blanks(p, stop)
                p = skip_blanks(p, stop)
                if stop > p:
                    if f.value_len == 0:
                        f.value = p         # blanks around a value are none of it (RFC 9112 section 5.1)
                    f.value_len = <uint32_t>(stop - f.value)
                    f.plain_value = 0
                    if has_control(p, stop):
                        h.ambiguity |= AMB_CONTROL
            p = nl + 1
            continue
        plain = colon
        if not usual:
            plain = p       # a name is a token: nothing but tchar up to the colon
            plain = skip_token(plain, stop)
            colon = plain
            if plain < stop and plain[0] != c':':
                colon = <const uint8_t*>memchr(plain, c':', <size_t>(stop - plain))
        if colon == NULL or colon == stop or colon == p:
            h.ambiguity |= AMB_BAD_HEADER_LINE
            p = nl + 1
            continue
        if h.fields.count >= MAX_FIELDS:
            h.fields.overflow = 1
            f = &extra          # not listed, but it may say where the message ends
        else:
            f = &h.fields.items[h.fields.count]
            h.fields.count += 1
        q = colon
        if (q - 1)[0] == c' ' or (q - 1)[0] == c'\t':
            h.ambiguity |= AMB_SPACE_BEFORE_COLON
            q = trim_blanks(p, q)
        token = q == plain
        odd |= not token
        f.name = p
        f.name_len = <uint32_t>(q - p)
        q = colon + 1
        q = skip_blanks(q, stop)
        stop = trim_blanks(q, stop)
        f.value = q
        f.value_len = <uint32_t>(stop - q)
        n = f.name_len
        name_words(p, n, <size_t>(end - p), &first, &last)
        f.id = field_id_of(first, last, n, p) if token else F_OTHER
        f.plain_name = usual
        f.plain_value = usual and not here & LINE_SPECIAL
        if not f.plain_value and has_control(q, stop):
            h.ambiguity |= AMB_CONTROL      # RFC 9110 section 5.5
        hash = field_hash(p, n, first, last)
        if f == &extra:
            if f.id == F_CONTENT_LENGTH or f.id == F_TRANSFER_ENCODING:
                framing_facts(h, f)
            elif f.id == F_EXPECT:
                h.expect = 1
            elif f.id == F_UPGRADE:
                h.upgrade = 1
            elif f.id == F_HOST and not late_host:
                late_host = True
                h.fields.late_host = f[0]
            elif f.id == F_HOST:
                h.ambiguity |= AMB_MULTIPLE_HOST
            p = nl + 1
            continue
        note_repeats(&h.fields, f, hash, seen)
        p = nl + 1
    # second look, at the few fields that matter: folding may have lengthened their values
    for i in range(h.fields.count):
        f = &h.fields.items[i]
        if f.id == F_OTHER:
            continue
        if f.id == F_HOST:
            if h.fields.host != NULL:
                h.ambiguity |= AMB_MULTIPLE_HOST
            else:
                h.fields.host = f
        elif f.id == F_CONTENT_LENGTH or f.id == F_TRANSFER_ENCODING:
            framing_facts(h, f)
        elif f.id == F_CONTENT_TYPE:
            h.fields.content_type = f
        elif f.id == F_EXPECT:
            h.expect = 1
        elif f.id == F_UPGRADE:
            h.upgrade = 1
        elif f.id == F_CONTENT_ENCODING:
            h.fields.content_encoding = 1
    if late_host:
        if h.fields.host != NULL:
            h.ambiguity |= AMB_MULTIPLE_HOST
        else:
            h.fields.host = &h.fields.late_host
    if h.te_seen:
        if h.has_te and not h.chunked:
            h.ambiguity |= AMB_TE_NOT_CHUNKED
        if h.has_cl:
            h.ambiguity |= AMB_CL_AND_TE
        if h.http10:
            h.ambiguity |= AMB_TE_HTTP10
    if not response and h.fields.host != NULL and h.request.target[0] != c'/' and other_host(h):
        h.ambiguity |= AMB_MULTIPLE_HOST
    if odd:
        h.ambiguity |= AMB_BAD_HEADER_LINE      # a name that is no token
    if whole or look_again:
        stop = p
        if whole:   # the line that was cut belongs to the head too; the LF of a last CR may be among what is missing
            stop = end - 1 if (end - 1)[0] == c'\r' else end
        facts = 0
        if memchr(line, 0, <size_t>(stop - line)) != NULL:
            facts = LINE_NUL
        if has_bare_cr(line, <size_t>(stop - line)):
            facts |= LINE_BARE_CR
    if facts & LINE_NUL:
        h.ambiguity |= AMB_NUL
    if facts & LINE_BARE_CR:
        h.ambiguity |= AMB_BARE_CR
    return p - start


cdef bint start_refused(head_t* h, const uint8_t* p, uint32_t before, uint32_t length, bint response,
                        uint32_t* known) noexcept nogil:
    """Is what is here of a head, `before` bytes already there and now `length`, no start of a message?

    The answer is that of parse_head about the same bytes in one piece, so that it does not depend on how they were cut;
    no byte is searched twice. `known`, 0 at first: the bytes of the method seen so far, START_KNOWN when the line is good.
    """
    cdef const uint8_t* end = p + length
    cdef const uint8_t* q
    cdef const uint8_t* nl
    if known[0] == START_KNOWN:
        return False
    nl = <const uint8_t*>memchr(p + before, c'\n', length - before)
    if nl != NULL:
        known[0] = START_KNOWN
        return parse_head(h, p, nl + 1, response, False) < 0
    if response:
        return memcmp(p, b"HTTP/", length if length < 5 else 5) != 0
    q = p + known[0]
    q = skip_token(q, end)
    known[0] = <uint32_t>(q - p)
    return q == p or (q < end and q[0] != c' ' and q[0] != c'\t')


def head_fields(bytes data, bint response=False):
    """parse_head for tests: a dict of what was found, 0 (not whole yet) or -1 (no HTTP)."""
    cdef head_t h
    cdef const uint8_t* p = data
    cdef int64_t n = parse_head(&h, p, p + len(data), response, False)
    if n <= 0:
        return n
    out = {
        "length": n, "ambiguity": h.ambiguity, "chunked": bool(h.chunked),
        "content_length": h.content_length if h.has_cl and h.cl_valid else None,
        "version": (<const char*>h.version)[:h.version_len] if response else
        (<const char*>h.request.version)[:h.request.version_len],
        "fields": [((<const char*>h.fields.items[i].name)[:h.fields.items[i].name_len],
                    (<const char*>h.fields.items[i].value)[:h.fields.items[i].value_len]) for i in range(h.fields.count)],
    }
    if response:
        out["status"] = h.response.status
        out["reason"] = (<const char*>h.response.reason)[:h.response.reason_len]
    else:
        out["method"] = (<const char*>h.request.method)[:h.request.method_len]
        out["target"] = (<const char*>h.request.target)[:h.request.target_len]
    return out
