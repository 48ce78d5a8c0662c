"""The fields of a record, as it leaves; see scan.pyx."""

from libc.stdint cimport uint8_t, uint64_t


cdef enum:  # the fields that viewers go by, in the order in which `tail` shows them
    F_START = 0
    F_DIRECTION
    F_PROCESS_ID
    F_PROCESS_NAME
    F_METHOD
    F_PATH
    F_STATUS
    F_DURATION
    F_REQUEST_SIZE
    F_RESPONSE_SIZE
    F_PROTOCOL
    F_PART
    F_MARKS
    F_HEADERS            # the request's, for `host`
    FIELDS

cdef struct text_t:      # a value of JSON without its quotes, as it is escaped; NULL: it is not there
    const uint8_t* p
    size_t n

cdef struct seen_t:
    text_t field[14]
    text_t host          # out of the request's headers

cdef const char* FIELD_NAMES[14]
cdef size_t FIELD_LENGTHS[14]

cdef bint scan(const uint8_t* p, const uint8_t* end, seen_t* out) noexcept nogil
cdef uint64_t number_of(const text_t* text) noexcept nogil


cdef inline size_t unit(const uint8_t* p, const uint8_t* end) noexcept nogil:
    """Bytes of the character at p, or of its escape, which must not be divided. At least 1, at most what is there."""
    cdef size_t n = 1
    if p[0] == c'\\':
        n = 6 if end - p > 1 and p[1] == c'u' else 2
    elif p[0] >= 0xF0:
        n = 4
    elif p[0] >= 0xE0:
        n = 3
    elif p[0] >= 0xC0:
        n = 2
    return n if n <= <size_t>(end - p) else <size_t>(end - p)


cdef inline size_t prefix(const text_t* text, size_t most) noexcept nogil:
    """Bytes of the longest beginning of at most ``most`` bytes that ends behind a whole character."""
    cdef const uint8_t* p = text.p
    cdef const uint8_t* end = text.p + text.n
    cdef size_t n
    if text.n <= most:
        return text.n
    while True:
        n = unit(p, end)
        if <size_t>(p - text.p) + n > most:
            return <size_t>(p - text.p)
        p += n
