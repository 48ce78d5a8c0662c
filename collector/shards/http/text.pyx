"""Start line and header fields as the JSON text of the record, written at once, while they are at hand.

Names in wire case except `host`; repeated fields joined (`, `; `; ` for Cookie; newline for Set-Cookie, whose values contain
commas).
"""

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcpy

from collector.shards.http.fields cimport (
    field_t, fields_t, request_t, response_t, same_name, same_text, F_COOKIE, F_HOST, F_SET_COOKIE)
from collector.shards.http.message cimport exchange_t, message_t
from collector.shards.memory cimport buf_append, buf_reserve
from collector.shards.records.text cimport escape_json, escape_json_twice, put_u64, TEXT_LATIN1
from collector.shards.state cimport ctx_t

cdef extern from "<string.h>" nogil:
    void* memmem(const void* haystack, size_t haystack_len, const void* needle, size_t needle_len)

cdef extern from "simd.h" nogil:
    char* copy_plain(char* out, const uint8_t* p, uint32_t n, const uint8_t* readable_end)


cdef const uint8_t* target_host(const request_t* h, const uint8_t** stop) noexcept nogil:
    """Host and port of an absolute http target, without the user information (RFC 9110 section 7.2), or NULL."""
    cdef const uint8_t* end = h.target + h.target_len
    cdef const uint8_t* p
    cdef const uint8_t* q
    if not ((h.target_len > 7 and same_name(h.target, b"http://", 7))
            or (h.target_len > 8 and same_name(h.target, b"https://", 8))):
        return NULL
    p = h.target + (7 if h.target[4] == c':' else 8)
    q = p
    while q < end and q[0] != c'/' and q[0] != c'?' and q[0] != c'#':
        if q[0] == c'@':
            p = q + 1
        q += 1
    stop[0] = q
    return p


cdef inline char* lit(char* out, const char* s, size_t n) noexcept nogil:
    memcpy(out, s, n)
    return out + n


cdef char* write_fields(char* out, const fields_t* fields, const request_t* request) noexcept nogil:
    """The fields as a JSON object inside a JSON string, both braces included."""
    cdef uint32_t i, j
    cdef const field_t* f
    cdef const field_t* g
    cdef bint first = True
    cdef const uint8_t* q
    cdef const uint8_t* stop = NULL
    cdef const uint8_t* end = fields.end
    cdef uint32_t count = fields.count
    cdef bint of_request = request != NULL
    out[0] = c'{'
    out += 1
    for i in range(count):
        f = &fields.items[i]
        if f.repeats:
            continue
        if not first:
            out = lit(out, b',\\"', 3)
        else:
            out = lit(out, b'\\"', 2)
            first = False
        if of_request and f.id == F_HOST:
            out = lit(out, b"host", 4)
        elif f.plain_name:
            out = copy_plain(out, f.name, f.name_len, end)
        else:
            out = escape_json_twice(out, f.name, f.name + f.name_len)
        out = lit(out, b'\\":\\"', 5)
        if f.plain_value:
            out = copy_plain(out, f.value, f.value_len, end)
        else:
            out = escape_json_twice(out, f.value, f.value + f.value_len)
        if f.repeated:
            for j in range(i + 1, count):
                g = &fields.items[j]
                if g.repeats and g.hash == f.hash and g.name_len == f.name_len and same_text(g.name, f.name, f.name_len):
                    if f.id == F_COOKIE:
                        out = lit(out, b"; ", 2)
                    elif f.id == F_SET_COOKIE:
                        out = lit(out, b"\\\\n", 3)
                    else:
                        out = lit(out, b", ", 2)
                    out = escape_json_twice(out, g.value, g.value + g.value_len)
        out = lit(out, b'\\"', 2)
    if request != NULL and fields.host == &fields.late_host:
        if not first:
            out = lit(out, b',', 1)
        out = lit(out, b'\\"host\\":\\"', 11)
        out = escape_json_twice(out, fields.host.value, fields.host.value + fields.host.value_len)
        out = lit(out, b'\\"', 2)
    elif request != NULL and fields.host == NULL:
        if not first:
            out = lit(out, b',', 1)
        out = lit(out, b'\\"host\\":\\"', 11)
        # the host of an absolute target stands for the missing field (RFC 9112 section 3.2.2)
        q = target_host(request, &stop)
        if q != NULL:
            out = escape_json_twice(out, q, stop)
        out = lit(out, b'\\"', 2)
    out[0] = c'}'
    return out + 1


cdef inline size_t fields_room(const fields_t* fields) noexcept nogil:
    cdef size_t n = 256 + (<size_t>fields.host.value_len * 7 if fields.host != NULL else 0)
    cdef uint32_t i
    for i in range(fields.count):
        n += <size_t>(fields.items[i].name_len + fields.items[i].value_len) * 7 + 48
    return n


cdef int write_request(ctx_t* ctx, const request_t* request, const fields_t* fields, message_t* m) noexcept:
    """`"method":...,"path":...,"type":...,"requestHeaders":"{...}"` into m.head. 0, or -1 when memory is out."""
    cdef char* out
    cdef size_t room = (fields_room(fields) + <size_t>(request.method_len + request.version_len) * 6
                        + <size_t>request.target_len * 14 + 128)
    ctx.scratch.len = 0
    if buf_reserve(&ctx.batch.pool, &ctx.scratch, room) < 0:
        return -1
    out = ctx.scratch.data
    out = lit(out, b'"method":"', 10)
    out = escape_json(out, request.method, request.method + request.method_len, TEXT_LATIN1)
    out = lit(out, b'","path":"', 10)
    out = escape_json(out, request.target, request.target + request.target_len, TEXT_LATIN1)
    out = lit(out, b'","type":"', 10)
    out = escape_json(out, request.version, request.version + request.version_len, TEXT_LATIN1)
    out = lit(out, b'","requestHeaders":"', 20)
    out = write_fields(out, fields, request)
    out[0] = c'"'
    out += 1
    # the worst case is seven times what is needed: written in scratch, kept at its size
    m.head.len = 0
    return buf_append(&ctx.pool, &m.head, ctx.scratch.data, <size_t>(out - ctx.scratch.data))


cdef int write_response(ctx_t* ctx, const response_t* response, const fields_t* fields, message_t* m) noexcept:
    """`,"status":...,"statusCode":...,"responseHeaders":"{...}"` into m.head. 0, or -1 when memory is out."""
    cdef char* out
    cdef size_t room = fields_room(fields) + <size_t>response.reason_len * 6 + 128
    ctx.scratch.len = 0
    if buf_reserve(&ctx.batch.pool, &ctx.scratch, room) < 0:
        return -1
    out = ctx.scratch.data
    out = lit(out, b',"status":"', 11)
    out = escape_json(out, response.reason, response.reason + response.reason_len, TEXT_LATIN1)
    out = lit(out, b'","statusCode":"', 16)
    out = put_u64(out, response.status)
    out = lit(out, b'","responseHeaders":"', 21)
    out = write_fields(out, fields, NULL)
    out[0] = c'"'
    out += 1
    m.head.len = 0
    return buf_append(&ctx.pool, &m.head, ctx.scratch.data, <size_t>(out - ctx.scratch.data))


cdef int add_fields(ctx_t* ctx, const fields_t* fields, message_t* m) noexcept:
    """Fields that m.head, which ends with the object of its fields, does not have yet. 0, or -1 when memory is out."""
    cdef uint32_t i
    cdef const field_t* f
    cdef char* out
    cdef char* name
    cdef size_t n
    for i in range(fields.count):
        f = &fields.items[i]
        if f.repeats:
            continue
        ctx.scratch.len = 0
        if buf_reserve(&ctx.batch.pool, &ctx.scratch, <size_t>(f.name_len + f.value_len) * 7 + 64) < 0:
            return -1
        out = lit(ctx.scratch.data, b',\\"', 3)
        name = out - 2
        out = lit(escape_json_twice(out, f.name, f.name + f.name_len), b'\\":\\"', 5)
        n = <size_t>(out - name)
        if memmem(m.head.data, m.head.len, name, n) != NULL:
            continue
        out = lit(escape_json_twice(out, f.value, f.value + f.value_len), b'\\"}"', 4)
        m.head.len -= 2             # the end of the object
        if m.head.data[m.head.len - 1] == c'{':
            n = 1
        else:
            n = 0
        if buf_append(&ctx.pool, &m.head, ctx.scratch.data + n, <size_t>(out - ctx.scratch.data) - n) < 0:
            return -1
    return 0


cdef void write_details(ctx_t* ctx, const request_t* request, const fields_t* fields, exchange_t* ex) noexcept:
    """`host|method|path` for the Kafka record header; left out when one of them is empty."""
    ex.details.len = 0
    if fields.host == NULL or fields.host.value_len == 0 or request.target_len == 0:
        return
    if buf_reserve(&ctx.pool, &ex.details,
                   <size_t>fields.host.value_len + request.method_len + request.target_len + 2) < 0:
        return
    buf_append(&ctx.pool, &ex.details, fields.host.value, fields.host.value_len)
    buf_append(&ctx.pool, &ex.details, b"|", 1)
    buf_append(&ctx.pool, &ex.details, request.method, request.method_len)
    buf_append(&ctx.pool, &ex.details, b"|", 1)
    buf_append(&ctx.pool, &ex.details, request.target, request.target_len)
