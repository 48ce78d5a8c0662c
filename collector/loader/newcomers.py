"""Which processes are to be looked at now: those that have begun a program or mapped a file executable (bpf/newcomers.h).

A program maps its libraries in the first milliseconds, and most of those that begin on a node have ended by then. So a
process is looked at a little later, and not again for some time; while it waits, the kernel does not tell of it again.
"""

from __future__ import annotations

import contextlib
import heapq
import struct
import time
from collections.abc import Iterator

from collector.loader import kernel
from collector.loader.ringbuffer import Ring

RING_BYTES = 16 * 4096
TOLD = 4096  # entries of bpf/newcomers.h newcomers_told
_STEP = 16  # a record of the ring: the kernel's header, four bytes, and the rest rounded up
SETTLE_SECONDS = 0.01  # after it was told of
AGAIN_SECONDS = 0.05  # between two looks at one process
WAITING = 4096
# What looking at them may take: a part of a CPU, and so many seconds at once
PART, BURST_SECONDS = 0.05, 0.5


class Newcomers:
    """``ring``: `newcomers`, of RING_BYTES; ``told``: the descriptor of `newcomers_told`."""

    def __init__(self, ring: Ring, told: int) -> None:
        self._ring = ring
        self._told = told
        for key, _value in kernel.Entries(told, 4, 1, TOLD).read():  # an earlier loader may have died before it looked
            self._forget(key)
        self._waiting: list[tuple[float, int]] = []  # a heap: when to look, at whom
        self._looked: dict[int, float] = {}  # in the order of time
        self._allowance, self._allowance_at = BURST_SECONDS, 0.0

    @property
    def waiting(self) -> bool:
        """Is anybody to be looked at soon?"""
        return bool(self._waiting)

    def due(self, now: float, until: float) -> Iterator[int]:
        """The processes to look at now, as long as there is time, by time.monotonic(). What the caller takes for each is
        counted.
        """
        span = self._ring.drain(RING_BYTES)
        for at in range(8, len(span or b""), _STEP):
            assert span is not None
            (pid,) = struct.unpack_from("=I", span, at)
            if len(self._waiting) < WAITING:
                when = max(now + SETTLE_SECONDS, self._looked.get(pid, -AGAIN_SECONDS) + AGAIN_SECONDS)
                heapq.heappush(self._waiting, (when, pid))
            else:  # the look at all processes finds it
                self._forget(span[at : at + 4])
        self._allowance = min(BURST_SECONDS, self._allowance + (now - self._allowance_at) * PART)
        self._allowance_at = now
        while self._waiting and self._waiting[0][0] <= now and self._allowance > 0 and time.monotonic() < until:
            began = time.thread_time()
            _when, pid = heapq.heappop(self._waiting)
            self._forget(struct.pack("=I", pid))
            self._looked.pop(pid, None)
            self._looked[pid] = now
            yield pid
            self._allowance -= time.thread_time() - began
        while self._looked and next(iter(self._looked.values())) + AGAIN_SECONDS < now:
            del self._looked[next(iter(self._looked))]

    def add(self, pid: int, now: float) -> None:
        """Look at this process, too."""
        if len(self._waiting) < WAITING:
            heapq.heappush(self._waiting, (now, pid))

    def _forget(self, key: bytes) -> None:
        with contextlib.suppress(FileNotFoundError):
            kernel.map_delete(self._told, key)
