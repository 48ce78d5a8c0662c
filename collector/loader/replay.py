"""The loader's place in `collector replay`: recorded files instead of rings, everything behind it the same."""

from __future__ import annotations

import logging
import threading
import time

import zmq

from collector import capturefile
from collector.counter_names import LOADER_NAMES
from collector.errors import DamagedFileError
from collector.loader import streams
from collector.router import endpoints, messages, partition
from collector.router.channel import Sender
from collector.runtime import Child, run_process
from collector.settings import ReplayStart

log = logging.getLogger("replay")

SPAN_BYTES = 128 * 1024


class _Stopped(Exception):
    """The supervisor wants an end before the files' end."""


class Replay:
    """The process; ``run`` returns its exit code: 0, or 65 when a file was damaged."""

    def __init__(self, child: Child[ReplayStart]) -> None:
        start = child.start
        self._child = child
        self._counters = child.counters
        token = bytes.fromhex(start.token)
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
        self._rings = partition.ring_count(start.shards, 64)
        self._senders = [Sender(self.context, endpoints.shard(i), token) for i in range(start.shards)]
        self._files = start.settings.files
        self._spans: list[bytearray] = [bytearray() for _ in self._senders]
        self._wall = 0
        self._any_damage = False

    def close(self) -> None:
        """Close the sockets at once."""
        self.context.destroy(0)

    def run(self) -> int:
        """All files in order, then the end to every shard."""
        try:
            return self._run()
        except _Stopped:
            return 0

    def _run(self) -> int:
        self._child.ready()
        threading.Thread(target=self._keep_beating, daemon=True).start()
        for number, path in enumerate(self._files, 1):
            try:
                if capturefile.is_capture(path):
                    self._capture(path, number)
                else:
                    self._streams(path, number)
            except DamagedFileError as error:
                self._flush()
                self._damaged(str(error))
            except OSError as error:
                self._flush()
                self._damaged(f"{path}: {error.strerror}")
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
        return DamagedFileError.exit_code if self._any_damage else 0

    def _damaged(self, text: str) -> None:
        self._any_damage = True
        self._child.say({"kind": "problem", "text": text})

    def _begin(self, number: int, prefix: str) -> None:
        """Tell every shard that a file begins: it shares nothing with those before it. Records of a capture file have the
        identities that they had live, those of the boot in which it was made.
        """
        for sender in self._senders:
            self._wait(sender, 0)
            sender.send((prefix.encode("ascii"),), kind=messages.FILE, file=number)

    def _capture(self, path: str, number: int) -> None:
        recording = capturefile.Recording(path)
        self._begin(number, recording.boot + "-")
        for span in recording.spans():
            self._send(partition.shard_of_ring(span.ring, len(self._senders)), span.data, span.wall_offset_ns)
        if recording.left_out_bytes:
            self._child.say(
                {
                    "kind": "problem",
                    "text": f"{path}: {recording.left_out_bytes} bytes of events were left out "
                    "when it was recorded (its limit was reached, or the disk was full)",
                }
            )

    def _streams(self, path: str, number: int) -> None:
        file = streams.StreamsFile(path)
        for error in file.errors:
            self._damaged(str(error))
        self._begin(number, "replay-")
        self._wall = file.epoch_ns - streams.BASE_NS
        for event in file.events(number, streams.BASE_NS):
            shard = partition.shard_of_ring(partition.ring_of(event.conn_id, self._rings), len(self._senders))
            self._spans[shard] += event.record
            if len(self._spans[shard]) > SPAN_BYTES:
                self._flush()
        self._flush()

    def _keep_beating(self) -> None:
        """In a thread: a file with many lines, or one long one, takes its time, and nothing is lost meanwhile."""
        while not self._child.stopping:
            self._child.beat()
            time.sleep(1)

    def _flush(self) -> None:
        for shard, span in enumerate(self._spans):
            if span:
                self._send(shard, bytes(span), self._wall)
                span.clear()

    def _send(self, shard: int, span: bytes, wall_offset_ns: int) -> None:
        sender = self._senders[shard]
        self._wait(sender, len(span))
        sender.send((span,), wall_offset_ns=wall_offset_ns)
        self._counters.add("spans")
        self._counters.add("span_bytes", len(span))
        if self._counters["spans"] % 64 == 0:
            self._look()

    def _wait(self, sender: Sender, size: int) -> None:
        """Until the shard has room: nothing is ever dropped here."""
        sender.service()
        while sender.room() < size and not (sender.connected and sender.idle()) or not sender.connected:
            self._turn()

    def _turn(self) -> None:
        time.sleep(0.001)
        self._look()

    def _look(self) -> None:
        """What the supervisor and the shards have to say."""
        self._child.hear()
        if self._child.stopping:
            raise _Stopped
        for sender in self._senders:
            sender.service()
        self._child.beat()


def main() -> int:
    """Entry of the child process."""
    return run_process(ReplayStart, LOADER_NAMES, Replay)


if __name__ == "__main__":
    raise SystemExit(main())
