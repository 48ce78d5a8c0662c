"""HTTP/1.x message heads (RFC 9112 sections 2-5, RFC 9110 section 5), as an observer reads them.

parse_head gives pointers, never copies. It is tolerant where servers are tolerant - bare LF, white space before the
colon, folded lines, garbage lines - because the peer that we overhear may have accepted it; each such thing sets an
ambiguity bit, for it is what request smuggling is made of. It refuses only what is no HTTP start line at all.

write_*_head turns the fields into the JSON text of the record at once, while they are at hand: names in wire case
except `host`, repeated fields joined (`, `; `; ` for Cookie; newline for Set-Cookie, whose values contain commas).
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memchr, memcmp, memcpy

from collector.shards.memory cimport buf_append, buf_reserve
from collector.shards.records.text cimport escape_json, escape_json_twice, put_u64, TEXT_LATIN1
from collector.shards.state cimport *

cdef extern from "simd.h" nogil:
    bint has_bare_cr(const void* p, size_t n)
    const uint8_t* skip_usual(const uint8_t* p, const uint8_t* end)
    const uint8_t* find_line_end(const uint8_t* p, const uint8_t* end, unsigned* facts)
    void name_words(const uint8_t* p, uint32_t n, size_t readable, uint64_t* first, uint64_t* last)
    uint64_t word8(const char* s)
    char* copy_plain(char* out, const uint8_t* p, uint32_t n, const uint8_t* readable_end)
    enum:
        LINE_SPECIAL
        LINE_NUL
        LINE_BARE_CR

for _i in range(256):
    tchar[_i] = 0
for _c in bytearray(b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"):
    tchar[_c] = 1


cdef bint same_name(const uint8_t* a, const char* lower, uint32_t n) noexcept nogil:
    """ASCII case-insensitive; `lower` is lower case and n bytes long."""
    cdef uint32_t i
    cdef uint8_t c
    for i in range(n):
        c = a[i]
        if c >= c'A' and c <= c'Z':
            c |= 0x20
        if c != <uint8_t>lower[i]:
            return False
    return True


cdef inline uint8_t field_id_of(uint64_t first, uint64_t last, uint32_t n, const uint8_t* name) noexcept nogil:
    """Which of the fields that matter this is, by the words of name_words (simd.h)."""
    if n == 4:
        return F_HOST if first == word8(b"hostaaaa") else F_OTHER
    if n == 14:
        return F_CONTENT_LENGTH if first == word8(b"content-") and last == word8(b"t-length") else F_OTHER
    if n == 12:
        return F_CONTENT_TYPE if first == word8(b"content-") and last == word8(b"ent-type") else F_OTHER
    if n == 17:
        if first == word8(b"transfer") and last == word8(b"encoding") and name[8] == c'-':
            return F_TRANSFER_ENCODING
        return F_OTHER
    if n == 16:
        return F_CONTENT_ENCODING if first == word8(b"content-") and last == word8(b"encoding") else F_OTHER
    if n == 6:
        if first == word8(b"cookieaa"):
            return F_COOKIE
        return F_EXPECT if first == word8(b"expectaa") else F_OTHER
    if n == 10:
        return F_SET_COOKIE if first == word8(b"set-cook") and last == word8(b"t-cookie") else F_OTHER
    if n == 7:
        return F_UPGRADE if first == word8(b"upgradea") else F_OTHER
    return F_OTHER


cdef bint looks_like_request(const uint8_t* p, const uint8_t* end) noexcept nogil:
    """A whole request line, or the start of one with a usual method: good enough to begin again after a hole."""
    cdef const uint8_t* q = p
    cdef const uint8_t* nl
    while q < end and q - p < 32 and tchar[q[0]]:
        q += 1
    if q == p or end - q < 2 or q[0] != c' ':
        return False
    nl = <const uint8_t*>memchr(q, c'\n', <size_t>(end - q))
    if nl == NULL:
        return q[1] == c'/' and q - p >= 3 and p[0] >= c'A' and p[0] <= c'Z'
    if nl > q and (nl - 1)[0] == c'\r':
        nl -= 1
    return nl - q >= 10 and memcmp(nl - 8, b"HTTP/1.", 7) == 0


cdef bint looks_like_response(const uint8_t* p, const uint8_t* end) noexcept nogil:
    """The beginning of a status line up to its code (RFC 9112 section 4)."""
    return (end - p >= 12 and memcmp(p, b"HTTP/1.", 7) == 0 and p[8] == c' ' and p[9] >= c'1' and p[9] <= c'9'
            and p[10] >= c'0' and p[10] <= c'9' and p[11] >= c'0' and p[11] <= c'9'
            and (end - p == 12 or p[12] == c' ' or p[12] == c'\r' or p[12] == c'\n'))


cdef bint may_be_request(const uint8_t* p, const uint8_t* end) noexcept nogil:
    """Whether what is here may become a request line: a token, then a blank, as far as it goes."""
    cdef const uint8_t* q = p
    while q < end and q - p < 32 and tchar[q[0]]:
        q += 1
    return q > p and (q == end or q[0] == c' ')


cdef bint usual_method(const uint8_t* p, const uint8_t* end) noexcept nogil:
    """What is here is a request line, or begins like one with a usual method: capital letters."""
    cdef const uint8_t* q = p
    while q < end and q[0] >= c'A' and q[0] <= c'Z':
        q += 1
    return q > p and (q == end or q[0] == c' ') or looks_like_request(p, end)


cdef inline bint has_control(const uint8_t* p, const uint8_t* end) noexcept nogil:
    """A control character other than HTAB; NUL and CR have words of their own."""
    while p < end:
        if (p[0] < 0x20 and p[0] != c'\t' and p[0] and p[0] != c'\r') or p[0] == 0x7F:
            return True
        p += 1
    return False


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


cdef inline bint odd_target(head_t* h) noexcept nogil:
    """None of the four forms (RFC 9112 section 3.2), or one that this method does not have; or with a blank or control
    character inside: some readers split the line there (section 3)."""
    cdef const uint8_t* q = h.target
    cdef const uint8_t* end = q + h.target_len
    while q < end:
        if q[0] <= 0x20 or q[0] == 0x7F:
            return True
        q += 1
    q = h.target
    if h.method_len == 7 and memcmp(h.method, b"CONNECT", 7) == 0:
        return q[0] == c'/' or memchr(q, c':', h.target_len) == NULL
    if q[0] == c'/':
        return False
    if q[0] == c'*':        # UPnP's search has it too
        return h.target_len != 1 or not ((h.method_len == 7 and memcmp(h.method, b"OPTIONS", 7) == 0)
                                         or (h.method_len == 8 and memcmp(h.method, b"M-SEARCH", 8) == 0))
    while q < end and (tchar[q[0]] and q[0] != c'_'):
        q += 1
    return q == h.target or end - q < 3 or memcmp(q, b"://", 3) != 0


cdef inline bint parse_request_line(head_t* h, const uint8_t* p, const uint8_t* end) noexcept nogil:
    """method SP target SP version; tolerant of several blanks and of blanks in the target (marked)."""
    cdef const uint8_t* q = p
    cdef const uint8_t* v
    while q < end and tchar[q[0]]:
        q += 1
    if q == p or q == end or (q[0] != c' ' and q[0] != c'\t'):
        return False
    h.method = p
    h.method_len = <uint32_t>(q - p)
    if q[0] != c' ' or (q + 1 < end and (q[1] == c' ' or q[1] == c'\t')):
        h.ambiguity |= AMB_START_LINE
    while q < end and (q[0] == c' ' or q[0] == c'\t'):
        q += 1
    if end > q and ((end - 1)[0] == c' ' or (end - 1)[0] == c'\t'):
        h.ambiguity |= AMB_START_LINE
        while end > q and ((end - 1)[0] == c' ' or (end - 1)[0] == c'\t'):
            end -= 1
    v = end
    while v > q and (v - 1)[0] != c' ' and (v - 1)[0] != c'\t':
        v -= 1
    if v == q or end - v < 6 or memcmp(v, b"HTTP/", 5) != 0:
        return False
    if end - p == 14 and memcmp(p, b"PRI * HTTP/2.0", 14) == 0:
        return False        # the preface of HTTP/2 (RFC 9113 section 3.4): what follows are frames
    h.version = v
    h.version_len = <uint32_t>(end - v)
    h.http10 = h.version_len == 8 and memcmp(v, b"HTTP/1.0", 8) == 0
    if h.version_len != 8 or memcmp(v, b"HTTP/1.", 7) != 0 or v[7] < c'0' or v[7] > c'1':
        h.ambiguity |= AMB_START_LINE
    v -= 1
    if v > q and ((v - 1)[0] == c' ' or (v - 1)[0] == c'\t'):
        h.ambiguity |= AMB_START_LINE
        while v > q and ((v - 1)[0] == c' ' or (v - 1)[0] == c'\t'):
            v -= 1
    h.target = q
    h.target_len = <uint32_t>(v - q) if v > q else 0
    if h.target_len == 0:
        h.ambiguity |= AMB_START_LINE
    elif odd_target(h):
        h.ambiguity |= AMB_START_LINE
    return True


cdef inline bint parse_status_line(head_t* h, const uint8_t* p, const uint8_t* end) noexcept nogil:
    cdef const uint8_t* q
    cdef uint32_t status = 0
    cdef int digits = 0
    if end - p < 8 or memcmp(p, b"HTTP/", 5) != 0:
        return False
    q = <const uint8_t*>memchr(p, c' ', <size_t>(end - p))
    if q == NULL:
        return False
    h.version = p
    h.version_len = <uint32_t>(q - p)
    h.http10 = h.version_len == 8 and memcmp(p, b"HTTP/1.0", 8) == 0
    if h.version_len != 8 or memcmp(p, b"HTTP/1.", 7) != 0 or p[7] < c'0' or p[7] > c'1':
        h.ambiguity |= AMB_START_LINE
    if end - q > 1 and q[1] == c' ':
        h.ambiguity |= AMB_START_LINE
    while q < end and q[0] == c' ':
        q += 1
    h.reason = q
    while q < end and q[0] >= c'0' and q[0] <= c'9' and digits < 4:
        status = status * 10 + (q[0] - c'0')
        digits += 1
        q += 1
    if digits == 0:
        return False
    if digits != 3 or status < 100 or (q < end and q[0] != c' '):
        h.ambiguity |= AMB_START_LINE
        h.odd_status = 1
    if has_control(q, end):
        h.ambiguity |= AMB_CONTROL      # RFC 9112 section 4: HTAB, SP, VCHAR, obs-text
    while end > q and ((end - 1)[0] == c' ' or (end - 1)[0] == c'\t'):
        end -= 1
    h.reason_len = <uint32_t>(end - h.reason)
    h.status = status
    return True


cdef bint parse_cut_line(head_t* h, const uint8_t* p, const uint8_t* end, bint response) noexcept nogil:
    """A start line longer than the header limit: what is here of it. The version of a request is behind the cut."""
    cdef const uint8_t* q = p
    if response:
        return parse_status_line(h, p, end)
    while q < end and tchar[q[0]]:
        q += 1
    if q == end or q[0] != c' ':
        return False
    h.method = p
    h.method_len = <uint32_t>(q - p)
    h.target = q + 1
    if (end - 1)[0] == c'\r':
        end -= 1
    q = end
    while q > h.target and (q - 1)[0] != c' ':
        q -= 1
    h.version = end
    h.version_len = 0
    if q > h.target + 1 and end - q <= 8 and memcmp(q, b"HTTP/1.", <size_t>(end - q) if end - q < 7 else 7) == 0:
        if end - q == 8:        # the cut is between the version and the line's end, or in the version
            h.version = q
            h.version_len = 8
        end = q - 1
    h.target_len = <uint32_t>(end - h.target)
    h.http10 = 0
    if h.target_len == 0 or odd_target(h):
        h.ambiguity |= AMB_START_LINE
    return True


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
    while q < end and tchar[q[0]]:
        q += 1
    # what says where a message ends or whom it is for must not come behind it (RFC 9110 section 6.5.1), lest somebody
    # take it for a field of the head
    name_words(p, <uint32_t>(q - p), <size_t>(end - p), &first, &last)
    what = field_id_of(first, last, <uint32_t>(q - p), p)
    if what == F_CONTENT_LENGTH or what == F_TRANSFER_ENCODING or what == F_HOST:
        ambiguity[0] |= AMB_BAD_HEADER_LINE
    if q > p and q < end and (q[0] == c' ' or q[0] == c'\t'):
        while q < end and (q[0] == c' ' or q[0] == c'\t'):
            q += 1
        ambiguity[0] |= AMB_SPACE_BEFORE_COLON if q < end and q[0] == c':' else AMB_BAD_HEADER_LINE
    elif q == p or q == end or q[0] != c':':
        ambiguity[0] |= AMB_BAD_HEADER_LINE
    return False


cdef inline void framing_facts(head_t* h, field_t* f) noexcept nogil:
    """Content-Length and Transfer-Encoding (RFC 9112 section 6)."""
    cdef uint64_t v = 0
    cdef const uint8_t* p = f.value
    cdef const uint8_t* end = f.value + f.value_len
    cdef const uint8_t* q
    cdef bint any_digit = False
    if f.id == F_CONTENT_LENGTH:
        while True:
            while p < end and p[0] >= c'0' and p[0] <= c'9' and v < 100000000000000000ULL:
                v = v * 10 + (p[0] - c'0')
                any_digit = True
                p += 1
            while p < end and (p[0] == c' ' or p[0] == c'\t'):
                p += 1
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
            while p < end and (p[0] == c' ' or p[0] == c'\t'):
                p += 1
            v = 0
            any_digit = False
    else:
        # several fields are one list (RFC 9110 section 5.3): the last coding of the last field decides, and "chunked"
        # must be it. Empty elements say nothing; `identity` was dropped in RFC 7230, servers take it for "no coding".
        if h.te_seen:
            h.ambiguity |= AMB_TE_OBFUSCATED
        h.te_seen = 1
        while True:
            q = end
            while q > p and (q - 1)[0] != c',':
                q -= 1
            while q < end and (q[0] == c' ' or q[0] == c'\t'):
                q += 1
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
    cdef uint64_t bit, first, last
    cdef uint32_t i, n
    cdef unsigned facts = 0, here
    cdef bint usual, token
    cdef bint odd = False
    cdef bint late_host = False
    cdef bint look_again = False    # lines of no usual form: NUL and bare CR are looked for once more
    cdef field_t extra
    seen[0] = seen[1] = seen[2] = seen[3] = 0
    h.end = end
    h.content_encoding = 0
    h.count = 0
    h.ambiguity = 0
    h.overflow = 0
    h.chunked = 0
    h.te_seen = 0
    h.has_te = 0
    h.has_cl = 0
    h.cl_valid = 0
    h.content_length = 0
    h.expect = 0
    h.upgrade = 0
    h.odd_status = 0
    h.host = NULL
    h.content_type = NULL
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
            while q < end and tchar[q[0]]:
                q += 1
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
            if h.count and not h.overflow:
                f = &h.fields[h.count - 1]
                while stop > p and ((stop - 1)[0] == c' ' or (stop - 1)[0] == c'\t'):
                    stop -= 1
                while p < stop and (p[0] == c' ' or p[0] == c'\t'):
                    p += 1
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
            while plain < stop and tchar[plain[0]]:
                plain += 1
            colon = plain
            if plain < stop and plain[0] != c':':
                colon = <const uint8_t*>memchr(plain, c':', <size_t>(stop - plain))
        if colon == NULL or colon == stop or colon == p:
            h.ambiguity |= AMB_BAD_HEADER_LINE
            p = nl + 1
            continue
        if h.count >= MAX_FIELDS:
            h.overflow = 1
            f = &extra          # not listed, but it may say where the message ends
        else:
            f = &h.fields[h.count]
            h.count += 1
        q = colon
        if (q - 1)[0] == c' ' or (q - 1)[0] == c'\t':
            h.ambiguity |= AMB_SPACE_BEFORE_COLON
            while q > p and ((q - 1)[0] == c' ' or (q - 1)[0] == c'\t'):
                q -= 1
        token = q == plain
        odd |= not token
        f.name = p
        f.name_len = <uint32_t>(q - p)
        q = colon + 1
        while q < stop and (q[0] == c' ' or q[0] == c'\t'):
            q += 1
        while stop > q and ((stop - 1)[0] == c' ' or (stop - 1)[0] == c'\t'):
            stop -= 1
        f.value = q
        f.value_len = <uint32_t>(stop - q)
        n = f.name_len
        name_words(p, n, <size_t>(end - p), &first, &last)
        f.id = field_id_of(first, last, n, p) if token else F_OTHER
        f.plain_name = usual
        f.plain_value = usual and not here & LINE_SPECIAL
        if not f.plain_value and has_control(q, stop):
            h.ambiguity |= AMB_CONTROL      # RFC 9110 section 5.5
        f.repeats = 0
        f.repeated = 0
        for i in range(8, n - 8 if n > 16 else 0, 8):   # long names are rare; equal hashes would cost a comparison each
            memcpy(&bit, p + i, 8)
            last = (last ^ (bit | 0x2020202020202020ULL)) * 0x9E3779B97F4A7C15ULL
            last ^= last >> 29
        f.hash = <uint32_t>(((first ^ n) * 0x9E3779B97F4A7C15ULL ^ last * 0xC2B2AE3D27D4EB4FULL) >> 32)
        if f == &extra:
            if f.id == F_CONTENT_LENGTH or f.id == F_TRANSFER_ENCODING:
                framing_facts(h, f)
            elif f.id == F_EXPECT:
                h.expect = 1
            elif f.id == F_UPGRADE:
                h.upgrade = 1
            elif f.id == F_HOST and not late_host:
                late_host = True
                h.late_host = f[0]
            elif f.id == F_HOST:
                h.ambiguity |= AMB_MULTIPLE_HOST
            p = nl + 1
            continue
        bit = <uint64_t>1 << (f.hash & 63)
        if seen[f.hash >> 6 & 3] & bit:
            for i in range(h.count - 1):
                if (h.fields[i].hash == f.hash and h.fields[i].name_len == n and not h.fields[i].repeats
                        and same_text(h.fields[i].name, p, n)):
                    h.fields[i].repeated = 1
                    f.repeats = 1
                    break
        seen[f.hash >> 6 & 3] |= bit
        p = nl + 1
    # second look, at the few fields that matter: folding may have lengthened their values
    for i in range(h.count):
        f = &h.fields[i]
        if f.id == F_OTHER:
            continue
        if f.id == F_HOST:
            if h.host != NULL:
                h.ambiguity |= AMB_MULTIPLE_HOST
            else:
                h.host = f
        elif f.id == F_CONTENT_LENGTH or f.id == F_TRANSFER_ENCODING:
            framing_facts(h, f)
        elif f.id == F_CONTENT_TYPE:
            h.content_type = f
        elif f.id == F_EXPECT:
            h.expect = 1
        elif f.id == F_UPGRADE:
            h.upgrade = 1
        elif f.id == F_CONTENT_ENCODING:
            h.content_encoding = 1
    if late_host:
        if h.host != NULL:
            h.ambiguity |= AMB_MULTIPLE_HOST
        else:
            h.host = &h.late_host
    if h.te_seen:
        if h.has_te and not h.chunked:
            h.ambiguity |= AMB_TE_NOT_CHUNKED
        if h.has_cl:
            h.ambiguity |= AMB_CL_AND_TE
        if h.http10:
            h.ambiguity |= AMB_TE_HTTP10
    if not response and h.host != NULL and h.target[0] != c'/' and other_host(h):
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


cdef const uint8_t* target_host(head_t* h, const uint8_t** stop) noexcept nogil:
    """Host and port of an absolute http target, without the user information (RFC 9110 section 7.2), or NULL."""
    cdef const uint8_t* end = h.target + h.target_len
    cdef const uint8_t* p
    cdef const uint8_t* q
    if not ((h.target_len > 7 and same_name(h.target, b"http://", 7))
            or (h.target_len > 8 and same_name(h.target, b"https://", 8))):
        return NULL
    p = h.target + (7 if h.target[4] == c':' else 8)
    q = p
    while q < end and q[0] != c'/' and q[0] != c'?' and q[0] != c'#':
        if q[0] == c'@':
            p = q + 1
        q += 1
    stop[0] = q
    return p


cdef bint other_host(head_t* h) noexcept nogil:
    """The target names another host than the Host field: the target wins (RFC 9112 section 3.2.2), but not everywhere."""
    cdef const uint8_t* b = h.host.value
    cdef const uint8_t* b_end = b + h.host.value_len
    cdef const uint8_t* a_end = NULL
    cdef const uint8_t* a = target_host(h, &a_end)
    if a == NULL:
        return False
    if h.target[4] == c':':     # the scheme's own port may be there or not
        if a_end - a > 3 and memcmp(a_end - 3, b":80", 3) == 0:
            a_end -= 3
        if b_end - b > 3 and memcmp(b_end - 3, b":80", 3) == 0:
            b_end -= 3
    else:
        if a_end - a > 4 and memcmp(a_end - 4, b":443", 4) == 0:
            a_end -= 4
        if b_end - b > 4 and memcmp(b_end - 4, b":443", 4) == 0:
            b_end -= 4
    return a_end - a != b_end - b or not same_text(a, b, <uint32_t>(a_end - a))


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
    while q < end and tchar[q[0]]:
        q += 1
    known[0] = <uint32_t>(q - p)
    return q == p or (q < end and q[0] != c' ' and q[0] != c'\t')


cdef bint same_text(const uint8_t* a, const uint8_t* b, uint32_t n) noexcept nogil:
    cdef uint32_t i
    cdef uint8_t c, d
    for i in range(n):
        c = a[i]
        d = b[i]
        if c != d:
            if c >= c'A' and c <= c'Z':
                c |= 0x20
            if d >= c'A' and d <= c'Z':
                d |= 0x20
            if c != d:
                return False
    return True


cdef inline char* lit(char* out, const char* s, size_t n) noexcept nogil:
    memcpy(out, s, n)
    return out + n


cdef char* write_fields(char* out, head_t* h, bint request) noexcept nogil:
    """The fields as a JSON object inside a JSON string, both braces included."""
    cdef uint32_t i, j
    cdef field_t* f
    cdef field_t* g
    cdef bint first = True
    cdef const uint8_t* q
    cdef const uint8_t* stop = NULL
    out[0] = c'{'
    out += 1
    for i in range(h.count):
        f = &h.fields[i]
        if f.repeats:
            continue
        if not first:
            out = lit(out, b',\\"', 3)
        else:
            out = lit(out, b'\\"', 2)
            first = False
        if request and f.id == F_HOST:
            out = lit(out, b"host", 4)
        elif f.plain_name:
            out = copy_plain(out, f.name, f.name_len, h.end)
        else:
            out = escape_json_twice(out, f.name, f.name + f.name_len)
        out = lit(out, b'\\":\\"', 5)
        if f.plain_value:
            out = copy_plain(out, f.value, f.value_len, h.end)
        else:
            out = escape_json_twice(out, f.value, f.value + f.value_len)
        if f.repeated:
            for j in range(i + 1, h.count):
                g = &h.fields[j]
                if g.repeats and g.hash == f.hash and g.name_len == f.name_len and same_text(g.name, f.name, f.name_len):
                    if f.id == F_COOKIE:
                        out = lit(out, b"; ", 2)
                    elif f.id == F_SET_COOKIE:
                        out = lit(out, b"\\\\n", 3)
                    else:
                        out = lit(out, b", ", 2)
                    out = escape_json_twice(out, g.value, g.value + g.value_len)
        out = lit(out, b'\\"', 2)
    if request and h.host == &h.late_host:
        if not first:
            out = lit(out, b',', 1)
        out = lit(out, b'\\"host\\":\\"', 11)
        out = escape_json_twice(out, h.host.value, h.host.value + h.host.value_len)
        out = lit(out, b'\\"', 2)
    elif request and h.host == NULL:
        if not first:
            out = lit(out, b',', 1)
        out = lit(out, b'\\"host\\":\\"', 11)
        # the host of an absolute target stands for the missing field (RFC 9112 section 3.2.2)
        q = target_host(h, &stop)
        if q != NULL:
            out = escape_json_twice(out, q, stop)
        out = lit(out, b'\\"', 2)
    out[0] = c'}'
    return out + 1


cdef inline size_t fields_room(head_t* h) noexcept nogil:
    cdef size_t n = 256 + (<size_t>h.host.value_len * 7 if h.host != NULL else 0)
    cdef uint32_t i
    for i in range(h.count):
        n += <size_t>(h.fields[i].name_len + h.fields[i].value_len) * 7 + 48
    return n


cdef int write_request_head(ctx_t* ctx, head_t* h, message_t* m) noexcept:
    """`"method":...,"path":...,"type":...,"requestHeaders":"{...}"` into m.head. 0, or -1 when memory is out."""
    cdef char* out
    cdef size_t room = fields_room(h) + <size_t>(h.method_len + h.version_len) * 6 + <size_t>h.target_len * 14 + 128
    ctx.scratch.len = 0
    if buf_reserve(&ctx.batch.pool, &ctx.scratch, room) < 0:
        return -1
    out = ctx.scratch.data
    out = lit(out, b'"method":"', 10)
    out = escape_json(out, h.method, h.method + h.method_len, TEXT_LATIN1)
    out = lit(out, b'","path":"', 10)
    out = escape_json(out, h.target, h.target + h.target_len, TEXT_LATIN1)
    out = lit(out, b'","type":"', 10)
    out = escape_json(out, h.version, h.version + h.version_len, TEXT_LATIN1)
    out = lit(out, b'","requestHeaders":"', 20)
    out = write_fields(out, h, True)
    out[0] = c'"'
    out += 1
    # the worst case is seven times what is needed: written in scratch, kept at its size
    m.head.len = 0
    return buf_append(&ctx.pool, &m.head, ctx.scratch.data, <size_t>(out - ctx.scratch.data))


cdef int write_response_head(ctx_t* ctx, head_t* h, message_t* m) noexcept:
    """`,"status":...,"statusCode":...,"responseHeaders":"{...}"` into m.head. 0, or -1 when memory is out."""
    cdef char* out
    cdef size_t room = fields_room(h) + <size_t>h.reason_len * 6 + 128
    ctx.scratch.len = 0
    if buf_reserve(&ctx.batch.pool, &ctx.scratch, room) < 0:
        return -1
    out = ctx.scratch.data
    out = lit(out, b',"status":"', 11)
    out = escape_json(out, h.reason, h.reason + h.reason_len, TEXT_LATIN1)
    out = lit(out, b'","statusCode":"', 16)
    out = put_u64(out, h.status)
    out = lit(out, b'","responseHeaders":"', 21)
    out = write_fields(out, h, False)
    out[0] = c'"'
    out += 1
    m.head.len = 0
    return buf_append(&ctx.pool, &m.head, ctx.scratch.data, <size_t>(out - ctx.scratch.data))


cdef inline bint starts(const uint8_t* p, uint32_t n, const char* lower, uint32_t m) noexcept nogil:
    return n >= m and same_name(p, lower, m)


cdef bint binary_type(const uint8_t* p, uint32_t n) noexcept nogil:
    """Media types whose bodies are left out of records (docs/records.md lists them)."""
    if starts(p, n, b"image/", 6):
        return not starts(p, n, b"image/svg", 9)
    if starts(p, n, b"audio/", 6) or starts(p, n, b"video/", 6) or starts(p, n, b"font/", 5):
        return True
    if not starts(p, n, b"application/", 12):
        return False
    p += 12
    n -= 12
    return (starts(p, n, b"octet-stream", 12) or starts(p, n, b"zip", 3) or starts(p, n, b"gzip", 4)
            or starts(p, n, b"x-gzip", 6) or starts(p, n, b"x-tar", 5) or starts(p, n, b"zstd", 4)
            or starts(p, n, b"x-bzip", 6) or starts(p, n, b"x-xz", 4) or starts(p, n, b"x-7z", 4)
            or starts(p, n, b"x-rar", 5) or starts(p, n, b"vnd.rar", 7) or starts(p, n, b"java-archive", 12)
            or starts(p, n, b"font-", 5) or starts(p, n, b"vnd.ms-fontobject", 17) or starts(p, n, b"pdf", 3)
            or starts(p, n, b"wasm", 4))


cdef inline const uint8_t* next_parameter(const uint8_t* p, const uint8_t* end) noexcept nogil:
    """Behind the next `;` that is in no quoted string (RFC 9110 section 5.6.6), or NULL."""
    cdef bint quoted = False
    while p < end:
        if p[0] == c'"':
            quoted = not quoted
        elif p[0] == c'\\' and quoted:
            p += 1
        elif p[0] == c';' and not quoted:
            return p + 1
        p += 1
    return NULL


cdef void content_facts(ctx_t* ctx, head_t* h, message_t* m) noexcept:
    """Media type, charset and content codings of a message, for the encoder."""
    cdef const uint8_t* p
    cdef const uint8_t* q
    cdef const uint8_t* end
    cdef uint32_t i, n, k = 0
    cdef field_t* f
    m.media = MEDIA_ABSENT
    m.charset = 0
    m.codings[0] = 0
    f = h.content_type
    if f != NULL and f.value_len:
        p = f.value
        n = f.value_len
        if n == 16 and same_name(p, b"application/json", 16):
            m.media = MEDIA_JSON
        elif binary_type(p, n):
            m.media = MEDIA_BINARY
        else:
            m.media = MEDIA_OTHER
            end = p + n
            q = next_parameter(p, end)
            while q != NULL and end - q > 8:
                while q < end and (q[0] == c' ' or q[0] == c'\t' or q[0] == c'\r' or q[0] == c'\n'):    # or a fold
                    q += 1
                if end - q > 8 and same_name(q, b"charset=", 8):
                    q += 8
                    m.charset = charset_index(ctx, q, end)
                    break
                q = next_parameter(q, end)
    for i in range(h.count if h.content_encoding else 0):
        f = &h.fields[i]
        if f.id != F_CONTENT_ENCODING:
            continue
        p = f.value
        end = p + f.value_len
        while p < end:
            while p < end and (p[0] <= c' ' or p[0] == c','):      # blanks, and what a fold is made of
                p += 1
            q = p
            while q < end and q[0] != c',' and q[0] > c' ':
                q += 1
            n = <uint32_t>(q - p)
            if n == 0:
                break
            if n == 8 and same_name(p, b"identity", 8):
                pass
            elif k == 4:
                m.codings[3] = CODING_UNKNOWN
            else:
                if (n == 4 and same_name(p, b"gzip", 4)) or (n == 6 and same_name(p, b"x-gzip", 6)):
                    m.codings[k] = CODING_GZIP
                elif n == 7 and same_name(p, b"deflate", 7):
                    m.codings[k] = CODING_DEFLATE
                elif n == 2 and same_name(p, b"br", 2):
                    m.codings[k] = CODING_BR
                elif n == 4 and same_name(p, b"zstd", 4):
                    m.codings[k] = CODING_ZSTD
                else:
                    m.codings[k] = CODING_UNKNOWN
                k += 1
                if k < 4:
                    m.codings[k] = 0
            p = q


cdef uint8_t charset_index(ctx_t* ctx, const uint8_t* p, const uint8_t* end) noexcept:
    """0 for UTF-8, US-ASCII and what we do not know; else the decoder's number for the charset."""
    if p < end and p[0] == c'"':
        p += 1
    if end - p >= 5 and (same_name(p, b"utf-8", 5) or (end - p >= 4 and same_name(p, b"utf8", 4))):
        return 0
    if end - p >= 8 and same_name(p, b"us-ascii", 8):
        return 0
    if ctx.content == NULL:
        return 0
    try:
        return (<object>ctx.content).charset_number((<const char*>p)[:end - p])
    except Exception:
        ctx.counters[C_CALLBACK_ERRORS] += 1
        return 0


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
        "version": (<const char*>h.version)[:h.version_len],
        "fields": [((<const char*>h.fields[i].name)[:h.fields[i].name_len],
                    (<const char*>h.fields[i].value)[:h.fields[i].value_len]) for i in range(h.count)],
    }
    if response:
        out["status"] = h.status
        out["reason"] = (<const char*>h.reason)[:h.reason_len]
    else:
        out["method"] = (<const char*>h.method)[:h.method_len]
        out["target"] = (<const char*>h.target)[:h.target_len]
    return out
