"""Start lines of HTTP/1.x messages (RFC 9112 sections 3 and 4), as an observer reads them: tolerant where servers are
tolerant, with a reason for each liberty; and what looks like one, where nothing else says that a message begins.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memchr, memcmp, memcpy

from collector.shards.http.fields cimport same_text
from collector.shards.http.text cimport target_host
from collector.shards.layers.http1.state cimport *

for _i in range(256):
    tchar[_i] = 0
for _c in bytearray(b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"):
    tchar[_c] = 1


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


cdef inline bint blank_or_control(uint64_t word) noexcept nogil:
    """Is one of the eight bytes at most 0x20, or 0x7F? (Hacker's Delight, section 6-1)"""
    cdef uint64_t delete = word ^ 0x7F7F7F7F7F7F7F7FULL
    return ((word - 0x2121212121212121ULL & ~word | delete - 0x0101010101010101ULL & ~delete)
            & 0x8080808080808080ULL) != 0


cdef inline bint odd_target(head_t* h) noexcept nogil:
    """None of the four forms (RFC 9112 section 3.2), or one that this method does not have; or with a blank or control
    character inside: some readers split the line there (section 3)."""
    cdef const uint8_t* q = h.request.target
    cdef const uint8_t* end = q + h.request.target_len
    cdef uint64_t word
    while end - q >= 8:
        memcpy(&word, q, 8)
        if blank_or_control(word):
            return True
        q += 8
    while q < end:
        if q[0] <= 0x20 or q[0] == 0x7F:
            return True
        q += 1
    q = h.request.target
    if h.request.method_len == 7 and memcmp(h.request.method, b"CONNECT", 7) == 0:
        return q[0] == c'/' or memchr(q, c':', h.request.target_len) == NULL
    if q[0] == c'/':
        return False
    if q[0] == c'*':        # UPnP's search has it too
        return h.request.target_len != 1 or not (
            (h.request.method_len == 7 and memcmp(h.request.method, b"OPTIONS", 7) == 0)
            or (h.request.method_len == 8 and memcmp(h.request.method, b"M-SEARCH", 8) == 0))
    while q < end and (tchar[q[0]] and q[0] != c'_'):
        q += 1
    return q == h.request.target or end - q < 3 or memcmp(q, b"://", 3) != 0


cdef bint parse_request_line(head_t* h, const uint8_t* p, const uint8_t* end) noexcept nogil:
    """method SP target SP version; tolerant of several blanks and of blanks in the target (marked)."""
    cdef const uint8_t* q = p
    cdef const uint8_t* v
    q = skip_token(q, end)
    if q == p or q == end or (q[0] != c' ' and q[0] != c'\t'):
        return False
    h.request.method = p
    h.request.method_len = <uint32_t>(q - p)
    if q[0] != c' ' or (q + 1 < end and (q[1] == c' ' or q[1] == c'\t')):
        h.ambiguity |= AMB_START_LINE
    q = skip_blanks(q, end)
    if end > q and ((end - 1)[0] == c' ' or (end - 1)[0] == c'\t'):
        h.ambiguity |= AMB_START_LINE
        end = trim_blanks(q, end)
    v = end
    while v > q and (v - 1)[0] != c' ' and (v - 1)[0] != c'\t':
        v -= 1
    if v == q or end - v < 6 or memcmp(v, b"HTTP/", 5) != 0:
        return False
    if end - p == 14 and memcmp(p, b"PRI * HTTP/2.0", 14) == 0:
        return False        # the preface of HTTP/2 (RFC 9113 section 3.4): what follows are frames
    h.request.version = v
    h.request.version_len = <uint32_t>(end - v)
    h.http10 = h.request.version_len == 8 and memcmp(v, b"HTTP/1.0", 8) == 0
    if h.request.version_len != 8 or memcmp(v, b"HTTP/1.", 7) != 0 or v[7] < c'0' or v[7] > c'1':
        h.ambiguity |= AMB_START_LINE
    v -= 1
    if v > q and ((v - 1)[0] == c' ' or (v - 1)[0] == c'\t'):
        h.ambiguity |= AMB_START_LINE
        v = trim_blanks(q, v)
    h.request.target = q
    h.request.target_len = <uint32_t>(v - q) if v > q else 0
    if h.request.target_len == 0:
        h.ambiguity |= AMB_START_LINE
    elif odd_target(h):
        h.ambiguity |= AMB_START_LINE
    return True


cdef bint parse_status_line(head_t* h, const uint8_t* p, const uint8_t* end) noexcept nogil:
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
    h.response.reason = q
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
    end = trim_blanks(q, end)
    h.response.reason_len = <uint32_t>(end - h.response.reason)
    h.response.status = status
    return True


cdef bint parse_cut_line(head_t* h, const uint8_t* p, const uint8_t* end, bint response) noexcept nogil:
    """A start line longer than the header limit: what is here of it. The version of a request is behind the cut."""
    cdef const uint8_t* q = p
    if response:
        return parse_status_line(h, p, end)
    q = skip_token(q, end)
    if q == end or q[0] != c' ':
        return False
    h.request.method = p
    h.request.method_len = <uint32_t>(q - p)
    h.request.target = q + 1
    if (end - 1)[0] == c'\r':
        end -= 1
    q = end
    while q > h.request.target and (q - 1)[0] != c' ':
        q -= 1
    h.request.version = end
    h.request.version_len = 0
    if q > h.request.target + 1 and end - q <= 8 and memcmp(q, b"HTTP/1.", <size_t>(end - q) if end - q < 7 else 7) == 0:
        if end - q == 8:        # the cut is between the version and the line's end, or in the version
            h.request.version = q
            h.request.version_len = 8
        end = q - 1
    h.request.target_len = <uint32_t>(end - h.request.target)
    h.http10 = 0
    if h.request.target_len == 0 or odd_target(h):
        h.ambiguity |= AMB_START_LINE
    return True


cdef bint other_host(head_t* h) noexcept nogil:
    """The target names another host than the Host field: the target wins (RFC 9112 section 3.2.2), but not everywhere."""
    cdef const uint8_t* b = h.fields.host.value
    cdef const uint8_t* b_end = b + h.fields.host.value_len
    cdef const uint8_t* a_end = NULL
    cdef const uint8_t* a = target_host(&h.request, &a_end)
    if a == NULL:
        return False
    if h.request.target[4] == c':':     # the scheme's own port may be there or not
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
