"""The policy `strict`: every value becomes its type and length in bytes, names and structure stay.

    {"name": "Ada", "age": 36, "tags": ["x"]}   ->   {"name": "[string:3]", "age": "[number:2]", "tags": ["[string:1]"]}
"""

from libc.stdint cimport uint8_t
from libc.string cimport memchr, memcmp

from collector.shards.redaction.edits cimport *
from collector.shards.redaction.pairs cimport end_of_name
from collector.shards.redaction.values cimport end_of_quoted
from collector.shards.redaction.sniffing cimport is_blank
from collector.shards.redaction.state cimport *

cdef enum:
    NAME_MOST = 128         # bytes of a name that stays; longer ones are data


cdef inline bint ends_literal(uint8_t c) noexcept nogil:
    return is_blank(c) or c == c',' or c == c'}' or c == c']' or c == c':' or c == c'"' or c == c'{' or c == c'['


cdef inline bint is_no_number(const uint8_t* p, const uint8_t* end) noexcept nogil:
    """What some libraries write for numbers that JSON does not have."""
    return end - p == 3 and memcmp(p, b"NaN", 3) == 0 or end - p == 8 and memcmp(p, b"Infinity", 8) == 0


cdef bint strict_json(edits_t* e) noexcept nogil:
    """Each value of a JSON text, or of several, one behind the other. False: that is no JSON."""
    cdef const uint8_t* p = e.begin
    cdef const uint8_t* q
    cdef const uint8_t* end
    cdef bint name
    while p < e.end and not e.failed:
        if is_blank(p[0]) or p[0] == c',' or p[0] == c':' or p[0] == c'{' or p[0] == c'}' or p[0] == c'[' or p[0] == c']':
            p += 1
            continue
        if p[0] == c'"':
            end = end_of_quoted(p + 1, e.end, c'"', 0)
            q = end + 1
            while q < e.end and is_blank(q[0]):
                q += 1
            name = q < e.end and q[0] == c':'
            if not name:
                replace_size(e, p + 1, end, b"string", False)
            elif end - p > NAME_MOST:
                replace_size(e, p + 1, end, b"name", False)
            p = end + 1
            continue
        q = p
        while q < e.end and not ends_literal(q[0]):
            q += 1
        if q - p == 4 and memcmp(p, b"null", 4) == 0:
            pass
        elif p[0] == c'-' or p[0] >= c'0' and p[0] <= c'9' or is_no_number(p, q):
            replace_size(e, p, q, b"number", True)
        elif q - p == 4 and memcmp(p, b"true", 4) == 0 or q - p == 5 and memcmp(p, b"false", 5) == 0:
            replace_size(e, p, q, b"boolean", True)
        elif q == e.end and e.cut:
            replace_size(e, p, q, b"boolean", True)
        else:
            return False
        p = q
    return True


cdef void strict_pairs(edits_t* e, char between) noexcept nogil:
    """The values of a query, a form or cookies."""
    cdef const uint8_t* p = e.begin
    cdef const uint8_t* end
    cdef const uint8_t* sign
    while p < e.end and not e.failed:
        end = <const uint8_t*>memchr(p, between, <size_t>(e.end - p))
        if end == NULL:
            end = e.end
        sign = end_of_name(p, end)
        if between == c';':
            while sign == NULL and p < end and p[0] == c' ':
                p += 1
        if sign != NULL and sign - p <= NAME_MOST:
            if sign + 1 < end:
                replace_size(e, sign + 1, end, b"string", False)
        elif end > p:
            replace_size(e, p, end, b"string", False)
        p = end + 1


cdef void strict_path(edits_t* e) noexcept nogil:
    """The segments of a path that are more than words: with digits, escapes or other signs, or long."""
    cdef const uint8_t* p = e.begin
    cdef const uint8_t* end
    while p < e.end and not e.failed:
        end = <const uint8_t*>memchr(p, c'/', <size_t>(e.end - p))
        if end == NULL:
            end = e.end
        if not is_word(p, end):
            replace_size(e, p, end, b"string", False)
        p = end + 1


cdef bint is_word(const uint8_t* p, const uint8_t* end) noexcept nogil:
    """What stands in a path for itself: words with dashes, a version as v1."""
    cdef const uint8_t* q = p
    if end - p > 32:
        return False
    if end - p <= 4 and end - p >= 2 and p[0] == c'v':
        q = p + 1
        while q < end and q[0] >= c'0' and q[0] <= c'9':
            q += 1
        return q == end
    while q < end:
        if not (q[0] | 0x20 >= c'a' and q[0] | 0x20 <= c'z' or q[0] == c'-' or q[0] == c'_' or q[0] == c'.'):
            return False
        q += 1
    return True
