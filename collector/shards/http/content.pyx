"""Media type, charset and content codings of a message (RFC 9110 sections 8.3 and 8.4), for the encoder."""

from libc.stdint cimport uint8_t, uint32_t

from collector.shards.http.fields cimport field_t, fields_t, same_name, F_CONTENT_ENCODING
from collector.shards.http.message cimport *
from collector.shards.state cimport ctx_t, C_CALLBACK_ERRORS


cdef inline bint starts(const uint8_t* p, uint32_t n, const char* lower, uint32_t m) noexcept nogil:
    return n >= m and same_name(p, lower, m)


cdef bint binary_type(const uint8_t* p, uint32_t n) noexcept nogil:
    """Media types whose bodies are left out of records (docs/records.md lists them)."""
    if starts(p, n, b"image/", 6):
        return not starts(p, n, b"image/svg", 9)
    if starts(p, n, b"audio/", 6) or starts(p, n, b"video/", 6) or starts(p, n, b"font/", 5):
        return True
    if not starts(p, n, b"application/", 12):
        return False
    p += 12
    n -= 12
    return (starts(p, n, b"octet-stream", 12) or starts(p, n, b"zip", 3) or starts(p, n, b"gzip", 4)
            or starts(p, n, b"x-gzip", 6) or starts(p, n, b"x-tar", 5) or starts(p, n, b"zstd", 4)
            or starts(p, n, b"x-bzip", 6) or starts(p, n, b"x-xz", 4) or starts(p, n, b"x-7z", 4)
            or starts(p, n, b"x-rar", 5) or starts(p, n, b"vnd.rar", 7) or starts(p, n, b"java-archive", 12)
            or starts(p, n, b"font-", 5) or starts(p, n, b"vnd.ms-fontobject", 17) or starts(p, n, b"pdf", 3)
            or starts(p, n, b"wasm", 4))


cdef inline bint is_type(const uint8_t* p, uint32_t n, const char* lower, uint32_t m) noexcept nogil:
    """Is this it, whatever its parameters?"""
    return starts(p, n, lower, m) and (n == m or p[m] == c';' or p[m] == c' ' or p[m] == c'\t')


cdef uint8_t messages_type(const uint8_t* p, uint32_t n) noexcept nogil:
    """enum media of a type whose bodies are messages one behind the other, else 0 (MEDIA_ABSENT)."""
    if is_type(p, n, b"text/event-stream", 17):
        return MEDIA_EVENTS
    if n < 16 or not starts(p, n, b"application/", 12):
        return MEDIA_ABSENT
    p += 12
    n -= 12
    if starts(p, n, b"connect+", 8):
        return MEDIA_CONNECT
    if (is_type(p, n, b"x-ndjson", 8) or is_type(p, n, b"jsonl", 5) or is_type(p, n, b"json-lines", 10)
            or is_type(p, n, b"stream+json", 11) or is_type(p, n, b"json-seq", 8)):
        return MEDIA_LINES
    if not starts(p, n, b"grpc", 4):
        return MEDIA_ABSENT
    if n == 4 or p[4] == c'+' or p[4] == c';' or p[4] == c' ':
        return MEDIA_GRPC
    if starts(p, n, b"grpc-web-text", 13) and (n == 13 or p[13] == c'+' or p[13] == c';' or p[13] == c' '):
        return MEDIA_GRPC_WEB_TEXT
    if starts(p, n, b"grpc-web", 8) and (n == 8 or p[8] == c'+' or p[8] == c';' or p[8] == c' '):
        return MEDIA_GRPC_WEB
    return MEDIA_ABSENT


cdef bint protobuf_messages(const uint8_t* p, uint32_t n) noexcept nogil:
    """Are the messages of such a type protobuf? `+proto`, or for gRPC and gRPC-Web nothing; else `+json` and others."""
    cdef uint32_t i = 0
    while i < n and p[i] != c'+' and p[i] != c';' and p[i] != c' ':
        i += 1
    if i == n or p[i] != c'+':
        return True
    i += 1
    return starts(p + i, n - i, b"proto", 5) and (n - i == 5 or p[i + 5] == c';' or p[i + 5] == c' ')


cdef bint protobuf_type(const uint8_t* p, uint32_t n) noexcept nogil:
    """A body that is one protobuf message: unary calls of Connect, and Twirp."""
    if not starts(p, n, b"application/", 12):
        return False
    p += 12
    n -= 12
    if starts(p, n, b"x-", 2):
        p += 2
        n -= 2
    if not starts(p, n, b"proto", 5):
        return False
    p += 5
    n -= 5
    if starts(p, n, b"buf", 3):
        p += 3
        n -= 3
    return n == 0 or p[0] == c';' or p[0] == c' '


cdef uint8_t coding_of(const uint8_t* p, uint32_t n) noexcept nogil:
    if (n == 4 and same_name(p, b"gzip", 4)) or (n == 6 and same_name(p, b"x-gzip", 6)):
        return CODING_GZIP
    if n == 7 and same_name(p, b"deflate", 7):
        return CODING_DEFLATE
    if n == 2 and same_name(p, b"br", 2):
        return CODING_BR
    if n == 4 and same_name(p, b"zstd", 4):
        return CODING_ZSTD
    if n == 8 and same_name(p, b"identity", 8):
        return CODING_NONE
    return CODING_UNKNOWN


cdef uint8_t inner_coding(const fields_t* fields) noexcept nogil:
    """How messages are compressed whose flag says that they are."""
    cdef const field_t* f
    cdef uint32_t i
    for i in range(fields.count):
        f = &fields.items[i]
        if ((f.name_len == 13 and same_name(f.name, b"grpc-encoding", 13))
                or (f.name_len == 24 and same_name(f.name, b"connect-content-encoding", 24))):
            return coding_of(f.value, f.value_len)
    return CODING_UNKNOWN


cdef inline const uint8_t* next_parameter(const uint8_t* p, const uint8_t* end) noexcept nogil:
    """Behind the next `;` that is in no quoted string (RFC 9110 section 5.6.6), or NULL."""
    cdef bint quoted = False
    while p < end:
        if p[0] == c'"':
            quoted = not quoted
        elif p[0] == c'\\' and quoted:
            p += 1
        elif p[0] == c';' and not quoted:
            return p + 1
        p += 1
    return NULL


cdef void content_facts(ctx_t* ctx, const fields_t* fields, message_t* m) noexcept:
    """Media type, charset and content codings of a message, for the encoder."""
    cdef const uint8_t* p
    cdef const uint8_t* q
    cdef const uint8_t* end
    cdef uint32_t i, n, k = 0
    cdef uint8_t coding
    cdef const field_t* f
    m.media = MEDIA_ABSENT
    m.charset = 0
    m.codings[0] = 0
    f = fields.content_type
    if f != NULL and f.value_len:
        p = f.value
        n = f.value_len
        if n == 16 and same_name(p, b"application/json", 16):
            m.media = MEDIA_JSON
        elif binary_type(p, n):
            m.media = MEDIA_BINARY
        else:
            m.media = messages_type(p, n)
            if m.media >= MEDIA_GRPC:
                m.inner_coding = inner_coding(fields)
                m.protobuf = protobuf_messages(p, n)
            elif m.media == MEDIA_ABSENT:
                m.media = MEDIA_OTHER
                m.form = is_type(p, n, b"application/x-www-form-urlencoded", 33)
                if ctx.transcodes:
                    m.protobuf = protobuf_type(p, n)
            end = p + n
            q = next_parameter(p, end) if m.media < MEDIA_GRPC else NULL
            while q != NULL and end - q > 8:
                while q < end and (q[0] == c' ' or q[0] == c'\t' or q[0] == c'\r' or q[0] == c'\n'):    # or a fold
                    q += 1
                if end - q > 8 and same_name(q, b"charset=", 8):
                    q += 8
                    m.charset = charset_index(ctx, q, end)
                    break
                q = next_parameter(q, end)
    for i in range(fields.count if fields.content_encoding else 0):
        f = &fields.items[i]
        if f.id != F_CONTENT_ENCODING:
            continue
        p = f.value
        end = p + f.value_len
        while p < end:
            while p < end and (p[0] <= c' ' or p[0] == c','):      # blanks, and what a fold is made of
                p += 1
            q = p
            while q < end and q[0] != c',' and q[0] > c' ':
                q += 1
            n = <uint32_t>(q - p)
            if n == 0:
                break
            coding = coding_of(p, n)
            if coding == CODING_NONE:
                pass
            elif k == 4:
                m.codings[3] = CODING_UNKNOWN
            else:
                m.codings[k] = coding
                k += 1
                if k < 4:
                    m.codings[k] = 0
            p = q
    if m.passed_on and k < 4:       # it was applied last (RFC 9112 section 6.1)
        m.codings[k] = m.passed_on
        if k < 3:
            m.codings[k + 1] = 0


cdef uint8_t charset_index(ctx_t* ctx, const uint8_t* p, const uint8_t* end) noexcept:
    """0 for UTF-8, US-ASCII and what we do not know; else the decoder's number for the charset."""
    if p < end and p[0] == c'"':
        p += 1
    if end - p >= 5 and (same_name(p, b"utf-8", 5) or (end - p >= 4 and same_name(p, b"utf8", 4))):
        return 0
    if end - p >= 8 and same_name(p, b"us-ascii", 8):
        return 0
    if ctx.content == NULL:
        return 0
    try:
        return (<object>ctx.content).charset_number((<const char*>p)[:end - p])
    except Exception:
        ctx.counters[C_CALLBACK_ERRORS] += 1
        return 0
