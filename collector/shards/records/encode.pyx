"""One exchange -> one JSON record, in the outgoing batch.

The heads arrive here already as JSON text (dissectors/http1/head.pyx writes them while it has the fields at hand),
so what is left is copying, the two bodies, the times and the marks. Each body byte is looked at once; the common
case - text that is valid UTF-8 - is escaped straight into the batch, sixteen bytes a step (records/escape.h). Only content codings,
foreign charsets and binary bodies go through Python objects.

JSON: RFC 8259; UTF-8: RFC 3629 section 4. A record is one line: no raw newline can occur inside it.
"""

import binascii

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset, strlen

from collector.abi cimport DIR_IN
from collector.shards.state cimport *


cdef extern from "records/escape.h" nogil:
    unsigned copy16_special(void* out, const void* p)
    unsigned ctz32(unsigned x)
    bint copy_tail(void* out, const void* p, size_t n)
    void prepare_escape()
    bint fast_texts()
    void leave_fast_texts()
    char* escape_plain_ssse3(char* out, const uint8_t** at, const uint8_t* end)
    char* escape_utf8_ssse3(char* out, const uint8_t** at, const uint8_t* end)
    bint utf8_valid_ssse3(const uint8_t* p, const uint8_t* end)

prepare_escape()

cdef extern from "arpa/inet.h" nogil:
    const char* inet_ntop(int af, const void* src, char* dst, unsigned size)
    enum:
        AF_INET6

cdef enum:  # what content.Decoder says
    BODY_UNDECODED = 0
    BODY_DECODED = 1
    BODY_REFUSED = 2

cdef enum:
    # Units of WORK (records/codings.pyx), at worst about a nanosecond each: what decoding may take. A body is begun while
    # the budgets of its shard and connection are above zero, and takes what it takes, up to its own bound.
    WORK_BODY_BYTE = 300        # for each byte of COLLECTOR_BODY_BYTES
    WORK_BODY_LEAST = 65536     # of them
    WORK_ESCAPED = 10           # a byte of a decoded body that escaping adds (content.WORK_EXPANDED)
    WORK_SHIFT_SHARD = 1        # the half of a core
    WORK_SHIFT_CONNECTION = 2   # a quarter
    SECOND_NS = 1000000000
    FAR_BACK_NS = 3600000000000
    MAX_CODINGS = 2

cdef const char* HEX = b"0123456789abcdef"

cdef uint8_t[256] short_escape
for _i in range(256):
    short_escape[_i] = 0
for _c, _e in ((8, b"b"), (9, b"t"), (10, b"n"), (12, b"f"), (13, b"r"), (0x22, b'"'), (0x5C, b"\\")):
    short_escape[_c] = _e[0]


cdef inline int utf8_length(const uint8_t* p, const uint8_t* end) noexcept nogil:
    """Length of the well-formed sequence at p (p[0] >= 0x80), 0 when malformed, -1 when cut off by `end`."""
    cdef uint8_t a = p[0], lo = 0x80, hi = 0xBF
    cdef int n, i
    if a < 0xC2 or a > 0xF4:
        return 0
    if a < 0xE0:
        n = 2
    elif a < 0xF0:
        n = 3
        if a == 0xE0:
            lo = 0xA0
        elif a == 0xED:
            hi = 0x9F
    else:
        n = 4
        if a == 0xF0:
            lo = 0x90
        elif a == 0xF4:
            hi = 0x8F
    if end - p < 2:
        return -1
    if p[1] < lo or p[1] > hi:
        return 0
    for i in range(2, n):
        if end - p <= i:
            return -1
        if p[i] < 0x80 or p[i] > 0xBF:
            return 0
    return n


cdef inline char* put_escape(char* out, uint8_t c) noexcept nogil:
    cdef uint8_t s = short_escape[c]
    out[0] = c'\\'
    if s:
        out[1] = <char>s
        return out + 2
    out[1] = c'u'
    out[2] = c'0'
    out[3] = c'0'
    out[4] = HEX[c >> 4]
    out[5] = HEX[c & 15]
    return out + 6


cdef inline char* put_escape_twice(char* out, uint8_t c) noexcept nogil:
    cdef uint8_t s = short_escape[c]
    out[0] = c'\\'
    out[1] = c'\\'
    if s:
        if s == c'"' or s == c'\\':
            out[2] = c'\\'
            out[3] = <char>s
            return out + 4
        out[2] = <char>s
        return out + 3
    out[2] = c'u'
    out[3] = c'0'
    out[4] = c'0'
    out[5] = HEX[c >> 4]
    out[6] = HEX[c & 15]
    return out + 7


cdef inline char* put_latin1(char* out, uint8_t c) noexcept nogil:
    """The ISO-8859-1 character c, from 0xA0 on."""
    out[0] = <char>(0xC0 | (c >> 6))
    out[1] = <char>(0x80 | (c & 0x3F))
    return out + 2


cdef char* escape_json(char* out, const uint8_t* p, const uint8_t* end, int mode) noexcept nogil:
    """The inside of a JSON string for the bytes p..end; returns the new end of out, or NULL (TEXT_STRICT only).

    Control characters are escaped, 0x7F and U+0080 to U+009F too: nothing of a record may steer a terminal.
    """
    cdef unsigned m, k
    cdef uint8_t c
    cdef int n
    cdef bint fast = fast_texts()
    cdef bint valid = False         # what is left is known to be UTF-8
    while True:
        if fast:
            out = escape_utf8_ssse3(out, &p, end) if valid else escape_plain_ssse3(out, &p, end)
            if p == end:
                return out          # the common case: there was nothing but plain text and short escapes
        # up to the next byte that needs care
        if end - p >= 16:
            m = copy16_special(out, p)
            if m == 0:
                p += 16
                out += 16
                continue
            k = ctz32(m)
            p += k
            out += k
            c = p[0]
        else:
            if p >= end:
                return out
            if copy_tail(out, p, <size_t>(end - p)):
                return out + (end - p)
            c = p[0]
            if c >= 0x20 and c < 0x7F and c != c'"' and c != c'\\':
                out[0] = <char>c
                out += 1
                p += 1
                continue
        if c < 0x80:
            out = put_escape(out, c)
            p += 1
            continue
        if fast and not valid:
            valid = utf8_valid_ssse3(p, end)
            if valid:
                continue
            if mode == TEXT_STRICT:
                return NULL
            fast = False
        while valid and p < end and p[0] >= 0x80:
            if p[0] == 0xC2 and p[1] < 0xA0:
                out = put_escape(out, p[1])
                p += 2
                continue
            out[0] = <char>p[0]     # perhaps the middle of a sequence: a step of 16 bytes may end inside one
            out += 1
            p += 1
        while p < end and p[0] >= 0x80:
            n = utf8_length(p, end)
            if n == 2 and p[0] == 0xC2 and p[1] < 0xA0:
                out = put_escape(out, p[1])
                p += 2
            elif n > 0:
                out[0] = <char>p[0]
                out[1] = <char>p[1]
                if n > 2:
                    out[2] = <char>p[2]
                    if n > 3:
                        out[3] = <char>p[3]
                out += n
                p += n
            elif mode == TEXT_STRICT:
                return NULL
            else:
                out = put_escape(out, p[0]) if p[0] < 0xA0 else put_latin1(out, p[0])
                p += 1


cdef char* escape_json_twice(char* out, const uint8_t* p, const uint8_t* end) noexcept nogil:
    """As escape_json, for a JSON text inside a JSON string (the header objects). TEXT_LATIN1 for bytes not UTF-8.

    CR and LF only occur inside folded values (RFC 9112 section 5.2) and become spaces.
    """
    cdef unsigned m, k
    cdef uint8_t c
    cdef int n
    while True:
        if end - p >= 16:
            m = copy16_special(out, p)
            if m == 0:
                p += 16
                out += 16
                continue
            k = ctz32(m)
            p += k
            out += k
            c = p[0]
        else:
            if p >= end:
                return out
            if copy_tail(out, p, <size_t>(end - p)):
                return out + (end - p)
            c = p[0]
            if c >= 0x20 and c < 0x7F and c != c'"' and c != c'\\':
                out[0] = <char>c
                out += 1
                p += 1
                continue
        if c < 0x80:
            if c == c'\r' or c == c'\n':
                out[0] = c' '
                out += 1
            else:
                out = put_escape_twice(out, c)
            p += 1
            continue
        while p < end and p[0] >= 0x80:
            n = utf8_length(p, end)
            if n == 2 and p[0] == 0xC2 and p[1] < 0xA0:
                out = put_escape_twice(out, p[1])
                p += 2
            elif n > 0:
                memcpy(out, p, <size_t>n)
                out += n
                p += n
            else:
                out = put_escape_twice(out, p[0]) if p[0] < 0xA0 else put_latin1(out, p[0])
                p += 1


cdef char* put_u64(char* out, uint64_t v) noexcept nogil:
    cdef char[24] tmp
    cdef int i = 24
    while True:
        i -= 1
        tmp[i] = <char>(c'0' + v % 10)
        v = v // 10
        if v == 0:
            break
    memcpy(out, &tmp[i], 24 - i)
    return out + (24 - i)


cdef char* put_hex(char* out, uint64_t v) noexcept nogil:
    cdef char[16] tmp
    cdef int i = 16
    while True:
        i -= 1
        tmp[i] = HEX[v & 15]
        v >>= 4
        if v == 0:
            break
    memcpy(out, &tmp[i], 16 - i)
    return out + (16 - i)


cdef inline char* put_text(char* out, const char* s) noexcept nogil:
    cdef size_t n = strlen(s)
    memcpy(out, s, n)
    return out + n


cdef inline char* put_millis(char* out, uint64_t ns) noexcept nogil:
    """Nanoseconds as milliseconds with three decimals."""
    cdef uint64_t us = ns // 1000
    cdef unsigned frac = <unsigned>(us % 1000)
    out = put_u64(out, us // 1000)
    out[0] = c'.'
    out[1] = <char>(c'0' + frac // 100)
    out[2] = <char>(c'0' + frac // 10 % 10)
    out[3] = <char>(c'0' + frac % 10)
    return out + 4


cdef char* put_address(char* out, const uint8_t* a, uint16_t port) noexcept nogil:
    """`a.b.c.d:port`, `[v6]:port`; all zero: `0.0.0.0:0`. At most 48 bytes."""
    cdef char[48] tmp
    cdef int i
    cdef bint zero = True
    for i in range(16):
        if a[i]:
            zero = False
            break
    if zero:
        return put_text(out, b"0.0.0.0:0")
    for i in range(10):
        if a[i]:
            break
    else:
        if a[10] == 0xFF and a[11] == 0xFF:
            for i in range(12, 16):
                out = put_u64(out, a[i])
                out[0] = c'.' if i < 15 else c':'
                out += 1
            return put_u64(out, port)
    out[0] = c'['
    out = put_text(out + 1, inet_ntop(AF_INET6, a, tmp, 48))
    out[0] = c']'
    out[1] = c':'
    return put_u64(out + 2, port)


cdef inline bint address_known(const uint8_t* a) noexcept nogil:
    cdef int i
    for i in range(16):
        if a[i]:
            return True
    return False


cdef const char* process_name(ctx_t* ctx, uint32_t tgid) noexcept nogil:
    """16 bytes, NUL padded; empty when the process was never told. Who is asked for stays."""
    cdef uint32_t at = (tgid * <uint32_t>2654435761) >> 17
    cdef int i
    cdef name_t* entry
    for i in range(NAME_PROBES):
        entry = &ctx.names[(at + <uint32_t>i) & (NAMES - 1)]
        if entry.tgid == tgid:
            ctx.names_told += 1
            entry.used = ctx.names_told
            return entry.comm
    return b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"


cdef int build_constant(ctx_t* ctx, conn_t* conn, uint32_t tgid) noexcept:
    """The fields that are the same for the records of a connection and process, once. 0, or -1 when memory is out."""
    cdef char* out
    cdef const char* comm = process_name(ctx, tgid)
    cdef size_t n = 0
    if comm[0] or conn.constant_tgid != tgid:       # a name that had to give way is still known here
        memcpy(conn.comm, comm, 16)
    comm = conn.comm
    cdef bint client = conn.dir_request != DIR_IN
    buf_free(&ctx.pool, &conn.constant)
    if buf_reserve(&ctx.pool, &conn.constant, 560) < 0:
        return -1
    out = conn.constant.data
    out = put_text(out, b',"ip":"')
    if client:
        out = put_address(out, conn.local, conn.local_port)
        out = put_text(out, b'","destIp":"')
        out = put_address(out, conn.remote, conn.remote_port)
        out = put_text(out, b'","direction":"2')
    else:
        out = put_address(out, conn.remote, conn.remote_port)
        out = put_text(out, b'","destIp":"')
        out = put_address(out, conn.local, conn.local_port)
        out = put_text(out, b'","direction":"1')
    out = put_text(out, b'","process_id":"')
    out = put_u64(out, tgid)
    out = put_text(out, b'","socket_id":"')
    if conn.fd >= 0:
        out = put_u64(out, <uint64_t>conn.fd)
    out = put_text(out, b'","process_name":"')
    while n < 16 and comm[n]:
        n += 1
    out = escape_json(out, <const uint8_t*>comm, <const uint8_t*>comm + n, TEXT_LATIN1)
    out = put_text(out, b'","daemonset_id":"')
    memcpy(out, ctx.daemonset, ctx.daemonset_len)
    out += ctx.daemonset_len
    out = put_text(out, b'","akto_account_id":"1000000","akto_vxlan_id":"0","is_pending":"false","source":"MIRRORING"')
    out = put_text(out, b',"enable_graph":"true","protocol":"http1","tls":')
    out = put_text(out, b'"true"' if conn.flags & CONN_TLS else b'"false"')
    conn.constant.len = <uint32_t>(out - conn.constant.data)
    conn.constant_tgid = tgid
    conn.constant_names = ctx.names_version
    return 0


cdef struct mark_name_t:
    uint32_t bit
    const char* name

cdef mark_name_t[32] MARK_NAMES
cdef int MARK_COUNT = 0


cdef void _mark_name(uint32_t bit, const char* name) noexcept:
    global MARK_COUNT
    MARK_NAMES[MARK_COUNT].bit = bit
    MARK_NAMES[MARK_COUNT].name = name
    MARK_COUNT += 1

_mark_name(MARK_REQUEST_CUT, b"request_body_cut")
_mark_name(MARK_RESPONSE_CUT, b"response_body_cut")
_mark_name(MARK_REQUEST_LOST, b"request_bytes_lost")
_mark_name(MARK_RESPONSE_LOST, b"response_bytes_lost")
_mark_name(MARK_REQUEST_INCOMPLETE, b"request_incomplete")
_mark_name(MARK_RESPONSE_INCOMPLETE, b"response_incomplete")
_mark_name(MARK_JOINED, b"joined_mid_stream")
_mark_name(MARK_NO_RESPONSE, b"no_response")
_mark_name(MARK_END_UNSEEN, b"end_unseen")
_mark_name(MARK_HEADERS_UNCERTAIN, b"headers_uncertain")
_mark_name(MARK_HEADERS_CUT, b"headers_cut")
_mark_name(MARK_PEER_UNKNOWN, b"peer_unknown")
_mark_name(MARK_PAIRING, b"pairing_uncertain")
_mark_name(MARK_REQUEST_FRAMING, b"request_framing_uncertain")
_mark_name(MARK_RESPONSE_FRAMING, b"response_framing_uncertain")
_mark_name(MARK_REQUEST_OMITTED, b"request_body_omitted")
_mark_name(MARK_RESPONSE_OMITTED, b"response_body_omitted")
_mark_name(MARK_REQUEST_UNDECODED, b"request_body_undecoded")
_mark_name(MARK_RESPONSE_UNDECODED, b"response_body_undecoded")
_mark_name(MARK_REQUEST_TRAILING, b"request_body_trailing")
_mark_name(MARK_RESPONSE_TRAILING, b"response_body_trailing")
_mark_name(MARK_EVICTED, b"evicted")
_mark_name(MARK_AMBIGUOUS, b"ambiguous_framing")

cdef enum:
    AMBIGUITIES = 18

cdef const char* AMBIGUITY_NAMES[AMBIGUITIES]
AMBIGUITY_NAMES[0] = b"content_length_and_transfer_encoding"
AMBIGUITY_NAMES[1] = b"content_length_conflict"
AMBIGUITY_NAMES[2] = b"content_length_invalid"
AMBIGUITY_NAMES[3] = b"transfer_encoding_not_chunked"
AMBIGUITY_NAMES[4] = b"transfer_encoding_in_http10"
AMBIGUITY_NAMES[5] = b"bare_lf"
AMBIGUITY_NAMES[6] = b"obs_fold"
AMBIGUITY_NAMES[7] = b"space_before_colon"
AMBIGUITY_NAMES[8] = b"bad_header_line"
AMBIGUITY_NAMES[9] = b"start_line"
AMBIGUITY_NAMES[10] = b"bad_chunk"
AMBIGUITY_NAMES[11] = b"nul"
AMBIGUITY_NAMES[12] = b"multiple_host"
AMBIGUITY_NAMES[13] = b"transfer_encoding_obfuscated"
AMBIGUITY_NAMES[14] = b"content_length_repeated"
AMBIGUITY_NAMES[15] = b"bare_cr"
AMBIGUITY_NAMES[16] = b"control_character"
AMBIGUITY_NAMES[17] = b"body_not_allowed"


def mark_words():
    """The words that may stand in `marks`, without their counts and reasons."""
    return [MARK_NAMES[i].name.decode() for i in range(MARK_COUNT)]


cdef struct shown_t:
    uint64_t wire           # body bytes of the wire that the record stands for
    uint64_t behind         # bytes behind the end of a content coding


def ambiguity_words():
    """The reasons that may follow `ambiguous_framing:`."""
    return [AMBIGUITY_NAMES[i].decode() for i in range(AMBIGUITIES)]


cdef char* put_marks(char* out, exchange_t* ex, shown_t* req, shown_t* resp) noexcept nogil:
    """The marks as a JSON array inside a JSON string; counts in bytes behind a colon. At most 1,500 bytes."""
    cdef int i, j
    cdef bint first = True
    cdef uint32_t bit
    cdef uint64_t n
    out = put_text(out, b'[')
    for i in range(MARK_COUNT):
        bit = MARK_NAMES[i].bit
        if not ex.marks & bit:
            continue
        if not first:
            out = put_text(out, b',')
        first = False
        out = put_text(out, b'\\"')
        out = put_text(out, MARK_NAMES[i].name)
        if bit == MARK_REQUEST_CUT or bit == MARK_RESPONSE_CUT:
            # how many body bytes of the true size the record does not show; of a decoded body nobody knows
            n = ex.req.size - req.wire if bit == MARK_REQUEST_CUT else ex.resp.size - resp.wire
            if <int64_t>n > 0:
                out[0] = c':'
                out = put_u64(out + 1, n)
        elif bit == MARK_REQUEST_LOST and ex.req.lost:
            out[0] = c':'
            out = put_u64(out + 1, ex.req.lost)
        elif bit == MARK_RESPONSE_LOST and ex.resp.lost:
            out[0] = c':'
            out = put_u64(out + 1, ex.resp.lost)
        elif bit == MARK_REQUEST_TRAILING or bit == MARK_RESPONSE_TRAILING:
            out[0] = c':'
            out = put_u64(out + 1, req.behind if bit == MARK_REQUEST_TRAILING else resp.behind)
        elif (bit == MARK_REQUEST_UNDECODED and ex.marks & MARK_REQUEST_REFUSED
                or bit == MARK_RESPONSE_UNDECODED and ex.marks & MARK_RESPONSE_REFUSED):
            out = put_text(out, b':budget')
        elif bit == MARK_AMBIGUOUS:
            for j in range(AMBIGUITIES):
                if ex.ambiguity & (1 << j):
                    out = put_text(out, b':')
                    out = put_text(out, AMBIGUITY_NAMES[j])
        out = put_text(out, b'\\"')
    return put_text(out, b']')


cdef size_t close_json(char* out, const uint8_t* p, const uint8_t* end) noexcept nogil:
    """A JSON text cut anywhere, closed so that it is JSON again: the prefix up to the last whole value, then quotes
    and brackets. Room needed: the input and 516 bytes. Deeper than 512 levels: 0 (the body is left out then).

    Akto's consumer rejects a JSON request body that does not end as it began.
    """
    cdef uint8_t[512] stack
    cdef int depth = 0, safe_depth = 0
    cdef const uint8_t* start = p
    cdef const uint8_t* safe = p
    cdef const uint8_t* literal = NULL
    cdef const uint8_t* pair = NULL     # the first half of a surrogate pair: an escape \uD800 to \uDBFF
    cdef const uint8_t* back
    cdef uint8_t c, structural = 0
    cdef bint in_string = False, is_key = False
    cdef size_t n
    while p < end:
        c = p[0]
        if in_string:
            if c == c'\\':
                if end - p < 2 or (p[1] == c'u' and end - p < 6):
                    break
                if p[1] == c'u' and p[2] | 0x20 == c'd' and (p[3] == c'8' or p[3] == c'9' or p[3] | 0x20 == c'a'
                                                             or p[3] | 0x20 == c'b'):
                    pair = p
                p += 2
                continue
            if c == c'"':
                in_string = False
                if not is_key:
                    safe = p + 1
                    safe_depth = depth
            p += 1
            continue
        if c == c'"':
            in_string = True
            is_key = depth > 0 and stack[depth - 1] == c'}' and structural != c':'
        elif c == c'{' or c == c'[':
            if depth == 512:
                return 0
            stack[depth] = c'}' if c == c'{' else c']'
            depth += 1
            structural = c
            safe = p + 1
            safe_depth = depth
        elif c == c'}' or c == c']':
            if literal != NULL:
                literal = NULL
            if depth > 0:
                depth -= 1
            structural = c
            safe = p + 1
            safe_depth = depth
        elif c == c',' or c == c':':
            if literal != NULL and c == c',':
                safe = p
                safe_depth = depth
            literal = NULL
            structural = c
        elif c != c' ' and c != c'\n' and c != c'\r' and c != c'\t':
            if literal == NULL:
                literal = p
        p += 1
    if in_string and not is_key:
        # keep what there is of the string; never half a UTF-8 sequence or half a surrogate pair
        if pair != NULL and pair + 6 == p:
            p = pair
        back = p
        while back > start and back > p - 4 and ((back - 1)[0] & 0xC0) == 0x80:
            back -= 1
        if back > start and (back - 1)[0] >= 0xC0 and utf8_length(back - 1, p) <= 0:
            p = back - 1
        n = <size_t>(p - start)
        memcpy(out, start, n)
        out[n] = c'"'
        n += 1
        safe_depth = depth
    else:
        n = <size_t>(safe - start)
        memcpy(out, start, n)
    while safe_depth > 0:
        safe_depth -= 1
        out[n] = <char>stack[safe_depth]
        n += 1
    return n


def close_json_text(bytes text):
    """close_json for tests: bytes in, bytes out."""
    cdef bytearray out = bytearray(len(text) + 520)
    cdef const uint8_t* p = text
    cdef char* o = out
    cdef size_t n = close_json(o, p, p + len(text))
    return bytes(out[:n])


def escape_text(bytes text, bint twice=False, bint fast=True):
    """The escapers for tests: the inside of a JSON string, or None when the bytes are not UTF-8. Not ``fast``: as on a
    machine without the instructions."""
    if not fast:
        leave_fast_texts()
        try:
            return escape_text(text, twice)
        finally:
            prepare_escape()
    cdef bytearray out = bytearray(len(text) * 7 + 32)
    cdef const uint8_t* p = text
    cdef char* o = out
    cdef char* e
    if twice:
        e = escape_json_twice(o, p, p + len(text))
    else:
        e = escape_json(o, p, p + len(text), TEXT_STRICT)
        if e == NULL:
            return None
    return bytes(out[:e - o])


cdef int out_grow(ctx_t* ctx, size_t more) noexcept:
    cdef buf_t heap
    if ctx.out_slot < 0:
        return buf_reserve(&ctx.out_pool, &ctx.out, more)
    # the batch does not fit its slot: it goes on on the heap
    memset(&heap, 0, sizeof(buf_t))
    if buf_reserve(&ctx.out_pool, &heap, ctx.out.len + more) < 0:
        return -1
    memcpy(heap.data, ctx.out.data, ctx.out.len)
    heap.len = ctx.out.len
    ctx.slot_stack[ctx.free_slots] = <uint8_t>ctx.out_slot
    ctx.free_slots += 1
    ctx.out_slot = -1
    ctx.out = heap
    return 0


cdef inline int out_reserve(ctx_t* ctx, size_t more) noexcept:
    """Room for `more` further bytes in the batch. 0, or -1 when memory is out."""
    if ctx.out.len + more <= ctx.out.cap:
        return 0
    return out_grow(ctx, more)


cdef size_t escaped_prefix(const uint8_t* p, size_t n, size_t most) noexcept nogil:
    """How many bytes of this UTF-8 text, in whole characters, escape_json makes at most `most` bytes of."""
    cdef const uint8_t* start = p
    cdef const uint8_t* end = p + n
    cdef size_t length, room
    while p < end:
        length = room = 1
        if p[0] >= 0x80:
            length = room = 2 if p[0] < 0xE0 else 3 if p[0] < 0xF0 else 4
            if p[0] == 0xC2 and end - p > 1 and p[1] < 0xA0:
                room = 6
        elif p[0] < 0x20 or p[0] == 0x7F or short_escape[p[0]]:
            room = 2 if short_escape[p[0]] else 6
        if room > most:
            break
        most -= room
        p += length
    return <size_t>(p - start)


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
    cdef bytes plain = None
    cdef bytes text
    cdef const uint8_t* back
    shown.behind = 0
    if n > limit:
        n = limit
        cut = True
        marks[0] |= MARK_REQUEST_CUT if is_request else MARK_RESPONSE_CUT
    shown.wire = n
    if n and m.media == MEDIA_BINARY:
        marks[0] |= MARK_REQUEST_OMITTED if is_request else MARK_RESPONSE_OMITTED
        n = 0
    elif n and (m.codings[0] or m.charset):
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
            shown.behind = <uint64_t>behind + (m.size - n if outer and m.size > n else 0)
        if plain is not None:
            p = <const uint8_t*><const char*>plain
            n = <size_t>len(plain)
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
        if out_reserve(ctx, k * 6 + 96) < 0:
            return -1
        out = ctx.out.data + ctx.out.len
        out = put_text(out, b',"requestPayload":"' if is_request else b',"responsePayload":"')
        if k == 0:
            out[0] = c'"'
            ctx.out.len = <uint32_t>(out + 1 - ctx.out.data)
            return 0
        done = NULL if binary else escape_json(out, q, q + k, TEXT_STRICT)
        if done == NULL:
            break
        if <size_t>(done - out) > most and escaped_prefix(p, n, most) < n:
            n = escaped_prefix(p, n, most)
            cut = True
            marks[0] |= MARK_REQUEST_CUT if is_request else MARK_RESPONSE_CUT
            if not decoded:
                shown.wire = n
            continue
        if decoded and <size_t>(done - out) > n:
            # beyond what the decoder has counted already
            spend(ctx, conn, (<int64_t>(done - out) - <int64_t>n) * WORK_ESCAPED)
        done[0] = c'"'
        ctx.out.len = <uint32_t>(done + 1 - ctx.out.data)
        return 0
    text = binascii.b2a_base64(PyBytes_FromStringAndSize(<const char*>q, <Py_ssize_t>k), newline=False)
    memcpy(out, <const char*>text, len(text))
    out += len(text)
    out = put_text(out, b'","requestPayloadEncoding":"base64"' if is_request else
                   b'","responsePayloadEncoding":"base64"')
    ctx.out.len = <uint32_t>(out - ctx.out.data)
    return 0


cdef inline void come_back(budget_t* budget, uint64_t now, int shift) noexcept nogil:
    """What time has brought back of a budget: a half, a quarter... of a unit for each nanosecond; at most that of half a
    second, because so long nobody else may be served.

    `now` is when an exchange ended. Those that were waited for in vain are recorded long after others, and bring nothing:
    otherwise everyone could have a full budget by leaving requests unanswered.
    """
    cdef int64_t whole = <int64_t>SECOND_NS >> shift + 1
    cdef uint64_t passed = now - budget.seen_ns
    if budget.seen_ns == 0:
        budget.left = whole
    elif now > budget.seen_ns:
        budget.left += <int64_t>((passed if passed < SECOND_NS else SECOND_NS) >> shift)
        if budget.left > whole:
            budget.left = whole
    elif now + FAR_BACK_NS > budget.seen_ns:
        return
    budget.seen_ns = now | 1    # (far back: the time of an event was wrong)


cdef inline void spend(ctx_t* ctx, conn_t* conn, int64_t work) noexcept nogil:
    ctx.decoding.left -= work
    conn.decoding.left -= work


cdef tuple decode_body(ctx_t* ctx, conn_t* conn, const uint8_t* p, size_t n, message_t* m, bint cut, size_t limit,
                       uint64_t now):
    """As Decoder.decode, without the work, and with None for bytes that stay what they are."""
    cdef bytes raw
    cdef int i
    cdef int64_t most = WORK_BODY_BYTE * <int64_t>(ctx.body_bytes if ctx.body_bytes > WORK_BODY_LEAST else WORK_BODY_LEAST)
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
    come_back(&ctx.decoding, now, WORK_SHIFT_SHARD)
    come_back(&conn.decoding, now, WORK_SHIFT_CONNECTION)
    if ctx.decoding.left <= 0 or conn.decoding.left <= 0:
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


cdef int encode_once(ctx_t* ctx, conn_t* conn, exchange_t* ex, uint64_t end_ns, size_t limit) noexcept:
    """Append the record without its newline, and add to ex.marks what was found. 0, or -1 when memory is out."""
    cdef uint32_t marks = ex.marks
    cdef uint64_t start_wall
    cdef shown_t req_shown, resp_shown
    cdef char* out
    if out_reserve(ctx, <size_t>ex.req.head.len + 64) < 0:
        return -1
    ctx.out.data[ctx.out.len] = c'{'
    memcpy(ctx.out.data + ctx.out.len + 1, ex.req.head.data, ex.req.head.len)
    ctx.out.len += ex.req.head.len + 1
    if put_body(ctx, conn, &ex.req, True, &marks, &req_shown, limit, end_ns) < 0:
        return -1
    if out_reserve(ctx, <size_t>ex.resp.head.len + 128) < 0:
        return -1
    out = ctx.out.data + ctx.out.len
    if ex.resp.head.len:
        memcpy(out, ex.resp.head.data, ex.resp.head.len)
        out += ex.resp.head.len
    else:
        out = put_text(out, b',"status":"","statusCode":"0","responseHeaders":"{}"')
    ctx.out.len = <uint32_t>(out - ctx.out.data)
    if put_body(ctx, conn, &ex.resp, False, &marks, &resp_shown, limit, end_ns) < 0:
        return -1
    if out_reserve(ctx, <size_t>conn.constant.len + 2560) < 0:
        return -1
    out = ctx.out.data + ctx.out.len
    memcpy(out, conn.constant.data, conn.constant.len)
    out += conn.constant.len
    start_wall = ex.req.first_ns + <uint64_t>ctx.wall_offset_ns     # modulo 2**64: times in a damaged span may be any
    out = put_text(out, b',"time":"')
    out = put_u64(out, start_wall // 1000000000)
    out = put_text(out, b'","startTimeMs":"')
    out = put_u64(out, start_wall // 1000000)
    out = put_text(out, b'","firstByteMs":"')
    if ex.resp.started and ex.resp.first_ns >= ex.req.first_ns:
        out = put_millis(out, ex.resp.first_ns - ex.req.first_ns)
    out = put_text(out, b'","durationMs":"')
    out = put_millis(out, end_ns - ex.req.first_ns if end_ns > ex.req.first_ns else 0)
    out = put_text(out, b'","requestSize":"')
    out = put_u64(out, ex.req.size)
    out = put_text(out, b'","responseSize":"')
    out = put_u64(out, ex.resp.size)
    out = put_text(out, b'","recordId":"')
    memcpy(out, ctx.prefix, ctx.prefix_len)
    out += ctx.prefix_len
    out = put_hex(out, conn.id)
    out[0] = c'-'
    out = put_hex(out + 1, ex.pos)
    if marks == 0:
        out = put_text(out, b'","marks":"[]"}')
    else:
        ex.marks = marks
        out = put_text(out, b'","marks":"')
        out = put_marks(out, ex, &req_shown, &resp_shown)
        out = put_text(out, b'"}')
    ctx.out.len = <uint32_t>(out - ctx.out.data)
    return 0


cdef inline void count_bodies(ctx_t* ctx, uint32_t marks) noexcept nogil:
    ctx.counters[C_UNDECODED] += (marks & MARK_REQUEST_UNDECODED != 0) + (marks & MARK_RESPONSE_UNDECODED != 0)
    ctx.counters[C_REFUSED_BODIES] += (marks & MARK_REQUEST_REFUSED != 0) + (marks & MARK_RESPONSE_REFUSED != 0)


cdef void emit_record(ctx_t* ctx, conn_t* conn, exchange_t* ex, uint64_t end_ns) noexcept:
    """Put the record of `ex` into the outgoing batch. A record that would pass ctx.record_bytes is written again
    with shorter bodies (marked); one that is still too long is counted and left out.
    """
    cdef uint32_t start = ctx.out.len
    cdef size_t limit = 0xFFFFFFFF
    cdef out_index_t* entry
    cdef uint32_t before
    if ctx.output_limit and ctx.output_used >= ctx.output_limit:
        ctx.counters[C_BANDWIDTH] += 1
        return
    if start > ctx.out_most:
        # much at once - a timer, an exit, a close - whose bodies, decoded, could be a thousand times what was held
        limit = 0
    if ((conn.constant.len == 0 or conn.constant_tgid != ex.tgid or conn.constant_names != ctx.names_version)
            and build_constant(ctx, conn, ex.tgid) < 0):
        ctx.counters[C_RECORDS_DROPPED_SIZE] += 1
        return
    if not (address_known(conn.local) and address_known(conn.remote)):
        ex.marks |= MARK_PEER_UNKNOWN
    before = ex.marks
    while True:
        ex.marks = before
        if encode_once(ctx, conn, ex, end_ns, limit) < 0:
            ctx.out.len = start
            ctx.counters[C_RECORDS_DROPPED_SIZE] += 1
            return
        if ctx.out.len - start < ctx.record_bytes:
            break
        ctx.out.len = start
        if limit == 0:
            ctx.counters[C_RECORDS_DROPPED_SIZE] += 1
            return
        if limit == 0xFFFFFFFF:
            limit = ctx.body_bytes
        limit = limit // 2 if limit > 2048 else 0
    if (out_reserve(ctx, 1) < 0
            or buf_reserve(&ctx.out_pool, &ctx.out_index, sizeof(out_index_t)) < 0
            or (ex.details.len and buf_append(&ctx.out_pool, &ctx.out_details, ex.details.data, ex.details.len) < 0)):
        ctx.out.len = start
        ctx.counters[C_RECORDS_DROPPED_SIZE] += 1
        return
    ctx.out.data[ctx.out.len] = c'\n'
    ctx.out.len += 1
    entry = <out_index_t*>(ctx.out_index.data + ctx.out_index.len)
    ctx.out_index.len += sizeof(out_index_t)
    entry.length = ctx.out.len - start
    entry.details_len = ex.details.len
    entry.end_ns = end_ns
    entry.conn_id = conn.id
    entry.pos = ex.pos
    ctx.counters[C_RECORDS] += 1
    ctx.counters[C_RECORD_BYTES] += entry.length
    ctx.output_used += entry.length
    if ex.marks:
        ctx.counters[C_RECORDS_MARKED] += 1
        count_bodies(ctx, ex.marks)
