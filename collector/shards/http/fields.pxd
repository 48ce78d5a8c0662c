"""Header fields and start lines as pointers into the bytes that they were read from; shared by all protocols that carry
HTTP."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

cdef extern from "simd.h" nogil:
    void name_words(const uint8_t* p, uint32_t n, size_t readable, uint64_t* first, uint64_t* last)
    uint64_t word8(const char* s)


cdef enum:
    MAX_FIELDS = 512      # nginx allows 8k of header in all, node 16 KiB, Apache 100 fields; beyond: headers_uncertain

cdef enum:  # field_id
    F_OTHER = 0
    F_HOST
    F_CONTENT_LENGTH
    F_TRANSFER_ENCODING
    F_CONTENT_TYPE
    F_CONTENT_ENCODING
    F_UPGRADE
    F_EXPECT
    F_COOKIE
    F_SET_COOKIE

cdef struct field_t:
    const uint8_t* name
    const uint8_t* value
    uint32_t name_len
    uint32_t value_len
    uint32_t hash
    uint8_t id            # enum field_id
    uint8_t repeats       # an earlier field has this name: written there
    uint8_t repeated      # a later field has this name
    uint8_t plain_name    # no byte of it wants escaping
    uint8_t plain_value

cdef struct fields_t:
    uint32_t count
    uint8_t overflow           # there were more than MAX_FIELDS
    uint8_t content_encoding   # one of them is Content-Encoding
    uint8_t unknown            # of some the name or the value is not known: they are not listed
    const uint8_t* end         # of the bytes that they lie in
    field_t* host
    field_t* content_type
    field_t late_host          # a Host beyond the fields that are listed
    field_t items[512]

# The fields beyond those that are listed: a dict of lower-case names to lists of values. NULL where there are never any.
ctypedef object (*unlisted_t)(const fields_t* fields)

cdef struct request_t:
    const uint8_t* method
    const uint8_t* target
    const uint8_t* version
    uint32_t method_len
    uint32_t target_len
    uint32_t version_len

cdef struct response_t:
    const uint8_t* reason      # code and phrase, as on the wire
    uint32_t reason_len
    uint32_t status


cdef inline bint same_name(const uint8_t* a, const char* lower, uint32_t n) noexcept nogil:
    """ASCII case-insensitive; `lower` is lower case and n bytes long."""
    cdef uint32_t i
    cdef uint8_t c
    for i in range(n):
        c = a[i]
        if c >= c'A' and c <= c'Z':
            c |= 0x20
        if c != <uint8_t>lower[i]:
            return False
    return True


cdef inline bint same_text(const uint8_t* a, const uint8_t* b, uint32_t n) noexcept nogil:
    """ASCII case-insensitive, both n bytes long."""
    cdef uint32_t i
    cdef uint8_t c, d
    for i in range(n):
        c = a[i]
        d = b[i]
        if c != d:
            if c >= c'A' and c <= c'Z':
                c |= 0x20
            if d >= c'A' and d <= c'Z':
                d |= 0x20
            if c != d:
                return False
    return True


cdef inline uint8_t field_id_of(uint64_t first, uint64_t last, uint32_t n, const uint8_t* name) noexcept nogil:
    """Which of the fields that matter this is, by the words of name_words (simd.h)."""
    if n == 4:
        return F_HOST if first == word8(b"hostaaaa") else F_OTHER
    if n == 14:
        return F_CONTENT_LENGTH if first == word8(b"content-") and last == word8(b"t-length") else F_OTHER
    if n == 12:
        return F_CONTENT_TYPE if first == word8(b"content-") and last == word8(b"ent-type") else F_OTHER
    if n == 17:
        if first == word8(b"transfer") and last == word8(b"encoding") and name[8] == c'-':
            return F_TRANSFER_ENCODING
        return F_OTHER
    if n == 16:
        return F_CONTENT_ENCODING if first == word8(b"content-") and last == word8(b"encoding") else F_OTHER
    if n == 6:
        if first == word8(b"cookieaa"):
            return F_COOKIE
        return F_EXPECT if first == word8(b"expectaa") else F_OTHER
    if n == 10:
        return F_SET_COOKIE if first == word8(b"set-cook") and last == word8(b"t-cookie") else F_OTHER
    if n == 7:
        return F_UPGRADE if first == word8(b"upgradea") else F_OTHER
    return F_OTHER


cdef inline uint32_t field_hash(const uint8_t* p, uint32_t n, uint64_t first, uint64_t last) noexcept nogil:
    """Equal for names that differ in case only. Long names are rare; equal hashes would cost a comparison each."""
    cdef uint64_t word
    cdef uint32_t i
    for i in range(8, n - 8 if n > 16 else 0, 8):
        memcpy(&word, p + i, 8)
        last = (last ^ (word | 0x2020202020202020ULL)) * 0x9E3779B97F4A7C15ULL
        last ^= last >> 29
    return <uint32_t>(((first ^ n) * 0x9E3779B97F4A7C15ULL ^ last * 0xC2B2AE3D27D4EB4FULL) >> 32)


cdef inline void note_repeats(fields_t* fields, field_t* f, uint32_t hash, uint64_t* seen) noexcept nogil:
    """Is the newest field `f`, whose name has this hash, one more of a name that is listed already? `seen`: four words,
    zero before the first."""
    cdef uint64_t bit = <uint64_t>1 << (hash & 63)
    cdef field_t* other
    cdef uint32_t i
    f.repeats = 0
    f.repeated = 0
    f.hash = hash
    if seen[hash >> 6 & 3] & bit:
        for i in range(fields.count - 1):
            other = &fields.items[i]
            if (other.hash == hash and other.name_len == f.name_len and not other.repeats
                    and same_text(other.name, f.name, f.name_len)):
                other.repeated = 1
                f.repeats = 1
                break
    seen[hash >> 6 & 3] |= bit
