"""How much memory the collector uses, and what to do about it. Beside thermostat.py the only
place that knows psutil.

Two figures count, whichever is nearer to its limit. The proportional set size of the whole process tree: ring buffers are
mapped twice, and the resident set would count them twice. And what the cgroup uses: there the kernel's maps are in it, too,
and that is what the kernel compares with the limit before it kills.
"""

from __future__ import annotations

import contextlib
import glob
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import psutil

from collector import cgroups
from collector.memory_plan import HARD_PERCENT, SOFT_PERCENT

MIB = 1 << 20
OK, SHED, RESTART = "ok", "shed", "restart"
MIN_BUDGET_BYTES = 4 * MIB
CALM_PERCENT = 90  # of the lower threshold
SETTLE_SECONDS = 1.0  # until what was given up is free
WARN_SECONDS = 30.0


def tree(pids: Iterable[int]) -> list[int]:
    """These processes and all below them: the loader has children of its own."""
    found = list(pids)
    for pid in found:  # grows meanwhile
        for path in glob.glob(f"/proc/{pid}/task/*/children"):
            with contextlib.suppress(OSError), open(path, encoding="ascii") as file:
                found += [int(child) for child in file.read().split() if int(child) not in found]
    return found


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


def decide(used: int, soft: int, hard: int) -> str:
    """What to do with so many bytes in use: OK, SHED (something must give way) or RESTART (drain and exit)."""
    if used > hard:
        return RESTART
    return SHED if used >= soft else OK


def shard_budget(soft: int, base: int, shards: int) -> int:
    """Bytes of connection state that each shard may hold: what the threshold leaves above ``base``."""
    return max(MIN_BUDGET_BYTES, (soft - base) // shards)


@dataclass(frozen=True, slots=True)
class Reading:
    """Bytes in use, with the thresholds for them. ``what`` was read and what the thresholds are called, for the log."""

    what: str
    used: int
    soft: int
    hard: int
    soft_name: str = "TRAFFIC_BUFFER_THRESHOLD"
    hard_name: str = "AKTO_MEM_THRESH_RESTART"

    @property
    def decision(self) -> str:
        """See `decide`."""
        return decide(self.used, self.soft, self.hard)

    @property
    def calm(self) -> bool:
        """Is there room for more than there is?"""
        return self.used < self.soft * CALM_PERCENT // 100


class Guard:
    """Looks at the memory of all processes every ``seconds``, and at that of the cgroup. ``soft`` and ``hard`` are the
    thresholds in bytes of the proportional set size, ``pss`` its last value; ``cgroup`` is what the cgroup uses, of
    ``cgroup_limit`` (both 0 without a limit). ``base`` and ``cgroup_base`` are what the two were, with the rings, before
    there was any connection state; 0 until measured.
    """

    PSS_SECONDS = 10.0
    UNMEASURED_BASE_BYTES = 110 * MIB

    def __init__(self, soft: int, hard: int, seconds: float) -> None:
        self.soft = soft
        self.hard = hard
        self.pss = self.cgroup = self.cgroup_limit = 0
        self.base = self.cgroup_base = 0
        self._seconds = seconds
        self._next = self._next_pss = 0.0

    def turn(self, now: float, pids: Callable[[], Iterable[int]]) -> Reading | None:
        """What is nearer to its limit, the processes or the cgroup; None when it is not time to look. The cheap reading of
        the processes is above the true one; so the true one is taken when the cheap one comes near the threshold, and every
        PSS_SECONDS.
        """
        if now < self._next:
            return None
        self._next = now + self._seconds
        used = rss_bytes(tree(pids()))
        if used >= self.soft * CALM_PERCENT // 100 or now >= self._next_pss:
            self._next_pss = now + self.PSS_SECONDS
            used = self.pss = pss_bytes(tree(pids()))
        reading = Reading("the processes use", used, self.soft, self.hard)
        use = cgroups.memory_use()
        if use is None:
            self.cgroup = self.cgroup_limit = 0
            return reading
        self.cgroup, self.cgroup_limit = use.used, use.limit
        cgroup = Reading(
            "the cgroup uses",
            use.used,
            use.limit * SOFT_PERCENT // 100,
            use.limit * HARD_PERCENT // 100,
            f"{SOFT_PERCENT} % of its limit",
            f"{HARD_PERCENT} % of its limit",
        )
        return max(reading, cgroup, key=lambda one: one.used / one.hard)

    def measure_base(self, pids: Iterable[int], rings_bytes: int) -> None:
        """All children are at work and hold nothing yet; the rings (bytes) will fill, and the cgroup has them already."""
        self.base = pss_bytes(tree(pids)) + rings_bytes
        use = cgroups.memory_use()
        self.cgroup_base, self.cgroup_limit = (use.used, use.limit) if use is not None else (0, 0)

    def budget(self, batch_bytes: int, shards: int) -> int:
        """Bytes of connection state that each shard may hold now, when batches may take so many bytes."""
        budget = shard_budget(self.soft, (self.base or self.UNMEASURED_BASE_BYTES) + batch_bytes, shards)
        if self.cgroup_base:
            budget = min(
                budget, shard_budget(self.cgroup_limit * SOFT_PERCENT // 100, self.cgroup_base + batch_bytes, shards)
            )
        return budget
