"""scripts/bench spool: what a batch costs on its way through the spool, beside the bare system calls and the checksum.

scripts/bench spool --batch 131072 --directory /var/tmp     CPU us a batch; ms of time where a disk is waited for
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator

import crc32c

from collector.router import batches
from collector.sink.spool import Spool

RECORD_BYTES = 1300  # a record of an exchange with 1 KB bodies, about
LIMIT = 4 << 30


class Work:
    """Batches of one size, all alike; each figure is of ``count`` of them."""

    def __init__(self, size: int, count: int, directory: str) -> None:
        self.records = os.urandom(size)
        self.in_batch = max(1, size // RECORD_BYTES)
        self.index = batches.pack(size // self.in_batch, 0, (0, 0, 0)) * self.in_batch
        self.size = len(self.records) + len(self.index)
        self.count = count
        self.directory = directory

    @contextlib.contextmanager
    def place(self) -> Iterator[int]:
        """A descriptor of a fresh directory."""
        with tempfile.TemporaryDirectory(dir=self.directory) as name:
            fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY)
            try:
                yield fd
            finally:
                os.close(fd)

    def append(self, box: Spool) -> None:
        """One batch."""
        box.append(self.records, self.index, b"", batches.JSON_LINES, self.in_batch)

    def cpu(self, step: Callable[[int], object]) -> float:
        """CPU us a batch."""
        before = time.process_time_ns()
        for number in range(self.count):
            step(number)
        return (time.process_time_ns() - before) / self.count / 1000


def bare(work: Work) -> dict[str, float]:
    """The floor: the same bytes in one file, written and read by one call each, and their checksum."""
    with work.place() as directory:
        fd = os.open("bare", os.O_RDWR | os.O_CREAT, 0o600, dir_fd=directory)
        parts = [work.records, work.index]
        try:
            return {
                "pwritev": work.cpu(lambda number: os.pwritev(fd, parts, number * work.size)),
                "pread": work.cpu(lambda number: os.pread(fd, work.size, number * work.size)),
                "crc32c": work.cpu(lambda _: crc32c.crc32c(work.index, crc32c.crc32c(work.records))),
            }
        finally:
            os.close(fd)


def through(work: Work) -> dict[str, float]:
    """Everything in, everything out; then one in, one out, where each has a segment of its own."""
    with work.place() as directory:
        box = Spool(directory, limit_bytes=LIMIT)

        def out(_: int) -> None:
            stored = box.peek()
            assert stored is not None
            box.release(stored)

        def in_and_out(number: int) -> None:
            work.append(box)
            out(number)

        figures = {
            "append": work.cpu(lambda _: work.append(box)),
            "peek and release": work.cpu(out),
            "append, peek, release of a spool that is empty": work.cpu(in_and_out),
        }
        box.close()
        return figures


def notes(work: Work) -> dict[str, float]:
    """How a position may be remembered: 24 bytes in the segment, or a small file of its own."""
    with work.place() as directory:
        fd = os.open("segment", os.O_RDWR | os.O_CREAT, 0o600, dir_fd=directory)
        os.write(fd, bytes(1 << 20))

        def rename(_: int) -> None:
            new = os.open("new", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=directory)
            os.write(new, bytes(24))
            os.close(new)
            os.rename("new", "position", src_dir_fd=directory, dst_dir_fd=directory)

        figures = {
            "position in the segment": work.cpu(lambda _: os.pwrite(fd, bytes(24), 32)),
            "position in a file": work.cpu(rename),
        }
        os.close(fd)
        return figures


def synced(work: Work, every: int) -> float:
    """Time of a batch in ms, synced after so many; 0: not until the end, which is not counted."""
    count = min(work.count, 256)
    with work.place() as directory:
        box = Spool(directory, limit_bytes=LIMIT)
        before = time.perf_counter()
        for number in range(1, count + 1):
            work.append(box)
            if every and number % every == 0:
                box.sync()
        taken = time.perf_counter() - before
        box.close()
    return taken / count * 1000


def starting(work: Work, total: int, how: str) -> float:
    """ms until a spool of ``total`` bytes is open: closed, its process killed, or no end marked."""
    with work.place() as directory:
        box = Spool(directory, limit_bytes=LIMIT)
        for _ in range(total // work.size):
            work.append(box)
        if how == "closed":
            box.close()
        else:
            for segment in box._segments if how == "without marks" else []:
                segment.unmark_end()
            box._close()
        before = time.perf_counter()
        box = Spool(directory, limit_bytes=LIMIT)
        taken = time.perf_counter() - before
        assert box.records == total // work.size * work.in_batch
        box.close()
    return taken * 1000


def main(arguments: list[str]) -> None:
    """See the module."""
    parser = argparse.ArgumentParser(prog="scripts/bench spool", description=__doc__)
    parser.add_argument("--batch", type=int, default=128 << 10, metavar="BYTES", help="records of a batch (131072)")
    parser.add_argument("--batches", type=int, default=2000, metavar="N", help="in a run (2000)")
    parser.add_argument("--runs", type=int, default=5, metavar="K", help="the median and the range are shown (5)")
    parser.add_argument("--total", type=int, default=1 << 30, metavar="BYTES", help="in the spool when it is opened (1 GiB)")
    parser.add_argument("--directory", default=None, help="on the disk in question")
    options = parser.parse_args(arguments)
    work = Work(options.batch, options.batches, options.directory)

    runs = [{**bare(work), **through(work), **notes(work)} for _ in range(options.runs)]
    print(f"CPU us a batch of {work.size} bytes with {work.in_batch} records, median (range) of {options.runs} runs")
    for name in runs[0]:
        show(name, [run[name] for run in runs])
    per_segment = max(1, (16 << 20) // work.size)
    print("ms a batch, by the clock")
    for name, every in (("never synced", 0), ("synced once a segment", per_segment), ("synced after each batch", 1)):
        show(name, [synced(work, every) for _ in range(options.runs)])
    print(f"ms to open a spool of {options.total >> 20} MiB")
    for how in ("closed", "killed", "without marks"):
        show(how, [starting(work, options.total, how) for _ in range(min(3, options.runs))])


def show(name: str, values: list[float]) -> None:
    """One line."""
    print(json.dumps({name: [round(statistics.median(values), 2), round(min(values), 2), round(max(values), 2)]}))
