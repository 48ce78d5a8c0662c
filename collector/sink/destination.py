"""What every destination of records offers, and the bounded queue in front of it.

A batch is what a shard made: newline-terminated JSON records with an index. It is handed to a thread, because
destinations block; the process's loop never does. A batch is acknowledged to its shard when the destination has taken
it - or when it was dropped, counted, because the destination was away for longer than QUEUE_BYTES hold.
"""

from __future__ import annotations

import collections
import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from collector.router import batches

log = logging.getLogger("sink")

QUEUE_BYTES = 64 << 20  # less than what the shards may have on the way: the sink drops, the shards never wait for long


@dataclass(slots=True)
class Batch:
    """Records of one shard. ``token`` goes back to the loop when the batch is done with."""

    records: bytes | memoryview
    index: bytes | memoryview
    details: bytes | memoryview
    token: Any = None

    @property
    def count(self) -> int:
        """Number of records."""
        return batches.count(self.index)

    def __iter__(self) -> Iterator[tuple[bytes, bytes, batches.Place]]:
        """Each record without its newline, its details, and its place in the order (end ns, connection, stream
        position).
        """
        return batches.iterate(self.records, self.index, self.details)


@dataclass(slots=True)
class Totals:
    """What happened so far, in records."""

    delivered: int = 0
    failed: int = 0
    dropped: int = 0
    errors: int = 0


class Destination:
    """A thread with a bounded queue. Subclasses implement ``deliver`` (may block, may raise) and ``finish``.

    ``lossless``: never drop; the loop asks ``full`` and stops taking batches in.
    ``wake`` is called from the thread whenever a batch is done.
    """

    def __init__(self, *, lossless: bool, wake: Callable[[], None]) -> None:
        self.totals = Totals()
        self.up = True
        self.gone = ""  # why no record can ever be delivered again ("" while it can)
        self._lossless = lossless
        self._wake = wake
        self._lock = threading.Condition()
        self._queue: collections.deque[Batch] = collections.deque()
        self._queued_bytes = 0
        self._active = 0
        self._closing = False
        self._done: collections.deque[Batch] = collections.deque()
        self._thread = threading.Thread(target=self._run, name="destination", daemon=True)

    def start(self) -> None:
        """Begin to deliver."""
        self._thread.start()

    @property
    def queued_bytes(self) -> int:
        """Bytes that wait here."""
        return self._queued_bytes

    def full(self) -> bool:
        """Should nothing more be handed over for now? Only ever true when lossless."""
        return self._lossless and self._queued_bytes > QUEUE_BYTES

    def submit(self, batch: Batch) -> None:
        """Queue a batch; never blocks. When no record can be delivered again, they have failed at once."""
        with self._lock:
            if self.gone:
                self.totals.failed += batch.count
                self._done.append(batch)
                return
            self._queue.append(batch)
            self._queued_bytes += len(batch.records)
            while not self._lossless and self._queued_bytes > QUEUE_BYTES and len(self._queue) > 1:
                oldest = self._queue.popleft()
                self._queued_bytes -= len(oldest.records)
                self.totals.dropped += oldest.count
                self._done.append(oldest)
            self._lock.notify()

    def done(self) -> list[Batch]:
        """Batches that are done with since the last call."""
        out = []
        while self._done:
            out.append(self._done.popleft())
        return out

    def idle(self) -> bool:
        """Is nothing waiting and nothing under way?"""
        with self._lock:
            return not self._queue and not self._active

    def settled(self) -> bool:
        """Is there nothing to wait for? Everything is delivered, or the destination is gone and has counted what waited."""
        return self.idle() or bool(self.gone) and not self._thread.is_alive()

    def give_up(self, why: str) -> None:
        """No record can be delivered again: what waits has failed."""
        with self._lock:
            self.gone = self.gone or why
            self.up = False
            while self._queue:
                batch = self._queue.popleft()
                self._queued_bytes -= len(batch.records)
                self.totals.failed += batch.count
                self._done.append(batch)
        self._wake()

    def close(self) -> None:
        """Deliver what waits without further delay, then end the thread."""
        with self._lock:
            self._closing = True
            self._lock.notify()

    def _take(self, seconds: float) -> Batch | None:
        """The next batch, waiting that long for one."""
        with self._lock:
            if not self._queue and not self._closing:
                self._lock.wait(seconds)
            if not self._queue:
                return None
            batch = self._queue.popleft()
            self._active += 1
            return batch

    def _finished(self, batch: Batch) -> None:
        with self._lock:
            self._queued_bytes -= len(batch.records)
            self._active -= 1
        self._done.append(batch)
        self._wake()

    def _run(self) -> None:
        try:
            self.deliver_forever()
        except Exception as error:
            log.exception("the destination's thread failed")
            self.give_up(str(error) or type(error).__name__)

    def deliver_forever(self) -> None:
        """The thread: until closing and empty, or ``gone``."""
        raise NotImplementedError


class NullDestination(Destination):
    """Takes everything, keeps nothing: for benchmarks. Never blocks, so it needs no thread."""

    def start(self) -> None:
        """Nothing to start."""

    def submit(self, batch: Batch) -> None:
        """Done with at once."""
        self.totals.delivered += batch.count
        self._done.append(batch)
