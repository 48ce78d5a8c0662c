"""Replay's order: records are held until the end, then delivered by (file, end time, connection, stream position).

With several shards nothing else gives the same output every time. Only MEMORY_BYTES are held in memory: what is more is
sorted and written to a temporary file, a run; FAN_IN runs of a kind are merged into a longer one, so that few files are open
and few buffers needed, however much there is. Runs are compressed: records that small bodies were blown up to shrink again.
A run has no name from the moment it is made, so that it goes with this process, however that ends.
"""

from __future__ import annotations

import contextlib
import heapq
import io
import struct
import tempfile
from collections.abc import Callable, Iterable, Iterator
from typing import IO

import zstandard

from collector.router import batches
from collector.sink.batch import Batch

MEMORY_BYTES = 32 << 20
FAN_IN = 16
_PIECE_BYTES = 1 << 20
_ENTRY_BYTES = 400  # what Python needs to hold a record, its text aside
_HEAD = struct.Struct("=QQQQII")

# (file, end ns, connection, stream position), record, details
_Record = tuple[tuple[int, int, int, int], bytes, bytes]


def _write(records: Iterable[_Record], beat: Callable[[], None]) -> IO[bytes]:
    """A run. Raises OSError."""
    since = 0
    file = tempfile.TemporaryFile(prefix="collector-")  # noqa: SIM115 - the caller's
    try:
        with zstandard.ZstdCompressor(level=1).stream_writer(file, closefd=False) as out:
            for place, record, details in records:
                since += out.write(_HEAD.pack(*place, len(record), len(details)) + record + details)
                if since > _PIECE_BYTES:
                    since = 0
                    beat()
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return file


def _read(file: IO[bytes]) -> Iterator[_Record]:
    """The records of a run; closes it."""
    with file, io.BufferedReader(zstandard.ZstdDecompressor().stream_reader(file, closefd=False), 1 << 16) as run:
        while head := run.read(_HEAD.size):
            *place, length, details = _HEAD.unpack(head)
            text = run.read(length + details)
            yield (place[0], place[1], place[2], place[3]), text[:length], text[length:]


class Ordered:
    """Collects batches; ``batches`` gives them back in order. ``count`` is the number of records held; ``beat`` is called
    now and then during long work.
    """

    def __init__(self, memory_bytes: int = MEMORY_BYTES, beat: Callable[[], None] = lambda: None) -> None:
        self._memory_bytes = memory_bytes
        self._beat = beat
        self._records: list[_Record] = []
        self._bytes = 0
        self._levels: list[list[IO[bytes]]] = []
        self.count = 0

    def add(self, batch: Batch, file: int = 0) -> None:
        """Keep the records of a batch, which belong to that recorded file. Raises OSError when the disk refuses,
        ProtocolError when the batch is malformed: then none of it is kept.
        """
        batches.check(batch.records, batch.index, batch.details)
        self.count += batch.count
        for record, details, place in batch:
            self._records.append(((file, *place), record, details))
            self._bytes += len(record) + len(details) + _ENTRY_BYTES
            if self._bytes > self._memory_bytes:
                self._records.sort()
                self._keep(_write(self._records, self._beat), 0)
                self._records, self._bytes = [], 0

    def _keep(self, run: IO[bytes], level: int) -> None:
        """Put a run to those of its kind; so many of them become one of the next."""
        if level == len(self._levels):
            self._levels.append([])
        self._levels[level].append(run)
        if len(self._levels[level]) == FAN_IN:
            runs, self._levels[level] = self._levels[level], []
            with contextlib.ExitStack() as stack:
                for one in runs:
                    stack.callback(one.close)
                self._keep(_write(heapq.merge(*map(_read, runs)), self._beat), level + 1)

    def batches(self) -> Iterator[Batch]:
        """All records in order, in batches of about 1 MiB."""
        self._records.sort()
        runs = [run for level in self._levels for run in level]
        held, self._records, self._levels, self._bytes, self.count = self._records, [], [], 0, 0
        records, index, details = bytearray(), bytearray(), bytearray()
        with contextlib.ExitStack() as stack:
            for run in runs:
                stack.callback(run.close)
            for (_file, end_ns, conn_id, position), record, detail in heapq.merge(*map(_read, runs), held):
                records += record + b"\n"
                details += detail
                index += batches.pack(len(record) + 1, len(detail), (end_ns, conn_id, position))
                if len(records) > _PIECE_BYTES:
                    yield Batch(bytes(records), bytes(index), bytes(details))
                    records, index, details = bytearray(), bytearray(), bytearray()
        if records:
            yield Batch(bytes(records), bytes(index), bytes(details))

    def close(self) -> None:
        """Give everything up."""
        for level in self._levels:
            for run in level:
                run.close()
        self._records, self._levels = [], []
