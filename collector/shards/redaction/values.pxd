"""Names and their values in a text of any kind; see values.pyx."""

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcmp

from collector.shards.redaction.state cimport edits_t, redaction_t

# What was seen of the text on the way.
cdef struct place_t:
    const uint8_t* skip_forms       # what begins before is none
    const uint8_t* skip_escapes     # a text in JSON whose escapes were undone
    const uint8_t* no_name          # up to here is no escape of a name
    const uint8_t* skip_percent
    const uint8_t* pair_end         # up to here `value` belongs to a name that is secret
    const uint8_t* parity_at        # how many quotes there are up to here
    uint32_t pair_kind
    const uint8_t* pair_name        # the sign behind the last `"name"`, whose value may say what the next `value` is
    size_t pair_slashes
    bint inside                     # a text in quotes, at parity_at
    bint json                       # it begins as JSON does
    const uint8_t* string_end       # of the text of JSON that was asked for last
    const uint8_t* brace            # the first `}` behind what was asked for last
    const uint8_t* members_end      # up to here all values of an object were replaced
    const uint8_t* element_end      # up to here the content of an element was


cdef inline bint of_name(uint8_t c) noexcept nogil:
    return (c >= c'0' and c <= c'9' or c | 0x20 >= c'a' and c | 0x20 <= c'z' or c == c'_' or c == c'-' or c == c'.'
            or c == c'$' or c >= 0x80)


cdef inline void note_name(place_t* place, const uint8_t* sign, size_t slashes) noexcept nogil:
    """`"name": "password", "value": ...`: what the name is counts when there is a value."""
    place.pair_name = sign
    place.pair_slashes = slashes


cdef inline bint ends_name(const edits_t* e, const uint8_t* sign) noexcept nogil:
    """Is `"name"` before the sign? The most frequent name of all."""
    return sign[0] == c':' and sign - e.begin > 6 and memcmp(sign - 6, b'"name"', 6) == 0


cdef void at_sign(redaction_t* r, edits_t* e, place_t* place, const uint8_t* sign) noexcept
cdef void value(redaction_t* r, edits_t* e, place_t* place, const uint8_t* sign, uint32_t kind, const uint8_t* outer,
                size_t slashes) noexcept
cdef const uint8_t* end_of_quoted(const uint8_t* p, const uint8_t* end, uint8_t quote, size_t slashes) noexcept nogil
cdef const uint8_t* end_of_string(const edits_t* e, place_t* place, const uint8_t* at) noexcept nogil
cdef bint inside_quotes(const edits_t* e, place_t* place, const uint8_t* at) noexcept nogil
cdef bint escaped(const uint8_t* begin, const uint8_t* q) noexcept nogil
