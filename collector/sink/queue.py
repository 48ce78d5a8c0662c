"""The bounded queue in front of a destination. It knows nothing of threads that fail, of retries or of clients.

Bounded in bytes of records. When more comes than fits, the oldest batch gives way, and whoever put it in counts it; a
lossless queue keeps everything, and says that it is full instead. A batch that was taken out still counts, until it is
done: it is held in memory as before.
"""

from __future__ import annotations

import collections
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from collector.sink.batch import Batch

QUEUE_BYTES = 64 << 20  # less than what the shards may have on the way: the sink drops, the shards never wait for long
_DUE_PART = 4  # of the queue's bytes: what waits longer only to be delivered together would be dropped unsent


@dataclass(frozen=True)
class Linger:
    """When batches that wait are due: at so many ``records`` together, or when the oldest is ``seconds`` old."""

    records: int = 1
    seconds: float = 0.0


class BatchQueue:
    """See the module. Safe to use from several threads."""

    def __init__(
        self,
        *,
        lossless: bool,
        limit_bytes: int = QUEUE_BYTES,
        linger: Linger = Linger(),  # noqa: B008 - frozen
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lossless = lossless
        self._limit = limit_bytes
        self._linger = linger
        self._clock = clock
        self._changed = threading.Condition()
        self._waiting: collections.deque[tuple[Batch, float]] = collections.deque()  # with the time of arrival
        self._waiting_bytes = self._waiting_records = 0
        self._due = 0  # batches at the front that need not wait for company any more
        self._active = self._active_bytes = 0
        self.closing = False

    @property
    def bytes(self) -> int:
        """Bytes of records that wait or are under way."""
        return self._waiting_bytes + self._active_bytes

    def full(self) -> bool:
        """Should nothing more be put in for now? Only ever true when lossless."""
        return self._lossless and self.bytes > self._limit

    def idle(self) -> bool:
        """Is nothing waiting and nothing under way?"""
        with self._changed:
            return not self._waiting and not self._active

    def put(self, batch: Batch) -> list[Batch]:
        """Put a batch in; never blocks. Returns those that gave way to it, oldest first."""
        gave_way = []
        with self._changed:
            self._waiting.append((batch, self._clock()))
            self._waiting_bytes += len(batch.records)
            self._waiting_records += batch.count
            while not self._lossless and self.bytes > self._limit and len(self._waiting) > 1:
                gave_way.append(self._pop())
            self._changed.notify_all()
        return gave_way

    def take(self, seconds: float) -> Batch | None:
        """The next batch that is due, waiting up to that long for one. It counts until `done`."""
        with self._changed:
            if not self._any_due() and not (self.closing and not self._active):
                if self._waiting:
                    seconds = min(seconds, self._linger.seconds - (self._clock() - self._waiting[0][1]))
                self._changed.wait(max(0.0, seconds))
            if not self._any_due():
                return None
            batch = self._pop()
            self._active += 1
            self._active_bytes += len(batch.records)
            return batch

    def done(self, batch: Batch) -> None:
        """A batch that was taken is done with."""
        with self._changed:
            self._active -= 1
            self._active_bytes -= len(batch.records)
            self._changed.notify_all()

    def clear(self) -> list[Batch]:
        """Take out all that waits, oldest first."""
        with self._changed:
            return [self._pop() for _ in range(len(self._waiting))]

    def close(self) -> None:
        """From now on everything is due at once."""
        with self._changed:
            self.closing = True
            self._changed.notify_all()

    def _pop(self) -> Batch:
        batch, _arrived = self._waiting.popleft()
        self._waiting_bytes -= len(batch.records)
        self._waiting_records -= batch.count
        self._due = max(0, self._due - 1)
        return batch

    def _any_due(self) -> bool:
        if (
            not self._due
            and self._waiting
            and (
                self.closing
                or self._waiting_records >= self._linger.records
                or self._waiting_bytes * _DUE_PART >= self._limit
                or self._clock() - self._waiting[0][1] >= self._linger.seconds
            )
        ):
            self._due = len(self._waiting)
        return self._due > 0
