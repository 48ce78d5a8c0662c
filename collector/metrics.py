"""Every metric, declared once: its place in shared memory, its Prometheus name, its help. metrics_pages.py prints
docs/metrics.md from here.

Help says what is counted and what an operator should conclude.
"""

from __future__ import annotations

import collections
from collections.abc import Iterable
from typing import Any

from collector import metrics_policy, metrics_recording, viewer_metrics
from collector.metric import COUNTER, GAUGE, Metric

# Why the traffic of a process is not seen (a number of loader.entries.unseen): label, what is logged once a name.
UNSEEN_REASONS: dict[str, tuple[str, str]] = {
    "operations": ("io_uring", "sends or receives through io_uring, which cannot be captured"),
    "compat": ("32bit", "is a 32-bit program, whose system calls cannot be captured"),
    "quic": ("quic", "has connections over QUIC (HTTP/3), which cannot be captured"),
}
UNSEEN_NAMES = 64  # process names that are exported; further ones as "other"
UNSEEN_METRIC = "collector_unseen_processes"
UNSEEN_HELP = (
    "Processes whose traffic cannot be captured, by name: those that sent or received through io_uring, "
    "32-bit programs that were started or made calls, and those with connections over QUIC. Their exchanges are missing, "
    "or marked."
)


def _core(name: str, key: str, help_: str, *labels: tuple[str, str], kind: str = COUNTER) -> Metric:
    return Metric(name, kind, "core", key, help_, labels)


_HEALTH_REFUSED = (
    "Connections to the health pages that got no page: closed to make room for newer ones, too slow, or with "
    "a request that is none. Many: somebody attacks the port."
)
_FILTERED = (
    "Exchanges and connections left out by a filter; the reason names the setting. `policy_doubt`: by an exclude rule of "
    "the policy that asks for something that nobody knows (docs/policy.md)."
)
_LEFT_OUT = (
    "Exchanges left out because the policy samples their endpoint; errors (4xx, 5xx) and exchanges with marks, which have "
    "rates of their own, apart. Records say how many (`sampledOut`)."
)
_EVICTED = "Connections given up for a limit; with `connection_bytes` only what they held was."
_LOST_EVENTS = "Events that the kernel could not hand over. Above zero: enlarge COLLECTOR_RING_BYTES or add shards."

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
    Metric("collector_spans", COUNTER, "loader", "spans", "Messages sent to shards."),
    Metric(
        "collector_spans_announced_again",
        COUNTER,
        "loader",
        "spans_announced_again",
        "Spans that a shard had not finished when it died; they were still in their ring and went to the new one.",
    ),
    Metric("collector_span_bytes", COUNTER, "loader", "span_bytes", "Bytes sent to shards."),
    Metric("collector_kernel_dropped_events", COUNTER, "loader", "kernel_dropped_events", _LOST_EVENTS),
    Metric("collector_kernel_dropped_bytes", COUNTER, "loader", "kernel_dropped_bytes", "Stream bytes of those events."),
    Metric(
        "collector_kernel_map_full",
        COUNTER,
        "loader",
        "kernel_map_full",
        "Connections that found no room in the kernel's table; they are tried again at their next message.",
    ),
    Metric(
        "collector_kernel_connections",
        GAUGE,
        "loader",
        "kernel_entries",
        "Entries of the kernel's table of connections. Near 65,536 the least recently used give way.",
    ),
    Metric(
        "collector_kernel_connections_refused",
        COUNTER,
        "loader",
        "kernel_process_full",
        "Calls on connections left out because their process has half of the table's entries already.",
    ),
    Metric(
        "collector_kernel_connections_pushed_out",
        COUNTER,
        "loader",
        "kernel_entries_pushed_out",
        "Entries that gave way to newer ones (lower bound); such connections are joined again at their next message.",
    ),
    Metric(
        "collector_kernel_connections_swept",
        COUNTER,
        "loader",
        "kernel_entries_swept",
        "Entries whose socket had gone without its end being seen: killed processes with Unix sockets, or with "
        "sockets that the peer had reset.",
    ),
    Metric(
        "collector_kernel_unseen_bytes",
        COUNTER,
        "loader",
        "kernel_unseen_bytes",
        "Bytes that went through a captured connection by ways that are not hooked (io_uring, splice, zero-copy receive, "
        "two threads at once). They are holes, and their records are marked.",
    ),
    Metric(
        "collector_kernel_unplaced_bytes",
        COUNTER,
        "loader",
        "kernel_unplaced_bytes",
        "Bytes of calls whose place in their stream nobody knows: two threads read or wrote at once (the records are "
        "marked), or the descriptor was closed and used again while a call waited on it.",
    ),
    Metric(
        "collector_kernel_program_runs",
        COUNTER,
        "loader",
        "program_runs",
        "Times that the attached kernel programs ran. 0 unless the kernel counts (sysctl kernel.bpf_stats_enabled=1).",
    ),
    Metric("collector_kernel_program_seconds", COUNTER, "loader", "program_ns", "CPU time of these runs.", scale=1e-9),
    Metric(
        "collector_kernel_program_misses",
        COUNTER,
        "loader",
        "program_misses",
        "Times that the kernel left a program out because one of ours ran on that CPU already (Linux 5.12). Above zero: "
        "calls were not seen.",
    ),
    Metric(
        "collector_kernel_left_out_connections",
        COUNTER,
        "loader",
        "kernel_left_out",
        "New connections that the kernel hands nothing over of, because there is not the CPU for all (COLLECTOR_CPU_LIMIT).",
    ),
    Metric(
        "collector_kernel_left_out_bytes",
        COUNTER,
        "loader",
        "kernel_left_out_bytes",
        "Bytes of these, and of connections that a shard has left out for this reason.",
    ),
    Metric(
        "collector_kernel_size_only_bytes",
        COUNTER,
        "loader",
        "kernel_unwanted_bytes",
        "Bytes that were counted in the kernel and not copied.",
        (("reason", "beyond_body_limit"),),
    ),
    Metric(
        "collector_kernel_size_only_bytes",
        COUNTER,
        "loader",
        "kernel_bounded_bytes",
        "Bytes that were counted in the kernel and not copied.",
        (("reason", "not_drained"),),
    ),
    Metric("collector_kernel_faults", COUNTER, "loader", "kernel_faults", "User pages that could not be read."),
    Metric(
        "collector_kernel_ignored",
        COUNTER,
        "loader",
        "kernel_not_http",
        "Connections left out in the kernel.",
        (("reason", "not_http"),),
    ),
    Metric(
        "collector_kernel_ignored",
        COUNTER,
        "loader",
        "kernel_tls",
        "Connections left out in the kernel.",
        (("reason", "tls"),),
    ),
    Metric(
        "collector_kernel_ignored",
        COUNTER,
        "loader",
        "kernel_quic",
        "Connections left out in the kernel.",
        (("reason", "quic"),),
    ),
    Metric(
        "collector_io_uring_setups",
        COUNTER,
        "loader",
        "io_uring_setups",
        "io_uring instances made. Their traffic cannot be seen: above zero, some traffic may be missing.",
    ),
    Metric(
        "collector_ring_high_water_bytes",
        GAUGE,
        "loader",
        "ring_high_water_bytes",
        "Highest fill level of any ring. Near COLLECTOR_RING_BYTES: enlarge the rings.",
    ),
    Metric("collector_probes", GAUGE, "loader", "probes", "Kernel programs attached."),
    Metric("collector_libraries", GAUGE, "loader", "libraries", "Files in which there are probes of TLS libraries."),
    Metric(
        "collector_libraries_failed",
        GAUGE,
        "loader",
        "libraries_failed",
        "Files that could not be read, or not attached to: they are tried again, later each time. The log says why.",
    ),
    Metric(
        "collector_library_reads",
        COUNTER,
        "loader",
        "library_reads",
        "Files that were read for TLS libraries: programs and libraries, each once as long as it is remembered.",
    ),
    Metric(
        "collector_addresses_resolved",
        COUNTER,
        "loader",
        "addresses_resolved",
        "Address lookups, for connections that are older than the collector, that succeeded.",
    ),
    Metric("collector_addresses_failed", COUNTER, "loader", "addresses_failed", "Address lookups that failed."),
    *metrics_recording.METRICS,
    Metric(
        "collector_log_lines_dropped",
        COUNTER,
        "shard",
        "log_lines_dropped",
        "Log lines of a shard that could not be handed over in time.",
    ),
    Metric(
        "collector_refused_messages",
        COUNTER,
        "shard",
        "refused_messages",
        "Messages between the processes that were refused: meant for an earlier process, or not from this collector.",
    ),
    Metric("collector_batches", COUNTER, "shard", "batches", "Batches of records sent to the sink."),
    Metric(
        "collector_batches_resent",
        COUNTER,
        "shard",
        "batches_resent",
        "Batches sent again: to a new sink, or because a link broke.",
    ),
    Metric("collector_in_flight_bytes", GAUGE, "shard", "in_flight_bytes", "Bytes of records not acknowledged yet."),
    Metric(
        "collector_batches_without_slot",
        COUNTER,
        "shard",
        "batches_without_slot",
        "Batches that went through a socket: the destination was slow, so no shared memory was free, or a "
        "record did not fit.",
    ),
    Metric("collector_window_full", COUNTER, "shard", "window_full", "Times that the sink's window was full."),
    Metric("collector_delivered_records", COUNTER, "sink", "delivered_records", "Records that the destination has taken."),
    Metric("collector_failed_records", COUNTER, "sink", "failed_records", "Records that the destination refused for good."),
    Metric(
        "collector_dropped_records",
        COUNTER,
        "sink",
        "dropped_records",
        "Records dropped, oldest first, while the destination was unavailable. Above zero: data is missing.",
    ),
    Metric(
        "collector_sink_unreadable_batches",
        COUNTER,
        "sink",
        "unreadable_batches",
        "Batches lost because their memory was gone (a shard died twice while they waited); their records "
        "are among the failed ones.",
    ),
    Metric("collector_spooled_records", COUNTER, "sink", "spooled_records", "Records that went to the spool on disk."),
    Metric(
        "collector_unspooled_records",
        COUNTER,
        "sink",
        "unspooled_records",
        "Records that left the spool: delivered, refused, dropped or damaged.",
    ),
    Metric("collector_spool_records", GAUGE, "sink", "spool_records", "Records that wait in the spool."),
    Metric("collector_spool_bytes", GAUGE, "sink", "spool_bytes", "Bytes of the spool on disk."),
    Metric(
        "collector_spool_dropped_records",
        COUNTER,
        "sink",
        "spool_dropped_records",
        "Of the dropped records, those that gave way because the spool was full.",
    ),
    Metric("collector_spool_dropped_bytes", COUNTER, "sink", "spool_dropped_bytes", "Bytes on disk of the same."),
    Metric(
        "collector_spool_damaged_records",
        COUNTER,
        "sink",
        "spool_damaged_records",
        "Of the failed records, those that could not be read in the spool, as far as their number is known.",
    ),
    Metric(
        "collector_spool_damaged_bytes", COUNTER, "sink", "spool_damaged_bytes", "Bytes of the spool that could not be read."
    ),
    Metric("collector_spool_errors", COUNTER, "sink", "spool_errors", "Times that the spool's disk did not take a batch."),
    Metric("collector_write_errors", COUNTER, "sink", "write_errors", "Failed attempts to deliver."),
    Metric("collector_sink_queue_bytes", GAUGE, "sink", "queue_bytes", "Bytes that wait for the destination."),
    Metric(
        "collector_sink_queue_held_bytes",
        GAUGE,
        "sink",
        "queue_held_bytes",
        "Memory that these hold, in the sink and in the shards.",
    ),
    *(
        Metric(
            "collector_kafka_tls_expiry_timestamp_seconds",
            GAUGE,
            "sink",
            key,
            "Unix time until which the certificate for Kafka is valid: of our own (`client`; the first of its chain "
            "to expire), of the authorities in COLLECTOR_KAFKA_TLS_CA_FILE (`ca`; the last). 0: there is none.",
            (("certificate", certificate),),
        )
        for key, certificate in (("tls_certificate_expiry", "client"), ("tls_ca_expiry", "ca"))
    ),
    Metric("collector_destination_up", GAUGE, "sink", "destination_up", "1 while the destination takes records."),
    *(
        Metric(
            "collector_restarts",
            COUNTER,
            "supervisor",
            f"restarts_{child}",
            "Child processes restarted.",
            (("child", child),),
        )
        for child in ("loader", "shard", "sink", "health")
    ),
    *metrics_policy.METRICS,
    Metric(
        "collector_output_rotations",
        COUNTER,
        "supervisor",
        "output_rotations",
        "Files of records that reached COLLECTOR_OUTPUT_MAX_BYTES and were renamed.",
    ),
    Metric(
        "collector_output_rotation_errors",
        COUNTER,
        "supervisor",
        "output_rotation_errors",
        "Rotations that failed; the log says why. The file grows beyond its size.",
    ),
    Metric("collector_health_requests", COUNTER, "health", "requests", "Requests for the health pages that were answered."),
    Metric("collector_health_refused", COUNTER, "health", "pushed_out", _HEALTH_REFUSED, (("reason", "full"),)),
    Metric("collector_health_refused", COUNTER, "health", "too_slow", _HEALTH_REFUSED, (("reason", "too_slow"),)),
    Metric("collector_health_refused", COUNTER, "health", "bad_requests", _HEALTH_REFUSED, (("reason", "bad_request"),)),
    Metric(
        "collector_memory_pss_bytes",
        GAUGE,
        "supervisor",
        "memory_pss_bytes",
        "Proportional set size of all processes; compared with TRAFFIC_BUFFER_THRESHOLD and AKTO_MEM_THRESH_RESTART.",
    ),
    Metric(
        "collector_share",
        GAUGE,
        "supervisor",
        "share",
        "Of 65,536 connections so many are read: fewer than all while COLLECTOR_CPU_LIMIT or a limit of the host is passed.",
    ),
    Metric(
        "collector_memory_cgroup_bytes",
        GAUGE,
        "supervisor",
        "memory_cgroup_bytes",
        "What the cgroup uses that is nearest to its limit: kernel maps, too, and no page cache that can be taken back. "
        "0: there is no limit.",
    ),
    Metric(
        "collector_memory_cgroup_limit_bytes", GAUGE, "supervisor", "memory_cgroup_limit_bytes", "The limit of that cgroup."
    ),
    Metric(
        "collector_shed",
        COUNTER,
        "supervisor",
        "shed",
        "Times that memory was short and batches, then connection state, had to give way.",
    ),
    Metric(
        "collector_lost_exchanges",
        COUNTER,
        "supervisor",
        "lost_exchanges",
        "Exchanges that a shard had begun when it died, and whose bytes were no longer in the ring.",
    ),
    Metric(
        "collector_lost_records",
        COUNTER,
        "supervisor",
        "lost_records",
        "Records that a shard had made when it died and that the sink never got, and those of a dead shard that died with "
        "the sink. What is made again is not among them.",
    ),
    Metric(
        "collector_records_made_again",
        COUNTER,
        "supervisor",
        "records_made_again",
        "Records of what a shard was reading when it died: the next one reads it again, so they are counted twice in "
        "collector_records.",
    ),
    Metric(
        "collector_lost_state_bytes",
        COUNTER,
        "supervisor",
        "lost_state_bytes",
        "Bytes of connection state that a shard held when it died.",
    ),
)


METRICS += tuple(
    Metric(f"collector_{name}", kind, role, key, text, labels, scale)
    for key, kind, scale, of_process, of_shard, what in (
        ("cpu_ns", COUNTER, 1e-9, "process_cpu_seconds", "shard_cpu_seconds", "CPU time of {}, in user and system mode."),
        (
            "resident_bytes",
            GAUGE,
            1,
            "process_resident_bytes",
            "shard_resident_bytes",
            "Resident memory of {}, shared pages included.",
        ),
    )
    for name, role, text, labels in (
        *(
            (of_process, role, what.format("a process"), (("process", role),))
            for role in ("loader", "sink", "health", "supervisor")
        ),
        (of_shard, "shard", what.format("a shard"), ()),
    )
)
METRICS += tuple(Metric(*row) for row in viewer_metrics.ROWS)


def unseen(rows: Iterable[dict[str, Any]]) -> list[tuple[str, str, int]]:
    """(process, reason, number) of the rows of loader.entries.unseen; further names than UNSEEN_NAMES as "other"."""
    counts: collections.Counter[tuple[str, str]] = collections.Counter()
    names: set[str] = set()
    for row in rows:
        name = str(row["name"]).encode("utf-8", "replace").decode()
        if len(names) < UNSEEN_NAMES:
            names.add(name)
        counts.update(
            (name if name in names else "other", label) for key, (label, _words) in UNSEEN_REASONS.items() if row[key]
        )
    return [(name, reason, number) for (name, reason), number in counts.items()]
