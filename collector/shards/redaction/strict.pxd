"""The policy `strict`; see strict.pyx."""

from libc.stdint cimport uint8_t

from collector.shards.redaction.state cimport edits_t

cdef bint strict_json(edits_t* e) noexcept nogil
cdef void strict_pairs(edits_t* e, char between) noexcept nogil
cdef void strict_path(edits_t* e) noexcept nogil
