"""The clocks of events and of records. Below shards/process.py there is none: time is the time of the events."""

from __future__ import annotations

import time


class SystemClock:
    """The machine's clocks."""

    def monotonic_ns(self) -> int:
        """CLOCK_MONOTONIC, ns."""
        return time.monotonic_ns()

    def wall_offset_ns(self) -> int:
        """Taken between two readings of the monotonic clock, the best of three."""
        best = (1 << 62, 0)
        for _ in range(3):
            before = time.monotonic_ns()
            wall = time.time_ns()
            after = time.monotonic_ns()
            best = min(best, (after - before, wall - (before + after) // 2))
        return best[1]
