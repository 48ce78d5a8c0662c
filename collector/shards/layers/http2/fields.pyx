"""The fields of a header block (RFC 9113 section 8) as the head of a request or an answer, for http/exchanges.pyx."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from collector.shards.http.fields cimport *
from collector.shards.layers.http2.hpack cimport hpack_field_t, HPACK_NAME, HPACK_VALUE
from collector.shards.layers.http2.state cimport *

cdef extern from "simd.h" nogil:
    int special8(uint64_t w)

# Where texts of 16 bytes are read at once, some are read behind it.
cdef char[16] HOST_NAME
memcpy(HOST_NAME, b"host\0\0\0\0\0\0\0\0\0\0\0\0", 16)

# A byte of a name: tchar of RFC 9110 section 5.6.2, lower case (RFC 9113 section 8.2.1).
cdef uint8_t[256] NAME_BYTE
for _c in range(256):
    NAME_BYTE[_c] = _c in b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz"


cdef inline bint is_text(const uint8_t* p, uint32_t n, const char* text, uint32_t m) noexcept nogil:
    return n == m and memcmp(p, text, m) == 0


cdef inline bint plain(const uint8_t* p, uint32_t n) noexcept nogil:
    """No byte of it wants escaping; it may err on the other side."""
    cdef uint64_t word
    cdef uint32_t i
    if n < 8:
        word = 0x6161616161616161ULL
        memcpy(&word, p, n)
        return not special8(word)
    for i in range(0, n - 7, 8):
        memcpy(&word, p + i, 8)
        if special8(word):
            return False
    memcpy(&word, p + n - 8, 8)
    return not special8(word)


cdef inline bint bad_name(const uint8_t* p, uint32_t n) noexcept nogil:
    cdef uint32_t i
    if n == 0:
        return True
    for i in range(n):
        if not NAME_BYTE[p[i]]:
            return True
    return False


cdef bint bad_value(const uint8_t* p, uint32_t n) noexcept nogil:
    """RFC 9113 section 8.2.1, and the other control characters that RFC 9110 section 5.5 forbids."""
    cdef uint32_t i
    if n and (p[0] == c' ' or p[0] == c'\t' or p[n - 1] == c' ' or p[n - 1] == c'\t'):
        return True
    for i in range(n):
        if (p[i] < 0x20 and p[i] != c'\t') or p[i] == 0x7F:
            return True
    return False


cdef inline bint of_connections(const uint8_t* name, uint32_t n, const hpack_field_t* f) noexcept nogil:
    """RFC 9113 section 8.2.2."""
    if n == 2:
        return memcmp(name, b"te", 2) == 0 and not is_text(f.value, f.value_len, b"trailers", 8)
    return (is_text(name, n, b"connection", 10) or is_text(name, n, b"keep-alive", 10)
            or is_text(name, n, b"proxy-connection", 16) or is_text(name, n, b"transfer-encoding", 17)
            or is_text(name, n, b"upgrade", 7))


cdef inline uint8_t pseudo_of(const uint8_t* name, uint32_t n) noexcept nogil:
    if n == 7:
        if memcmp(name, b":method", 7) == 0:
            return PSEUDO_METHOD
        if memcmp(name, b":scheme", 7) == 0:
            return PSEUDO_SCHEME
        return PSEUDO_STATUS if memcmp(name, b":status", 7) == 0 else 0
    if n == 5:
        return PSEUDO_PATH if memcmp(name, b":path", 5) == 0 else 0
    if n == 10:
        return PSEUDO_AUTHORITY if memcmp(name, b":authority", 10) == 0 else 0
    if n == 9:
        return PSEUDO_PROTOCOL if memcmp(name, b":protocol", 9) == 0 else 0
    return 0


cdef uint32_t status_of(const uint8_t* p, uint32_t n) noexcept nogil:
    """Three digits, else 0."""
    cdef uint32_t i, status = 0
    if n != 3:
        return 0
    for i in range(3):
        if p[i] < c'0' or p[i] > c'9':
            return 0
        status = status * 10 + p[i] - c'0'
    return status if status >= 100 else 0


cdef inline void read_length(head_t* head, const hpack_field_t* f) noexcept nogil:
    cdef uint64_t length = 0
    cdef uint32_t i
    if f.value_len == 0 or f.value_len > 18:
        head.bad |= BAD_LENGTH
        return
    for i in range(f.value_len):
        if f.value[i] < c'0' or f.value[i] > c'9':
            head.bad |= BAD_LENGTH
            return
        length = length * 10 + f.value[i] - c'0'
    if head.has_length and length != head.content_length:
        head.bad |= BAD_LENGTH
    head.has_length = 1
    head.content_length = length


cdef field_t* new_field(head_t* head, const uint8_t* name, uint32_t name_len, size_t readable, const uint8_t* value,
                        uint32_t value_len, uint64_t* seen) noexcept nogil:
    """List a field; `readable` bytes may be read from its name. NULL: there are too many."""
    cdef fields_t* fields = &head.fields
    cdef uint64_t first = 0, last = 0
    cdef field_t* f
    if fields.count >= MAX_FIELDS:
        fields.overflow = 1
        return NULL
    f = &fields.items[fields.count]
    fields.count += 1
    f.name = name
    f.name_len = name_len
    f.value = value
    f.value_len = value_len
    f.plain_name = not bad_name(name, name_len)
    f.plain_value = plain(value, value_len)
    if not f.plain_name:
        head.bad |= BAD_NAME
    if (not f.plain_value or (value_len and (value[0] == c' ' or value[value_len - 1] == c' '))) and bad_value(
            value, value_len):
        head.bad |= BAD_VALUE
    name_words(name, name_len, readable, &first, &last)
    f.id = field_id_of(first, last, name_len, name) if f.plain_name else F_OTHER
    note_repeats(fields, f, field_hash(name, name_len, first, last), seen)
    return f


cdef void read_pseudo(head_t* head, const hpack_field_t* f, uint64_t* seen) noexcept nogil:
    cdef uint8_t which = pseudo_of(f.name, f.name_len)
    if which == 0 or head.pseudo & which or head.fields.count > head.named:
        head.bad |= BAD_PSEUDO
        if which == 0 or head.pseudo & which:
            return
    head.pseudo |= which
    if f.unknown & HPACK_VALUE:
        head.pseudo_unknown |= which
        return
    if bad_value(f.value, f.value_len):
        head.bad |= BAD_VALUE
    if which == PSEUDO_METHOD:
        head.request.method = f.value
        head.request.method_len = f.value_len
    elif which == PSEUDO_PATH:
        head.request.target = f.value
        head.request.target_len = f.value_len
    elif which == PSEUDO_STATUS:
        head.response.reason = f.value
        head.response.reason_len = f.value_len
        head.response.status = status_of(f.value, f.value_len)
        if head.response.status == 0:
            head.bad |= BAD_PSEUDO
    elif which == PSEUDO_PROTOCOL:
        head.websocket = f.value_len == 9 and same_name(f.value, b"websocket", 9)
    elif which == PSEUDO_AUTHORITY:
        # as the field that HTTP/1 has for it (section 8.3.1)
        if new_field(head, <const uint8_t*>HOST_NAME, 4, 16, f.value, f.value_len, seen) != NULL:
            head.named = 1


cdef void read_fields(head_t* head, const hpack_field_t* found, int count, bint overflow, const void* end) noexcept nogil:
    """`count` fields, whose texts end at `end`."""
    cdef uint64_t[4] seen
    cdef const hpack_field_t* f
    cdef field_t* listed
    cdef int i
    memset(seen, 0, sizeof(seen))
    memset(head, 0, sizeof(head_t) - sizeof(fields_t))
    memset(&head.fields, 0, sizeof(fields_t) - sizeof(head.fields.items))
    head.fields.end = <const uint8_t*>end
    head.fields.overflow = overflow
    head.request.method = head.request.target = head.response.reason = <const uint8_t*>HOST_NAME + 4     # empty
    head.request.version = <const uint8_t*>b"HTTP/2.0"
    head.request.version_len = 8
    for i in range(count):
        f = &found[i]
        if f.unknown & HPACK_NAME:
            head.unknown += 1
            continue
        if f.name_len and f.name[0] == c':':
            read_pseudo(head, f, seen)
            continue
        if of_connections(f.name, f.name_len, f):
            head.bad |= BAD_CONNECTION
        if f.unknown & HPACK_VALUE:
            head.unknown += 1
            continue
        if head.named and is_text(f.name, f.name_len, b"host", 4):
            if not (f.value_len == head.fields.items[0].value_len
                    and same_text(f.value, head.fields.items[0].value, f.value_len)):
                head.bad |= BAD_HOST
                new_field(head, f.name, f.name_len, <size_t>(head.fields.end - f.name), f.value, f.value_len, seen)
            continue
        listed = new_field(head, f.name, f.name_len, <size_t>(head.fields.end - f.name), f.value, f.value_len, seen)
        if listed != NULL and listed.id == F_CONTENT_LENGTH:
            read_length(head, f)
    head.fields.unknown = head.unknown != 0 or head.pseudo_unknown & PSEUDO_AUTHORITY != 0
    for i in range(<int>head.fields.count):
        listed = &head.fields.items[i]
        if listed.id == F_HOST:
            if head.fields.host == NULL:
                head.fields.host = listed
            else:
                head.bad |= BAD_HOST
        elif listed.id == F_CONTENT_TYPE:
            head.fields.content_type = listed
        elif listed.id == F_CONTENT_ENCODING:
            head.fields.content_encoding = 1
    if head.request.target_len == 0 and is_text(head.request.method, head.request.method_len, b"CONNECT", 7):
        if head.fields.host != NULL:    # section 8.5
            head.request.target = head.fields.host.value
            head.request.target_len = head.fields.host.value_len
