"""A shard: receive spans, feed the pipeline, send batches. Knows nothing of HTTP.

When a batch leaves is said by settings.BatchSettings. By default that is when it is complete, or as soon as no further
input is at hand: under load batches are large, and a single exchange leaves at once.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import mmap
import os
import time
from typing import TYPE_CHECKING

import zmq

from collector import confine, descriptor_sets, faults, heap
from collector.counter_names import CORE_NAMES, SHARD_NAMES
from collector.counters import Counters
from collector.loader.ringbuffer import RingView
from collector.policy import wire
from collector.router import batches, endpoints, messages, slots
from collector.router.channel import Delivery, Receiver, Sender
from collector.runtime import Child, run_process
from collector.settings import Rings, ShardStart
from collector.shards.codecs import codec
from collector.shards.filters import Filters
from collector.shards.filters.rules import parse_rules
from collector.shards.pipeline import Pipeline
from collector.shards.records.content import Decoder, load_charsets
from collector.shards.viewers import Viewers

if TYPE_CHECKING:
    from collector.shards.records.descriptors import Methods

log = logging.getLogger("shard")

INPUT_WINDOW_BYTES = 64 << 20  # spans stay in their rings: what bounds them is the rings' size
TICK_NS = 200_000_000
GIVE_BACK_NS = 5_000_000_000
STOP_SECONDS = 8.0


class Shard:
    """The process; ``run`` returns its exit code."""

    def __init__(self, child: Child[ShardStart]) -> None:
        faults.hide_words()
        start = child.start
        self._child = child
        self._counters = child.counters
        self._core = Counters(child.block, CORE_NAMES, 0)
        self._live = start.live
        token = bytes.fromhex(start.token)
        self._codec = codec(start.settings.batches.compression)  # its library may not be readable later
        load_charsets()
        library = _descriptors_library() if start.descriptors else None
        child.drop_privileges([confine.Rule(".", confine.SOCKETS)])
        self._policy, *rings = wire.received(child.fds[2]), *child.fds[3:]
        self._methods = None
        if library is not None:
            self._methods = library(descriptor_sets.received(rings.pop(0)))
            heap.trim()  # reading the sets takes some times as much as keeping them
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
        self._in = Receiver(self.context, endpoints.shard(start.number), token, window=INPUT_WINDOW_BYTES)
        self._out = Sender(self.context, endpoints.sink(), token, on_peer=self._new_sink)
        self._settings, self._suspects = start.settings, start.suspects
        self._largest = 0  # bytes that the destination takes at once; 0: as the settings say
        self._number, self._life = start.number, start.life
        self._slots = slots.Writer(child.fds[1])
        self._viewers = Viewers(start.number, self._counters)
        self._pipeline = self._new_pipeline()
        self._file = 0  # number of the recorded file that is being fed
        self._next_give_back = 0
        self._trimmer = heap.Trimmer()
        self._poller = zmq.Poller()
        self._poller.register(self._in.socket, zmq.POLLIN)
        self._poller.register(self._out.socket, zmq.POLLIN)
        self._poller.register(child.channel, zmq.POLLIN)
        self._blocked_poller = zmq.Poller()  # while the sink has no room, more input is no reason to wake up
        self._blocked_poller.register(self._out.socket, zmq.POLLIN)
        self._blocked_poller.register(child.channel, zmq.POLLIN)
        self._ended = False
        self._last_tick = 0
        self._waits_since = 0.0  # the oldest record that is not sent; 0.0: there is none
        self._records_done = child.counters["records_acknowledged"]
        self._counters["records_before_session"] = self._records_done
        self._counters["epoch"] = self._out.epoch
        self._blocked = False
        self._rings: list[RingView] = []
        self._unwanted: mmap.mmap | None = None
        self._done: list[int] = []  # per ring: up to where it was fed
        self._held: Delivery | None = None  # a span that came before its ring
        if start.rings is not None:
            self._map_rings(start.rings, rings)

    def _new_pipeline(self) -> Pipeline:
        decoder = Decoder(self._methods)
        pipeline = Pipeline(self._settings, Filters(parse_rules(self._settings.rules)), decoder, self._child.block)
        pipeline.use_policy(*self._policy)
        pipeline.skip(self._suspects)
        wanted = self._settings.batches
        self._origin = b""
        if wanted.format == batches.KAFKA:
            number, compress = self._codec
            pipeline.use_record_batches(number, compress, wanted.most, wanted.largest, wanted.keys)
            self._origin = batches.pack_origin(self._number)
        pipeline.use_slots(self._slots.memory, self._slots.count, wanted.size)
        pipeline.set_largest(self._largest)
        pipeline.use_tap(self._viewers.tap)
        return pipeline

    def close(self) -> None:
        """Close the sockets at once."""
        self.context.destroy(0)

    def run(self) -> int:
        """Until told to stop and everything is acknowledged."""
        confine.limit_calls(confine.SHARD)
        self._child.ready()
        deadline = None
        while True:
            if self._child.stopping and deadline is None:
                deadline = time.monotonic() + STOP_SECONDS
            poller = self._blocked_poller if self._blocked else self._poller
            events = dict(poller.poll(20 if deadline or self._blocked else 100))
            if self._child.channel.fileno() in events:
                self._hear()
            self._out.service()
            self._receive()
            self._tick()
            self._child.beat()
            if deadline is not None and (self._ended or time.monotonic() > deadline - STOP_SECONDS / 2):
                return self._finish(deadline)

    def _hear(self) -> None:
        for message in self._child.hear():
            if message.get("kind") == "budget":
                self._settings = dataclasses.replace(self._settings, buffer_bytes=message["bytes"])
                self._pipeline.set_budget(message["bytes"])
            elif message.get("kind") == "share":
                self._pipeline.set_share(message["share"])
            elif message.get("kind") == "largest":
                self._largest = message["bytes"]
                self._pipeline.set_largest(self._largest)
            elif message.get("kind") == "shed":
                self._pipeline.set_budget(message["bytes"])
                self._trimmer.begin()
            elif message.get("kind") == "policy":
                self._policy = wire.received(message["fds"][0])
                self._pipeline.use_policy(*self._policy)
            elif message.get("kind") == "rings":
                self._map_rings(Rings.from_message(message["rings"]), message["fds"])
            elif message.get("kind") == "view":
                self._viewers.add(message, time.monotonic_ns())
                self._pipeline.use_tap(self._viewers.tap)

    def _map_rings(self, described: Rings, fds: list[int]) -> None:
        """Map the rings for reading; they come from the loader by way of the supervisor."""
        if not self._rings:
            rings = fds
            if not described.memfd:
                *rings, words = fds
                self._unwanted = mmap.mmap(words, 0x40000)  # bpf/maps.h UNWANTED_WORDS
                self._pipeline.use_unwanted(memoryview(self._unwanted).cast("Q"))
            self._rings = [RingView(fd, described.ring_bytes, memfd=described.memfd) for fd in rings]
            self._done = [0] * len(rings)
        for fd in fds:
            os.close(fd)

    def _feed_span(self, delivery: Delivery) -> None:
        """Read a span in its ring. A new loader announces again what the old one had not heard acknowledged: what was
        fed already is skipped.
        """
        ring, position, length = messages.unpack_span(delivery.frames[0])
        end = position + length
        start = max(position, self._done[ring])
        if start < end:
            self._feed(self._rings[ring].view(start, end - start), delivery.wall_offset_ns)
            self._done[ring] = end

    def _feed(self, data: memoryview, wall_offset_ns: int) -> None:
        """Feed all of it, however many records it makes."""
        at = self._pipeline.feed(data, wall_offset_ns)
        while at < len(data):
            self._flush_or_wait()
            at = self._pipeline.feed(data, wall_offset_ns, at)

    def _flush_or_wait(self) -> None:
        """Send the batch, waiting for the sink's window if it must be."""
        while not self._flush(1):
            if self._child.channel.fileno() in dict(self._blocked_poller.poll(20)):
                self._hear()
            self._out.service()
            self._child.beat()

    def _new_sink(self, _again: bool) -> None:
        """What was not acknowledged by now is sent in a session of its own."""
        self._counters["records_before_session"] = self._records_done

    def _begin_reading(self) -> None:
        """Write down how it stands: until a message is acknowledged, a next life of ours gets it, too, and makes the same of
        it. So if we die with it, what is lost is lost from here (supervisor/losses.py).
        """
        counters, core = self._counters, self._core
        counters["span_records"] = core["records"]
        counters["span_exchanges"] = core["queued_exchanges"]
        counters["span_state_bytes"] = core["buffer_bytes"]
        counters["reading"] = 1

    def _receive(self) -> None:
        while True:
            if not self._flush(self._pipeline.complete()):
                return
            delivery = self._held or self._in.receive()
            if delivery is None:
                self._flush_ready()
                return
            if delivery.kind == messages.SPAN and not self._rings:
                self._held = delivery
                return
            self._held = None
            if delivery.kind == messages.END:
                self._ended = True
                self._in.acknowledge(delivery)
                continue
            self._counters.add("messages")
            self._begin_reading()
            if delivery.kind == messages.FILE:
                self._begin_file(delivery)
            elif delivery.kind == messages.SPAN:
                self._feed_span(delivery)
            else:
                for frame in delivery.frames:  # which may begin anywhere in ZeroMQ's memory; events are aligned to words
                    self._feed(memoryview(frame.tobytes()), delivery.wall_offset_ns)
            self._counters["reading"] = 0  # first: who dies in between counts too much as lost, never too little
            self._in.acknowledge(delivery)
            self._child.beat()

    def _begin_file(self, delivery: Delivery) -> None:
        """A recorded file begins: nothing of the one before is known to it, whose numbers may be of another boot."""
        if self._file:
            self._close_all()
            while self._pipeline.pending() or not self._out.idle():
                self._flush(1)
                self._blocked_poller.poll(20)
                self._hear()
                self._out.service()
                self._child.beat()
        self._file = delivery.file
        self._settings = dataclasses.replace(self._settings, record_prefix=bytes(delivery.frames[0]).decode("ascii"))
        self._pipeline = self._new_pipeline()

    def _close_all(self) -> None:
        """Record what waits."""
        if not self._live:  # a recording is over: as if the silence went on
            self._pipeline.finish_timers()
        while not self._pipeline.close_all():
            self._flush_or_wait()
        if untold := self._pipeline.untold():
            log.info("sampling has left out %d exchanges since the last record of their endpoints", untold)

    def _flush_ready(self) -> None:
        """Send the batch if it is ready, and no other one is on its way."""
        records = self._pipeline.pending_records()
        if not records:
            return
        wanted = self._settings.batches
        if wanted.records > 1:
            now = time.monotonic()
            self._waits_since = self._waits_since or now
            if records < wanted.records and now - self._waits_since < wanted.seconds or not self._out.idle():
                return
        self._flush(1)

    def _flush(self, at_least: int) -> bool:
        """Send the batch if it has that many bytes. False when the sink has no room for it now."""
        if self._pipeline.pending() < at_least:
            return True
        if self._out.room() == 0 and not (self._out.connected and self._out.idle()):
            if not self._blocked:
                self._counters.add("window_full")
            self._out.service()
            self._blocked = True
            return False
        self._blocked = False
        batch = self._pipeline.take(time.time_ns() // 1_000_000)
        self._waits_since = 0.0
        self._viewers.batch_taken()
        if batch is not None:
            records, index, details = batch
            details = details or self._origin
            count = batches.count(index)
            self._counters.add("batches")
            if isinstance(records, tuple):
                slot, size = records
                self._slots.used(slot, len(self._pipeline.free_slots()))
                self._out.send(
                    (slots.pack(self._number, self._life, slot, size), index, details),
                    file=self._file,
                    kind=messages.SLOT,
                    size=size + len(index) + len(details),
                    done=functools.partial(self._acknowledged, count, slot),
                )
            else:
                size = len(records)
                self._counters.add("batches_without_slot")
                self._out.send(
                    (records, index, details), file=self._file, done=functools.partial(self._acknowledged, count, None)
                )
            self._counters.add("batch_bytes", size)
            self._counters["records_acknowledged"] = self._records_done
            self._counters["in_flight_bytes"] = self._out.in_flight_bytes
        return True

    def _acknowledged(self, records: int, slot: int | None) -> None:
        """The sink is done with these."""
        if slot is not None:
            self._pipeline.release(slot)
        self._records_done += records
        self._counters["records_acknowledged"] = self._records_done

    def _tick(self) -> None:
        now = time.monotonic_ns()
        if now - self._last_tick < TICK_NS:
            return
        self._last_tick = now
        self._counters["batches_resent"] = self._out.resent
        self._counters["refused_messages"] = self._in.refused
        self._counters["in_flight_bytes"] = self._out.in_flight_bytes
        if self._viewers.tap is not None:
            self._viewers.turn(now)
            self._pipeline.use_tap(self._viewers.tap)
        if self._trimmer.turn():
            self._slots.give_back_all(self._pipeline.free_slots())
        elif now > self._next_give_back:
            self._next_give_back = now + GIVE_BACK_NS
            self._slots.give_back(self._pipeline.free_slots())
        if self._live and not self._blocked and self._held is None:
            self._pipeline.tick(now)
            self._flush_ready()

    def _finish(self, deadline: float) -> int:
        """Record what waits, deliver it, end."""
        self._close_all()
        while self._pipeline.pending() or not self._out.idle():
            self._flush(1)
            self._poller.poll(20)
            self._hear()
            self._out.service()
            self._child.beat()
            if time.monotonic() > deadline:
                log.error(
                    "stopped with %d bytes of records not acknowledged by the sink",
                    self._pipeline.pending() + self._out.in_flight_bytes,
                )
                return 1
        return 0


def _descriptors_library() -> type[Methods]:
    """What reads descriptor sets. To be called while modules can be read; only a shard that has such sets loads it."""
    from collector.shards.records.descriptors import Methods

    return Methods


def main() -> int:
    """Entry of the child process."""
    return run_process(ShardStart, SHARD_NAMES, Shard)


if __name__ == "__main__":
    raise SystemExit(main())
