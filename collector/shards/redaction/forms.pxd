"""Secrets by their form; see forms.pyx."""

from libc.stdint cimport uint8_t, uint32_t

from collector.shards.redaction.state cimport edits_t, redaction_t

cdef struct found_t:
    const uint8_t* begin    # of what is to be replaced
    const uint8_t* end
    const uint8_t* seen     # nothing that begins before it is another one
    uint32_t kind           # 0: it is none

cdef void find_form(const redaction_t* r, const edits_t* e, const uint8_t* p, found_t* out) noexcept nogil
