"""The fields of a record, as it leaves: one pass over its line.

A record is an object whose values are all strings (docs/records.md), written by our own encoder, so there is no nesting to
follow. Fields that are not looked for cost the search for the end of their string, sixteen bytes a step.
"""

from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memchr, memcmp, strlen

cdef extern from "eyes/string_end.h" nogil:
    const uint8_t* string_end(const uint8_t* p, const uint8_t* end)

cdef enum:
    LONGEST_NAME = 40

FIELD_NAMES[F_START] = b"startTimeMs"
FIELD_NAMES[F_DIRECTION] = b"direction"
FIELD_NAMES[F_PROCESS_ID] = b"process_id"
FIELD_NAMES[F_PROCESS_NAME] = b"process_name"
FIELD_NAMES[F_METHOD] = b"method"
FIELD_NAMES[F_PATH] = b"path"
FIELD_NAMES[F_STATUS] = b"statusCode"
FIELD_NAMES[F_DURATION] = b"durationMs"
FIELD_NAMES[F_REQUEST_SIZE] = b"requestSize"
FIELD_NAMES[F_RESPONSE_SIZE] = b"responseSize"
FIELD_NAMES[F_PROTOCOL] = b"protocol"
FIELD_NAMES[F_PART] = b"part"
FIELD_NAMES[F_MARKS] = b"marks"
FIELD_NAMES[F_HEADERS] = b"requestHeaders"

cdef uint8_t[41] wanted_lengths     # is there a field with a name of so many bytes?
for _i in range(LONGEST_NAME + 1):
    wanted_lengths[_i] = 0
for _i in range(FIELDS):
    FIELD_LENGTHS[_i] = strlen(FIELD_NAMES[_i])
    wanted_lengths[FIELD_LENGTHS[_i]] = 1


cdef bint scan(const uint8_t* p, const uint8_t* end, seen_t* out) noexcept nogil:
    """Find the fields of the record from p to `end`, its newline aside. False: it is none."""
    cdef const uint8_t* name
    cdef const uint8_t* stop
    cdef size_t n, i
    for i in range(FIELDS):
        out.field[i].p = NULL
        out.field[i].n = 0
    out.host.p = NULL
    out.host.n = 0
    if p == end or p[0] != c'{':
        return False
    while True:
        p += 1
        if end - p < 2 or p[0] != c'"':
            return False
        name = p + 1
        p = <const uint8_t*>memchr(name, c'"', <size_t>(end - name))
        if p == NULL or end - p < 4 or p[1] != c':' or p[2] != c'"':
            return False
        n = <size_t>(p - name)
        p += 3
        stop = string_end(p, end)
        if stop == NULL or end - stop < 2:
            return False
        if n <= LONGEST_NAME and wanted_lengths[n]:
            for i in range(FIELDS):
                if FIELD_LENGTHS[i] == n and memcmp(FIELD_NAMES[i], name, n) == 0:
                    out.field[i].p = p
                    out.field[i].n = <size_t>(stop - p)
                    break
        p = stop + 1
        if p[0] != c',':
            break
    find_host(&out.field[F_HEADERS], &out.host)
    return p[0] == c'}'


cdef void find_host(const text_t* headers, text_t* host) noexcept nogil:
    """The value of `host`, which every request has, in an object of JSON that is the text of a string. Inside that object's
    strings a quote has three backslashes before it, so what is found here is a name."""
    cdef const uint8_t* p = headers.p
    cdef const uint8_t* end = headers.p + headers.n
    cdef const uint8_t* start
    cdef const uint8_t* before
    while end - p >= 12:
        p = <const uint8_t*>memchr(p, c'h', <size_t>(end - p) - 11)
        if p == NULL:
            return
        before = p - 3
        if (p - headers.p >= 3 and memcmp(before + 1, b'\\"host\\":\\"', 11) == 0
                and (before[0] == c',' or before[0] == c'{')):
            p += 9
            start = p
            while p < end:
                if p[0] != c'\\':
                    p += 1
                elif end - p > 1 and p[1] == c'"':
                    break
                else:       # an escape of that object: its backslash is escaped, and what it escapes may be, too
                    p += 2
                    p += 2 if p < end and p[0] == c'\\' else 1
            host.p = start
            host.n = <size_t>((p if p < end else end) - start)
            return
        p += 1


cdef uint64_t number_of(const text_t* text) noexcept nogil:
    """The number in decimal, without its point: of `durationMs`, which has three decimals, microseconds."""
    cdef uint64_t value = 0
    cdef size_t i
    for i in range(text.n):
        if c'0' <= text.p[i] <= c'9':
            value = value * 10 + (text.p[i] - c'0')
    return value


def fields(const uint8_t[::1] line not None):
    """{name: value as it is escaped} of the fields that viewers go by, and `host`; None for what is no record. For tests."""
    cdef seen_t seen
    cdef size_t i
    if line.shape[0] == 0 or not scan(&line[0], &line[0] + line.shape[0], &seen):
        return None
    found = {FIELD_NAMES[i].decode(): (<const char*>seen.field[i].p)[:seen.field[i].n]
             for i in range(FIELDS) if seen.field[i].p != NULL}
    if seen.host.p != NULL:
        found["host"] = (<const char*>seen.host.p)[:seen.host.n]
    return found
