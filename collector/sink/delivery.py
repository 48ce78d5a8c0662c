"""Delivery: a thread that takes batches from the queue and has the destination deliver them, again and again if need be.

The process's loop hands batches in with `submit` and asks `done` for those that are settled: delivered, dropped because
the destination was away for longer than the queue could hold, or failed. Only then they are acknowledged to their shard.
"""

from __future__ import annotations

import collections
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from collector import faults
from collector.errors import DestinationError, ProtocolError
from collector.lag import Lag
from collector.router import batches
from collector.settings import QUEUE_BYTES
from collector.sink import retry
from collector.sink.batch import Batch
from collector.sink.destination import Destination, Settled
from collector.sink.queue import BatchQueue
from collector.sink.spool import Spool
from collector.sink.spooled import SpooledQueue

log = logging.getLogger("sink")

_IDLE_SECONDS = 0.2
_CHECK_SECONDS = 0.5  # between two questions how the destination is
_DESTINATION_PART = 8  # of what the queue may hold, a destination has at most this part under way
_AWAY_SECONDS = 2.0  # so long it is not up before records go to the spool


@dataclass(slots=True)
class Totals:
    """What happened so far, in records; ``errors`` in attempts to deliver that failed."""

    delivered: int = 0
    failed: int = 0
    dropped: int = 0
    errors: int = 0


class Delivery:
    """See the module. ``make`` gets the function to settle records with. ``wake`` is called from the thread whenever a
    batch is done. ``up``: does the destination take records? ``gone``: why it never will again ("" while it can).
    """

    def __init__(
        self,
        make: Callable[[Settled], Destination],
        *,
        lossless: bool,
        wake: Callable[[], None],
        queue_bytes: int = QUEUE_BYTES,
    ) -> None:
        self.destination = make(self._settled)
        self.destination.bound(queue_bytes // _DESTINATION_PART)
        self.queue = BatchQueue(lossless=lossless, limit_bytes=queue_bytes)
        self.spooled: SpooledQueue | None = None  # the same, if it has a spool
        self._queue_bytes = queue_bytes
        self.totals = Totals()
        self.lag = Lag()
        self.up = self.destination.up_at_start
        self.gone = ""
        self._wake = wake
        self._lock = threading.Lock()  # of the totals, and of the records left of each batch
        self._done: collections.deque[Batch] = collections.deque()
        self._away_since = time.monotonic()  # while it is not up
        self._hurry = threading.Event()  # ends the wait for the next attempt
        self._ending = False
        self._next_check = 0.0
        self._thread = threading.Thread(target=self._run, name="delivery", daemon=True)

    def use_spool(self, spool: Spool) -> None:
        """Let what the destination does not take in time wait on disk. Before `start`."""
        self.spooled = self.queue = SpooledQueue(
            spool, away=self._is_away, spooled=self._is_spooled, limit_bytes=self._queue_bytes
        )

    def start(self) -> None:
        """Begin to deliver."""
        if self.spooled is not None:
            self.spooled.start()
        if self.destination.blocks:
            self._thread.start()

    def submit(self, batch: Batch) -> None:
        """Take a batch over; never blocks. When the destination is gone, its records have failed at once."""
        if batch.format not in self.destination.accepts:
            self._fail(batch, f"the {self.destination.kind} destination does not take batches in format {batch.format!r}")
        elif (self.gone and self.spooled is None) or not batch.count:
            self._settle_rest(batch)
        elif not self.destination.blocks:
            self.destination.deliver(batch)
        else:
            self._drop(self.queue.put(batch))
            if self.gone:  # since we asked: nobody takes from the queue any more
                self._fail_waiting()

    def full(self, *, patient: bool) -> bool:
        """Should nothing more be submitted for now? ``patient``: nor when batches would soon give way, as long as the
        destination or a spool takes any.
        """
        waits = patient and not self.gone and (self.up or self.spooled is not None)
        return self.queue.full() or waits and self.queue.nearly_full()

    def set_room(self, room_bytes: int) -> None:
        """Hold at most so many bytes of memory, or the queue's own limit: what does not fit goes to the spool, or is
        dropped, oldest first.
        """
        self._drop(self.queue.set_room(room_bytes))

    def _drop(self, oldest: list[Batch]) -> None:
        for batch in oldest:
            with self._lock:
                self.totals.dropped += batch.left
                batch.left = 0
            self._done.append(batch)

    def done(self) -> list[Batch]:
        """Batches that are done with since the last call."""
        out = []
        while self._done:
            out.append(self._done.popleft())
        return out

    def settled(self) -> bool:
        """Is there nothing to wait for? Everything is settled, or the destination is gone and its thread has ended, or it is
        away and there is a spool for what is left, and room for what has yet to be submitted.
        """
        if self.spooled is not None and self._is_away():
            return not self.queue.full()
        return self.queue.idle() or bool(self.gone) and not self._thread.is_alive()

    def reopen(self, fd: int, number: int) -> None:
        """Let the destination go on with another descriptor, which is its own from now on."""
        self.destination.reopen(fd, number)
        self._hurry.set()

    def give_up(self, why: str) -> None:
        """No record can be delivered again: what waits has failed."""
        self.gone = self.gone or why
        self.up = False
        self._fail_waiting()
        self._wake()

    def end(self) -> None:
        """The shards hand over their last records, and wait until they are done with: no batch is kept that could be in the
        spool. More may be submitted.
        """
        self._ending = True
        self._hurry.set()

    def close(self) -> None:
        """Deliver what waits without further delay, then end the thread."""
        self.queue.close()
        self._hurry.set()

    def join(self, seconds: float) -> bool:
        """Wait for the thread; has it ended?"""
        if self._thread.ident is not None:
            self._thread.join(seconds)
        return not self._thread.is_alive()

    # -- records

    def _settled(self, batch: Batch, delivered: int, failed: int) -> bool:
        with self._lock:
            if not batch.left:
                return False  # it was given up meanwhile
            self.totals.delivered += delivered
            self.totals.failed += failed
            batch.left -= delivered + failed
            if delivered:
                self.up = True
            if batch.left:
                return False
            if delivered and batch.token is not None:  # another start, or another boot, has made what the spool had
                self.lag.observe(max(0, time.monotonic_ns() - batches.first_end_ns(batch.index)), batch.count)
        self._done.append(batch)
        if self.destination.blocks:  # otherwise it never was in the queue, and the loop is awake
            self.queue.done(batch)
            self._wake()
        return True

    def abandon(self) -> int:
        """The time is over: what waits, and what the destination has not settled, has failed. How many records."""
        before = self.totals.failed
        if self.spooled is not None:
            self.spooled.save_active()  # older than what waits
        self._fail_waiting()
        for batch in self.queue.active():
            with self._lock:
                self.totals.failed += batch.left
                batch.left = 0
        return self.totals.failed - before

    def close_spool(self) -> None:
        """The time is over: let go of the spool, if there is one."""
        if self.spooled is not None:
            try:
                self.spooled.end()
            except OSError as error:
                log.error("the spool may not survive a power cut: %s", error.strerror)

    def _is_away(self) -> bool:
        if self.up and not self.gone:
            self._away_since = time.monotonic()
            return False
        return bool(self.gone) or time.monotonic() - self._away_since > _AWAY_SECONDS

    def _is_spooled(self, batch: Batch) -> None:
        with self._lock:
            if not batch.left:
                return  # it was acknowledged while it was written
            batch.left = 0
        self._done.append(batch)
        self._wake()

    def _fail_waiting(self) -> None:
        for batch in self.queue.clear():
            self._settle_rest(batch)

    def _settle_rest(self, batch: Batch) -> None:
        """What is left of a batch that is not in the queue has failed."""
        with self._lock:
            self.totals.failed += batch.left
            batch.left = 0
        self._done.append(batch)

    def _fail(self, batch: Batch, why: str) -> None:
        log.error("a batch of %d records is lost: %s", batch.count, why)
        self._settle_rest(batch)

    # -- the thread

    def _run(self) -> None:
        try:
            self.destination.open()
            while not (self.queue.closing and self.queue.idle()) and not self.gone:
                batch = self.queue.take(_IDLE_SECONDS)
                self._check()
                if batch is None:
                    self.destination.idle()
                elif batch.format in self.destination.accepts:
                    self._deliver(batch)
                else:  # an earlier start with another destination has left it in the spool
                    log.error("%d records are lost: %s does not take %r", batch.count, self.destination.kind, batch.format)
                    self._settled(batch, 0, batch.left)
            self.destination.close()
        except Exception as error:
            log.exception("delivery failed")
            self.give_up(faults.words(error))

    def _deliver(self, batch: Batch) -> None:
        """Until the destination has the batch, or is given up."""
        failures_at_end = 0
        while True:
            at = batch.at
            self._hurry.clear()
            try:
                self.destination.deliver(batch)
                return
            except ProtocolError as error:
                log.error("a batch of %d records is lost: %s", batch.count, error)
                self.destination.give_up(batch)
                return
            except Exception as error:
                if not isinstance(error, DestinationError):  # a fault of ours: the batch has failed with all that wait
                    self.gone = self.gone or faults.words(error)
                    self.destination.give_up(batch)
                    raise
                if not error.busy:
                    self.totals.errors += 1
                    self.up = False
                if batch.at != at:
                    failures_at_end = 0
                if self.queue.closing:
                    failures_at_end += 1
                delay = retry.delay(error, failures_at_end)
                if delay is None or self.gone:
                    self.gone = self.gone or str(error)  # before the batch is done with: who finds us idle must know
                    self.destination.give_up(batch)
                    self.give_up(str(error))
                    return
                if (
                    self._ending
                    and not batch.at
                    and self._is_away()
                    and self.spooled is not None
                    and self.spooled.keep(batch)
                ):
                    self.destination.forget(batch)
                    return
                if not error.busy:
                    log.warning("%s; retrying", error)
                self._hurry.wait(delay)
                self._check()

    def _check(self) -> None:
        """Ask now and then how the destination is, whether there is anything to deliver or not."""
        now = time.monotonic()
        if now < self._next_check:
            return
        self._next_check = now + _CHECK_SECONDS
        trouble = self.destination.check_health()
        if trouble is None:
            return
        if trouble and self.up:
            self.totals.errors += 1
            log.warning("%s; records wait", trouble)
        self.up = not trouble
