"""Is this the name of something secret? One look at its last four bytes says no for nearly all; the others are looked up
by a hash of their letters and digits, from the end, in lower case and without what stands between words.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from collector.shards.redaction import known as lists
from collector.shards.redaction.state cimport *

cdef enum:
    MOST_LETTERS = 63

cdef uint64_t STEP = 0x9E3779B97F4A7C15ULL


cdef inline bint between_words(uint8_t c) noexcept nogil:
    return c == c'_' or c == c'-' or c == c' ' or c == c'.' or c == c'[' or c == c']'


cdef inline const known_t* known(const redaction_t* r, uint64_t hash) noexcept nogil:
    cdef uint32_t i = <uint32_t>(hash >> 40) & (NAMES - 1)
    while r.names[i].hash:
        if r.names[i].hash == hash:
            return &r.names[i]
        i = (i + 1) & (NAMES - 1)
    return NULL


cdef inline bint apart(const uint8_t* p, const uint8_t* at) noexcept nogil:
    """Does a word begin at `at`?"""
    cdef uint8_t c
    if at == p:
        return True
    c = (at - 1)[0]
    if not (c | 0x20 >= c'a' and c | 0x20 <= c'z'):
        return True
    return at[0] >= c'A' and at[0] <= c'Z' and c >= c'a'


cdef const known_t* find_name(const redaction_t* r, const uint8_t* p, const uint8_t* end) noexcept nogil:
    """What is known of the name from `p` to `end`, or NULL: it is no secret."""
    cdef const uint8_t* q = end
    cdef const known_t* found = NULL
    cdef const known_t* entry
    cdef uint64_t hash = 0
    cdef uint32_t letters = 0
    cdef uint8_t c
    while q > p and letters < MOST_LETTERS:
        q -= 1
        c = q[0]
        if between_words(c):
            continue
        if c >= c'A' and c <= c'Z':
            c |= 0x20
        hash = (hash ^ c) * STEP
        hash ^= hash >> 29
        letters += 1
        if r.lengths >> letters & 1:
            entry = known(r, hash | 1)
            if entry == NULL:
                continue
            if entry.flags & NAME_ENDING and (not entry.flags & NAME_APART or apart(p, q)):
                found = entry
            if q > p and ((q - 1)[0] == c'[' or (q - 1)[0] == c'.'):      # the name of a member: user[sid], page.nextToken
                if entry.flags & NAME_NOT:
                    return NULL
                if entry.flags & NAME_WHOLE:
                    found = entry
    if q > p:       # longer than any whole name
        return found
    entry = known(r, hash | 1)
    if entry != NULL:
        if entry.flags & NAME_NOT:
            return NULL
        if entry.flags & (NAME_WHOLE | NAME_PAIR):
            return entry
    return found


cdef uint64_t hash_of(bytes name):
    """As find_name makes it of a whole name, which is in lower case and has nothing between its words."""
    cdef uint64_t hash = 0
    cdef uint8_t c
    for c in reversed(bytearray(name)):
        hash = (hash ^ c) * STEP
        hash ^= hash >> 29
    return hash | 1


cdef void learn_ending(redaction_t* r, bytes four):
    cdef const uint8_t* p = four
    cdef uint32_t bit = ending_of(p + 4)
    r.endings[bit >> 6] |= <uint64_t>1 << (bit & 63)


cdef void learn_last(redaction_t* r, words):
    """Of a name that is looked at though it is none of a secret."""
    for four in lists.endings(words):
        learn_ending(r, four)
        learn_ending(r, four[1:] + b"]")    # user[password]


cdef void learn(redaction_t* r, words, uint32_t kind, uint8_t flags) except *:
    """A name: words in lower case with blanks between them. Raises ValueError when there are too many."""
    cdef bytes name = words.replace(" ", "").encode().lower()      # of ASCII only, as find_name
    cdef uint64_t hash = hash_of(name)
    cdef uint32_t i = <uint32_t>(hash >> 40) & (NAMES - 1)
    cdef uint32_t used = 0
    while r.names[i].hash and r.names[i].hash != hash:
        i = (i + 1) & (NAMES - 1)
        used += 1
        if used > NAMES // 2:
            raise ValueError("too many names")
    if r.names[i].hash == 0:
        r.names[i].hash = hash
        r.names[i].kind = <uint16_t>kind
    r.names[i].flags |= flags
    if len(name) < 64:
        r.lengths |= <uint64_t>1 << len(name)
    if flags & NAME_NOT:
        return
    learn_last(r, words)


def find(redactor, bytes name):
    """(kind, flags) for tests and own rules; None when it is no secret."""
    cdef redaction_t* r = <redaction_t*><size_t>redactor.address()
    cdef const uint8_t* p = name
    cdef const known_t* entry = find_name(r, p, p + len(name))
    return None if entry == NULL else (redactor.kinds[entry.kind], entry.flags)
