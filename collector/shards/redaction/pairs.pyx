"""Pairs of names and values: queries and forms (application/x-www-form-urlencoded, WHATWG URL section 5), and cookies (RFC
6265), whose values are all secret.
"""

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memchr

from collector.shards.redaction.edits cimport *
from collector.shards.redaction.names cimport find_name
from collector.shards.redaction.state cimport *

scan_prepare(2)

cdef enum:
    NAME_MOST = 256
    CALL_BYTES = 100        # see scan.pyx
    LEAST = 13              # bytes: nothing with a form is shorter, nor a text with a name and a value worth hiding


cdef void scan_pairs(redaction_t* r, edits_t* e, char between) noexcept:
    """All pairs of the text. `between` them: `&`; or `;`, and then each value is a cookie's."""
    cdef const uint8_t* p = e.begin
    cdef const uint8_t* end
    cdef const uint8_t* sign
    while p < e.end and not e.failed:
        end = <const uint8_t*>memchr(p, between, <size_t>(e.end - p))
        if end == NULL:
            end = e.end
        if between == c';':
            sign = end_of_name(p, end)
            while sign == NULL and p < end and p[0] == c' ':
                p += 1
            replace(r, e, p if sign == NULL else sign + 1, end, <uint32_t>r.kind_of[FORM_COOKIE], NULL, 0)
        else:
            scan_pair(r, e, p, end)
        p = end + 1


cdef const uint8_t* end_of_name(const uint8_t* p, const uint8_t* end) noexcept nogil:
    """Its `=`, or NULL: there is none, or only the padding of a long row of base64 without a name."""
    cdef const uint8_t* sign = <const uint8_t*>memchr(p, c'=', <size_t>(end - p))
    cdef const uint8_t* q = sign
    if sign == NULL or sign - p < LEAST:
        return sign
    while q < end and q[0] == c'=':
        q += 1
    if q == end:
        return NULL
    return sign


cdef void scan_pair(redaction_t* r, edits_t* e, const uint8_t* p, const uint8_t* end) noexcept:
    """A name, `=` and a value; or several of them, with `;`, `?` or `#` between them. All of what is behind the name of
    a secret is its value."""
    cdef const uint8_t* sign
    cdef const uint8_t* next
    cdef const known_t* entry
    while p < end and not e.failed:
        sign = end_of_name(p, end)
        if sign == NULL:
            alone(r, e, p, end)
            return
        next = other_sign(p, sign)
        if next < sign:
            alone(r, e, p, next)
            p = next + 1
            continue
        entry = name_of_pair(r, e, p, sign)
        alone(r, e, p, sign)
        if entry != NULL and not entry.flags & NAME_PAIR:
            replace(r, e, sign + 1, end, entry.kind, NULL, 0)
            return
        next = other_sign(sign + 1, end)
        if next < end and memchr(next, c'=', <size_t>(end - next)) == NULL:
            next = end
        alone(r, e, sign + 1, next)
        p = next + 1


cdef const uint8_t* other_sign(const uint8_t* p, const uint8_t* end) noexcept nogil:
    """The first that may stand between pairs where it is not `&`, or the end."""
    while p < end and p[0] != c';' and p[0] != c'?' and p[0] != c'#':
        p += 1
    return p


cdef const known_t* name_of_pair(redaction_t* r, edits_t* e, const uint8_t* p, const uint8_t* end) noexcept:
    cdef bytes plain
    cdef const uint8_t* text
    if memchr(p, c'%', <size_t>(end - p)) == NULL:
        return find_name(r, p, end)
    if end - p > NAME_MOST:
        return NULL
    try:
        plain = (<object>r.owner).percent_decoded(p[:end - p])
    except Exception:
        e.failed = 1
        return NULL
    text = plain
    return find_name(r, text, text + len(plain))


cdef bint suspicious(redaction_t* r, const uint8_t* p, const uint8_t* end, bint cut) noexcept nogil:
    """Is there anything in it that has to be looked at?"""
    cdef scan_t[8] found
    cdef scan_t* one
    cdef unsigned i, blocks
    cdef size_t n
    while p < end:
        n = <size_t>(end - p)
        if memchr(p, c'%', n) != NULL or memchr(p, c'+', n) != NULL:
            return True
        blocks = scan_blocks(&r.beginnings, p, n, found)
        for i in range(blocks):
            one = &found[i]
            if (one.forms | one.ends | eighteen(one.word) or (n > SCAN_BYTES and one.word >> 63)
                    or (rows_of_digits(one.digits, 0) if cut else numbers(one, 0))):
                return True
        p += blocks * SCAN_BYTES
    return False


cdef void alone(redaction_t* r, edits_t* e, const uint8_t* p, const uint8_t* end) noexcept:
    """A value whose name is no secret: what has a form, or is a text with names of its own."""
    cdef bytes out
    cdef const char* data
    if (end - p < LEAST and not (e.cut and end == e.end)) or not suspicious(r, p, end, e.cut and end == e.end):
        return
    if r.spent:
        replace(r, e, p, end, <uint32_t>r.kind_of[FORM_UNREAD], NULL, 0)
        return
    r.work += end - p + CALL_BYTES
    try:
        found = (<object>r.owner).of_pair(p[:end - p], e.cut and end == e.end, e.depth + 1)
    except Exception:
        e.failed = 1
        return
    if found is None:
        return
    out, count = found
    data = out
    replace_with(e, p, end, data, <size_t>len(out))
    e.count += <uint32_t>count - 1
