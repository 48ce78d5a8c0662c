"""Bodies of messages, decoded as far as they can be, as the record shows them.

What is returned lies in memory of this module, which the next body uses again. What reading texts inside of texts costs is
taken from the budget of decoding (docs/decisions/0013); where nothing is left of it, they are left out.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memmove, memset

from collector.shards.records.budget cimport may_spend, spend
from collector.shards.redaction.edits cimport *
from collector.shards.redaction.pairs cimport scan_pairs
from collector.shards.redaction.scan cimport scan_binary, scan_text
from collector.shards.redaction.sniffing cimport is_blank, is_number, is_text, is_utf16
from collector.shards.redaction.state cimport *
from collector.shards.redaction.strict cimport strict_json, strict_pairs
from collector.shards.state cimport conn_t, ctx_t, C_CALLBACK_ERRORS

cdef enum:
    WORK_INSIDE = 20        # units for a byte of a text inside another one
    KEEP_BYTES = 1 << 20
    NUMBER_MOST = 32        # bytes of one with a form

cdef edits_t BODY
memset(&BODY, 0, sizeof(edits_t))
cdef bytes HELD = b""       # a body that was made of objects


cdef void in_quotes(edits_t* e) noexcept nogil:
    """What became of it is a text: JSON stays JSON."""
    cdef size_t first = 0
    if room(e, 2) == NULL:
        return
    while e.len and is_blank(<uint8_t>e.data[e.len - 1]):
        e.len -= 1
    while first < e.len and is_blank(<uint8_t>e.data[first]):
        first += 1
    if first == e.len or e.data[first] == c'"':
        return
    e.len -= first
    memmove(e.data + 1, e.data + first, e.len)
    e.data[0] = e.data[e.len + 1] = c'"'
    e.len += 2


cdef int held(const uint8_t** p, size_t* n, tuple found) noexcept:
    global HELD
    if found is None:
        return 0
    HELD = <bytes>found[0]
    p[0] = <const uint8_t*>PyBytes_AS_STRING(HELD)
    n[0] = <size_t>PyBytes_GET_SIZE(HELD)
    return <int>found[1]


cdef int redact_body(ctx_t* ctx, conn_t* conn, const uint8_t** p, size_t* n, shape_t shape, bint cut,
                     uint64_t now) noexcept:
    """The body as it may be shown: how many values of it were replaced; LEFT_OUT: it must not be shown. `cut`: there is more
    of it. `now`: event time, for the budget."""
    cdef redaction_t* r = ctx.redaction
    cdef bint known = True
    cdef bytes text
    r.work = 0
    r.spent = not may_spend(ctx, conn, now)
    if BODY.cap > KEEP_BYTES:
        edits_free(&BODY)
    if r.mode == MODE_OFF and not r.rules:
        return 0
    if n[0] and (p[0][0] == c'{' or p[0][0] == c'['):
        if shape == SHAPE_FORM or shape == SHAPE_BYTES:
            shape = SHAPE_TEXT      # JSON, whatever was said
    if shape == SHAPE_BYTES and r.mode == MODE_SECRETS and is_text(p[0], n[0]):
        shape = SHAPE_TEXT
    if shape == SHAPE_MESSAGES or ((shape == SHAPE_TEXT or shape == SHAPE_FORM) and is_utf16(p[0], n[0])):
        if r.mode == MODE_STRICT:
            return LEFT_OUT
        text = PyBytes_FromStringAndSize(<const char*>p[0], <Py_ssize_t>n[0])
        try:
            found = (<object>r.owner).messages(text, cut) if shape == SHAPE_MESSAGES else (<object>r.owner).utf16(text, cut)
            if found is not None or shape == SHAPE_MESSAGES:
                return held(p, n, found)
        except Exception:
            ctx.counters[C_CALLBACK_ERRORS] += 1
            return LEFT_OUT
        finally:
            spend(ctx, conn, <int64_t>n[0] * WORK_INSIDE)
    edits_begin(&BODY, p[0], p[0] + n[0], cut, 0)
    if r.rules and shape != SHAPE_BYTES:
        edits_ruled(r, &BODY, RULED_FORM if shape == SHAPE_FORM else RULED_BODY, NULL, 0)
    if r.mode == MODE_OFF:
        pass
    elif r.mode == MODE_STRICT:
        if shape == SHAPE_FORM:
            strict_pairs(&BODY, c'&')
        else:
            known = shape == SHAPE_TEXT and strict_json(&BODY)
    elif shape == SHAPE_FORM:
        scan_pairs(r, &BODY, c'&')
    elif shape == SHAPE_BYTES:
        scan_binary(r, &BODY)
    else:
        scan_text(r, &BODY)
    if r.work:
        spend(ctx, conn, r.work * WORK_INSIDE)
    if BODY.failed or not known:
        return LEFT_OUT
    if not edits_end(&BODY):
        return 0
    if n[0] < NUMBER_MOST and shape == SHAPE_TEXT and is_number(p[0], n[0]):
        in_quotes(&BODY)
    if BODY.failed:
        return LEFT_OUT
    p[0] = <const uint8_t*>BODY.data
    n[0] = BODY.len
    return <int>BODY.count
