"""HPACK, read passively; see hpack.pyx."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from collector.shards.memory cimport buf_t, pool_t

cdef enum:
    HPACK_TABLE_BYTES = 4096       # SETTINGS_HEADER_TABLE_SIZE, unless the decoder says otherwise
    HPACK_KEPT_BYTES = 65536       # entries beyond so many bytes are not kept, and so unknown

cdef enum:  # hpack_unknown
    HPACK_NAME = 1
    HPACK_VALUE = 2

cdef enum:  # what hpack_decode returns instead of a number of fields
    HPACK_MALFORMED = -1           # not as RFC 7541 has it: the table is not known any more
    HPACK_NO_MEMORY = -2

# A field of a block. Where its name or value is unknown, that is empty.
cdef struct hpack_field_t:
    const uint8_t* name
    const uint8_t* value
    uint32_t name_len
    uint32_t value_len
    uint32_t at            # of its name in the text
    uint8_t unknown        # enum hpack_unknown
    uint8_t sensitive      # never indexed (RFC 7541 section 7.1.3)

cdef struct hpack_entry_t:
    uint32_t at            # of its name in `text`; its value is behind
    uint32_t name_len
    uint32_t value_len
    uint8_t unknown        # enum hpack_unknown

# The dynamic table of one direction, as the decoder at its end has it, as far as that is known.
cdef struct hpack_t:
    buf_t text             # names and values of the entries, oldest first
    uint32_t text_from     # the oldest entry's
    hpack_entry_t* entries # a ring of `slots`, a power of two; NULL before the first
    uint32_t slots
    uint32_t oldest
    uint32_t count
    uint32_t limit         # what the decoder allows
    uint32_t max_bytes     # what the encoder has chosen
    uint64_t bytes         # of the entries, RFC 7541 section 4.1; those that are unknown count at least
    uint64_t since         # bytes of entries since something was missed
    uint8_t missed         # behind those that are here there may be others

cdef void hpack_init(hpack_t* table) noexcept nogil
cdef void hpack_free(pool_t* pool, hpack_t* table) noexcept nogil
cdef void hpack_miss(hpack_t* table) noexcept nogil
cdef void hpack_allow(hpack_t* table, uint32_t limit) noexcept nogil
cdef int hpack_decode(pool_t* pool, hpack_t* table, const uint8_t* p, size_t n, buf_t* text, hpack_field_t* fields,
                      uint32_t most, uint32_t most_bytes, uint8_t* overflow) noexcept nogil
