"""Texts of any kind; see scan.pyx."""

from libc.stdint cimport uint8_t

from collector.shards.redaction.state cimport edits_t, redaction_t

cdef void scan_text(redaction_t* r, edits_t* e) noexcept
cdef void scan_binary(redaction_t* r, edits_t* e) noexcept
cdef const uint8_t* end_of_quoted(const uint8_t* p, const uint8_t* end, uint8_t quote, size_t slashes) noexcept nogil
