"""The lines between the chunks of a body (RFC 9112 section 7.1)."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memchr

from collector.shards.layers.http1.startline cimport skip_blanks, skip_token
from collector.shards.layers.http1.state cimport AMB_BAD_CHUNK, AMB_BARE_CR, AMB_BARE_LF


cdef bint chunk_extensions(const uint8_t* p, const uint8_t* end) noexcept nogil:
    """Whether p..end is what may stand behind a size: *( BWS ";" BWS name [ BWS "=" BWS value ] ), RFC 9112 section 7.1.1.
    Readers differ in how much they skip of anything else, and in where they stop."""
    cdef const uint8_t* q
    while p < end:
        p = skip_blanks(p, end)
        if p == end or p[0] != c';':
            return False
        q = skip_blanks(p + 1, end)
        p = skip_token(q, end)
        if p == q:
            return False
        q = skip_blanks(p, end)
        if q < end and q[0] == c'=':
            q = skip_blanks(q + 1, end)
            if q < end and q[0] == c'"':
                p = q + 1
                while p < end and p[0] != c'"':
                    if p[0] == c'\\':
                        p += 1
                    if p == end or (p[0] < 0x20 and p[0] != c'\t') or p[0] == 0x7F:
                        return False
                    p += 1
                if p == end:
                    return False
                p += 1
            else:
                p = skip_token(q, end)
                if p == q:
                    return False
    return True


cdef int64_t chunk_size(const uint8_t* p, const uint8_t* end, uint32_t* ambiguity) noexcept nogil:
    """The size in a chunk line without its LF (RFC 9112 section 7.1), or -1."""
    cdef uint64_t v = 0
    cdef int digits = 0
    cdef uint8_t c
    if end > p and (end - 1)[0] == c'\r':
        end -= 1
    else:
        ambiguity[0] |= AMB_BARE_LF
    while p < end:
        c = p[0]
        if c >= c'0' and c <= c'9':
            c -= c'0'
        elif (c | 0x20) >= c'a' and (c | 0x20) <= c'f':
            c = (c | 0x20) - c'a' + 10
        else:
            break
        if digits == 15:
            return -1
        v = v * 16 + c
        digits += 1
        p += 1
    if digits == 0:
        return -1
    if p < end:
        if memchr(p, c'\r', <size_t>(end - p)) != NULL:
            ambiguity[0] |= AMB_BARE_CR
        if p[0] != c';' and p[0] != c' ' and p[0] != c'\t':
            return -1
        if not chunk_extensions(p, end):
            ambiguity[0] |= AMB_BAD_CHUNK
            p = skip_blanks(p, end)
            if p < end and p[0] != c';':
                return -1       # "2 3": which of them is the size?
    return <int64_t>v


def chunk_line(bytes line not None):
    """chunk_size for tests, of a line without its LF: (size or -1, enum ambiguity)."""
    cdef const uint8_t* p = line
    cdef uint32_t ambiguity = 0
    cdef int64_t size = chunk_size(p, p + len(line), &ambiguity)
    return size, ambiguity
