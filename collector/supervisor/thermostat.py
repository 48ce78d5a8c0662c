"""How much CPU the collector and the host use, and how many connections there is CPU for.

    the collector uses more than its limit    fewer connections are read, until it does not
    the host is short of CPU                  fewer, down to none: the collector steps back first
    neither                                   more again, up to all

What shrinks is the share of the connections, chosen evenly by their numbers; each shard leaves the others out between two
messages, so no exchange is half read, and counts them (docs/decisions/0025-cpu.md). Between the two
thresholds nothing changes: a share that swings would cut connections in pieces.
"""

from __future__ import annotations

import collections
import contextlib
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import psutil

from collector.settings import ALL_CONNECTIONS as ALL
from collector.settings import CpuSettings

log = logging.getLogger("supervisor")

LEAST = ALL // 64  # of the collector's own limit; a host that is short of CPU may have it go down to none
SETTLE_SECONDS = 3.0  # a step is judged by what comes behind it
WARN_SECONDS = 60.0
HIGH, LOW, IDLE = 0.9, 0.7, 0.3  # of the limit: above HIGH fewer are read, below LOW more


@dataclass(frozen=True, slots=True)
class Reading:
    """Cores in use since the last reading: by the collector, and by everything on the host, itself included."""

    own: float
    host: float


class Meter:
    """Reads the times of processes and of the host. ``read`` needs two calls to know anything."""

    def __init__(self) -> None:
        self._own: dict[tuple[int, float], float] = {}
        self._host = 0.0
        self._at = 0.0

    def read(self, now: float, pids: Iterable[int]) -> Reading | None:
        """Since the last call; None at the first. Raises psutil.Error when the host's times cannot be read."""
        own = dict(_times_of(pids))
        times = psutil.cpu_times()
        host = sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0)
        host -= getattr(times, "guest_nice", 0.0)  # which user and nice hold already
        seconds, used = now - self._at, host - self._host
        # Together, for the times of one that has ended go on among those of its parent's children: of one that is new
        # everything counts, and of one that is gone what is new.
        ours = sum(own.values()) - sum(self._own.values())
        first = not self._at
        self._own, self._host, self._at = own, host, now
        return None if first or seconds <= 0 else Reading(max(0.0, ours) / seconds, max(0.0, used) / seconds)


def _times_of(pids: Iterable[int]) -> Iterable[tuple[tuple[int, float], float]]:
    """Seconds of CPU of each process and of its children that have ended; one that is gone is left out."""
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            times = process.cpu_times()
            yield (pid, process.create_time()), sum(times[:4])


def lowered(share: int) -> int:
    """One step down, at last to none."""
    return share * 7 // 10 if share > ALL // 256 else 0


def raised(share: int, *, idle: bool) -> int:
    """One step up, also from none. A quarter more leads from below LOW to no more than HIGH, and twice as much from below
    IDLE.
    """
    return min(ALL, max(share * 2 if idle else share * 5 // 4, ALL // 256))


class HostLimits:
    """The cores that everything on the host may use before the collector steps back: ``soft``, ``hard``, 0.0 for no limit,
    or none yet: those of the _ADD_ variables count from what the host uses in the first seconds.
    """

    def __init__(self, settings: CpuSettings) -> None:
        self._settings = settings
        self.soft, self.hard = settings.host_soft, settings.host_hard
        self._began = 0.0
        self._samples: list[float] | None = [] if settings.host_soft_add or settings.host_hard_add else None

    def turn(self, now: float, host: float) -> None:
        """The host uses so many cores at ``now``."""
        if self._samples is None:
            return
        self._began = self._began or now
        self._samples.append(host)
        if now - self._began >= self._settings.baseline_seconds:
            usual = sorted(self._samples)[len(self._samples) * 9 // 10]
            self._samples = None
            self.soft = self.soft or (self._settings.host_soft_add and usual + self._settings.host_soft_add)
            self.hard = self.hard or (self._settings.host_hard_add and usual + self._settings.host_hard_add)
            log.info("CPU: the host uses %.1f cores; limits are %.1f and %.1f", usual, self.soft, self.hard)


class Thermostat:
    """See the module."""

    def __init__(self, settings: CpuSettings) -> None:
        self.share = 0 if settings.paused else ALL
        self._settings = settings
        self._host = HostLimits(settings)
        self._meter = Meter()
        self._own: collections.deque[float] = collections.deque(maxlen=max(1, round(SETTLE_SECONDS / settings.seconds)))
        self._next = self._changed = self._warn_at = 0.0
        self._hard_turns = 0
        if settings.paused:
            log.warning("AKTO_PAUSE_INGESTION is set: no connection is read")

    @property
    def watches(self) -> bool:
        """Is there a limit to hold?"""
        s = self._settings
        limits = (s.limit, s.host_soft, s.host_hard, s.host_soft_add, s.host_hard_add)
        return not s.paused and any(limits)

    def turn(self, now: float, pids: Callable[[], Iterable[int]]) -> bool:
        """Look, if it is time to. Has the share changed? To be called once everything is at work: what the start costs is
        no reason to read less.
        """
        if not self.watches or now < self._next:
            return False
        self._next = now + self._settings.seconds
        reading = self._meter.read(now, pids())
        return reading is not None and self.decide(now, reading)

    def decide(self, now: float, reading: Reading) -> bool:
        """What follows from a reading at ``now`` (seconds). Has the share changed?"""
        before, limit = self.share, self._settings.limit
        self._host.turn(now, reading.host)
        soft, hard = self._host.soft, self._host.hard
        self._hard_turns = self._hard_turns + 1 if hard and reading.host >= hard else 0
        self._own.append(reading.own)
        own = sum(self._own) / len(self._own)
        settled = len(self._own) == self._own.maxlen and now - self._changed >= SETTLE_SECONDS
        if self._hard_turns >= self._settings.host_hard_turns:
            self._become(0, now, f"the host uses {reading.host:.1f} cores, above the hard limit of {hard:.1f}")
        elif soft and reading.host >= soft:
            self._become(
                lowered(self.share), now, f"the host uses {reading.host:.1f} cores, above the soft limit of {soft:.1f}"
            )
        elif settled and limit and own > limit * HIGH:
            share = max(min(LEAST, self.share), lowered(self.share))
            self._become(share, now, f"the collector uses {own:.2f} cores of its {limit:.2f}")
        elif settled and not (limit and own > limit * LOW) and not (soft and reading.host > soft * HIGH):
            self._become(raised(self.share, idle=bool(limit) and own < limit * IDLE), now, "")
        return self.share != before

    def _become(self, share: int, now: float, why: str) -> None:
        if share == self.share:
            return
        self.share = share
        self._changed = now
        if share == ALL:
            self._warn_at = 0.0
            log.warning("CPU: all connections are read again")
        elif why and now >= self._warn_at:
            self._warn_at = now + WARN_SECONDS
            log.warning("CPU: %s: %.3g %% of the connections are read", why, share * 100 / ALL)
