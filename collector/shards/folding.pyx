"""Paths with their identifiers folded, so that `/users/7` and `/users/8` are one endpoint: for sampling and for `top`.

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

The path ends at `?` or `#`, a segment at `/`; what follows `;` is no part of a segment (RFC 3986 section 3.3: sessions,
mostly). Of an absolute target (RFC 9112 section 3.2.2) scheme and authority are left away.

Every byte of a path is looked at three times at most, those of a name without a digit twice; nothing is allocated.
"""

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memchr, memcpy

cdef enum:
    LONGEST = 64            # bytes of a segment that is a name
    DIGITS_IN_A_ROW = 5
    HEX_DIGITS = 8
    MIXED_BYTES = 10        # of a segment in which letters and digits take turns
    NOT_HEX = -LONGEST      # added to a piece's hexadecimal digits: it never has enough of them then
    ID_BYTES = 4            # of {id}

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


cdef segment_t segment_at(const uint8_t* p, const uint8_t* end) noexcept nogil:
    """The segment at p of a path that ends at `end`, or before."""
    cdef segment_t segment
    cdef const uint8_t* stop = p
    cdef const uint8_t* parameters
    cdef uint8_t kind, has = 0
    while stop < end:
        kind = KIND[stop[0]]
        if kind == END:
            break
        has |= kind
        stop += 1
    segment.end = stop
    segment.n = <size_t>(stop - p)
    if has & SEMICOLON:
        parameters = <const uint8_t*>memchr(p, c';', segment.n)
        segment.n = <size_t>(parameters - p)
    segment.identifier = (has & TELLING or segment.n > LONGEST) and is_identifier(p, segment.n)
    return segment


cdef inline const uint8_t* scheme_end(const uint8_t* p, const uint8_t* end) noexcept nogil:
    """Behind the `://` of an absolute target; NULL if it is none."""
    cdef const uint8_t* stop = p
    while stop < end and (KIND[stop[0]] & (DIGIT | HEX | LETTER) or stop[0] in (c'+', c'-', c'.')):
        stop += 1
    return stop + 3 if stop > p and end - stop >= 3 and stop[0] == c':' and stop[1] == c'/' == stop[2] else NULL


cdef const uint8_t* path_of(const uint8_t* p, const uint8_t* end, const uint8_t** host, size_t* host_len) noexcept nogil:
    """Where the path of the target from p to `end` begins. An absolute one has a host before it, of another one the length
    of that is 0."""
    cdef const uint8_t* authority = NULL
    host_len[0] = 0
    if p < end and p[0] != c'/':
        authority = scheme_end(p, end)
    if authority == NULL:
        return p
    host[0] = p = authority
    while p < end and KIND[p[0]] != END:
        p += 1
    host_len[0] = <size_t>(p - authority)
    return p


cdef size_t fold(const uint8_t* p, const uint8_t* end, uint8_t* out, size_t most) noexcept nogil:
    """Write the path of the target from p to `end` with `{id}` in place of identifiers, and return its length: at most
    ``most`` bytes, the rest is left away."""
    cdef const uint8_t* host
    cdef segment_t segment
    cdef size_t n, used = 0
    p = path_of(p, end, &host, &n)
    while True:
        segment = segment_at(p, end)
        if segment.identifier:
            n = min(<size_t>ID_BYTES, most - used)
            memcpy(out + used, b"{id}", n)
        else:
            n = min(segment.n, most - used)
            memcpy(out + used, p, n)
        used += n
        if used == most or segment.end == end or segment.end[0] != c'/':
            return used
        out[used] = c'/'
        used += 1
        p = segment.end + 1


def folded(target, size_t most=0):
    """The path of a request's target as endpoints have it: `{id}` in place of identifiers, no query, no parameters and no
    host. ``most``: bytes of it that are wanted; 0: all. For tests."""
    cdef bytes wire = target
    cdef const uint8_t* p = <const uint8_t*><const char*>wire
    cdef bytearray out = bytearray(most or 4 * len(wire) + ID_BYTES)
    cdef uint8_t[::1] room = out
    return bytes(out[:fold(p, p + len(wire), &room[0], room.shape[0])])
