"""The bounded queue in front of a destination. It knows nothing of threads that fail, of retries or of clients.

Bounded in bytes of records. When more comes than fits, the oldest batch gives way, and whoever put it in counts it; a
lossless queue keeps everything, and says that it is full instead. A batch that was taken out still counts, until it is
done: it is held in memory as before.
"""

from __future__ import annotations

import collections
import threading

from collector.sink.batch import Batch

QUEUE_BYTES = 64 << 20  # less than what the shards may have on the way: the sink drops, the shards never wait for long


class BatchQueue:
    """See the module. Safe to use from several threads."""

    def __init__(self, *, lossless: bool, limit_bytes: int = QUEUE_BYTES) -> None:
        self._lossless = lossless
        self._limit = limit_bytes
        self._changed = threading.Condition()  # its lock is re-entrant
        self._waiting: collections.deque[Batch] = collections.deque()
        self._active: set[Batch] = set()  # that were taken
        self._bytes = 0
        self.closing = False

    @property
    def bytes(self) -> int:
        """Bytes of records that wait or are under way."""
        return self._bytes

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
            self._waiting.append(batch)
            self._bytes += len(batch.records)
            while not self._lossless and self._bytes > self._limit and len(self._waiting) > 1:
                gave_way.append(self._waiting.popleft())
                self._bytes -= len(gave_way[-1].records)
            self._changed.notify_all()
        return gave_way

    def take(self, seconds: float) -> Batch | None:
        """The next batch, waiting up to that long for one. It counts until `done`."""
        with self._changed:
            self.wait(seconds)
            if not self._waiting:
                return None
            batch = self._waiting.popleft()
            self._active.add(batch)
            return batch

    def wait(self, seconds: float) -> None:
        """Until a batch is waiting, but no longer than that; nor when nothing can come any more."""
        with self._changed:
            if not self._waiting and not (self.closing and not self._active):
                self._changed.wait(seconds)

    def put_back(self, batch: Batch) -> None:
        """A batch that was taken is the oldest one again."""
        with self._changed:
            self._active.remove(batch)
            self._waiting.appendleft(batch)

    def done(self, batch: Batch) -> None:
        """A batch that was taken is done with."""
        with self._changed:
            if batch not in self._active:
                return  # at the end two may say so at once
            self._active.remove(batch)
            self._bytes -= len(batch.records)
            if self.closing:
                self._changed.notify_all()

    def active(self) -> list[Batch]:
        """Those that were taken and are not done with."""
        with self._changed:
            return list(self._active)

    def clear(self) -> list[Batch]:
        """Take out all that waits, oldest first."""
        with self._changed:
            waiting, self._waiting = list(self._waiting), collections.deque()
            self._bytes -= sum(len(batch.records) for batch in waiting)
            return waiting

    def close(self) -> None:
        """Nothing more will come: whoever waits for a batch wakes up."""
        with self._changed:
            self.closing = True
            self._changed.notify_all()
