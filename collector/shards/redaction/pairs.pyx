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
        sign = <const uint8_t*>memchr(p, c'=', <size_t>(end - p))
        if between == c';':
            while sign == NULL and p < end and p[0] == c' ':
                p += 1
            replace(r, e, p if sign == NULL else sign + 1, end, <uint32_t>r.kind_of[FORM_COOKIE], NULL, 0)
        elif sign == NULL:
            alone(r, e, p, end)
        else:
            one(r, e, p, sign, end)
        p = end + 1


cdef void one(redaction_t* r, edits_t* e, const uint8_t* p, const uint8_t* sign, const uint8_t* end) noexcept:
    """A name, `=` and a value."""
    cdef const known_t* entry
    cdef bytes plain
    cdef const uint8_t* text
    if memchr(p, c'%', <size_t>(sign - p)) == NULL:
        entry = find_name(r, p, sign)
    elif sign - p > NAME_MOST:
        entry = NULL
    else:
        try:
            plain = (<object>r.owner).percent_decoded(p[:sign - p])
        except Exception:
            e.failed = 1
            return
        text = plain
        entry = find_name(r, text, text + len(plain))
    if entry != NULL and not entry.flags & NAME_PAIR:
        replace(r, e, sign + 1, end, entry.kind, NULL, 0)
    else:
        alone(r, e, sign + 1, end)


cdef bint suspicious(redaction_t* r, const uint8_t* p, const uint8_t* end) noexcept nogil:
    """Is there anything in it that has to be looked at?"""
    cdef scan_t found
    cdef size_t n
    while p < end:
        n = <size_t>(end - p)
        if memchr(p, c'%', n) != NULL or memchr(p, c'+', n) != NULL:
            return True
        scan_block(&r.beginnings, p, n, &found)
        if found.forms | numbers(found.digits, 0) | found.ends | twenty(found.word) or (n > SCAN_BYTES and found.word >> 63):
            return True
        p += SCAN_BYTES
    return False


cdef void alone(redaction_t* r, edits_t* e, const uint8_t* p, const uint8_t* end) noexcept:
    """A value whose name is no secret: what has a form, or is a text with names of its own."""
    cdef bytes out
    cdef const char* data
    if end - p < LEAST or not suspicious(r, p, end):
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
