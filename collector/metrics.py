"""Every metric, declared once: its place in shared memory, its Prometheus name, its help. Here are those of the processes,
of the way to the destination and of the supervisor; the others are in metrics_exchanges.py, metrics_capture.py,
metrics_policy.py and viewer_metrics.py. metrics_pages.py prints docs/metrics.md from METRICS.

Help says what is counted and what an operator should conclude.
"""

from __future__ import annotations

import collections
from collections.abc import Iterable
from typing import Any

from collector import metrics_capture, metrics_exchanges, metrics_kubernetes, metrics_policy, viewer_metrics
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

_HEALTH_REFUSED = (
    "Connections to the health pages that got no page: closed to make room for newer ones, too slow, or with "
    "a request that is none. Many: somebody attacks the port."
)

METRICS: tuple[Metric, ...] = (
    *metrics_exchanges.METRICS,
    *metrics_capture.METRICS,
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
        for child in ("loader", "shard", "sink", "health", "kubernetes")
    ),
    *metrics_kubernetes.METRICS,
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
