"""Start lines; see startline.pyx."""

from libc.stdint cimport uint8_t

from collector.shards.layers.http1.state cimport head_t

cdef uint8_t[256] tchar       # of RFC 9110 section 5.6.2

cdef bint looks_like_request(const uint8_t* p, const uint8_t* end) noexcept nogil
cdef bint looks_like_response(const uint8_t* p, const uint8_t* end) noexcept nogil
cdef bint may_be_request(const uint8_t* p, const uint8_t* end) noexcept nogil
cdef bint usual_method(const uint8_t* p, const uint8_t* end) noexcept nogil
cdef bint parse_request_line(head_t* h, const uint8_t* p, const uint8_t* end) noexcept nogil
cdef bint parse_status_line(head_t* h, const uint8_t* p, const uint8_t* end) noexcept nogil
cdef bint parse_cut_line(head_t* h, const uint8_t* p, const uint8_t* end, bint response) noexcept nogil
cdef bint other_host(head_t* h) noexcept nogil


cdef inline bint has_control(const uint8_t* p, const uint8_t* end) noexcept nogil:
    """A control character other than HTAB; NUL and CR have words of their own."""
    while p < end:
        if (p[0] < 0x20 and p[0] != c'\t' and p[0] and p[0] != c'\r') or p[0] == 0x7F:
            return True
        p += 1
    return False


cdef inline const uint8_t* skip_blanks(const uint8_t* p, const uint8_t* end) noexcept nogil:
    """Behind the spaces and tabs at p."""
    while p < end and (p[0] == c' ' or p[0] == c'\t'):
        p += 1
    return p


cdef inline const uint8_t* trim_blanks(const uint8_t* p, const uint8_t* end) noexcept nogil:
    """Before the spaces and tabs in front of `end`."""
    while end > p and ((end - 1)[0] == c' ' or (end - 1)[0] == c'\t'):
        end -= 1
    return end


cdef inline const uint8_t* skip_token(const uint8_t* p, const uint8_t* end) noexcept nogil:
    """Behind the token at p."""
    while p < end and tchar[p[0]]:
        p += 1
    return p
