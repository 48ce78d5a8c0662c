"""The queue in front of a destination with a spool behind it: what the destination does not take in time goes to disk.

One order for both: the spool has what is older, the queue what is newer. So the oldest batch in memory goes to the end of
the spool, and batches come out of the spool before any comes out of memory. One that is in the spool is done with for its
shard.

    put       the shard's batches                                        [memory] newest
    a thread  while the destination is away, or memory is half full      [spool] <- oldest of memory
              (half of the room that there is: less while the collector is short of memory)
    take      for the destination, which settles in any order            oldest of the spool, else of memory
    done      delivered: a batch of the spool is released there when all older ones are, too
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from collector.settings import QUEUE_BYTES
from collector.sink.batch import Batch
from collector.sink.queue import BatchQueue
from collector.sink.spool import Spool, Stored

log = logging.getLogger("sink")

_LOOK_SECONDS = 0.2
_RETRY_SECONDS = 1.0  # after the disk did not take a batch
_WARN_SECONDS = 60.0


class SpooledQueue(BatchQueue):
    """See the module. ``away``: does the destination take nothing now? ``spooled`` is called with a batch that went to the
    spool, from a thread of the queue's own. ``spool`` is used by several threads, one at a time.
    """

    def __init__(
        self, spool: Spool, *, away: Callable[[], bool], spooled: Callable[[Batch], None], limit_bytes: int = QUEUE_BYTES
    ) -> None:
        super().__init__(lossless=False, limit_bytes=limit_bytes)
        self.spool = spool
        self.spooled_records = self.released_records = self.errors = 0
        self._away = away
        self._spooled = spooled
        self._order = threading.RLock()  # of the spool, and of what goes from memory into it
        self._read: Stored | None = None  # the newest batch that was taken out of the spool
        self._out: dict[Batch, Stored] = {}  # those that were, oldest first, and are not released
        self._done: set[Batch] = set()  # of these
        self._out_bytes = 0  # that they hold
        self._unreadable = False  # the spool, when it was read last
        self._warn_at = 0.0
        self._refused = False  # the disk took nothing when it was asked last
        self._ended = threading.Event()
        self._wake = threading.Event()  # the thread has something to do
        self._thread = threading.Thread(target=self._run, name="spool", daemon=True)

    def start(self) -> None:
        """Begin to move batches to the spool."""
        self._thread.start()

    @property
    def bytes(self) -> int:
        """Bytes of records that wait in memory or are under way."""
        return self._bytes + self._out_bytes

    @property
    def held(self) -> int:
        """As the base class."""
        return self._held + self._out_bytes

    def idle(self) -> bool:
        """Is nothing waiting and nothing under way, or nothing that would be lost: all is on disk?"""
        if not super().idle():
            return False
        if self._away():
            return not self._gave_way()
        return not (self._out or self.spool.records)

    def full(self) -> bool:
        """As the base class: the shards wait for the disk, as long as it takes anything. Otherwise the oldest gives way."""
        return bool(self._waiting) and self.nearly_full() and not self._refused

    def put(self, batch: Batch) -> list[Batch]:
        """As the base class."""
        gave_way = super().put(batch)
        if self._held > self._room // 2:
            self._wake.set()
        return gave_way

    def set_room(self, room_bytes: int) -> list[Batch]:
        """As the base class; what does not fit goes to the spool, and gives way only where the disk does not take it."""
        gave_way = super().set_room(room_bytes)
        self._wake.set()
        return gave_way

    def _most(self) -> int:
        return self._room if self._refused else self._limit

    def take(self, seconds: float) -> Batch | None:
        """As the base class; what is in the spool first."""
        batch = self._next()
        if batch is None:
            if self._unreadable:  # whatever waits in memory comes behind what is in there
                self._ended.wait(seconds)
            else:
                self.wait(seconds)
            batch = self._next()
        return batch

    def _at_an_end(self) -> bool:
        return super()._at_an_end() and not self._out

    def _next(self) -> Batch | None:
        with self._order:
            if self._ended.is_set():
                return None  # the spool is closed, or about to be
            try:
                stored = self.spool.peek(self._read)
            except OSError as error:  # for want of descriptors or memory
                self._unreadable = True
                self._complain("the spool cannot be read, its records wait", error)
                return None
            self._unreadable = False
            if stored is None:
                return super().take(0.0)
            batch = Batch(stored.records, stored.index, stored.details, None, stored.format)
            self._read = stored
            self._out[batch] = stored
            self._out_bytes += len(batch.records)
            return batch

    def done(self, batch: Batch) -> None:
        """A batch that was taken is done with."""
        if batch not in self._out:
            super().done(batch)
            return
        with self._order:
            if batch not in self._out or self._ended.is_set():
                return  # it was kept meanwhile, or it comes again
            self._out_bytes -= len(batch.records)
            self._done.add(batch)
            while self._out and (oldest := next(iter(self._out))) in self._done:
                self._done.remove(oldest)
                self.spool.release(self._out.pop(oldest))
                self.released_records += oldest.count
            if batch in self._done:  # what is older may take long: the data are not needed any more
                batch.records = batch.index = batch.details = b""
                self._out[batch] = self._out[batch].without_data()
        with self._changed:
            self._changed.notify_all()

    def clear(self) -> list[Batch]:
        """Take out all that waits in memory: into the spool, or else to the caller, oldest first."""
        return [batch for batch in super().clear() if not self._save(batch)]

    def active(self) -> list[Batch]:
        """As the base class, and those out of the spool that have given way in it since: they are in memory only."""
        return self._gave_way() + super().active()

    def _gave_way(self) -> list[Batch]:
        with self._order:
            return [batch for batch, stored in self._out.items() if batch.left and not self.spool.has(stored)]

    def save_active(self) -> None:
        """Have in the spool what is in memory only and is not done with, as far as the disk takes it."""
        for batch in self.active():
            if batch.left:
                self.keep(batch)

    def keep(self, batch: Batch) -> bool:
        """Move a batch to the spool that was taken out of memory and is not done with. False when it is no such batch, or
        the disk does not take it.
        """
        with self._order:  # another thread may want the same
            if batch not in self.active() or not self._save(batch):
                return False
            super().done(batch)
            if self._out.pop(batch, None) is not None:
                self._out_bytes -= len(batch.records)
                self.released_records += batch.count  # it was spooled twice
            return True

    def _save(self, batch: Batch) -> bool:
        with self._order:
            saved = self._append(batch)
        if saved:
            self._spooled(batch)
        return saved

    def end(self) -> None:
        """Move nothing more, and let go of the spool. Raises OSError when the disk does not say that it has everything."""
        self._ended.set()
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join(_LOOK_SECONDS * 5)
        with self._order:
            self.spool.close()

    # -- the thread

    def _run(self) -> None:
        while not self._ended.is_set():
            self._wake.wait(_LOOK_SECONDS)
            self._wake.clear()
            try:
                self._move()
            except Exception:
                self._refused = True
                log.exception("the spool is not used any more")
                return

    def _move(self) -> None:
        while self._wants_to_move() and not self._ended.is_set():
            with self._order:
                batch = super().take(0.0)
                if batch is None:
                    return
                if not self._append(batch):
                    self.put_back(batch)
                    break
                super().done(batch)
            self._spooled(batch)
        else:
            return
        self._ended.wait(_RETRY_SECONDS)

    def _wants_to_move(self) -> bool:
        return self._away() or self._held > self._room // 2

    def _append(self, batch: Batch) -> bool:
        try:
            self.spool.append(batch.records, batch.index, batch.details, batch.format, batch.count)
        except OSError as error:
            self._refused = True
            self._complain("the spool takes nothing, records wait in memory", error)
            return False
        self._refused = False
        self.spooled_records += batch.count
        return True

    def _complain(self, what: str, error: OSError) -> None:
        self.errors += 1
        if time.monotonic() >= self._warn_at:
            self._warn_at = time.monotonic() + _WARN_SECONDS
            log.error("%s: %s", what, error.strerror)
