"""Bodies and messages; see bodies.pyx."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from collector.shards.redaction.state cimport redaction_t
from collector.shards.state cimport conn_t, ctx_t

cdef enum shape_t:
    SHAPE_TEXT          # whatever it is
    SHAPE_FORM          # application/x-www-form-urlencoded
    SHAPE_MESSAGES      # base64 of messages (records/messages.py)
    SHAPE_BYTES         # no text

cdef enum:
    LEFT_OUT = -1

cdef int redact_body(ctx_t* ctx, conn_t* conn, const uint8_t** p, size_t* n, shape_t shape, bint cut,
                     uint64_t now) noexcept
