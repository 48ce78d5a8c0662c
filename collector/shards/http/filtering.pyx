"""The filters that look at a request's head: AKTO_MODULE_DISCOVERY_CONFIG and the host decisions
(collector/shards/filters)."""

from libc.stdint cimport uint32_t

from collector.abi cimport DIR_IN
from collector.shards.http.fields cimport field_t, fields_t, same_name, unlisted_t
from collector.shards.state cimport *


cdef bint filtered(ctx_t* ctx, conn_t* conn, const fields_t* fields, unlisted_t unlisted) noexcept:
    """Is the exchange left out? Counts why. A filter that fails lets nothing through that it might have held back."""
    try:
        return rejected_by_host(ctx, conn, fields) or rejected_by_rule(ctx, fields, unlisted)
    except Exception:
        ctx.counters[C_CALLBACK_ERRORS] += 1
        return True


cdef bint rejected_by_host(ctx_t* ctx, conn_t* conn, const fields_t* fields) except -1:
    cdef int verdict
    if not ctx.ignore_ip_hosts and not ctx.ignore_metadata:
        return False
    if fields.host == NULL and fields.unknown:
        ctx.counters[C_FILTERED_IP if ctx.ignore_ip_hosts else C_FILTERED_METADATA] += 1
        return True         # it may be one
    verdict = (<object>ctx.filters).host_verdict(
        (<const char*>fields.host.value)[:fields.host.value_len] if fields.host != NULL else b"",
        ctx.ignore_ip_hosts, ctx.ignore_metadata, bytes(conn.remote[:16]) if conn.dir_request != DIR_IN else b"")
    if verdict == 1:
        ctx.counters[C_FILTERED_IP] += 1
    elif verdict == 2:
        ctx.counters[C_FILTERED_METADATA] += 1
    return verdict != 0


cdef bint rejected_by_rule(ctx_t* ctx, const fields_t* fields, unlisted_t unlisted) except -1:
    cdef uint32_t i, j
    cdef rule_t* rule
    cdef const field_t* f
    cdef bint found
    further = unlisted(fields) if fields.overflow and unlisted != NULL and ctx.rule_count else {}
    for i in range(ctx.rule_count):
        rule = &ctx.rules[i]
        values = further.get(rule.name[:rule.name_len], ())
        found = len(values) != 0
        for j in range(fields.count):
            f = &fields.items[j]
            if f.name_len == rule.name_len and same_name(f.name, rule.name, f.name_len):
                found = True
                break
        if not found:
            if rule.reject_absent or fields.unknown:    # it may be there, and say anything
                ctx.counters[C_FILTERED_RULE] += 1
                return True
            continue
        listed = []
        for j in range(fields.count):
            f = &fields.items[j]
            if f.name_len == rule.name_len and same_name(f.name, rule.name, f.name_len):
                listed.append((<const char*>f.value)[:f.value_len])
        listed.extend(values)
        if not (<object>ctx.filters).rule_matches(i, b", ".join(listed)):
            ctx.counters[C_FILTERED_RULE] += 1
            return True
    return False
