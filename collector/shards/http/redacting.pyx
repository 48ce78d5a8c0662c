"""Redaction of heads that were written (text.pyx) under another policy than that of the record: what began before a change
must not be shown by rules that no longer hold, least of all a stream that lasts for days.

The fields themselves are gone, so the text is read again. That is slow, and happens once for each exchange that is under way
when the policy changes. What was redacted already stays so, and is counted again.
"""

import json

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from collector.shards.http.fields cimport (
    F_COOKIE, F_HOST, F_OTHER, F_SET_COOKIE, MAX_FIELDS, field_t, fields_t, note_repeats, request_t, response_t
)
from collector.shards.http.message cimport *
from collector.shards.http.text cimport write_details, write_request, write_response
from collector.shards.memory cimport buf_t
from collector.shards.redaction.heads cimport redact_fields, redact_request, redact_response
from collector.shards.redaction.state cimport use_rules
from collector.shards.marks cimport MARK_HEADERS_CUT, MARK_REQUEST_OMITTED, MARK_RESPONSE_OMITTED
from collector.shards.state cimport *

cdef fields_t FIELDS

_IDS = {b"host": F_HOST, b"cookie": F_COOKIE, b"set-cookie": F_SET_COOKIE}


def _bytes(str text):
    return text.encode("utf-8", "surrogatepass")


def read_head(head, fields):
    """(texts by name, [(name, value), ...]) of a head, whose fields have this name; for tests, too."""
    texts = json.loads(b"{" + head.lstrip(b",") + b"}")
    listed = []
    for name, value in json.loads(texts.pop(fields), object_pairs_hook=list):
        # lines of one name were put together: of cookies each has attributes of its own
        for one in value.split("\n") if name.lower() == "set-cookie" else (value,):
            listed.append((_bytes(name), _bytes(one)))
    return {name: _bytes(text) for name, text in texts.items()}, listed


cdef list list_fields(list listed):
    """FIELDS point into the lines that are returned: a name and its value stand in one, as on the wire."""
    cdef field_t* f
    cdef uint64_t[4] seen
    cdef bytes line
    lines = []
    memset(seen, 0, sizeof(seen))
    memset(&FIELDS, 0, sizeof(fields_t) - MAX_FIELDS * sizeof(field_t))
    if len(listed) > MAX_FIELDS:
        raise ValueError("more fields than a head has")
    for name, value in listed:
        line = name + b": " + value
        lines.append(line)
        f = &FIELDS.items[FIELDS.count]
        FIELDS.count += 1
        memset(f, 0, sizeof(field_t))
        f.name = <const uint8_t*><const char*>line
        f.name_len = <uint32_t>len(name)
        f.value = f.name + f.name_len + 2
        f.value_len = <uint32_t>len(value)
        f.id = <uint8_t>_IDS.get(name.lower(), F_OTHER)
        note_repeats(&FIELDS, f, <uint32_t>(hash(name.lower()) & 0xFFFFFFFF), seen)
        if f.id == F_HOST and FIELDS.host == NULL:
            FIELDS.host = f
    return lines


cdef bytes head_of(const buf_t* head):
    return (<const char*>head.data)[:head.len]


cdef int request_anew(ctx_t* ctx, exchange_t* ex) except -1:
    cdef request_t line
    cdef const fields_t* fields = &FIELDS
    cdef int in_line, in_fields
    texts, listed = read_head(head_of(&ex.req.head), "requestHeaders")
    cdef bytes method = texts["method"], target = texts["path"], version = texts["type"]
    _lines = list_fields(listed)      # held while FIELDS point to them
    line.method, line.method_len = <const uint8_t*><const char*>method, <uint32_t>len(method)
    line.target, line.target_len = <const uint8_t*><const char*>target, <uint32_t>len(target)
    line.version, line.version_len = <const uint8_t*><const char*>version, <uint32_t>len(version)
    if ctx.redaction.ruled:
        host = (<const char*>FIELDS.host.value)[:FIELDS.host.value_len] if FIELDS.host != NULL else b""
        ex.redaction_rules = (<object>ctx.redaction.owner).rule_number(host, target)
    use_rules(ctx.redaction, ex.redaction_rules, ctx.redaction.version)
    in_line = redact_request(ctx.redaction, &line, ex.marks & MARK_HEADERS_CUT != 0 and FIELDS.count == 0)
    in_fields = redact_fields(ctx.redaction, &fields, ex.marks & MARK_HEADERS_CUT != 0)
    if in_line < 0 or in_fields < 0 or write_request(ctx, &line, fields, &ex.req) < 0:
        raise MemoryError
    if ctx.want_details:
        write_details(ctx, &line, fields, ex)
    ex.redacted += <uint32_t>(in_line + in_fields)
    return 0


cdef int response_anew(ctx_t* ctx, exchange_t* ex) except -1:
    cdef response_t line
    cdef const fields_t* fields = &FIELDS
    cdef int in_line, in_fields
    texts, listed = read_head(head_of(&ex.resp.head), "responseHeaders")
    cdef bytes reason = texts["status"]
    _lines = list_fields(listed)      # held while FIELDS point to them
    line.reason, line.reason_len = <const uint8_t*><const char*>reason, <uint32_t>len(reason)
    line.status = int(texts["statusCode"])
    use_rules(ctx.redaction, ex.redaction_rules, ctx.redaction.version)
    in_line = redact_response(ctx.redaction, &line)
    in_fields = redact_fields(ctx.redaction, &fields, ex.marks & MARK_HEADERS_CUT != 0)
    if in_line < 0 or in_fields < 0 or write_response(ctx, &line, fields, &ex.resp) < 0:
        raise MemoryError
    ex.redacted += <uint32_t>(in_line + in_fields)
    return 0


cdef int redact_anew(ctx_t* ctx, exchange_t* ex) noexcept:
    """By ctx.redaction, under whose version the exchange is from then on. 0, or -1: it must not be shown."""
    try:
        if ex.req.head.len:
            request_anew(ctx, ex)
        if ex.resp.head.len:
            response_anew(ctx, ex)
    except Exception:
        ctx.counters[C_CALLBACK_ERRORS] += 1
        return -1
    if ex.events != NULL:       # messages that were read by the earlier policy
        (<buf_t*>ex.events).len = 1
        ex.marks |= MARK_REQUEST_OMITTED | MARK_RESPONSE_OMITTED
    ex.redaction_version = ctx.redaction.version
    return 0
