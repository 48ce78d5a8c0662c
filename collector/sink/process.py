"""The sink: receive batches from the shards, hand them to the destination, acknowledge them when it has them."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import tempfile
import time
from typing import TYPE_CHECKING

import zmq

from collector import confine, faults, heap
from collector.counter_names import SINK_NAMES
from collector.errors import LockedError, ProtocolError
from collector.router import batches, channel, endpoints, messages, slots
from collector.router.channel import Receiver
from collector.runtime import Child, run_process
from collector.settings import SinkSettings, SinkStart
from collector.sink import destinations, spool_directory
from collector.sink.batch import Batch
from collector.sink.delivery import Delivery
from collector.sink.ordered import Ordered
from collector.sink.senders import Senders
from collector.sink.spool import Spool
from collector.sink.spooled import SpooledQueue

if TYPE_CHECKING:
    from collector.sink.recording.recorder import Recorder

log = logging.getLogger("sink")

# After a turn with so many bytes: a wake-up costs as much as hundreds of records (docs/benchmarks.md)
PAUSE_BYTES, PAUSE_SECONDS = 256 * 1024, 0.05
PATIENT_SECONDS = 6.0  # of the time that the shards have for their last records (shards/process.py STOP_SECONDS)
TURN_BATCHES = 64  # then there is more to do than to take batches in


class Sink:
    """The process; ``run`` returns its exit code."""

    def __init__(self, child: Child[SinkStart]) -> None:
        faults.hide_words()
        start, settings = child.start, child.start.settings
        self._child = child
        self._counters = child.counters
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._stop_seconds = settings.stop_seconds
        self._deadline = math.inf  # of the end, once it has begun or somebody is in a hurry
        self._format = settings.format
        self._ordered = Ordered(beat=child.beat) if settings.ordered else None
        self._base = child.counters.snapshot()  # another life may have counted before us
        destination = destinations.by_kind(settings.kind)
        self._delivery = Delivery(
            lambda settled: destination.make(
                settings.options, fd=child.fds[1] if start.output else None, notes=child.counters, settled=settled
            ),
            lossless=settings.lossless,
            wake=self._wake,
            queue_bytes=settings.queue_bytes,
        )
        self._trimmer = heap.Trimmer()
        self._recorder = self._new_recorder(child.fds[1 + start.output]) if start.recording else None
        spool = self._prepare_spool(settings)
        self._role = confine.sink(files=bool(settings.spool) or settings.ordered, network=destination.network)
        child.drop_privileges(self._files(spool, settings.ordered, destination.network), network=destination.network)
        if spool is not None:
            self._open_spool(spool, settings.spool_bytes)
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
        # of each shard more than the destination's queue holds: what does not fit is dropped there, oldest first; with a
        # spool the shards wait for its disk, and what they hold meanwhile has to fit together
        in_slots = min(settings.queue_bytes, slots.ALL_SLOTS * slots.BATCH_BYTES)
        window = (in_slots + (settings.queue_bytes - in_slots) // 2) * 6 // 5
        if self._delivery.spooled is not None:
            window = max(window // start.shards, 2 * slots.BATCH_BYTES)
        self._in = Receiver(self.context, endpoints.sink(), bytes.fromhex(start.token), window=window)
        self._poller = zmq.Poller()
        self._poller.register(self._in.socket, zmq.POLLIN)
        self._poller.register(child.channel, zmq.POLLIN)
        self._poller.register(self._wake_read, zmq.POLLIN)
        self._full_poller = zmq.Poller()  # while the destination has no room, more input is no reason to wake up
        self._full_poller.register(child.channel, zmq.POLLIN)
        self._full_poller.register(self._wake_read, zmq.POLLIN)
        self._said_gone = False
        self._said_largest = 0
        self._patient_until = 0.0
        self._slots = slots.Reader()
        self._senders = Senders()
        self._unreadable_records = self._not_submitted = 0
        for (shard, life), fd in zip(start.slots, child.fds[1 + start.output + start.recording :], strict=True):
            self._slots.add(shard, life, fd)

    def _new_recorder(self, fd: int) -> Recorder:
        """What it is made of is loaded only where it is asked for."""
        from collector.sink.recording.recorder import Recorder

        def say(text: str) -> None:
            self._child.say({"kind": "problem", "text": text})

        return Recorder(fd, self._child.start.settings.recording_limit, self._counters, self._format, say)

    def _files(self, spool: int | None, ordered: bool, network: bool) -> list[confine.Rule]:
        """All that it opens from now on."""
        rules = [confine.Rule(".", confine.SOCKETS)]
        if spool is not None:
            rules.append(confine.Rule(spool, confine.WORK))
        if ordered:
            rules.append(confine.Rule(tempfile.gettempdir(), confine.WORK))
        return rules + (confine.network_rules() if network else [])

    def _prepare_spool(self, settings: SinkSettings) -> int | None:
        """As long as we may: make the spool's directory ours."""
        if not settings.spool:
            return None
        uid = self._child.start.uid
        try:
            return spool_directory.prepare(settings.spool, uid, uid)
        except (OSError, LockedError) as error:
            log.error("no spool, records wait in memory only: %s: %s", settings.spool, error)
            return None

    def _open_spool(self, directory: int, limit_bytes: int) -> None:
        try:
            self._delivery.use_spool(Spool(directory, limit_bytes=limit_bytes))
        except (OSError, LockedError) as error:
            log.error("no spool, records wait in memory only: %s", error)
        finally:
            os.close(directory)

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):  # it is awake already
            os.write(self._wake_write, b"x")

    def close(self) -> None:
        """Close the sockets at once."""
        self.context.destroy(0)

    def run(self) -> int:
        """Until told to stop and everything is delivered, or the time to stop is over."""
        confine.limit_calls(self._role)
        self._delivery.start()
        self._child.ready()
        while not self._child.stopping:
            (self._full_poller if self._full() else self._poller).poll(100)
            if self._turn() >= PAUSE_BYTES and not self._full():
                time.sleep(PAUSE_SECONDS)
        self._deadline = min(self._deadline, time.monotonic() + self._stop_seconds)
        self._turn()
        if self._ordered is not None:
            self._deliver_in_order(self._ordered)
        self._delivery.close()
        while not self._delivery.settled() and time.monotonic() < self._deadline:
            self._poller.poll(20)
            self._turn()
        self._turn()
        left = 0 if self._delivery.queue.idle() else self._delivery.abandon()
        if left:
            log.error("stopped with %d records not taken by the destination: they have failed", left)
        self._count()
        self._tell_taken(math.inf)
        self._counters["orphaned_records"] = 0  # each has its own counter now
        self._delivery.close_spool()
        if self._recorder is not None:
            self._recorder.close()
        return 1 if left or self._delivery.gone or (self._recorder is not None and self._recorder.failed) else 0

    def _deliver_in_order(self, ordered: Ordered) -> None:
        """All that a replay has made, at the pace of the destination."""
        left = ordered.count
        if self._delivery.gone:
            ordered.close()
            self._not_submitted += left
            return
        try:
            for batch in ordered.batches():
                self._turn()  # lets go of what was delivered
                while self._delivery.queue.full() and not self._delivery.gone and time.monotonic() < self._deadline:
                    self._full_poller.poll(20)
                    self._turn()
                if self._delivery.gone or time.monotonic() >= self._deadline:
                    break
                left -= batch.count
                self._delivery.submit(batch)
        except OSError as error:
            self._cannot_order(error)
        self._not_submitted += left

    def _cannot_order(self, error: OSError) -> None:
        """The temporary files cannot be written or read: what a replay has made cannot be brought into order."""
        self._delivery.give_up(
            f"cannot bring the records into order in {tempfile.gettempdir()}: {error.strerror}; "
            "TMPDIR names another directory"
        )

    def _full(self) -> bool:
        """Is nothing to be taken in now? While the shards hand over their last records, they can wait."""
        return self._delivery.full(patient=time.monotonic() < self._patient_until and not self._child.stopping)

    def _turn(self) -> int:
        """What is at hand, within bounds. Bytes of records that came in, 0 when there is more to take."""
        self._hear()
        before = self._counters["record_bytes"]
        more = False
        for _ in range(TURN_BATCHES):
            arrived = None if self._full() else self._in.receive()
            if arrived is None:
                break
            self._take(arrived)
        else:
            more = True
        try:
            while os.read(self._wake_read, 4096):
                pass
        except BlockingIOError:
            pass
        for batch in self._delivery.done():
            if batch.token is not None:
                self._done_with(batch.token, batch.count)
        self._in.reply()
        self._trimmer.turn()
        if not more and not self._full():
            self._tell_taken(time.monotonic())
        if self._delivery.gone and not self._said_gone:
            self._said_gone = True
            self._child.say({"kind": "destination_gone", "why": self._delivery.gone})
        if self._delivery.destination.largest != self._said_largest:
            self._said_largest = self._delivery.destination.largest
            self._child.say({"kind": "largest", "bytes": self._said_largest})
        self._count()
        self._child.beat()
        return 0 if more else self._counters["record_bytes"] - before

    def _hear(self) -> None:
        for message in self._child.hear():
            if message.get("kind") == "slots":
                self._slots.add(message["shard"], message["life"], message["fds"][0])
            elif message.get("kind") == "room":
                self._delivery.set_room(message["bytes"])
                self._trimmer.begin()
            elif message.get("kind") == "last":
                self._patient_until = time.monotonic() + PATIENT_SECONDS
                self._delivery.end()
            elif message.get("kind") == "output":
                self._delivery.reopen(message["fds"][0], message["number"])
            elif message.get("kind") == "stop" and "seconds" in message:
                self._deadline = time.monotonic() + message["seconds"]
            elif message.get("kind") == "ended":
                self._senders.ended(message["epoch"], time.monotonic())

    def _tell_taken(self, now: float) -> None:
        """The supervisor has asked what we have of shards that are gone."""
        for epoch, records in self._senders.answers(now):
            self._counters["orphaned_records"] = self._senders.orphaned()
            self._child.say({"kind": "taken", "epoch": epoch, "records": records})

    def _done_with(self, arrived: channel.Delivery, records: int) -> None:
        self._senders.settled(arrived.sender_epoch, records)
        self._in.note_done(arrived)

    def _take(self, arrived: channel.Delivery) -> None:
        if len(arrived.frames) != 3:
            self._in.note_done(arrived)  # END
            return
        records, index, details = arrived.frames
        count = len(index) // batches.ENTRY_BYTES
        self._senders.took(arrived.sender_epoch, count)
        try:
            if arrived.kind == messages.SLOT:
                if not self._slots.knows(records):
                    self._hear()  # the supervisor sent it before it started that shard
                records = self._slots.records(records)
            # outside a slot the shard has the records, too, until they are acknowledged
            batch = Batch(records, index, details, arrived, self._format, 1 if arrived.kind == messages.SLOT else 2)
        except ProtocolError as error:
            self._cannot_read(arrived, index, error)
            return
        self._counters.add("batches")
        self._counters.add("records", batch.count)
        self._counters.add("record_bytes", len(batch.records))
        if self._recorder is not None:
            self._recorder.add(batch)
            self._child.beat()  # of a turn with many batches each takes its time
        if self._ordered is not None and not self._delivery.gone:
            try:
                self._ordered.add(batch, arrived.file)
            except OSError as error:
                self._cannot_order(error)
            except ProtocolError as error:
                self._cannot_read(arrived, index, error)
                return
            self._done_with(arrived, count)
        else:
            self._delivery.submit(batch)

    def _cannot_read(self, arrived: channel.Delivery, index: memoryview, error: ProtocolError) -> None:
        """A batch whose memory is gone, or that is malformed."""
        log.error("a batch is lost: %s", error)
        self._counters.add("unreadable_batches")
        self._unreadable_records += len(index) // batches.ENTRY_BYTES
        self._done_with(arrived, len(index) // batches.ENTRY_BYTES)

    def _count(self) -> None:
        totals, base, spooled = self._delivery.totals, self._base, self._delivery.spooled
        failed, dropped = totals.failed + self._unreadable_records + self._not_submitted, totals.dropped
        if spooled is not None:
            failed += spooled.spool.damaged.records
            dropped += spooled.spool.lost.records
            self._count_spool(spooled)
        self._counters["delivered_records"] = base["delivered_records"] + totals.delivered
        self._counters["failed_records"] = base["failed_records"] + failed
        self._counters["dropped_records"] = base["dropped_records"] + dropped
        self._counters["write_errors"] = base["write_errors"] + totals.errors
        for name, value in self._delivery.lag.counters().items():
            self._counters[name] = base[name] + value
        self._counters["queue_bytes"] = self._delivery.queue.bytes
        self._counters["queue_held_bytes"] = self._delivery.queue.held
        self._counters["orphaned_records"] = self._senders.orphaned()
        self._counters["destination_up"] = int(self._delivery.up and not self._delivery.gone)
        self._counters["refused_messages"] = self._in.refused
        self._slots.forget_old()

    def _count_spool(self, spooled: SpooledQueue) -> None:
        spool = spooled.spool
        for name, value in (
            ("spooled_records", spooled.spooled_records),
            ("unspooled_records", spooled.released_records + spool.lost.records + spool.damaged.records),
            ("spool_dropped_records", spool.lost.records),
            ("spool_dropped_bytes", spool.lost.bytes),
            ("spool_damaged_records", spool.damaged.records),
            ("spool_damaged_bytes", spool.damaged.bytes),
            ("spool_errors", spooled.errors),
        ):
            self._counters[name] = self._base[name] + value
        self._counters["spool_bytes"] = spool.disk_bytes
        self._counters["spool_records"] = spool.records


def main() -> int:
    """Entry of the child process."""
    return run_process(SinkStart, SINK_NAMES, Sink)


if __name__ == "__main__":
    raise SystemExit(main())
