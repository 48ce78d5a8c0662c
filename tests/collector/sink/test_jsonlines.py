"""Lines in the output are whole, whatever happens: torn ones of others, kills, full disks, readers that go, rotation."""

from __future__ import annotations

import fcntl
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from collector.router import batches
from collector.settings import QUEUE_BYTES
from collector.sink import jsonlines
from collector.sink.batch import Batch
from collector.sink.delivery import Delivery
from collector.sink.jsonlines import UNTOUCHED, WHOLE, WRITING, JsonLines, repair
from tests.live.harness import wait_for

Notes = dict[str, int]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonlines, "_RETRY_SECONDS", 0.01)


def batch(*lines: bytes) -> Batch:
    return Batch(
        b"".join(line + b"\n" for line in lines),
        b"".join(batches.pack(len(line) + 1, 0, (0, 0, n)) for n, line in enumerate(lines)),
        b"",
    )


def opened(path: Path, flags: int = os.O_RDWR | os.O_APPEND) -> int:
    return os.open(path, flags | os.O_CREAT, 0o600)


def made(fd: int, notes: Notes | None = None) -> Delivery:
    state = {"output_state": UNTOUCHED} if notes is None else notes
    return Delivery(lambda settled: JsonLines(fd, notes=state, settled=settled), lossless=False, wake=lambda: None)


@contextmanager
def sink(fd: int, notes: Notes | None = None) -> Iterator[Delivery]:
    """Delivery to a descriptor; at the end everything is delivered, or the output is gone."""
    out = made(fd, notes)
    out.start()
    try:
        yield out
    finally:
        out.close()
        ended = out.join(20)
        os.close(fd)
    assert ended and out.queue.idle()


def fill(fd: int) -> None:
    """No byte more goes into this pipe."""
    os.set_blocking(fd, False)
    try:
        while True:
            os.write(fd, b"\n" * 65536)
    except BlockingIOError:
        os.set_blocking(fd, True)


@contextmanager
def file_limit(size: int) -> Iterator[None]:
    """As little room as a full disk has."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("flags", [os.O_RDWR | os.O_APPEND, os.O_WRONLY | os.O_APPEND])
@pytest.mark.parametrize(
    ("there", "then"),
    [(b"", b""), (b"{}\n", b"{}\n"), (b'{"torn', b'{"torn\n'), (b'{}\n{"torn', b'{}\n{"torn\n'), (b"{}\n\n", b"{}\n\n")],
)
def test_a_torn_line_of_somebody_else_is_ended_before_the_first_append(
    tmp_path: Path, flags: int, there: bytes, then: bytes
) -> None:
    path = tmp_path / "o"
    path.write_bytes(there)
    notes = {"output_state": UNTOUCHED}
    with sink(opened(path, flags), notes) as out:
        assert path.read_bytes() == there  # nothing to append, nothing changed
        out.submit(batch(b"1"))
        out.submit(batch(b"2", b"3"))
    assert path.read_bytes() == then + b"1\n2\n3\n"
    assert notes["output_state"] == WHOLE and out.totals.delivered == 3


@pytest.mark.parametrize("flags", [os.O_RDWR | os.O_APPEND, os.O_WRONLY | os.O_APPEND, os.O_WRONLY])
def test_what_a_killed_life_left_is_cut_off_for_it_comes_again(tmp_path: Path, flags: int) -> None:
    path = tmp_path / "o"
    fd = opened(path, flags)
    os.write(fd, b'{"whole":1}\n{"torn')
    with sink(fd, {"output_state": WRITING}) as out:
        out.submit(batch(b'{"torn":2}'))
    assert path.read_bytes() == b'{"whole":1}\n{"torn":2}\n'


def test_a_life_that_wrote_nothing_leaves_anothers_line_alone(tmp_path: Path) -> None:
    path = tmp_path / "o"
    path.write_bytes(b'{"of somebody')
    notes = {"output_state": UNTOUCHED}
    for n in (b"1", b"2"):
        with sink(opened(path), notes) as out:
            out.submit(batch(n))
    assert path.read_bytes() == b'{"of somebody\n1\n2\n'


def test_on_a_pipe_a_torn_line_is_ended() -> None:
    read, write = os.pipe()
    with open(read, "rb") as reader:
        os.write(write, b'{"torn')
        with sink(write, {"output_state": WRITING}) as out:
            out.submit(batch(b"1"))
            out.submit(batch(b"2"))
        assert reader.read() == b'{"torn\n1\n2\n'


def test_nobody_reads() -> None:
    read, write = os.pipe()
    fill(write)
    with sink(write) as out:
        out.submit(batch(b"1", b"2"))
        wait_for(lambda: not out.queue._waiting)
        out.submit(batch(b"3"))
        os.close(read)
        wait_for(lambda: out.gone)
        out.submit(batch(b"4", b"5", b"6"))
    assert "closed by its reader" in out.gone and (out.totals.delivered, out.totals.failed) == (0, 6)
    assert [b.count for b in out.done()] == [2, 1, 3]


def test_a_full_disk_that_has_room_again_costs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "o"
    with sink(opened(path)) as out:
        with file_limit(15):
            out.submit(batch(b"a" * 9, b"b" * 9))
            wait_for(lambda: out.totals.errors > 2)
            assert not out.up
        wait_for(out.queue.idle)
    assert path.read_bytes() == b"a" * 9 + b"\n" + b"b" * 9 + b"\n"
    assert (out.totals.delivered, out.totals.failed) == (2, 0)


def test_a_disk_that_stays_full_leaves_whole_lines_and_a_count(tmp_path: Path) -> None:
    path = tmp_path / "o"
    with file_limit(15):
        with sink(opened(path)) as out:
            out.submit(batch(b"a" * 9, b"b" * 9, b"c"))
            out.submit(batch(b"d", b"e"))
            wait_for(lambda: out.totals.errors > 2)
        assert path.read_bytes() == b"a" * 9 + b"\n"
    assert (out.totals.delivered, out.totals.failed) == (1, 4) and "too large" in out.gone
    full = os.open("/dev/full", os.O_WRONLY)
    with sink(full) as out:
        out.submit(batch(b"a", b"b"))
    assert (out.totals.delivered, out.totals.failed) == (0, 2) and "No space left" in out.gone


def test_what_no_longer_fits_into_the_queue_is_dropped_and_counted() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    with sink(full) as out:
        big = b"x" * (QUEUE_BYTES // 4)
        for _ in range(8):
            out.submit(batch(big))
        assert out.totals.dropped >= 3
    assert out.totals.dropped + out.totals.failed == 8


def test_reopened_between_batches(tmp_path: Path) -> None:
    path, old = tmp_path / "o", tmp_path / "o.1"
    with sink(opened(path)) as out:
        out.submit(batch(b"1"))
        wait_for(out.queue.idle)
        path.rename(old)
        out.submit(batch(b"2"))  # nobody said anything: to the file that is open
        wait_for(out.queue.idle)
        path.write_bytes(b'{"torn')
        out.reopen(opened(path), 1)
        out.submit(batch(b"3"))
        wait_for(out.queue.idle)
    assert old.read_bytes() == b"1\n2\n" and path.read_bytes() == b'{"torn\n3\n'
    assert out.totals.delivered == 3


def test_reopened_in_the_middle_of_a_line_the_line_is_in_one_file(tmp_path: Path) -> None:
    path, old = tmp_path / "o", tmp_path / "o.1"
    with sink(opened(path)) as out, file_limit(15):
        out.submit(batch(b"a" * 9, b"b" * 9, b"c"))
        wait_for(lambda: out.totals.errors > 2)
        path.rename(old)
        out.reopen(opened(path), 1)
        wait_for(out.queue.idle)
    assert old.read_bytes() == b"a" * 9 + b"\n" and path.read_bytes() == b"b" * 9 + b"\nc\n"
    assert out.totals.delivered == 3


def test_the_number_of_the_file_is_noted_when_the_old_one_is_whole(tmp_path: Path) -> None:
    """Whoever takes over from us begins with the file whose number is there, and cuts off what is torn there only."""
    path, old = tmp_path / "o", tmp_path / "o.1"
    seen = []

    class Watched(dict[str, int]):
        def __setitem__(self, name: str, value: int) -> None:
            super().__setitem__(name, value)
            seen.append((name, value, old.exists() and old.read_bytes()))

    notes = Watched()
    notes.update(output_state=UNTOUCHED, output_number=6)
    with sink(opened(path), notes) as out, file_limit(15):
        out.submit(batch(b"a" * 9, b"b" * 9))
        wait_for(lambda: out.totals.errors > 2)
        path.rename(old)
        assert old.read_bytes() == b"a" * 9 + b"\n" + b"b" * 5
        out.reopen(opened(path), 7)
        wait_for(out.queue.idle)
    assert seen[-3:] == [
        ("output_number", 7, b"a" * 9 + b"\n"),
        ("output_state", WRITING, b"a" * 9 + b"\n"),
        ("output_state", WHOLE, b"a" * 9 + b"\n"),
    ]
    assert seen[-4] == ("output_state", UNTOUCHED, b"a" * 9 + b"\n")


def test_a_life_that_was_killed_before_it_went_over_is_finished_by_the_next(tmp_path: Path) -> None:
    path, old = tmp_path / "o", tmp_path / "o.1"
    old.write_bytes(b'1\n{"torn')
    path.write_bytes(b'{"of somebody')
    fd = opened(old)
    with sink(fd, {"output_state": WRITING, "output_number": 3}) as out:
        out.reopen(opened(path), 4)
        out.submit(batch(b"2"))
    assert old.read_bytes() == b"1\n" and path.read_bytes() == b'{"of somebody\n2\n'


def test_reopened_twice_before_it_came_to_that(tmp_path: Path) -> None:
    out = made(opened(tmp_path / "a"))
    first = opened(tmp_path / "b")
    out.reopen(first, 1)
    out.reopen(opened(tmp_path / "c"), 2)
    with pytest.raises(OSError, match="Bad file"):
        fcntl.fcntl(first, fcntl.F_GETFD)
    out.submit(batch(b"1"))
    out.close()
    out.start()
    assert out.join(20)
    assert (tmp_path / "c").read_bytes() == b"1\n"


@given(
    whole=st.lists(st.binary(max_size=30), max_size=4),
    tail=st.binary(max_size=200_000).map(lambda b: b.replace(b"\n", b"x")),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
def test_repair_keeps_whole_lines(tmp_path: Path, whole: list[bytes], tail: bytes) -> None:
    path = tmp_path / "o"
    lines = b"".join(line + b"\n" for line in whole)
    path.write_bytes(lines + tail)
    fd = opened(path)
    assert repair(fd) == len(tail)
    os.close(fd)
    assert path.read_bytes() == lines
