"""What an endpoint is: direction, host, method and path, the path without its query and with its identifiers folded.

A segment of a path is an identifier by its form alone; docs/policy.md has the list for users. Pieces are what stands
between the separators `- _ . , : ~ + =`.

    form                                            stands for
    digits and separators only (1)                  numbers, dates, times, lists of numbers, IPv4 addresses
    five digits in a row                            order-12345, 20261127T101500Z
    a piece of 8 or more hexadecimal digits,        hashes, object ids, UUIDs, main.3f2a1b9c.js
      one of them 0 to 9
    10 or more bytes, a piece of which changes      ULIDs, KSUIDs, nanoids, base64url, 2026-11-27T10:15Z
      between letters and digits twice or more
    `@` inside, or its %40                          e-mail addresses
    percent-encoded bytes                           free text: names, search words
    more than 64 bytes                              tokens

(1) With a dot five digits at least: `1.1` in a path is the version of an API.

Every byte of a path is looked at three times at most, those of a name without a digit twice; nothing is allocated. An
endpoint is known by a hash of 64 bits, which begins with a seed that a client does not know, so that nobody can make two
endpoints meet.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from collector.shards.http.fields cimport fields_t, request_t, same_name

cdef enum:
    LONGEST = 64            # bytes of a segment that is a name
    DIGITS_IN_A_ROW = 5
    HEX_DIGITS = 8
    MIXED_BYTES = 10        # of a segment in which letters and digits take turns
    NOT_HEX = -LONGEST      # added to a piece's hexadecimal digits: it never has enough of them then

cdef enum:  # what a byte of a path is; bits, so that what a segment has is their sum
    OTHER = 0
    DIGIT = 1
    HEX = 2
    LETTER = 4
    SEPARATOR = 8
    AT = 16
    PERCENT = 32
    SEMICOLON = 64
    END = 128
    TELLING = DIGIT | AT | PERCENT      # no identifier is without one of these

cdef uint64_t MULTIPLIER = 0x9E3779B97F4A7C15ULL
cdef uint64_t FOLDED = 0xD6E8FEB86659FD93ULL       # in place of a segment
cdef uint64_t LOWER = 0x2020202020202020ULL
cdef uint8_t[256] KIND


cdef void _fill() noexcept:
    cdef uint32_t i
    for i in range(256):
        KIND[i] = OTHER
    for i in range(10):
        KIND[c'0' + i] = DIGIT
    for i in range(26):
        KIND[c'a' + i] = KIND[c'A' + i] = HEX if i < 6 else LETTER
    for i in b"-_.,:~+=":
        KIND[i] = SEPARATOR
    for i in b"/?#":
        KIND[i] = END
    KIND[c';'] = SEMICOLON
    KIND[c'@'] = AT
    KIND[c'%'] = PERCENT

_fill()


cdef bint is_identifier(const uint8_t* p, size_t n) noexcept nogil:
    """Is this segment an identifier, by the forms above?"""
    cdef size_t i
    cdef uint8_t kind, last = OTHER
    cdef int digits = 0, in_a_row = 0, hexes = 0, changes = 0
    cdef bint letters = False, dot = False, digit_in_piece = False
    if n > LONGEST:
        return True
    for i in range(n):
        kind = KIND[p[i]]
        if kind == DIGIT:
            digits += 1
            in_a_row += 1
            if in_a_row == DIGITS_IN_A_ROW:
                return True
            hexes += 1
            digit_in_piece = True
            changes += last == LETTER
            last = DIGIT
        elif kind == HEX or kind == LETTER:
            letters = True
            in_a_row = 0
            hexes += 1 if kind == HEX else NOT_HEX
            changes += last == DIGIT
            last = LETTER
        elif kind == SEPARATOR:
            if (digit_in_piece and hexes >= HEX_DIGITS) or (changes >= 2 and n >= MIXED_BYTES):
                return True
            dot = dot or p[i] == c'.'
            in_a_row = hexes = changes = 0
            digit_in_piece = False
            last = OTHER
        elif kind == PERCENT or (kind == AT and i != 0 and i + 1 != n):
            return True
        else:
            letters = True
            in_a_row = 0
            hexes += NOT_HEX
            last = OTHER
    if (digit_in_piece and hexes >= HEX_DIGITS) or (changes >= 2 and n >= MIXED_BYTES):
        return True
    return digits != 0 and not letters and (digits >= DIGITS_IN_A_ROW or not dot)


cdef inline uint64_t word_at(const uint8_t* p, size_t n) noexcept nogil:
    """The `n` bytes at p, at most 8, as a number."""
    cdef uint64_t word = 0
    cdef uint32_t first, last
    if n == 8:
        memcpy(&word, p, 8)
        return word
    if n >= 4:
        memcpy(&first, p, 4)
        memcpy(&last, p + n - 4, 4)
        return <uint64_t>first << 32 | last
    if n:
        word = <uint64_t>p[0] << 16 | <uint64_t>p[n >> 1] << 8 | p[n - 1]
    return word


cdef inline uint64_t hash_words(uint64_t h, const uint8_t* p, size_t n, uint64_t lower) noexcept nogil:
    cdef size_t i = 0
    if n <= 8:
        return mix(h ^ (word_at(p, n) | lower), MULTIPLIER ^ n)
    while n - i > 8:
        h = mix(h ^ (word_at(p + i, 8) | lower), MULTIPLIER)
        i += 8
    return mix(h ^ (word_at(p + n - 8, 8) | lower), MULTIPLIER ^ n)


cdef uint64_t hash_text(uint64_t h, const uint8_t* p, size_t n) noexcept nogil:
    """`n` bytes at p, after what gave `h`."""
    return hash_words(h, p, n, 0)


cdef inline const uint8_t* end_of(const uint8_t* p, const uint8_t* end) noexcept nogil:
    """The end of what stands before the path."""
    while p < end and KIND[p[0]] != END:
        p += 1
    return p


cdef inline const uint8_t* read_segment(const uint8_t* p, const uint8_t* end, size_t* n, bint* folded) noexcept nogil:
    """The segment at p: where it ends, its length without what follows `;` (RFC 3986 section 3.3: sessions, mostly), and
    whether it is an identifier."""
    cdef const uint8_t* stop = p
    cdef uint8_t kind, has = 0
    cdef size_t i
    while stop < end:
        kind = KIND[stop[0]]
        if kind == END:
            break
        has |= kind
        stop += 1
    n[0] = <size_t>(stop - p)
    if has & SEMICOLON:
        for i in range(n[0]):
            if p[i] == c';':
                n[0] = i
                break
    folded[0] = (has & TELLING or n[0] > LONGEST) and is_identifier(p, n[0])
    return stop


cdef inline const uint8_t* path_of(const uint8_t* p, const uint8_t* end, const uint8_t** host,
                                   size_t* host_len) noexcept nogil:
    """Where the path of a target begins; an absolute one (RFC 9112 section 3.2.2) has a host before it."""
    cdef size_t n = <size_t>(end - p)
    host_len[0] = 0
    if not ((n > 7 and same_name(p, b"http://", 7)) or (n > 8 and same_name(p, b"https://", 8))):
        return p
    p += 7 if p[4] == c':' else 8
    host[0] = p
    p = end_of(p, end)
    host_len[0] = <size_t>(p - host[0])
    return p


cdef uint64_t endpoint_of(uint64_t seed, uint32_t direction, const request_t* request,
                          const fields_t* fields) noexcept nogil:
    """The number of a request's endpoint: the same for the same direction, host (in any case), method and folded path."""
    cdef const uint8_t* end = request.target + request.target_len
    cdef const uint8_t* host = NULL
    cdef const uint8_t* p
    cdef const uint8_t* stop
    cdef size_t n
    cdef bint folded
    cdef uint64_t h = hash_text(seed ^ direction, request.method, request.method_len)
    p = path_of(request.target, end, &host, &n)
    if fields.host != NULL:
        host = fields.host.value
        n = fields.host.value_len
    h = hash_words(h, host, n, LOWER)
    while True:
        stop = read_segment(p, end, &n, &folded)
        h = mix(h ^ FOLDED, FOLDED) if folded else hash_text(h, p, n)
        if stop == end or stop[0] != c'/':
            return h
        p = stop + 1


def fold(target):
    """The path of a request's target as endpoints have it: identifiers are `*`, there is no query, no parameter and no
    host."""
    cdef bytes wire = target
    cdef const uint8_t* p = <const uint8_t*><const char*>wire
    cdef const uint8_t* end = p + len(wire)
    cdef const uint8_t* host
    cdef const uint8_t* stop
    cdef size_t n
    cdef bint folded
    out = []
    p = path_of(p, end, &host, &n)
    while True:
        stop = read_segment(p, end, &n, &folded)
        out.append(b"*" if folded else (<const char*>p)[:n])
        if stop == end or stop[0] != c'/':
            return b"/".join(out)
        p = stop + 1
