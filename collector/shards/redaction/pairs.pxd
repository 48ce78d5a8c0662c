"""Names and values between `&`, and between `;`; see pairs.pyx."""

from libc.stdint cimport uint8_t

from collector.shards.redaction.state cimport edits_t, known_t, redaction_t

cdef const uint8_t* end_of_name(const uint8_t* p, const uint8_t* end) noexcept nogil
cdef const known_t* name_of_pair(redaction_t* r, edits_t* e, const uint8_t* p, const uint8_t* end) noexcept
cdef void scan_pair(redaction_t* r, edits_t* e, const uint8_t* p, const uint8_t* end) noexcept
cdef void scan_pairs(redaction_t* r, edits_t* e, char between) noexcept
cdef void alone(redaction_t* r, edits_t* e, const uint8_t* p, const uint8_t* end) noexcept
