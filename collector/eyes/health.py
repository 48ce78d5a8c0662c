"""What the collector says of itself, for the header of `collector top`: differences between two answers of /status."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from collector import lag

_DROPPED = ("sink_dropped_records", "sink_failed_records", "supervisor_lost_records", "sink_spool_dropped_records")


@dataclass(frozen=True)
class Process:
    """CPU in percent of one CPU, memory in bytes."""

    name: str
    cpu: float
    memory: int


@dataclass(frozen=True)
class State:
    """Rates are a second. ``lag``: within which 99 % of the records were delivered, s; None when none was."""

    words: str = "no answer"
    events_lost: float = 0.0
    holes: float = 0.0
    dropped: float = 0.0
    delivered: float = 0.0
    lag: float | None = None
    lag_open: bool = False
    queue: int = 0
    processes: tuple[Process, ...] = ()


def between(old: dict[str, Any], new: dict[str, Any], seconds: float) -> State:
    """From two answers, so many seconds apart."""
    before, now = old["totals"], new["totals"]

    def rate(*names: str) -> float:
        return sum(now.get(name, 0) - before.get(name, 0) for name in names) / seconds

    within, is_open = _lag(before, now)
    return State(
        words="" if new["ready"] else str(new["ready_words"]),
        events_lost=rate("loader_kernel_dropped_events"),
        holes=rate("holes"),
        dropped=rate(*_DROPPED),
        delivered=rate("sink_delivered_records"),
        lag=within,
        lag_open=is_open,
        queue=now.get("sink_queue_bytes", 0),
        processes=tuple(
            Process(
                name,
                max(0, used["cpu_ns"] - old["usage"].get(name, used)["cpu_ns"]) / seconds / 1e7,
                used["resident_bytes"],
            )
            for name, used in new["usage"].items()
        ),
    )


def _lag(before: dict[str, int], now: dict[str, int]) -> tuple[float | None, bool]:
    """(seconds, is it more than that?), the upper end of the bucket in which the 99th percentile lies."""
    counts = [now.get(f"sink_{name}", 0) - before.get(f"sink_{name}", 0) for name in lag.NAMES[:-1]]
    left = 0.99 * sum(counts)
    if sum(counts) <= 0:
        return None, False
    for end, number in zip(lag.SECONDS, counts, strict=False):
        left -= number
        if left <= 0:
            return end, False
    return lag.SECONDS[-1], True
