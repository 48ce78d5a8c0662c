"""The loader's place in `collector replay`: recorded files instead of rings, everything behind it the same."""

from __future__ import annotations

import logging
import time

import zmq

from collector.errors import DamagedFileError
from collector.loader import capturefile, streams
from collector.metrics import LOADER_NAMES
from collector.router import endpoints, partition
from collector.router.channel import Sender
from collector.runtime import Child

log = logging.getLogger("replay")

SPAN_BYTES = 128 * 1024


class _Stopped(Exception):
    """The supervisor wants an end before the files' end."""


class Replay:
    """The process; ``run`` returns its exit code: 0, or 65 when a file was damaged."""

    def __init__(self, child: Child) -> None:
        start = child.start
        self._child = child
        self._counters = child.counters
        token = bytes.fromhex(start["token"])
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
        self._rings = partition.ring_count(start["shards"], 64)
        self._senders = [Sender(self.context, endpoints.shard(i), token, retain=True)
                         for i in range(start["shards"])]
        self._files: list[str] = start["files"]
        self._spans: list[bytearray] = [bytearray() for _ in self._senders]
        self._wall = 0

    def run(self) -> int:
        """All files in order, then the end to every shard."""
        self._child.ready()
        damaged = False
        base_ns = streams.BASE_NS
        for number, path in enumerate(self._files):
            try:
                if capturefile.is_capture(path):
                    for span in capturefile.read(path):
                        self._send(partition.shard_of_ring(span.ring, len(self._senders)), span.data,
                                   span.wall_offset_ns)
                else:
                    base_ns = self._streams(path, number + 1, base_ns)
            except DamagedFileError as error:
                damaged = True
                self._flush()
                self._child.say({"kind": "problem", "text": str(error)})
            except OSError as error:
                damaged = True
                self._child.say({"kind": "problem", "text": f"{path}: {error.strerror}"})
            if self._child.stopping:
                break
        for sender in self._senders:
            self._wait(sender, 0)
            while not sender.may_end():
                self._turn()
            sender.end()
        while not all(sender.idle() for sender in self._senders):
            self._turn()
        self._counters["done"] = 1
        return DamagedFileError.exit_code if damaged else 0

    def _streams(self, path: str, tgid: int, base_ns: int) -> int:
        file = streams.StreamsFile(path)
        self._wall = file.epoch_ns - base_ns
        last = base_ns
        for event in file.events(tgid, base_ns):
            shard = partition.shard_of_ring(partition.ring_of(event.conn_id, self._rings), len(self._senders))
            self._spans[shard] += event.record
            last = event.ts_ns
            if len(self._spans[shard]) > SPAN_BYTES:
                self._flush()
        self._flush()
        if file.error is not None:
            raise file.error
        return last + streams.FILE_GAP_NS

    def _flush(self) -> None:
        for shard, span in enumerate(self._spans):
            if span:
                self._send(shard, bytes(span), self._wall)
                span.clear()

    def _send(self, shard: int, span: bytes, wall_offset_ns: int) -> None:
        sender = self._senders[shard]
        self._wait(sender, len(span))
        sender.send((span,), wall_offset_ns)
        self._counters.add("spans")
        self._counters.add("span_bytes", len(span))

    def _wait(self, sender: Sender, size: int) -> None:
        """Until the shard has room: nothing is ever dropped here."""
        sender.service()
        while sender.room() < size and not (sender.connected and sender.idle()) or not sender.connected:
            self._turn()

    def _turn(self) -> None:
        time.sleep(0.001)
        self._child.hear()
        if self._child.stopping:
            raise _Stopped
        for sender in self._senders:
            sender.service()
        self._child.beat()


def main() -> int:
    """Entry of the child process."""
    child = Child.begin(LOADER_NAMES)
    replay = Replay(child)
    try:
        code = replay.run()
    except _Stopped:
        code = 0
    replay.context.destroy(0)
    return code


if __name__ == "__main__":
    raise SystemExit(main())
