"""The body of one message as JSON text: decoded where that is possible and affordable (docs/decisions/0013), cut where it
must be.

Only content codings, foreign charsets and binary bodies go through Python objects.
"""

import binascii

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from collector.shards.http.message cimport *
from collector.shards.marks cimport *
from collector.shards.packing cimport batch_reserve, batch_t
from collector.shards.records.budget cimport may_spend, body_work, spend
from collector.shards.records.codings cimport CODED_BROKEN, CODED_CUT, CODED_LONGER, CODED_OVER, Inflater
from collector.shards.records.marks cimport shown_t
from collector.shards.records.text cimport (
    close_json, escape_json, escaped_prefix, put_text, put_u64, utf8_length, TEXT_STRICT)
from collector.shards.records.transcode cimport keep_body
from collector.shards.redaction.bodies cimport *
from collector.shards.state cimport *

cdef enum:  # what content.Decoder says
    BODY_UNDECODED = 0
    BODY_DECODED = 1
    BODY_REFUSED = 2

cdef enum:
    WORK_ESCAPED = 10           # a byte of a decoded body that escaping adds (content.WORK_EXPANDED)
    WORK_LAYER = 1500           # as in content.py, which has the reasons
    EXPANSION = 32
    MAX_CODINGS = 2


cdef int put_body(ctx_t* ctx, conn_t* conn, message_t* m, bint is_request, uint32_t* marks, shown_t* shown, size_t limit,
                  uint64_t now) noexcept:
    """Append `,"requestPayload":"..."` (and its encoding) to the batch; 0, or -1 when memory is out.

    `limit` bounds the body bytes used; twice that (or twice body_bytes) bounds what they become when they are escaped, the
    brackets of a closed JSON text aside. `now`: event time, for the budget of decoding.
    """
    cdef const uint8_t* p = <const uint8_t*>m.body.data
    cdef const uint8_t* q
    cdef size_t n = m.body.len
    cdef size_t k, most = 2 * (<size_t>ctx.body_bytes if ctx.body_bytes < limit else limit)
    cdef char* out
    cdef char* done
    cdef bint cut = (marks[0] & ((MARK_REQUEST_CUT | MARK_REQUEST_LOST | MARK_REQUEST_INCOMPLETE) if is_request else
                                 (MARK_RESPONSE_CUT | MARK_RESPONSE_LOST | MARK_RESPONSE_INCOMPLETE))) != 0
    cdef bint binary = False
    cdef bint decoded = False
    cdef bint changed = False
    cdef int redacted
    cdef bytes plain = None
    cdef bytes text
    cdef int64_t messages = -1
    cdef const uint8_t* back
    cdef batch_t* batch = ctx.batch
    shown.behind = 0
    if n > limit:
        n = limit
        cut = True
        marks[0] |= MARK_REQUEST_CUT if is_request else MARK_RESPONSE_CUT
    shown.wire = n
    if n and m.media == MEDIA_BINARY:
        marks[0] |= MARK_REQUEST_OMITTED if is_request else MARK_RESPONSE_OMITTED
        n = 0
    elif n and m.media >= MEDIA_GRPC:
        plain, number, state, shorter = messages_of(ctx, conn, p, n, m, cut, limit, now)
        if state != BODY_DECODED:
            marks[0] |= MARK_REQUEST_UNDECODED if is_request else MARK_RESPONSE_UNDECODED
            if state == BODY_REFUSED:
                marks[0] |= MARK_REQUEST_REFUSED if is_request else MARK_RESPONSE_REFUSED
            binary = True
        else:
            decoded = True
            messages = <int64_t>number
            p = <const uint8_t*><const char*>plain
            n = <size_t>len(plain)
        if shorter:
            cut = True
            marks[0] |= MARK_REQUEST_CUT if is_request else MARK_RESPONSE_CUT
    elif n and (m.charset or (m.codings[0] and not only_said(m, p, n))):
        if m.codings[0] == CODING_GZIP and m.codings[1] == CODING_NONE and m.charset == 0 and ctx.inflater != NULL:
            state, shorter, behind = gunzip(ctx, conn, &p, &n, cut, limit, now)
            outer = True
        else:
            plain, state, shorter, behind, outer = decode_body(ctx, conn, p, n, m, cut, limit, now)
        decoded = state == BODY_DECODED
        if not decoded:
            marks[0] |= MARK_REQUEST_UNDECODED if is_request else MARK_RESPONSE_UNDECODED
            if state == BODY_REFUSED:
                marks[0] |= MARK_REQUEST_REFUSED if is_request else MARK_RESPONSE_REFUSED
            binary = True
        if shorter:
            cut = True
            marks[0] |= MARK_REQUEST_CUT if is_request else MARK_RESPONSE_CUT
        if behind:
            marks[0] |= MARK_REQUEST_TRAILING if is_request else MARK_RESPONSE_TRAILING
            shown.behind = <uint64_t>behind + (m.size - shown.wire if outer and m.size > shown.wire else 0)
        if plain is not None:
            p = <const uint8_t*><const char*>plain
            n = <size_t>len(plain)
    if ctx.transcodes and m.protobuf and m.media == MEDIA_OTHER:
        keep_body(ctx, m, p, n, cut or binary)
    if ctx.redaction != NULL and n:
        redacted = LEFT_OUT
        if not marks[0] & (MARK_REQUEST_REFUSED if is_request else MARK_RESPONSE_REFUSED):
            redacted = redact_body(ctx, conn, &p, &n, SHAPE_BYTES if binary else SHAPE_MESSAGES if messages >= 0 else
                                   SHAPE_FORM if m.form else SHAPE_TEXT, cut, now)
        if redacted == LEFT_OUT:
            marks[0] |= MARK_REQUEST_OMITTED if is_request else MARK_RESPONSE_OMITTED
            n = 0
        elif redacted:
            ctx.redacted += <uint32_t>redacted
            changed = True
    while True:
        q = p
        k = n
        if not binary and cut and k:
            # a cut inside a UTF-8 sequence is not "not UTF-8": drop the incomplete tail
            back = p + k
            while back > p and back > p + k - 4 and ((back - 1)[0] & 0xC0) == 0x80:
                back -= 1
            if back > p and (back - 1)[0] >= 0xC0 and utf8_length(back - 1, p + k) == -1:
                k = <size_t>(back - 1 - p)
            if is_request and m.media <= MEDIA_JSON and k and (p[0] == c'{' or p[0] == c'['):
                text = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>k + 520)
                k = close_json(<char*>text, p, p + k)
                q = <const uint8_t*><const char*>text
                if k == 0:
                    shown.wire = 0
        if batch_reserve(batch, k * 6 + 192) < 0:
            return -1
        out = batch.records.data + batch.records.len
        out = put_text(out, b',"requestPayload":"' if is_request else b',"responsePayload":"')
        ctx.payload_at = ctx.payload_end = <uint32_t>(out - batch.records.data)
        if k == 0:
            out = put_messages(out, messages, is_request)
            out[0] = c'"'
            batch.records.len = <uint32_t>(out + 1 - batch.records.data)
            return 0
        done = NULL if binary else escape_json(out, q, q + k, TEXT_STRICT)
        if done == NULL:
            break
        if <size_t>(done - out) > most and escaped_prefix(p, n, most) < n:
            n = escaped_prefix(p, n, most)
            cut = True
            marks[0] |= MARK_REQUEST_CUT if is_request else MARK_RESPONSE_CUT
            if not decoded and not changed:
                shown.wire = n
            continue
        if decoded and <size_t>(done - out) > n:
            # beyond what the decoder has counted already
            spend(ctx, conn, (<int64_t>(done - out) - <int64_t>n) * WORK_ESCAPED)
        ctx.payload_end = <uint32_t>(done - batch.records.data)
        done = put_messages(done, messages, is_request)
        done[0] = c'"'
        batch.records.len = <uint32_t>(done + 1 - batch.records.data)
        return 0
    text = binascii.b2a_base64(PyBytes_FromStringAndSize(<const char*>q, <Py_ssize_t>k), newline=False)
    memcpy(out, <const char*>text, len(text))
    out += len(text)
    ctx.payload_end = <uint32_t>(out - batch.records.data)
    out = put_text(out, b'","requestPayloadEncoding":"base64"' if is_request else
                   b'","responsePayloadEncoding":"base64"')
    batch.records.len = <uint32_t>(out - batch.records.data)
    return 0


cdef inline bint only_said(const message_t* m, const uint8_t* p, size_t n) noexcept nogil:
    """A compression below chunked that the head names and that the body does not begin like: some servers know none, and
    read what is there."""
    if m.passed_on == CODING_NONE or m.codings[1] != CODING_NONE:
        return False
    if m.passed_on == CODING_GZIP:
        return n < 2 or p[0] != 0x1F or p[1] != 0x8B
    return n < 2 or p[0] & 0x0F != 8 or (<uint32_t>p[0] << 8 | p[1]) % 31 != 0      # RFC 1950 section 2.2


cdef inline char* put_messages(char* out, int64_t messages, bint is_request) noexcept nogil:
    """Behind the payload, whose text is left open: what it is, where it is messages; -1: it is none."""
    if messages < 0:
        return out
    out = put_text(out, b'","requestPayloadEncoding":"base64","requestMessages":"' if is_request else
                   b'","responsePayloadEncoding":"base64","responseMessages":"')
    return put_u64(out, <uint64_t>messages)


cdef tuple messages_of(ctx_t* ctx, conn_t* conn, const uint8_t* p, size_t n, message_t* m, bint cut, size_t limit,
                       uint64_t now):
    """(payload, number of messages, what became of it, is it shorter than the body?)"""
    cdef int64_t most = body_work(ctx)
    if ctx.content == NULL:
        return b"", 0, BODY_UNDECODED, False
    if not may_spend(ctx, conn, now):
        return b"", 0, BODY_REFUSED, False
    raw = PyBytes_FromStringAndSize(<const char*>p, <Py_ssize_t>n)
    try:
        payload, number, state, shorter, work = (<object>ctx.content).messages(
            raw, m.media, m.inner_coding, bytes(m.codings[:4]), cut, ctx.body_bytes if ctx.body_bytes < limit else limit,
            most)
    except Exception:
        ctx.counters[C_CALLBACK_ERRORS] += 1
        return b"", 0, BODY_UNDECODED, False
    spend(ctx, conn, work)
    return payload, number, state, shorter


cdef (int, bint, size_t) gunzip(ctx_t* ctx, conn_t* conn, const uint8_t** p, size_t* n, bint cut, size_t limit,
                                uint64_t now):
    """Decoder.decode for the one coding that most bodies have, without an object: (what became of it, is it shorter than
    the body?, bytes behind the end of the coding). Decoded, `p` and `n` are the text, up to the next body."""
    cdef Inflater inflater = <Inflater>ctx.inflater
    cdef const uint8_t* data = p[0]
    cdef size_t size = n[0], made = 0, behind = 0
    cdef int64_t work = 0, most = body_work(ctx)
    cdef int ended
    if not may_spend(ctx, conn, now):
        return BODY_REFUSED, False, 0
    try:
        ended = inflater.run(data, size, 31, ctx.body_bytes if ctx.body_bytes < limit else limit, most, True, &made,
                             &behind, &work)
    except Exception:
        ctx.counters[C_CALLBACK_ERRORS] += 1
        return BODY_UNDECODED, False, 0
    work += WORK_LAYER
    if made > EXPANSION * size:
        work += <int64_t>(made - EXPANSION * size) * WORK_ESCAPED
    spend(ctx, conn, work)
    if ended == CODED_OVER or work > most:
        return BODY_REFUSED, False, 0
    if ended == CODED_BROKEN or (ended == CODED_CUT and not cut):
        return BODY_UNDECODED, False, 0
    if behind == 1 and cut and data[size - 1] == 0x1F:
        behind = 0      # perhaps the beginning of a further member
    p[0] = inflater.out
    n[0] = made
    return BODY_DECODED, ended == CODED_CUT or ended == CODED_LONGER, behind


cdef tuple decode_body(ctx_t* ctx, conn_t* conn, const uint8_t* p, size_t n, message_t* m, bint cut, size_t limit,
                       uint64_t now):
    """As Decoder.decode, without the work, and with None for bytes that stay what they are."""
    cdef bytes raw
    cdef int i
    cdef int64_t most = body_work(ctx)
    if ctx.content == NULL:
        return None, BODY_UNDECODED, False, 0, False
    for i in range(4):
        if m.codings[i] == CODING_UNKNOWN:
            return None, BODY_UNDECODED, False, 0, False
    # Servers send one coding; two when a proxy compresses what is compressed. More, or twice one that packs everything
    # into nothing, comes from those who count on it.
    if m.codings[0] and m.codings[1] and (m.codings[MAX_CODINGS] or (
            m.codings[0] == m.codings[1] and m.codings[0] >= CODING_BR)):
        return None, BODY_REFUSED, False, 0, False
    if not may_spend(ctx, conn, now):
        return None, BODY_REFUSED, False, 0, False
    raw = PyBytes_FromStringAndSize(<const char*>p, <Py_ssize_t>n)
    try:
        text, state, shorter, behind, outer, work = (<object>ctx.content).decode(
            raw, bytes(m.codings[:4]), m.charset, cut, ctx.body_bytes if ctx.body_bytes < limit else limit, most)
    except Exception:
        ctx.counters[C_CALLBACK_ERRORS] += 1
        return None, BODY_UNDECODED, False, 0, False
    spend(ctx, conn, work)
    return text, state, shorter, behind, outer
