"""The metrics of the capture, which the loader counts - kernel, probes, spans, libraries, --record: a part of
metrics.METRICS.
"""

from __future__ import annotations

from collector import metrics_recording
from collector.metric import COUNTER, GAUGE, Metric

_LOST_EVENTS = "Events that the kernel could not hand over. Above zero: enlarge COLLECTOR_RING_BYTES or add shards."

METRICS: tuple[Metric, ...] = (
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
)
