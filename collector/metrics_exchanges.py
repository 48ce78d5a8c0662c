"""The metrics of connections, exchanges and records, which a shard's parser counts: a part of metrics.METRICS."""

from __future__ import annotations

from collector.metric import COUNTER, GAUGE, Metric


def _core(name: str, key: str, help_: str, *labels: tuple[str, str], kind: str = COUNTER) -> Metric:
    return Metric(name, kind, "core", key, help_, labels)


_FILTERED = (
    "Exchanges and connections left out by a filter; the reason names the setting. `policy_doubt`: by an exclude rule of "
    "the policy that asks for something that nobody knows (docs/policy.md)."
)
_LEFT_OUT = (
    "Exchanges left out because the policy samples their endpoint; errors (4xx, 5xx) and exchanges with marks, which have "
    "rates of their own, apart. Records say how many (`sampledOut`)."
)
_EVICTED = "Connections given up for a limit; with `connection_bytes` only what they held was."

METRICS: tuple[Metric, ...] = (
    _core("collector_records", "records", "Records made from exchanges."),
    _core(
        "collector_records_marked",
        "records_marked",
        "Records that carry a mark (docs/records.md). A rising share means loss or odd traffic: look at the others.",
    ),
    _core("collector_record_bytes", "record_bytes", "Bytes of JSON made."),
    _core(
        "collector_records_too_large",
        "records_dropped_size",
        "Records left out because even without bodies they pass the size limit of a Kafka message.",
    ),
    _core("collector_events", "events", "Events taken from the rings."),
    _core("collector_event_bytes", "event_bytes", "Bytes of spans taken from the rings, headers included."),
    _core("collector_bad_events", "bad_events", "Events whose form is wrong. Above zero is a bug."),
    _core("collector_connections_opened", "connections_opened", "Connections that a shard began to follow."),
    _core("collector_connections_closed", "connections_closed", "Connections that a shard ceased to follow."),
    _core(
        "collector_connections_not_http",
        "connections_not_http",
        "Connections that looked like HTTP to the kernel and were not.",
    ),
    _core(
        "collector_orphan_responses",
        "orphan_responses",
        "Responses without a request: joined in the middle, or the request was lost.",
    ),
    _core("collector_filtered", "filtered_rule", _FILTERED, ("reason", "header_rule")),
    _core("collector_filtered", "filtered_ip_host", _FILTERED, ("reason", "ip_host")),
    _core("collector_filtered", "filtered_noise", _FILTERED, ("reason", "noise")),
    _core("collector_filtered", "filtered_metadata", _FILTERED, ("reason", "cloud_metadata")),
    _core("collector_filtered", "filtered_egress", _FILTERED, ("reason", "egress")),
    _core("collector_filtered", "filtered_port", _FILTERED, ("reason", "port")),
    _core("collector_filtered", "filtered_policy", _FILTERED, ("reason", "policy")),
    _core("collector_filtered", "filtered_policy_doubt", _FILTERED, ("reason", "policy_doubt")),
    _core("collector_holes", "holes", "Places in a stream where bytes are missing; the records they touch are marked."),
    _core("collector_hole_bytes", "hole_bytes", "Bytes missing in those places."),
    _core(
        "collector_uncaptured_bytes",
        "uncaptured_bytes",
        "Bytes that were counted and not copied: beyond the limit of one call, sendfile, splice.",
    ),
    _core(
        "collector_other_source_bytes",
        "other_source_bytes",
        "Bytes of a socket whose plaintext is captured at a library, or of one that was read in two ways: left out.",
    ),
    _core("collector_overlaps", "overlaps", "Events for bytes that were there already: two threads on one connection."),
    _core("collector_resyncs", "resyncs", "Times that a direction found a message start again after a hole."),
    _core("collector_skipped_bytes", "skipped_bytes", "Bytes that belong to no recorded message."),
    _core("collector_interim_responses", "interim_responses", "1xx responses."),
    _core("collector_upgraded", "upgraded", "Connections that became another protocol (101, CONNECT)."),
    _core(
        "collector_undecoded_bodies",
        "undecoded_bodies",
        "Bodies whose content coding or charset is unknown or broken, or costs too much; recorded as they were, marked.",
    ),
    _core(
        "collector_refused_bodies",
        "refused_bodies",
        "Undecoded bodies that would have cost more than decoding may (docs/records.md), marked `:budget`. Many: somebody "
        "tries to keep a shard busy, or there is more coded traffic than the shards can decode: add shards.",
    ),
    _core(
        "collector_grpc_messages_transcoded",
        "messages_transcoded",
        "Messages of gRPC, gRPC-Web and Connect that are in their records as JSON (COLLECTOR_GRPC_DESCRIPTORS).",
    ),
    _core(
        "collector_grpc_messages_not_transcoded",
        "messages_not_transcoded",
        "Messages of known methods that are null there: cut, not of their type, or too much (docs/records.md). Many: "
        "the descriptor sets are not those of the services, or there are more messages than the shards can do: add shards.",
    ),
    _core(
        "collector_grpc_unknown_methods",
        "unknown_methods",
        "Bodies with messages of a method that no descriptor set has.",
    ),
    _core(
        "collector_redacted_values",
        "redacted_values",
        "Values of records that were replaced because of the policy (COLLECTOR_POLICY).",
    ),
    _core("collector_evicted_connections", "evicted_connections", _EVICTED, ("limit", "connections")),
    _core("collector_evicted_connections", "evicted_budget", _EVICTED, ("limit", "bytes")),
    _core("collector_evicted_connections", "evicted_connection_bytes", _EVICTED, ("limit", "connection_bytes")),
    _core(
        "collector_evicted_active_connections",
        "evicted_active_connections",
        "Of these, connections that had been silent for less than TRAFFIC_INACTIVITY_THRESHOLD: the limit is too low.",
    ),
    _core(
        "collector_exchanges_sampled_out",
        "sampled_out_exchanges",
        "Exchanges not recorded because TRAFFIC_SAMPLE_BUFFER_PER_MINUTE was used up.",
    ),
    _core("collector_exchanges_left_out", "sampling_left_out", _LEFT_OUT, ("reason", "sampling")),
    _core("collector_exchanges_left_out", "sampling_left_out_errors", _LEFT_OUT, ("reason", "sampling_errors")),
    _core("collector_exchanges_left_out", "sampling_left_out_marked", _LEFT_OUT, ("reason", "sampling_marked")),
    _core(
        "collector_sampling_told",
        "sampling_told",
        "Of these, how many the records made since have told of. The others wait for the next record of their endpoint, or "
        "were waiting when their shard ended.",
    ),
    _core(
        "collector_sampling_heads",
        "sampling_heads",
        "Records made without bodies because the policy samples their endpoint.",
    ),
    _core(
        "collector_sampling_shared",
        "sampling_shared",
        "Exchanges of endpoints for which the table had no place, sampled together. Many: raise the policy's "
        "`endpoints`, or somebody asks for random paths.",
    ),
    _core("collector_sampling_endpoints", "sampling_endpoints", "Endpoints that sampling knows.", kind=GAUGE),
    _core(
        "collector_records_over_bandwidth",
        "records_dropped_bandwidth",
        "Records left out because OUTPUT_BANDWIDTH_LIMIT was used up.",
    ),
    _core(
        "collector_timed_out",
        "timed_out",
        "Incomplete exchanges recorded as they stood after COLLECTOR_UNANSWERED_SECS of silence.",
    ),
    _core("collector_unanswered", "unanswered", "Requests recorded without answer after COLLECTOR_UNANSWERED_SECS."),
    _core("collector_suspect_events", "suspect_events", "Events of connections skipped for having killed a shard twice."),
    _core(
        "collector_unconfirmed_exchanges",
        "unconfirmed_exchanges",
        "Exchanges left out because their descriptor was gone before anybody could see that it was a socket: mostly "
        "files that hold HTTP text.",
    ),
    _core(
        "collector_peer_unknown_records",
        "peer_unknown_records",
        "Records of TLS plaintext without addresses, because nobody could say within a second which socket the library's "
        "object is. They are marked peer_unknown.",
    ),
    _core(
        "collector_left_out_connections",
        "left_out_connections",
        "Connections that are not read, or not any further, because there is not the CPU for all (COLLECTOR_CPU_LIMIT).",
    ),
    _core("collector_left_out_bytes", "left_out_bytes", "Bytes that went through them meanwhile."),
    _core("collector_callback_errors", "callback_errors", "Failures inside a filter or decoder. Above zero is a bug."),
    _core("collector_connections", "connections", "Connections being followed.", kind=GAUGE),
    _core("collector_queued_exchanges", "queued_exchanges", "Exchanges that wait for their end.", kind=GAUGE),
    _core(
        "collector_buffer_bytes", "buffer_bytes", "Bytes held for connections; compared with the shard's budget.", kind=GAUGE
    ),
    _core(
        "collector_buffer_peak_bytes", "buffer_peak_bytes", "The most that was ever held, per life of the shard.", kind=GAUGE
    ),
)
