"""Replay's order: the same records as a sort in memory, with bounded memory and without anything left on disk."""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.router import batches
from collector.sink import ordered
from collector.sink.batch import Batch
from collector.sink.ordered import Ordered

Item = tuple[int, tuple[int, int, int], bytes, bytes]  # file, place, record, details


def batch(items: Iterable[Item]) -> Batch:
    items = list(items)
    return Batch(
        b"".join(record + b"\n" for _file, _place, record, _details in items),
        b"".join(batches.pack(len(record) + 1, len(details), place) for _file, place, record, details in items),
        b"".join(details for _file, _place, _record, details in items),
    )


def filled(items: Iterable[Item], memory_bytes: int) -> Ordered:
    out = Ordered(memory_bytes)
    for item in items:
        out.add(batch([item]), item[0])
    return out


def drained(out: Ordered) -> list[tuple[tuple[int, int, int], bytes, bytes]]:
    return [(place, record, details) for piece in out.batches() for record, details, place in piece]


NUMBERS = st.one_of(st.integers(0, 3), st.integers(0, 2**64 - 1))
ITEMS = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.tuples(NUMBERS, NUMBERS, NUMBERS),
        st.binary(max_size=40).map(lambda b: b.replace(b"\n", b"")),
        st.binary(max_size=10),
    ),
    max_size=60,
)


@given(items=ITEMS, memory_bytes=st.sampled_from([0, 1000, 5000, 1 << 20]))
@settings(deadline=None)
def test_the_order_is_that_of_a_sort_whatever_the_memory(items: list[Item], memory_bytes: int) -> None:
    expected = [(place, record, details) for _file, place, record, details in sorted(items)]
    out = filled(items, memory_bytes)
    assert out.count == len(items)
    assert drained(out) == expected
    assert out.count == 0 and drained(out) == []


def test_more_runs_than_are_merged_at_once() -> None:
    rng = random.Random(1)
    items = [(1, (rng.randrange(1000), n, 0), b"%d" % n, b"") for n in range(ordered.FAN_IN**2 + 40)]
    before = set(os.listdir("/proc/self/fd"))
    out = filled(items, 0)  # every record a run
    assert len(os.listdir("/proc/self/fd")) - len(before) < 3 * ordered.FAN_IN
    assert [record for _place, record, _details in drained(out)] == [item[2] for item in sorted(items)]
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_memory_stays_bounded_and_what_is_blown_up_is_small_on_disk() -> None:
    text = b"\\u0001" * 60_000  # what 97 bytes of gzip may become
    tracemalloc.start()
    try:
        out = Ordered(4 << 20)
        for n in range(300):  # 108 MB
            out.add(batch([(1, (1000 - n, n, 0), text + b"%d" % n, b"")]))
        size = sum(os.fstat(run.fileno()).st_size for level in out._levels for run in level)
        count = sum(piece.count for piece in out.batches())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 300
    assert peak < 24 << 20, peak
    assert size < 4 << 20, size


def test_nothing_has_a_name_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    out = filled([(1, (n, 0, 0), b"x" * 100, b"") for n in range(100)], 1000)
    assert list(tmp_path.iterdir()) == []
    out.close()


def test_a_killed_process_leaves_nothing(tmp_path: Path) -> None:
    text = (
        "import os, signal, tests.collector.sink.test_ordered as t\n"
        "o = t.filled([(1, (n, 0, 0), b'x' * 100, b'') for n in range(100)], 1000)\n"
        "print(sum(map(len, o._levels)), flush=True)\nos.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run(
        [sys.executable, "-c", text], env={**os.environ, "TMPDIR": str(tmp_path)}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == -signal.SIGKILL and int(done.stdout) > 1, done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_an_error_and_every_record_is_counted() -> None:
    rng = random.Random(1)
    out = Ordered(100_000)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):  # noqa: PT012 - one of them is the one
            for n in range(1, 100):
                out.add(batch([(1, (n, i, 0), rng.randbytes(2000).hex().encode(), b"") for i in range(10)]))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert out.count == n * 10
    out.close()
