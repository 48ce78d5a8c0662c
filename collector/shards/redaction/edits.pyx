"""Parts of a text replaced: what is between them is copied when the next one comes, and nothing if there is none."""

from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcmp, memcpy, memset

from collector.shards.records.text cimport put_u64
from collector.shards.redaction.state cimport *

cdef enum:
    LEAST_BYTES = 512
    MOST_BYTES = 1 << 28


cdef void edits_begin(edits_t* e, const uint8_t* p, const uint8_t* end, bint cut, int depth) noexcept nogil:
    """A new text; the memory of the last one is used again."""
    e.begin = e.done = p
    e.end = end
    e.len = 0
    e.count = 0
    e.failed = 0
    e.cut = cut
    e.depth = <uint8_t>depth
    e.same_size = 0
    e.kept = NULL
    e.kept_many = 0


cdef void edits_ruled(const redaction_t* r, edits_t* e, ruled_t what, const uint8_t* name, size_t name_len) noexcept:
    """Let the rules in force settle what they say something of, before anything else does. The text may be another one
    then."""
    cdef bytes text
    cdef const unsigned int[::1] kept
    try:
        found = (<object>r.owner).settled(what, b"" if name == NULL else name[:name_len], e.begin[:e.end - e.begin])
        if found is None:
            return
        text, kept, count = found
        e.begin = e.done = e.text = <const uint8_t*><const char*>text
        e.end = e.begin + len(text)
        e.kept = &kept[0]
        e.kept_many = <uint32_t>kept.shape[0]
        e.count = <uint32_t>count
    except Exception:
        e.failed = 1


cdef bint is_kept(const edits_t* e, const uint8_t* p, const uint8_t* end) noexcept nogil:
    cdef uint32_t i
    for i in range(0, e.kept_many, 2):
        if e.text + e.kept[i] < end and p < e.text + e.kept[i + 1]:
            return True
    return False


cdef void edits_free(edits_t* e) noexcept nogil:
    free(e.data)
    memset(e, 0, sizeof(edits_t))


cdef char* room(edits_t* e, size_t more) noexcept nogil:
    """For so many bytes, at e.data + e.len; NULL when memory is out."""
    cdef size_t cap = e.cap
    cdef char* p
    if e.cap - e.len >= more:
        return e.data + e.len
    if e.len + more > MOST_BYTES:
        e.failed = 1
        return NULL
    if cap < LEAST_BYTES:
        cap = LEAST_BYTES
    while cap < e.len + more:
        cap += cap >> 1
    p = <char*>realloc(e.data, cap)
    if p == NULL:
        e.failed = 1
        return NULL
    e.data = p
    e.cap = cap
    return p + e.len


cdef void replace_with(edits_t* e, const uint8_t* p, const uint8_t* end, const char* text, size_t n) noexcept nogil:
    """What is from `p` to `end` becomes `text`. Parts come in their order; what overlaps an earlier one is left out."""
    cdef size_t before
    cdef char* out
    if p < e.done:
        p = e.done
        if end <= p:
            return
    before = <size_t>(p - e.done)
    out = room(e, before + n)
    if out == NULL:
        return
    memcpy(out, e.done, before)
    memcpy(out + before, text, n)
    e.len += before + n
    e.done = end
    e.count += 1


cdef bint is_redacted(const uint8_t* p, size_t n) noexcept nogil:
    """Was it replaced before? By nothing but that: `[redacted:KIND]`, `[redacted:KIND:HASH]`, `[string:12]`."""
    cdef size_t i
    if n < 10 or p[0] != c'[' or p[n - 1] != c']':
        return False
    if not (n < 64 and memcmp(p, b"[redacted:", 10) == 0) and not (n < 24 and memcmp(p, b"[string:", 8) == 0):
        return False
    for i in range(1, n - 1):
        if not (p[i] >= c'a' and p[i] <= c'z' or p[i] >= c'0' and p[i] <= c'9' or p[i] == c':' or p[i] == c'_'
                or p[i] == c'-'):
            return False
    return True


cdef void replace(const redaction_t* r, edits_t* e, const uint8_t* p, const uint8_t* end, uint32_t kind,
                  const uint8_t* quote, size_t quote_len) noexcept:
    """A secret value becomes its kind, or its kind and keyed hash; with `quote` around it, where it had none."""
    cdef bytes text
    cdef const char* data
    if end <= p or end <= e.done or is_redacted(p, <size_t>(end - p)) or (e.kept_many and is_kept(e, p, end)):
        return
    if e.same_size:
        stars(e, p, end)
        return
    if not r.keyed and quote_len == 0:
        replace_with(e, p, end, r.kind_text[kind], r.kind_length[kind])
        return
    try:
        text = (<object>r.owner).replacement(kind, p[:end - p])
        if quote_len:
            text = quote[:quote_len] + text + quote[:quote_len]
    except Exception:
        e.failed = 1
        return
    data = text
    replace_with(e, p, end, data, <size_t>len(text))


cdef void stars(edits_t* e, const uint8_t* p, const uint8_t* end) noexcept nogil:
    """Bytes of what is no text become as many asterisks: lengths stay right."""
    cdef size_t before
    cdef char* out
    if p < e.done:
        p = e.done
    before = <size_t>(p - e.done)
    out = room(e, <size_t>(end - e.done))
    if out == NULL:
        return
    memcpy(out, e.done, before)
    memset(out + before, c'*', <size_t>(end - p))
    e.len += <size_t>(end - e.done)
    e.done = end
    e.count += 1


cdef void replace_size(edits_t* e, const uint8_t* p, const uint8_t* end, const char* what, bint quoted) noexcept nogil:
    """A value becomes its type and length in bytes: `[string:12]`."""
    cdef char[64] text
    cdef char* out = text
    cdef const char* w = what
    if is_redacted(p, <size_t>(end - p)) or (e.kept_many and is_kept(e, p, end)):
        return
    if quoted:
        out[0] = c'"'
        out += 1
    out[0] = c'['
    out += 1
    while w[0]:
        out[0] = w[0]
        out += 1
        w += 1
    out[0] = c':'
    out = put_u64(out + 1, <size_t>(end - p))
    out[0] = c']'
    out += 1
    if quoted:
        out[0] = c'"'
        out += 1
    replace_with(e, p, end, text, <size_t>(out - text))


cdef bint edits_end(edits_t* e) noexcept nogil:
    """All of the text was seen: is it another one now? Then it is e.data, e.len bytes."""
    cdef size_t rest = <size_t>(e.end - e.done)
    cdef char* out
    if e.count == 0:
        return False
    out = room(e, rest)
    if out == NULL:
        return True
    memcpy(out, e.done, rest)
    e.len += rest
    e.done = e.end
    return True
