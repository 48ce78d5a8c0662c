"""Restart decisions, as pure functions of what happened and when."""

from __future__ import annotations

from dataclasses import dataclass, field

FIRST_DELAY, MAX_DELAY = 0.5, 30.0
HEALTHY_SECONDS = 60.0
MAX_FAILED_STARTS = 5
HANG_SECONDS = 5.0
START_SECONDS = 60.0  # for a child that starts: its heartbeat comes whenever it has got on
LONGEST_START_SECONDS = 600.0


@dataclass
class History:
    """One child's lives: when each ended (seconds, monotonic), and how many in a row never became ready."""

    ends: list[float] = field(default_factory=list)
    failed_starts: int = 0

    def ended(self, now: float, *, was_ready: bool, lived_seconds: float) -> None:
        """Note the end of a life."""
        self.failed_starts = 0 if was_ready else self.failed_starts + 1
        if lived_seconds > HEALTHY_SECONDS:
            self.ends.clear()
        self.ends.append(now)


def restart_delay(history: History) -> float | None:
    """Seconds until the next start: 0 for the first, then doubling; None when the child cannot start at all."""
    if history.failed_starts >= MAX_FAILED_STARTS:
        return None
    again = len(history.ends) - 1
    return 0.0 if again <= 0 else min(MAX_DELAY, FIRST_DELAY * 2 ** (again - 1))


def hangs(*, ready: bool, silent_seconds: float, lived_seconds: float) -> bool:
    """Has the child's main loop stalled, or its start?"""
    if ready:
        return silent_seconds > HANG_SECONDS
    return silent_seconds > START_SECONDS or lived_seconds > LONGEST_START_SECONDS


def suspects(deaths_while_fed: dict[int, int]) -> list[int]:
    """Connections to skip: those that were being fed when a shard died, twice."""
    return [key for key, count in deaths_while_fed.items() if count >= 2][-16:]
