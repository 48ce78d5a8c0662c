"""The file of `--record --redact`: each record that comes to the sink, as events of an exchange.

It is written to as batches come in, before they are delivered, so it does not wait for the destination. A batch that comes
again, because the sink was killed before it had acknowledged it, is written again, as it is delivered again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

from collector import capturefile
from collector.counters import Counters
from collector.errors import ProtocolError
from collector.router import batches
from collector.sink.batch import Batch
from collector.sink.recording import bodies, events, exchange

log = logging.getLogger("sink")

# (key, value, headers) of each record of a batch; of Kafka's, what sink/kafka/inside.py gives
Records = Callable[[bytes | memoryview], Iterator[tuple[object, bytes, object]]]


class Recorder:
    """Made before the process drops its privileges. ``fd`` stays the caller's; ``counters`` outlive the process, and what
    they say was written is where it goes on. ``say`` tells the supervisor of a problem.
    """

    def __init__(self, fd: int, limit_bytes: int, counters: Counters, format: str, say: Callable[[str], None]) -> None:
        bodies.load_charsets()
        self._counters = counters
        self._say = say
        self._limit = limit_bytes
        self._libraries = events.Libraries()
        self._writer = capturefile.Writer(fd, events.RINGS, limit_bytes, counters["redacted_file_bytes"])
        self._writer.skipped_bytes = counters["redacted_file_skipped_bytes"]
        self._unpack: Records | None = None
        if format == batches.KAFKA:
            from collector.sink.kafka import inside

            self._unpack = inside.records
        self.failed = False

    def add(self, batch: Batch) -> None:
        """Write what its records tell of. What is damaged in it whoever delivers it will say."""
        try:
            for record, end_ns in self._records(batch):
                self._add(record, end_ns)
        except ProtocolError:
            return
        self._counters["redacted_file_bytes"] = self._writer.written_bytes
        self._counters["redacted_file_skipped_bytes"] = self._writer.skipped_bytes

    def _records(self, batch: Batch) -> Iterator[tuple[bytes, int]]:
        """Each with the end of its exchange. Raises ProtocolError."""
        if self._unpack is None:
            for record, _details, place in batch:
                yield record, place[0]
            return
        try:
            values = [value for _key, value, _headers in self._unpack(batch.records)]
        except Exception as error:  # whatever the client does about a damaged batch
            raise ProtocolError(str(error)) from None
        yield from zip(values, batches.ends_ns(batch.index), strict=False)

    def _add(self, record: bytes, end_ns: int) -> None:
        try:
            told = exchange.read(record, end_ns)
            span = events.of(told, self._libraries)
        except exchange.NotTold as error:
            self._counters.add(f"redacted_file_left_out_{error.args[0]}")
            return
        full = self._writer.full
        if self.failed:
            self._writer.skipped_bytes += len(span)
            return
        try:
            self._writer.write(events.ring_of(told), span, told.wall_offset_ns)
        except OSError as error:
            self._cannot_record(error)
            self._writer.skipped_bytes += len(span)
            return
        if not self._writer.full:
            self._counters.add("redacted_file_exchanges")
        elif not full:
            log.warning("--record: the limit of %d bytes is reached: later exchanges are counted, not written", self._limit)

    def _cannot_record(self, error: OSError) -> None:
        self.failed = True
        self._say(f"--record: {error.strerror}: later exchanges are counted, not written; capture goes on")

    def close(self) -> None:
        """Write the end of the file."""
        try:
            self._writer.close()
        except OSError as error:
            if not self.failed:
                self._cannot_record(error)
        self._counters["redacted_file_bytes"] = self._writer.written_bytes
