"""The bounded queue in front of a destination. It knows nothing of threads that fail, of retries or of clients.

Bounded in the memory that its batches hold (batch.py `held`). When more comes than fits, the oldest batch gives way, and
whoever put it in counts it; a lossless queue keeps everything, and says that it is full instead. A batch that was taken out
still counts, until it is done: it is held in memory as before. While the collector is short of memory there is less room.
"""

from __future__ import annotations

import collections
import threading

from collector.settings import QUEUE_BYTES
from collector.sink.batch import Batch


class BatchQueue:
    """See the module. Safe to use from several threads."""

    def __init__(self, *, lossless: bool, limit_bytes: int = QUEUE_BYTES) -> None:
        self._lossless = lossless
        self._limit = self._room = limit_bytes
        self._changed = threading.Condition()  # its lock is re-entrant
        self._waiting: collections.deque[Batch] = collections.deque()
        self._active: dict[Batch, None] = {}  # that were taken, in this order
        self._bytes = self._held = 0
        self.closing = False

    @property
    def bytes(self) -> int:
        """Bytes of records that wait or are under way."""
        return self._bytes

    @property
    def held(self) -> int:
        """Bytes of memory that these hold, with what the shards keep of them."""
        return self._held

    def full(self) -> bool:
        """Should nothing more be put in for now? Of this class only when lossless."""
        return self._lossless and self.held > self._limit

    def nearly_full(self) -> bool:
        """Would batches soon give way to others?"""
        return self.held > self._room * 3 // 4

    def set_room(self, room_bytes: int) -> list[Batch]:
        """Hold no more than this from now on, or the limit. Returns the batches that gave way, oldest first."""
        with self._changed:
            self._room = max(0, min(self._limit, room_bytes))
            return self._make_room()

    def _most(self) -> int:
        return self._room

    def _make_room(self) -> list[Batch]:
        """Take out the oldest batches until the others fit. With the lock."""
        gave_way = []
        while not self._lossless and self._held > self._most() and len(self._waiting) > 1:
            gave_way.append(self._waiting.popleft())
            self._add(gave_way[-1], -1)
        return gave_way

    def _add(self, batch: Batch, sign: int) -> None:
        self._bytes += sign * len(batch.records)
        self._held += sign * batch.held

    def idle(self) -> bool:
        """Is nothing waiting and nothing under way?"""
        with self._changed:
            return not self._waiting and not self._active

    def put(self, batch: Batch) -> list[Batch]:
        """Put a batch in; never blocks. Returns those that gave way to it, oldest first."""
        with self._changed:
            self._waiting.append(batch)
            self._add(batch, 1)
            gave_way = self._make_room()
            self._changed.notify_all()
        return gave_way

    def take(self, seconds: float) -> Batch | None:
        """The next batch, waiting up to that long for one. It counts until `done`."""
        with self._changed:
            self.wait(seconds)
            if not self._waiting:
                return None
            batch = self._waiting.popleft()
            self._active[batch] = None
            return batch

    def wait(self, seconds: float) -> None:
        """Until a batch is waiting, but no longer than that; nor when nothing can come any more."""
        with self._changed:
            if not self._waiting and not (self.closing and self._at_an_end()):
                self._changed.wait(seconds)

    def _at_an_end(self) -> bool:
        """Is nothing under way that could come back?"""
        return not self._active

    def put_back(self, batch: Batch) -> None:
        """A batch that was taken is the oldest one again."""
        with self._changed:
            del self._active[batch]
            self._waiting.appendleft(batch)

    def done(self, batch: Batch) -> None:
        """A batch that was taken is done with."""
        with self._changed:
            if batch not in self._active:
                return  # at the end two may say so at once
            del self._active[batch]
            self._add(batch, -1)
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
            for batch in waiting:
                self._add(batch, -1)
            return waiting

    def close(self) -> None:
        """Nothing more will come: whoever waits for a batch wakes up."""
        with self._changed:
            self.closing = True
            self._changed.notify_all()
