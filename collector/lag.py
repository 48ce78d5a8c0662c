"""How old records are when they are delivered, as a histogram: the sink counts, the health pages show."""

from __future__ import annotations

import bisect

SECONDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)  # upper ends of the buckets; one more has no end
# Names of counters: records in each bucket, not in those below; and the sum.
NAMES = (*(f"lag_records_{number}" for number in range(len(SECONDS) + 1)), "lag_ms")
METRIC = "collector_delivery_lag_seconds"
HELP = (
    "From the end of an exchange to the destination's acknowledgement of its record; for all records of a batch that of "
    "the oldest. Without those that waited in the spool."
)


class Lag:
    """Counts since the process began. Not thread-safe."""

    def __init__(self) -> None:
        self._records = [0] * (len(SECONDS) + 1)
        self._ms = 0

    def observe(self, nanoseconds: int, records: int) -> None:
        """So many records were so old."""
        self._records[bisect.bisect_left(SECONDS, nanoseconds / 1e9)] += records
        self._ms += nanoseconds * records // 1_000_000

    def counters(self) -> dict[str, int]:
        """By NAMES."""
        return dict(zip(NAMES, (*self._records, self._ms), strict=True))


def buckets(counters: dict[str, int]) -> tuple[list[tuple[str, float]], float]:
    """([(upper end in seconds, records up to there)], sum in seconds) as Prometheus has them."""
    out, records = list[tuple[str, float]](), 0
    for number, end in enumerate((*map(str, SECONDS), "+Inf")):
        records += counters[f"lag_records_{number}"]
        out.append((end, float(records)))
    return out, counters["lag_ms"] / 1000
