"""Texts of any kind; see scan.pyx."""

from collector.shards.redaction.state cimport edits_t, redaction_t

cdef void scan_text(redaction_t* r, edits_t* e) noexcept
cdef void scan_binary(redaction_t* r, edits_t* e) noexcept
