"""The protobuf messages of a body as a field of JSON behind its payload, where descriptor sets say what they are
(docs/decisions/0028).

The payload is written first. Its decoder keeps the messages that it finds (content.Decoder.kept), and they are taken from
there. Only what is called when there are descriptor sets is here; the sets themselves are in descriptors.py.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memmove

from collector.shards.http.message cimport exchange_t, message_t
from collector.shards.memory cimport buf_t
from collector.shards.packing cimport batch_reserve, batch_t
from collector.shards.records.budget cimport body_work, come_back, WORK_SHIFT_CONNECTION, WORK_SHIFT_SHARD
from collector.shards.records.text cimport escape_json, put_text, TEXT_STRICT
from collector.shards.redaction.bodies cimport *
from collector.shards.state cimport *

cdef enum:
    HEAD_BYTES = 4096   # of a request: its path, if it is one that a descriptor set can have, ends before


cdef void keep_body(ctx_t* ctx, const message_t* m, const uint8_t* p, size_t n, bint cut) noexcept:
    """A body that is one message by itself, without content codings. `cut`: it is not the whole."""
    if n == 0 and m.size:
        return      # left out
    try:
        (<object>ctx.content).kept = [None if cut else PyBytes_FromStringAndSize(<const char*>p, <Py_ssize_t>n)]
    except Exception:
        ctx.counters[C_CALLBACK_ERRORS] += 1


cdef bytes path_of(const exchange_t* ex):
    """As it stands in the head's JSON: the path of a method needs no escapes."""
    cdef uint32_t n = ex.req.head.len if ex.req.head.len < HEAD_BYTES else HEAD_BYTES
    cdef bytes head = PyBytes_FromStringAndSize(<const char*>ex.req.head.data, <Py_ssize_t>n)
    return head.partition(b'","path":"')[2].partition(b'"')[0]


cdef bytes transcoded(ctx_t* ctx, conn_t* conn, exchange_t* ex, bint is_request, size_t most, uint64_t now):
    """The JSON of what is kept, None when there is nothing, or its method is unknown. Counts."""
    content = <object>ctx.content
    kept, content.kept = content.kept, None
    if not kept or not (ex.req.protobuf if is_request else ex.resp.protobuf):
        return None
    come_back(&ctx.transcoding, now, WORK_SHIFT_SHARD)
    come_back(&conn.transcoding, now, WORK_SHIFT_CONNECTION)
    found = content.methods.json_of(
        path_of(ex), is_request, kept, most,
        body_work(ctx) if ctx.transcoding.left > 0 and conn.transcoding.left > 0 else 0)
    if found is None:
        ctx.counters[C_UNKNOWN_METHODS] += 1
        return None
    text, failed, work = found
    ctx.transcoding.left -= <int64_t>work
    conn.transcoding.left -= <int64_t>work
    ctx.json_messages += <uint32_t>len(kept)
    ctx.json_failed += <uint32_t>failed
    return text


cdef void without_payload(ctx_t* ctx) noexcept nogil:
    """The newest payload becomes empty; what stands behind it stays."""
    cdef buf_t* records = &ctx.batch.records
    memmove(records.data + ctx.payload_at, records.data + ctx.payload_end, records.len - ctx.payload_end)
    records.len -= ctx.payload_end - ctx.payload_at
    ctx.payload_end = ctx.payload_at


cdef int put_json(ctx_t* ctx, conn_t* conn, exchange_t* ex, bint is_request, size_t limit, uint64_t now) noexcept:
    """Append `,"requestMessagesJson":"[...]"` to the batch, if the body before it has messages of a method that is known. 0,
    or -1 when memory is out.

    `limit` as for put_body: with its escapes the JSON has at most twice as many bytes. Without it (WITHOUT_JSON) a record is
    written that would be too long otherwise; its messages count as failed.
    """
    cdef size_t most = 2 * (<size_t>ctx.body_bytes if ctx.body_bytes < limit else limit)
    cdef batch_t* batch = ctx.batch
    cdef bytes text = None
    cdef const uint8_t* p
    cdef char* out
    cdef size_t size
    cdef int redacted
    if limit == WITHOUT_JSON:
        ctx.json_there = 0
        ctx.json_failed = ctx.json_messages
        (<object>ctx.content).kept = None
        return 0
    if is_request:
        ctx.json_there = 0
        ctx.json_messages = ctx.json_failed = 0
    try:
        text = transcoded(ctx, conn, ex, is_request, most, now)
    except Exception:
        ctx.counters[C_CALLBACK_ERRORS] += 1
    if text is None:
        return 0
    p = <const uint8_t*><const char*>text
    size = <size_t>len(text)
    if ctx.redaction != NULL:
        redacted = redact_body(ctx, conn, &p, &size, SHAPE_TEXT, False, now)
        if redacted:
            without_payload(ctx)        # it holds the same values, where nobody finds them
        if redacted == LEFT_OUT:
            return 0
        ctx.redacted += <uint32_t>redacted
    if batch_reserve(batch, size * 6 + 64) < 0:
        return -1
    out = batch.records.data + batch.records.len
    out = put_text(out, b',"requestMessagesJson":"' if is_request else b',"responseMessagesJson":"')
    out = escape_json(out, p, p + size, TEXT_STRICT)
    if out == NULL:
        ctx.counters[C_CALLBACK_ERRORS] += 1    # what descriptors.py gives is UTF-8
        return 0
    out[0] = c'"'
    batch.records.len = <uint32_t>(out + 1 - batch.records.data)
    ctx.json_there = 1
    return 0


cdef void count_messages(ctx_t* ctx) noexcept nogil:
    """Those of the record that was just written."""
    ctx.counters[C_MESSAGES_TRANSCODED] += ctx.json_messages - ctx.json_failed
    ctx.counters[C_MESSAGES_NOT_TRANSCODED] += ctx.json_failed
    ctx.json_messages = ctx.json_failed = 0
