"""Heads that were read before the policy changed: what they became then may be more than the policy of now lets through.

They are texts of a record by now, JSON with JSON in it, in which secrets are found as in any other text.
"""

from libc.stdint cimport uint8_t
from libc.string cimport memset

from collector.shards.http.message cimport exchange_t
from collector.shards.memory cimport buf_copy, buf_t
from collector.shards.redaction.edits cimport edits_begin, edits_end
from collector.shards.redaction.scan cimport scan_text
from collector.shards.redaction.state cimport *
from collector.shards.state cimport ctx_t

cdef edits_t HEAD
memset(&HEAD, 0, sizeof(edits_t))


cdef bint redact_again(ctx_t* ctx, exchange_t* ex) noexcept:
    """Bring the heads of `ex` under the policy in force. False: that cannot be done, as it asks for more than secrets to be
    found, or memory is out."""
    cdef redaction_t* r = ctx.redaction
    if r.mode != MODE_SECRETS or r.ruled or ex.events != NULL:
        return False
    use_rules(r, 0, r.version)
    r.spent = 0
    if not (redact_text(ctx, ex, &ex.req.head) and redact_text(ctx, ex, &ex.resp.head) and redact_text(ctx, ex, &ex.details)):
        return False
    ex.redaction_version = r.version
    return True


cdef bint redact_text(ctx_t* ctx, exchange_t* ex, buf_t* text) noexcept:
    cdef const uint8_t* p = <const uint8_t*>text.data
    if text.len == 0:
        return True
    edits_begin(&HEAD, p, p + text.len, False, 0)
    scan_text(ctx.redaction, &HEAD)
    if not edits_end(&HEAD):
        return not HEAD.failed
    if HEAD.failed or buf_copy(&ctx.pool, text, HEAD.data, HEAD.len) < 0:
        return False
    ex.redacted += HEAD.count
    return True
