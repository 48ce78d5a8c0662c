"""The metrics of --record, a part of metrics.METRICS. ``loader``: of the raw events; ``sink``: with --redact."""

from __future__ import annotations

from collector.metric import COUNTER, Metric

_LEFT_OUT = (
    "Records that --record --redact did not write, because no conversation would give them again. `doubtful`: they have "
    "marks of framing, pairing or unknown fields. `parts`: parts of a stream. `websocket`. `not_http`: values that HTTP "
    "cannot carry."
)

METRICS: tuple[Metric, ...] = (
    Metric("collector_record_file_bytes", COUNTER, "loader", "record_file_bytes", "Bytes written by --record."),
    Metric(
        "collector_record_file_skipped_bytes",
        COUNTER,
        "loader",
        "record_file_skipped_bytes",
        "Bytes not written by --record because its limit was reached or the file could not be written.",
    ),
    Metric("collector_redacted_file_bytes", COUNTER, "sink", "redacted_file_bytes", "Bytes written by --record --redact."),
    Metric(
        "collector_redacted_file_skipped_bytes",
        COUNTER,
        "sink",
        "redacted_file_skipped_bytes",
        "Bytes not written by --record --redact because its limit was reached or the file could not be written.",
    ),
    Metric(
        "collector_redacted_file_exchanges",
        COUNTER,
        "sink",
        "redacted_file_exchanges",
        "Exchanges written by --record --redact.",
    ),
    *(
        Metric(
            "collector_redacted_file_left_out",
            COUNTER,
            "sink",
            f"redacted_file_left_out_{reason}",
            _LEFT_OUT,
            (("reason", reason),),
        )
        for reason in ("doubtful", "parts", "websocket", "not_http")
    ),
)
