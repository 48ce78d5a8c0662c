"""Replacing parts of a text; see edits.pyx."""

from libc.stdint cimport uint8_t, uint32_t
from collector.shards.redaction.state cimport edits_t, redaction_t, ruled_t

cdef void edits_begin(edits_t* e, const uint8_t* p, const uint8_t* end, bint cut, int depth) noexcept nogil
cdef void edits_ruled(const redaction_t* r, edits_t* e, ruled_t what, const uint8_t* name, size_t name_len) noexcept
cdef void edits_free(edits_t* e) noexcept nogil
cdef void replace(const redaction_t* r, edits_t* e, const uint8_t* p, const uint8_t* end, uint32_t kind,
                  const uint8_t* quote, size_t quote_len) noexcept
cdef void replace_with(edits_t* e, const uint8_t* p, const uint8_t* end, const char* text, size_t n) noexcept nogil
cdef void replace_size(edits_t* e, const uint8_t* p, const uint8_t* end, const char* what, bint quoted) noexcept nogil
cdef char* room(edits_t* e, size_t more) noexcept nogil
cdef bint edits_end(edits_t* e) noexcept nogil
