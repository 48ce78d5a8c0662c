"""What a head that is written as JSON text (text.pyx) says: for rules that come when the fields themselves are gone.

Only what stands there as it was on the wire is read. A text with an escape, or with a byte that is no ASCII, counts as not
known: whoever asks takes it for what it may be.
"""

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcmp

from collector.shards.http.fields cimport same_name
from collector.shards.memory cimport buf_t

cdef extern from "<string.h>" nogil:
    void* memmem(const void* haystack, size_t haystack_len, const void* needle, size_t needle_len)


cdef piece_t plain(const uint8_t* p, const uint8_t* end) noexcept nogil:
    """These bytes, unless one of them is written otherwise than it was."""
    cdef piece_t out
    cdef const uint8_t* q = p
    out.p = p
    out.n = <uint32_t>(end - p)
    while q < end:
        if q[0] == c'\\' or q[0] >= 0x80:
            out.p = NULL
            out.n = 0
            break
        q += 1
    return out


cdef piece_t written_text(const buf_t* head, const char* before, uint32_t n) noexcept nogil:
    """The text that begins behind `before`, which ends with its quote."""
    cdef const uint8_t* end
    cdef const uint8_t* p = NULL
    cdef const uint8_t* q
    if head.len:
        p = <const uint8_t*>memmem(head.data, head.len, before, n)
    if p == NULL:
        return plain(NULL, NULL)
    end = <const uint8_t*>head.data + head.len
    p += n
    q = p
    while q < end and q[0] != c'"':
        q += 2 if q[0] == c'\\' else 1
    return plain(p, q if q < end else end)


cdef const uint8_t* end_of_text(const uint8_t* p, const uint8_t* end) noexcept nogil:
    """Where the text ends that begins at p, inside a text: at a quote behind one backslash. A quote of its own is behind
    three, a backslash of its own is four."""
    cdef uint32_t slashes = 0
    while p < end:
        if p[0] == c'\\':
            slashes += 1
        elif p[0] == c'"' and slashes & 3 == 1:
            return p - 1
        else:
            slashes = 0
        p += 1
    return NULL


cdef piece_t written_field(const buf_t* head, const char* name, uint32_t n) noexcept nogil:
    """The value of a header field, `name` being lower case; empty where there is none."""
    cdef const uint8_t* end
    cdef const uint8_t* p = NULL
    cdef const uint8_t* stop
    cdef bint found
    if head.len:
        p = <const uint8_t*>memmem(head.data, head.len, b'Headers":"{', 11)
    if p == NULL:
        return plain(NULL, NULL)
    end = <const uint8_t*>head.data + head.len
    p += 11
    while end - p > 2 and memcmp(p, b'\\"', 2) == 0:
        p += 2
        stop = end_of_text(p, end)
        if stop == NULL:
            return plain(NULL, NULL)
        found = stop - p == n and same_name(p, name, n)
        p = stop + 5            # \":\"
        stop = end_of_text(p, end) if p < end else NULL
        if stop == NULL:
            return plain(NULL, NULL)
        if found:
            return plain(p, stop)
        p = stop + 3            # \",
    return plain(end, end)


def text_of(head not None, before not None):
    """For tests: as written_text, None where it is not known."""
    cdef buf_t buf
    cdef bytes what = head, mark = before
    cdef piece_t out
    buf.data = <char*>what
    buf.len = <uint32_t>len(what)
    out = written_text(&buf, mark, <uint32_t>len(mark))
    return None if out.p == NULL else (<const char*>out.p)[:out.n]


def field_of(head not None, name not None):
    """For tests: as written_field, None where it is not known."""
    cdef buf_t buf
    cdef bytes what = head, wanted = name
    cdef piece_t out
    buf.data = <char*>what
    buf.len = <uint32_t>len(what)
    out = written_field(&buf, wanted, <uint32_t>len(wanted))
    return None if out.p == NULL else (<const char*>out.p)[:out.n]
