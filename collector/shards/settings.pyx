"""What a pipeline goes by: collector.settings.ShardSettings as a shard's C state."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc
from libc.string cimport memcpy

from collector.shards.http.clients cimport cidr_of, cidr_t, kind_of_header
from collector.shards.state cimport *


cdef bytes limited(text, str encoding, Py_ssize_t most, str what):
    """A text as bytes. Raises ValueError when there are more than ``most`` of them."""
    cdef bytes out = text.encode(encoding)
    if len(out) > most:
        raise ValueError(what)
    return out


cdef int use_settings(ctx_t* ctx, settings, filters) except -1:
    """Fill in what comes from ``settings`` and the names of ``filters``' rules; the rest of ``ctx`` is left alone. Raises
    ValueError for settings that do not fit, and MemoryError."""
    cdef bytes text
    cdef rule_t* rule
    cdef uint16_t port
    ctx.header_bytes = settings.header_bytes
    ctx.body_bytes = settings.body_bytes
    ctx.record_bytes = settings.record_bytes
    ctx.inactive_ns = <uint64_t>(settings.inactive_seconds * 1e9)
    ctx.unanswered_ns = <uint64_t>(settings.unanswered_seconds * 1e9)
    ctx.conn_bytes = settings.connection_bytes
    ctx.owner_wait_ns = <uint64_t>(settings.owner_wait_seconds * 1e9)
    ctx.input_limit = settings.input_bytes_per_minute
    ctx.output_limit = settings.output_bytes_per_minute
    ctx.response_bodies = settings.response_bodies
    ctx.websocket_control = settings.websocket_control
    ctx.disable_egress = settings.disable_egress
    ctx.ignore_ip_hosts = settings.ignore_ip_hosts
    ctx.ignore_metadata = settings.ignore_metadata
    ctx.want_details = settings.want_details
    ctx.orphan_responses = settings.orphan_responses
    for port in settings.ignore_ports:
        ctx.port_rule[port] |= PORT_IGNORED
        ctx.any_ignored = 1
    for port in settings.only_ports:
        ctx.port_rule[port] |= PORT_CHOSEN
        ctx.any_chosen = 1
    text = limited(settings.record_prefix, "ascii", 500, "record_prefix: too long")
    memcpy(ctx.prefix, <const char*>text, len(text))
    ctx.prefix_len = <uint32_t>len(text)
    text = limited(settings.daemonset_id, "ascii", 63, "daemonset_id: too long")
    memcpy(ctx.daemonset, <const char*>text, len(text))
    ctx.daemonset_len = <uint32_t>len(text)
    if len(filters.rules) > 32:
        raise ValueError("AKTO_MODULE_DISCOVERY_CONFIG: at most 32 entries")
    for i, entry in enumerate(filters.rules):
        text = limited(entry.header.lower(), "latin-1", 63,
                       "AKTO_MODULE_DISCOVERY_CONFIG: a header name is longer than 63 bytes")
        rule = &ctx.rules[<uint32_t>i]
        memcpy(rule.name, <const char*>text, len(text))
        rule.name_len = <uint32_t>len(text)
        rule.reject_absent = entry.reject_absent
    ctx.rule_count = <uint32_t>len(filters.rules)
    text = limited(settings.real_ip_header.lower(), "ascii", 63, "COLLECTOR_REAL_IP_HEADER: longer than 63 bytes")
    memcpy(ctx.real_ip_name, <const char*>text, len(text))
    ctx.real_ip_len = <uint32_t>len(text)
    ctx.real_ip_kind = kind_of_header(<const uint8_t*>ctx.real_ip_name, ctx.real_ip_len)
    networks = [network for network in settings.trusted_networks.split(",") if network] if text else []
    if networks:
        ctx.trusted = <cidr_t*>calloc(len(networks), sizeof(cidr_t))
        if ctx.trusted == NULL:
            raise MemoryError
        for i, network in enumerate(networks):
            ctx.trusted[<uint32_t>i] = cidr_of(network)
        ctx.trusted_count = <uint32_t>len(networks)
    return 0
