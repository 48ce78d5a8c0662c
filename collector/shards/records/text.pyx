"""Bytes as JSON text: escaping, numbers, addresses, and cut JSON made whole again.

Each byte is looked at once; the common case - text that is valid UTF-8 - is escaped sixteen bytes a step (escape.h).

JSON: RFC 8259; UTF-8: RFC 3629 section 4. No raw newline can occur inside a string that is made here.
"""

from libc.stdint cimport uint8_t, uint16_t
from libc.string cimport memcpy

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

cdef const char* HEX = b"0123456789abcdef"

cdef uint8_t[256] short_escape
for _i in range(256):
    short_escape[_i] = 0
for _c, _e in ((8, b"b"), (9, b"t"), (10, b"n"), (12, b"f"), (13, b"r"), (0x22, b'"'), (0x5C, b"\\")):
    short_escape[_c] = _e[0]


cdef int utf8_length(const uint8_t* p, const uint8_t* end) noexcept nogil:
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


cdef char* put_address(char* out, const uint8_t* a, uint16_t port) noexcept nogil:
    """`a.b.c.d:port`, `[v6]:port`; all zero: `0.0.0.0:0`. At most 48 bytes."""
    cdef char[48] tmp
    cdef int i
    if not address_known(a):
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
