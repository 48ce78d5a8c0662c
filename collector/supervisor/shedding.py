"""What gives way when memory is short: the batches that wait, then the state of connections, then all: a restart.

Above the lower threshold (memory.py) batches go first, when there are many of them: then the destination is away or slow,
and giving up connections would free nothing, and spoil records that have yet to be made. With a spool they go to disk;
without, the oldest are dropped, which is counted. What is still missing the shards take from the connections that were
silent for longest, whose exchanges are recorded as they stand; what a shard may hold in any case is left to it. Whoever
gives something up gives its memory back to the system. Above the upper threshold the same is tried once more, and a restart
follows only where it has not helped: what a library's reader, a burst or the compiler takes for a moment is no reason.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence

from collector.counters import Counters
from collector.router import slots
from collector.router.slots import BATCH_BYTES
from collector.supervisor import memory
from collector.supervisor.child import ChildProcess
from collector.supervisor.memory import Guard, Reading

log = logging.getLogger("supervisor")

_LEAST_PART = 8  # of the queue's room this part is left to it


class Shedding:
    """Watches memory and says who gives way. ``core`` are the numbers of the shards' pipelines, ``own`` the supervisor's;
    ``queue_bytes`` is what batches may hold; ``live``: a replay is left alone, its memory is bounded otherwise.
    """

    def __init__(
        self,
        guard: Guard,
        sink: ChildProcess,
        shards: Sequence[ChildProcess],
        core: Sequence[Counters],
        own: Counters,
        *,
        queue_bytes: int,
        live: bool,
    ) -> None:
        self._guard = guard
        self._sink = sink
        self._shards = shards
        self._core = core
        self._own = own
        self._queue_bytes = queue_bytes
        self._live = live
        self._less_room = False  # has the sink been told of less than queue_bytes?
        self._again_at = self._warn_at = 0.0
        self._above_since = 0.0  # the upper threshold; 0.0: not above

    def budget(self) -> int:
        """Bytes of connection state that each shard may hold now."""
        count = len(self._shards)
        in_slots = slots.count_for(count) * count * BATCH_BYTES  # not touched yet when the base was measured
        return self._guard.budget(min(in_slots, self._queue_bytes), count)

    def turn(self, now: float, pids: Callable[[], Iterable[int]], *, at_work: bool, rings_bytes: int) -> bool:
        """Look, if it is time to. Is so much in use that only a restart helps? ``at_work``: all children have begun; before
        that there is nothing to give way, and the compiler, which takes much for a moment, may still run.
        """
        guard = self._guard
        if at_work and self._live and not guard.base:  # at once: what traffic takes is not to be in it
            guard.measure_base(pids(), rings_bytes)
            for child in self._shards:
                child.tell({"kind": "budget", "bytes": self.budget()})
        reading = guard.turn(now, pids)
        if reading is None:
            return False
        self._own.add("memory_checks")
        self._own["memory_pss_bytes"] = guard.pss
        self._own["memory_cgroup_bytes"] = guard.cgroup
        self._own["memory_cgroup_limit_bytes"] = guard.cgroup_limit
        if not at_work or not self._live:
            return False
        if reading.decision != memory.RESTART:
            self._above_since = 0.0
        elif not self._above_since:
            self._above_since = now
            self._again_at = 0.0
        elif now - self._above_since >= memory.SETTLE_SECONDS:
            log.error(
                "memory: %s %d MiB, above %s (%d MiB): draining for a restart",
                reading.what,
                reading.used >> 20,
                reading.hard_name,
                reading.hard >> 20,
            )
            return True
        if reading.decision != memory.OK:
            if now >= self._again_at:
                self._again_at = now + memory.SETTLE_SECONDS
                self._give_way(reading, now)
        elif reading.calm and self._less_room:
            self._less_room = not self._sink.tell({"kind": "room", "bytes": self._queue_bytes})
        return False

    def _give_way(self, reading: Reading, now: float) -> None:
        self._own.add("shed")
        over = reading.used - reading.soft + memory.MIB
        held = self._sink.counters["queue_held_bytes"]
        from_batches = min(over, max(0, held - self._queue_bytes // _LEAST_PART))
        if from_batches:
            self._less_room |= self._sink.tell({"kind": "room", "bytes": held - from_batches})
        state = [core["buffer_bytes"] for core in self._core]
        spare = [max(0, held - memory.MIN_BUDGET_BYTES) for held in state]
        from_state = min(over - from_batches, sum(spare))
        for child, held, most in zip(self._shards, state, spare, strict=True):
            part = from_state * most // sum(spare) if from_state else 0
            child.tell({"kind": "shed", "bytes": held - part})  # and to give back what is free
            child.tell({"kind": "budget", "bytes": self.budget()})
        if now >= self._warn_at:
            self._warn_at = now + memory.WARN_SECONDS
            log.warning(
                "memory: %s %d MiB, above %s (%d MiB): %d MiB of batches and %d MiB of connection state give way",
                reading.what,
                reading.used >> 20,
                reading.soft_name,
                reading.soft >> 20,
                from_batches >> 20,
                from_state >> 20,
            )
