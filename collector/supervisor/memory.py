"""How much memory the collector uses, and what to do about it. Beside thermostat.py the only
place that knows psutil.

The figure is the proportional set size of the whole process tree: ring buffers are mapped twice, and the resident
set would count them twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import psutil

MIB = 1 << 20
OK, SHED, RESTART = "ok", "shed", "restart"
MIN_BUDGET_BYTES = 4 * MIB


def pss_bytes(pids: Iterable[int]) -> int:
    """Proportional set size of the given processes together; one that is gone counts nothing."""
    total = 0
    for pid in pids:
        try:
            total += psutil.Process(pid).memory_full_info().pss
        except psutil.AccessDenied:
            total += rss_bytes([pid])  # without CAP_SYS_PTRACE: more than it is, but not blind
        except psutil.Error:
            continue
    return total


def rss_bytes(pids: Iterable[int]) -> int:
    """Resident set sizes added up: never less than pss_bytes, and much cheaper to read."""
    total = 0
    for pid in pids:
        try:
            total += psutil.Process(pid).memory_info().rss
        except psutil.Error:
            continue
    return total


def thresholds(soft: int, hard: int, limit_bytes: int | None) -> tuple[int, int]:
    """(soft, hard) in bytes, clamped to 70 and 85 % of a smaller cgroup limit."""
    if limit_bytes is not None:
        soft = min(soft, limit_bytes * 70 // 100)
        hard = min(hard, limit_bytes * 85 // 100)
    return soft, hard


def decide(used: int, soft: int, hard: int) -> str:
    """What to do with so many bytes in use: OK, SHED (shards shed connection state) or RESTART (drain and exit)."""
    if used > hard:
        return RESTART
    return SHED if used >= soft else OK


def shard_budget(soft: int, base: int, shards: int) -> int:
    """Bytes of connection state that each shard may hold: what the threshold leaves above ``base``."""
    return max(MIN_BUDGET_BYTES, (soft - base) // shards)


class Guard:
    """Looks at the memory of all processes every ``seconds``. ``soft`` and ``hard`` are the thresholds in bytes; ``pss`` is
    the last proportional set size; ``base`` what the processes need before they hold connection state, 0 until measured.
    """

    PSS_SECONDS = 10.0
    UNMEASURED_BASE_BYTES = 110 * MIB

    def __init__(self, soft: int, hard: int, seconds: float) -> None:
        self.soft = soft
        self.hard = hard
        self.pss = 0
        self.base = 0
        self._seconds = seconds
        self._next = self._next_pss = 0.0

    def turn(self, now: float, pids: Callable[[], Iterable[int]]) -> int | None:
        """Bytes in use, or None when it is not time to look. The cheap reading is above the true one; so the true one is
        taken when the cheap one passes the threshold, and every PSS_SECONDS.
        """
        if now < self._next:
            return None
        self._next = now + self._seconds
        used = rss_bytes(pids())
        if used >= self.soft or now >= self._next_pss:
            self._next_pss = now + self.PSS_SECONDS
            used = self.pss = pss_bytes(pids())
        return used

    def measure_base(self, pids: Iterable[int], rings_bytes: int) -> None:
        """All children are at work and hold nothing yet; the rings (bytes) will fill."""
        self.base = pss_bytes(pids) + rings_bytes

    def budget(self, batch_bytes: int, shards: int) -> int:
        """Bytes of connection state that each shard may hold now, when batches may take so many bytes."""
        return shard_budget(self.soft, (self.base or self.UNMEASURED_BASE_BYTES) + batch_bytes, shards)

    def decide(self, used: int) -> str:
        """See the function of that name."""
        return decide(used, self.soft, self.hard)
