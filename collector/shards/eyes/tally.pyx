"""Sums of requests by process, host and endpoint, for `collector top`: counts, bytes and a histogram of durations.

Bounded: ROWS rows. When all are taken, the one with the fewest requests among EVICT_LOOKS of them goes into the row of the
others, and gives its place to the newcomer: what is frequent stays, a flood of paths that come once goes by, and the sums
over all rows are exact. Durations fall into buckets an eighth of an octave wide, so that a percentile is at most 6 % off.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset

from cpython.bytes cimport PyBytes_FromStringAndSize

from collector.shards.eyes.scan cimport (
    F_DIRECTION, F_DURATION, F_MARKS, F_METHOD, F_PART, F_PATH, F_PROCESS_NAME, F_REQUEST_SIZE, F_RESPONSE_SIZE, F_STATUS,
    number_of, prefix, seen_t, text_t)
from collector.shards.folding cimport fold
from collector.shards.memory cimport buf_free, buf_reserve, buf_t, pool_t
from collector.shards.records.text cimport put_text, put_u64

cdef extern from *:
    int __builtin_clzll(unsigned long long) nogil

cdef enum:
    EVICT_LOOKS = 8
    MOST_OCTAVE = 39     # of microseconds: six days
    NUMBERS_BYTES = 7 * 21 + 32
    CHARACTER_BYTES = 6      # the longest one: an escape, \u001f

DURATION_BUCKETS = BUCKETS


cdef inline uint32_t bucket_of(uint64_t us) noexcept nogil:
    """Up to 7 us each number has its own; from then on each octave has eight."""
    cdef uint32_t octave
    if us < 8:
        return <uint32_t>us
    octave = 63 - <uint32_t>__builtin_clzll(us)
    if octave > MOST_OCTAVE:
        return BUCKETS - 1
    return (octave - 2) * 8 + <uint32_t>(us >> (octave - 3) & 7)


cdef inline uint32_t hash_of(const row_t* row) noexcept nogil:
    """FNV-1a, and the lengths, so that no two keys of the same bytes meet."""
    cdef uint32_t value = 2166136261u ^ row.direction
    cdef uint32_t i
    for i in range(row.key_len):
        value = (value ^ row.key[i]) * 16777619u
    return (value ^ row.process_len ^ <uint32_t>row.host_len << 8) * 16777619u


cdef inline void put_part(row_t* row, const text_t* text, size_t most) noexcept nogil:
    cdef size_t n
    if text.p != NULL:
        n = prefix(text, most)
        memcpy(&row.key[row.key_len], text.p, n)
        row.key_len += <uint16_t>n


cdef inline void put_path(row_t* row, const text_t* path) noexcept nogil:
    """The folded path. One character more than fits is asked for, so that none before the cut is divided."""
    cdef uint8_t[PATH_BYTES + CHARACTER_BYTES] out
    cdef text_t folded
    if path.p != NULL:
        folded.p = &out[0]
        folded.n = fold(path.p, path.p + path.n, &out[0], PATH_BYTES + CHARACTER_BYTES)
        put_part(row, &folded, PATH_BYTES)


cdef void put_key(row_t* row, const seen_t* seen) noexcept nogil:
    """What the record is counted under."""
    row.key_len = 0
    row.direction = seen.field[F_DIRECTION].p[0] if seen.field[F_DIRECTION].n else c'0'
    put_part(row, &seen.field[F_PROCESS_NAME], PROCESS_BYTES)
    row.process_len = row.key_len
    put_part(row, &seen.host, HOST_BYTES)
    row.host_len = row.key_len - row.process_len
    put_part(row, &seen.field[F_METHOD], METHOD_BYTES)
    row.key[row.key_len] = c' '
    row.key_len += 1
    put_path(row, &seen.field[F_PATH])


cdef class Tally:
    """One shard's sums since the last `take`. Not thread-safe. Raises MemoryError."""

    def __cinit__(self):
        self.rows = <row_t*>calloc(ROWS, sizeof(row_t))
        if self.rows == NULL:
            raise MemoryError
        self.clear()

    def __dealloc__(self):
        free(self.rows)

    cdef void add(self, const seen_t* seen) noexcept:
        """Count a record. Parts of one exchange are one request, and their durations are no latency."""
        cdef row_t wanted
        cdef row_t* row
        cdef const text_t* status = &seen.field[F_STATUS]
        cdef const text_t* part = &seen.field[F_PART]
        put_key(&wanted, seen)
        wanted.hash = hash_of(&wanted)
        row = self.row(&wanted)
        self.exchanges += 1
        row.request_bytes += number_of(&seen.field[F_REQUEST_SIZE])
        row.response_bytes += number_of(&seen.field[F_RESPONSE_SIZE])
        row.marked += seen.field[F_MARKS].n > 2
        if part.n and (part.n > 1 or part.p[0] != c'1'):
            return
        row.requests += 1
        if status.n == 3:
            row.client_errors += status.p[0] == c'4'
            row.server_errors += status.p[0] == c'5'
        elif status.n == 1 and status.p[0] == c'0':
            row.unanswered += 1
            return
        if part.n == 0:
            row.durations[bucket_of(number_of(&seen.field[F_DURATION]))] += 1

    cdef row_t* row(self, const row_t* wanted) noexcept:
        """The row with the key of ``wanted``; a new one if there is none."""
        cdef uint16_t* head = &self.heads[wanted.hash & (HEADS - 1)]
        cdef uint16_t at = head[0]
        cdef row_t* row
        while at != NO_ROW:
            row = &self.rows[at]
            if (row.hash == wanted.hash and row.key_len == wanted.key_len and row.process_len == wanted.process_len
                    and row.host_len == wanted.host_len and row.direction == wanted.direction
                    and memcmp(&row.key[0], &wanted.key[0], row.key_len) == 0):
                return row
            at = row.next
        if self.count < ROWS:
            at = <uint16_t>self.count
            self.count += 1
        else:
            at = self.evict()
        row = &self.rows[at]
        memset(row, 0, sizeof(row_t))
        row.hash = wanted.hash
        row.key_len = wanted.key_len
        row.process_len = wanted.process_len
        row.host_len = wanted.host_len
        row.direction = wanted.direction
        memcpy(&row.key[0], &wanted.key[0], wanted.key_len)
        row.next = head[0]
        head[0] = at
        return row

    cdef uint16_t evict(self) noexcept:
        """The number of a row that was given up, for its few requests, to the row of the others."""
        cdef uint32_t at, i, _look, best = 0
        cdef row_t* other = self.rows
        cdef row_t* row
        cdef uint16_t* link
        for _look in range(EVICT_LOOKS):
            self.sweep = self.sweep % (ROWS - 1) + 1
            at = self.sweep
            if best == 0 or self.rows[at].requests < self.rows[best].requests:
                best = at
        row = &self.rows[best]
        link = &self.heads[row.hash & (HEADS - 1)]
        while link[0] != best:
            link = &self.rows[link[0]].next
        link[0] = row.next
        other.requests += row.requests
        other.client_errors += row.client_errors
        other.server_errors += row.server_errors
        other.unanswered += row.unanswered
        other.marked += row.marked
        other.request_bytes += row.request_bytes
        other.response_bytes += row.response_bytes
        for i in range(BUCKETS):
            other.durations[i] += row.durations[i]
        return <uint16_t>best

    cdef void clear(self) noexcept:
        memset(self.rows, 0, sizeof(row_t))
        memset(&self.heads[0], 0xFF, sizeof(self.heads))
        self.count = 1
        self.exchanges = 0

    def take(self):
        """[(row, records in it)] and begin anew. A row is JSON: [process, direction, host, endpoint, requests, 4xx, 5xx,
        unanswered, marked, bytes of requests, bytes of responses, [bucket, requests, ...]]. The others' names are empty, and
        their direction is 0."""
        cdef uint32_t i
        cdef list out = []
        for i in range(self.count):
            if self.rows[i].requests or self.rows[i].request_bytes or self.rows[i].response_bytes or self.rows[i].marked:
                out.append((written(&self.rows[i]), self.rows[i].requests))
        self.clear()
        return out


cdef bytes written(const row_t* row):
    """The row as JSON; its texts are escaped already."""
    cdef pool_t pool
    cdef buf_t line
    cdef char* out
    cdef uint32_t i
    cdef bint first
    cdef bytes text
    cdef uint64_t[7] numbers
    numbers = [row.requests, row.client_errors, row.server_errors, row.unanswered, row.marked, row.request_bytes,
               row.response_bytes]
    pool.bytes = 0
    memset(&line, 0, sizeof(buf_t))
    if buf_reserve(&pool, &line, <size_t>row.key_len + NUMBERS_BYTES + BUCKETS * 16) < 0:
        raise MemoryError
    out = put_text(line.data, b'["')
    memcpy(out, &row.key[0], row.process_len)
    out = put_text(out + row.process_len, b'",')
    out = put_u64(out, row.direction - c'0' if row.direction else 0)
    out = put_text(out, b',"')
    memcpy(out, &row.key[row.process_len], row.host_len)
    out = put_text(out + row.host_len, b'","')
    i = row.process_len + row.host_len
    memcpy(out, &row.key[i], row.key_len - i)
    out = put_text(out + (row.key_len - i), b'"')
    for i in range(7):
        out = put_u64(put_text(out, b','), numbers[i])
    out = put_text(out, b',[')
    first = True
    for i in range(BUCKETS):
        if row.durations[i]:
            if not first:
                out = put_text(out, b',')
            first = False
            out = put_u64(out, i)
            out = put_u64(put_text(out, b','), row.durations[i])
    out = put_text(out, b']]\n')
    text = PyBytes_FromStringAndSize(line.data, out - line.data)
    buf_free(&pool, &line)
    return text
