"""Time, as an argument: processes get a Clock, layers know only event time, nobody else asks the system."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """What a process may ask about time."""

    def monotonic_ns(self) -> int:
        """CLOCK_MONOTONIC, ns: the clock of the kernel's events."""

    def wall_offset_ns(self) -> int:
        """CLOCK_REALTIME - CLOCK_MONOTONIC, ns."""


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
