"""The spool: what was appended comes out once, in order and whole, whatever became of the process, the disk or the files."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import resource
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import crc32c
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from collector.errors import LockedError
from collector.router import batches
from collector.sink import segment, spool
from collector.sink.spool import Lost, Spool, Stored
from collector.sink.spool_directory import UNFINISHED
from tests.conftest import skip_or_fail

LIMIT = 1 << 20
Content = tuple[bytes, bytes, bytes, str, int]


def content(number: int, size: int = 40, records: int = 2) -> Content:
    """A batch that is like no other."""
    text = b"%08d" % number + bytes((number * 7 + k) & 0xFF for k in range(max(0, size - 8)))
    return text, batches.pack(size, 3, (number, 0, 0)) * records, b"d%02d" % (number % 100), "jsonlines", records


def size_of(one: Content) -> int:
    return segment.ENTRY_HEAD + len(one[0]) + len(one[1]) + len(one[2])


def held(stored: Stored) -> Content:
    return bytes(stored.records), bytes(stored.index), bytes(stored.details), stored.format, stored.count


def drain(box: Spool) -> list[Content]:
    out = []
    while (stored := box.peek()) is not None:
        out.append(held(stored))
        box.release(stored)
    return out


def kill(box: Spool) -> None:
    """What the end of the process does: descriptors are closed, nothing more is written."""
    box._close()


def files_in(directory: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in directory.iterdir()}


class Place:
    """A directory with its descriptor, and the spools that were opened in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        self.opened: list[Spool] = []

    def open(self, limit: int = LIMIT, segment_bytes: int = 400) -> Spool:
        self.opened.append(Spool(self.fd, limit_bytes=limit, segment_bytes=segment_bytes))
        return self.opened[-1]

    def close(self) -> None:
        for box in self.opened:
            with contextlib.suppress(OSError):
                box.close()
        os.close(self.fd)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    path = tmp_path / "spool"
    path.mkdir(mode=0o700)
    one = Place(path)
    yield one
    one.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Place]:
    """A file system of 1 MiB."""
    if os.geteuid() != 0:
        skip_or_fail("mounting a small file system needs root")
    path = tmp_path / "disk"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=0700", "tmpfs", path], check=True)
    try:
        one = Place(path)
        yield one
        one.close()
    finally:
        subprocess.run(["umount", "-l", path], check=True)


class Model(RuleBasedStateMachine):
    """A list against the spool. ``handed`` of the oldest are read and not released."""

    def __init__(self) -> None:
        super().__init__()
        self.path = Path(tempfile.mkdtemp(prefix="spool-"))
        self.fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        self.box = self.open()
        self.waiting: list[Content] = []
        self.ahead: list[Stored] = []
        self.handed = self.made = 0
        self.lost = Lost(0, 0)

    def open(self) -> Spool:
        return Spool(self.fd, limit_bytes=4000, segment_bytes=450)

    def teardown(self) -> None:
        try:
            assert drain(self.box) == self.waiting
            assert files_in(self.path) == {} and (self.box.bytes, self.box.records, self.box.disk_bytes) == (0, 0, 0)
        finally:
            self.box.close()
            os.close(self.fd)
            shutil.rmtree(self.path)

    @rule(size=st.sampled_from([0, 1, 40, 200, 600, 3700]), records=st.integers(0, 4))
    def append(self, size: int, records: int) -> None:
        self.made += 1
        one = content(self.made, max(8, size), records)
        before = self.box.disk_bytes
        lost = self.box.append(*one)
        self.waiting.append(one)
        gone = []
        while sum(map(size_of, self.waiting)) > self.box.bytes:
            gone.append(self.waiting.pop(0))
        uncounted = min(len(gone), self.handed)
        self.handed -= uncounted
        del self.ahead[: len(gone)]
        assert lost == (sum(map(size_of, gone[uncounted:])), sum(c[4] for c in gone[uncounted:]))
        assert not gone or before + size_of(one) + segment.FIRST_ENTRY > 4000
        assert one in self.waiting

    @rule()
    def peek(self) -> None:
        stored = self.box.peek()
        assert (stored and held(stored)) == (self.waiting[0] if self.waiting else None)
        if stored is not None and not self.handed:
            self.handed = 1
            self.ahead = [stored]

    @precondition(lambda self: self.ahead)
    @rule()
    def peek_further(self) -> None:
        stored = self.box.peek(self.ahead[-1])
        assert (stored and held(stored)) == (self.waiting[self.handed] if len(self.waiting) > self.handed else None)
        if stored is not None:
            self.handed += 1
            self.ahead.append(stored)

    @precondition(lambda self: self.ahead)
    @rule()
    def release(self) -> None:
        self.box.release(self.ahead.pop(0))
        del self.waiting[0]
        self.handed -= 1

    @rule()
    def sync(self) -> None:
        self.box.sync()

    @rule(orderly=st.booleans())
    def begin_again(self, orderly: bool) -> None:
        if orderly:
            self.box.close()
        else:
            kill(self.box)
        self.box = self.open()
        self.handed, self.ahead = 0, []
        assert self.box.damaged == (0, 0, 0)

    @invariant()
    def counts(self) -> None:
        assert self.box.records == sum(one[4] for one in self.waiting)
        assert self.box.bytes == sum(map(size_of, self.waiting))
        assert self.box.disk_bytes == sum(files_in(self.path).values()) <= 4000


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=150, stateful_step_count=60)


# -- damage


def filled(directory: Path, *, orderly: bool) -> list[Content]:
    """Three segments, of 2, 2 and 2 batches; the first one of the first is released."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    box = Spool(fd, limit_bytes=LIMIT, segment_bytes=segment.FIRST_ENTRY + 2 * size_of(content(0)))
    made = [content(number, records=number + 1) for number in range(7)]
    made = [(text, index, details, form, count) for text, index, details, form, count in map(_same_size, made)]
    for one in made[:6]:
        box.append(*one)
    stored = box.peek()
    assert stored is not None and held(stored) == made[0]
    box.release(stored)
    assert len(files_in(directory)) == 3
    if orderly:
        box.close()
    else:
        kill(box)
    os.close(fd)
    return made[1:6]


def _same_size(one: Content) -> Content:
    """Without an index that grows with the number of records."""
    return one[0], content(0)[1], one[2], one[3], one[4]


@pytest.fixture(params=[True, False], ids=["closed", "killed"])
def template(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[dict[str, bytes], list[Content], bool]:
    path = tmp_path / "template"
    path.mkdir()
    made = filled(path, orderly=request.param)
    return {name: (path / name).read_bytes() for name in sorted(files_in(path))}, made, request.param


def entry_at(offset: int) -> int:
    """In which batch of a segment is that byte? -1: in what comes before all."""
    return (offset - segment.FIRST_ENTRY) // size_of(content(0)) if offset >= segment.FIRST_ENTRY else -1


class Outcome:
    """What a spool makes of these files."""

    def __init__(self, directory: Path, found: dict[str, bytes]) -> None:
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
        for name, data in found.items():
            (directory / name).write_bytes(data)
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        box = Spool(fd, limit_bytes=LIMIT, segment_bytes=segment.FIRST_ENTRY + 2 * size_of(content(0)))
        try:
            self.delivered = drain(box)
            self.damaged, self.other_versions = box.damaged, box.other_versions
            assert (box.bytes, box.records) == (0, 0)
            left = files_in(directory)
            assert all(re.search(r"\.(damaged|version-[0-9]+)$", name) for name in left), left
            assert box.disk_bytes == sum(size for name, size in left.items() if name.endswith(".damaged"))
            box.append(*content(99))
            assert drain(box) == [content(99)]
        finally:
            kill(box)
            os.close(fd)


@pytest.mark.parametrize("bits", [0x01, 0x80, 0xFF])
def test_no_changed_byte_is_delivered_and_each_is_reported(
    template: tuple[dict[str, bytes], list[Content], bool], bits: int, tmp_path: Path
) -> None:
    found, made, closed = template
    for which, (name, data) in enumerate(found.items()):
        for at in range(len(data)):
            changed = data[:at] + bytes([data[at] ^ bits]) + data[at + 1 :]
            outcome = Outcome(tmp_path / "try", {**found, name: changed})
            number = entry_at(at)
            if which == 0 and (number == 0 or segment._RELEASED_AT <= at < segment._END_AT):
                # what was released, or the note of it: at worst it comes again
                again = [one for one in outcome.delivered if one not in made]
                assert [one for one in outcome.delivered if one in made] == made and len(again) <= 1
                continue
            first = 2 * which - 1  # of the segment's batches in `made`
            lost = [one for one in made if one not in outcome.delivered]
            assert outcome.delivered == [one for one in made if one not in lost], (name, at)
            own = made[max(0, first) : first + 2]
            assert all(one in own for one in lost), (name, at)
            if number >= 0:
                batch = made[first + number]
                in_head = (at - segment.FIRST_ENTRY) % size_of(content(0)) < segment.ENTRY_HEAD
                expected = made[first + number : first + 2] if in_head else [batch]
                assert lost == expected, (name, at)
                assert outcome.damaged[:2] == (1, sum(map(size_of, lost))), (name, at)
                known = closed or which < 2 or not in_head  # without the mark of the end nobody knows what was there
                assert outcome.damaged[2] == (sum(one[4] for one in lost) if known else 0) or not known
            elif lost:
                assert outcome.damaged.segments + outcome.other_versions == 1 and lost == own, (name, at)


def test_a_segment_cut_at_any_length_gives_what_is_before_the_cut(
    template: tuple[dict[str, bytes], list[Content], bool], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found, made, closed = template
    for which, (name, data) in enumerate(found.items()):
        for length in range(len(data)):
            caplog.clear()
            outcome = Outcome(tmp_path / "try", {**found, name: data[:length]})
            first = 2 * which - 1
            whole = max(0, entry_at(length))
            lost = made[max(0, first + whole) : first + 2]
            assert outcome.delivered == [one for one in made if one not in lost], (name, length)
            if which == 2 and not closed and length >= segment.FIRST_ENTRY:
                # a process that was killed leaves that; of whole batches that are missing nobody knows
                boundary = (length - segment.FIRST_ENTRY) % size_of(content(0)) == 0
                assert outcome.damaged == (0, 0, 0) and bool(caplog.records) != boundary
            else:
                assert outcome.damaged.segments == 1 and caplog.records
                if length >= segment.FIRST_ENTRY:
                    assert outcome.damaged.records == sum(one[4] for one in lost)


def test_bytes_behind_the_end_are_never_delivered(
    template: tuple[dict[str, bytes], list[Content], bool], tmp_path: Path
) -> None:
    found, made, _closed = template
    for name, data in found.items():
        copy = data[segment.FIRST_ENTRY : segment.FIRST_ENTRY + size_of(content(0))]  # whole, and from elsewhere
        for more in (b"x", bytes(4096), copy):
            outcome = Outcome(tmp_path / "try", {**found, name: data + more})
            assert outcome.delivered == made


def test_segments_that_change_places_are_not_delivered(
    template: tuple[dict[str, bytes], list[Content], bool], tmp_path: Path
) -> None:
    found, made, _closed = template
    first, second, third = found
    outcome = Outcome(tmp_path / "try", {first: found[second], second: found[first], third: found[third]})
    assert outcome.delivered == made[3:] and outcome.damaged.segments == 2


def test_batches_of_another_segment_are_not_delivered(
    template: tuple[dict[str, bytes], list[Content], bool], tmp_path: Path
) -> None:
    """At the same offset, under checksums of their own, as after a power cut blocks of a deleted file may be."""
    found, made, _closed = template
    _first, second, third = found
    mixed = found[second][: segment.FIRST_ENTRY] + found[third][segment.FIRST_ENTRY :]
    outcome = Outcome(tmp_path / "try", {**found, second: mixed})
    assert outcome.delivered == [made[0], *made[3:]]
    assert outcome.damaged == (1, 2 * size_of(made[1]), made[1][4] + made[2][4])


Change = tuple[str, int, int, bytes]
CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["write", "insert", "remove", "zero"]),
        st.integers(0, 2),
        st.integers(0, 400),
        st.binary(max_size=60),
    ),
    min_size=1,
    max_size=4,
)


@given(changes=CHANGES)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
def test_whatever_is_done_to_the_files_only_batches_come_out_and_in_order(
    template: tuple[dict[str, bytes], list[Content], bool], tmp_path: Path, changes: list[Change]
) -> None:
    found, made, _closed = template
    names = list(found)
    after = dict(found)
    for what, which, at, data in changes:
        old = after[names[which]]
        rest = old[at:] if what == "insert" else old[at + len(data) :]
        after[names[which]] = old[:at] + {"remove": b"", "zero": bytes(len(data))}.get(what, data) + rest
    outcome = Outcome(tmp_path / "try", after)
    everything = [_same_size(content(0, records=1)), *made]
    assert outcome.delivered == [one for one in everything if one in outcome.delivered]


def test_what_is_no_segment_is_set_aside(tmp_path: Path) -> None:
    for data in (b"", b"x", os.urandom(300), segment.MAGIC, segment.MAGIC + bytes(200)):
        outcome = Outcome(tmp_path / "try", {"0000000000000001.segment": data})
        assert outcome.delivered == [] and outcome.damaged.segments + outcome.other_versions == 1


def test_damage_is_reported_once_and_kept_for_whoever_looks(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    made = filled(place.path, orderly=True)
    path = sorted(place.path.iterdir())[1]
    data = bytearray(path.read_bytes())
    data[segment.FIRST_ENTRY + segment.ENTRY_HEAD] ^= 1
    path.write_bytes(data)
    box = place.open()
    read = [box.peek()]
    while read[-1] is not None:
        read.append(box.peek(read[-1]))
    assert [held(one) for one in read if one is not None] == [made[0], *made[2:]]
    assert [held(one) for one in (box.peek(), box.peek()) if one is not None] == [made[0]] * 2
    assert len([one for one in caplog.records if "damaged" in one.getMessage()]) == 1
    assert box.damaged == (1, size_of(made[1]), made[1][4]) and box.records == sum(c[4] for c in made) - made[1][4]
    for one in read[:-1]:
        assert one is not None
        box.release(one)
    assert list(files_in(place.path)) == [f"{2:016x}.damaged"]
    kept = (place.path / f"{2:016x}.damaged").read_bytes()
    assert kept[segment.FIRST_ENTRY :] == data[segment.FIRST_ENTRY :]
    box.close()
    caplog.clear()
    assert place.open().damaged == (0, 0, 0) and not caplog.records


def test_a_segment_that_was_found_damaged_is_not_counted_again_by_the_next_process(place: Place) -> None:
    filled(place.path, orderly=True)
    path = sorted(place.path.iterdir())[1]
    path.write_bytes(path.read_bytes()[:-1])
    first = place.open()
    assert first.damaged.segments == 1 and first.damaged.records == 4
    kill(first)
    second = place.open()
    assert second.damaged == (0, 0, 0) and len(drain(second)) == 4
    assert list(files_in(place.path)) == [path.name.replace("segment", "damaged")]


def test_damaged_files_are_bounded(place: Place) -> None:
    for number in range(1, 30):
        (place.path / f"{number:016x}.segment").write_bytes(b"x" * 100)
    box = place.open()
    assert box.damaged.segments == 29 and box.damaged.bytes == 29 * (100 - segment.FIRST_ENTRY)
    assert sorted(files_in(place.path)) == [f"{n:016x}.damaged" for n in range(30 - spool.KEPT_DAMAGED, 30)]
    box.append(*content(1))
    assert f"{30:016x}.segment" in files_in(place.path)


def test_a_disk_that_cannot_read_is_damage(place: Place) -> None:
    box = place.open()
    for number in range(6):
        box.append(*content(number))
    box._segments[0].close()
    box._segments[0].fd = os.open("/proc/self/mem", os.O_RDONLY)  # reading the first page is EIO
    with pytest.raises(OSError, match="Input/output"):
        os.pread(box._segments[0].fd, 1, 0)
    assert [one[0][:8] for one in drain(box)] == [b"%08d" % n for n in (2, 3, 4, 5)]
    assert box.damaged.records == 4 and len(files_in(place.path)) == 1


def test_a_disk_that_cannot_be_read_at_the_end_is_not_shortened(place: Place) -> None:
    """An unreadable head is no sign of a process that was killed while it wrote."""
    box = place.open()
    for number in range(2):
        box.append(*content(number))
    name, size = next(iter(files_in(place.path).items()))
    kill(box)
    one = segment.Segment(place.fd, 1)
    one.fd = os.open("/proc/self/mem", os.O_RDONLY)
    one.size = size
    lost = one._scan(None, newest=True)
    one.close()
    assert lost == (size - segment.FIRST_ENTRY, 0) and files_in(place.path) == {name: size}


# -- processes

APPENDER = """
import os, sys
from collector.sink.spool import Spool
box = Spool(int(sys.argv[1]), limit_bytes=1 << 30, segment_bytes=100_000)
number = int(sys.argv[2])
while True:
    text = b"%012d" % number + bytes(number * 7919 % 30_000)
    box.append(text, b"index", b"", "jsonlines", 1)
    os.write(1, b"%d\\n" % number)
    number += 1
    stored = box.peek() if number % 3 == 0 else None
    if stored is not None:
        os.write(1, b"-%d\\n" % int(bytes(stored.records[:12])))
        box.release(stored)
        os.write(1, b"+\\n")
"""


def test_kill_9_loses_nothing_that_append_returned_from(place: Place) -> None:
    number = 1
    appended: list[int] = []
    delivered: list[int] = []
    for after in (3, 50, 200, 333, 700):
        with subprocess.Popen(
            [sys.executable, "-c", APPENDER, str(place.fd), str(number)], stdout=subprocess.PIPE, pass_fds=[place.fd]
        ) as process:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(after)]
            process.send_signal(signal.SIGKILL)
            lines += process.stdout.readlines()
        said = [int(line) for line in lines if line.endswith(b"\n") and line != b"+\n"]
        appended += [one for one in said if one > 0]
        delivered += [-one for one in said if one < 0]
        number = appended[-1] + 2  # one more may be there that we were not told of
    box = place.open(1 << 30)
    assert box.damaged == (0, 0, 0)
    left = [int(one[0][:12]) for one in drain(box)]
    assert set(delivered) | set(left) >= set(appended)
    assert left == sorted(left) and len(set(delivered) & set(left)) <= 1  # it was just being released
    assert len(delivered) - len(set(delivered)) <= 4  # the same, once a kill


def test_one_process_at_a_time(place: Place) -> None:
    first = place.open()
    first.append(*content(1))
    with pytest.raises(LockedError, match="another process"):
        place.open()
    first.close()
    assert drain(place.open()) == [content(1)]


# -- full


def test_the_oldest_segment_gives_way_when_the_limit_is_reached_and_is_counted(place: Place) -> None:
    box = place.open(limit=8 * 400)
    lost_bytes = lost_records = 0
    for number in range(100):
        lost = box.append(*content(number))
        lost_bytes, lost_records = lost_bytes + lost.bytes, lost_records + lost.records
        assert sum(files_in(place.path).values()) == box.disk_bytes <= 8 * 400
    left = drain(box)
    assert left == [content(number) for number in range(100 - len(left), 100)]
    assert (lost_bytes, lost_records) == box.lost == ((100 - len(left)) * size_of(content(0)), 2 * (100 - len(left)))
    assert len(left) >= 7 * 2  # two fit a segment; it is not emptied further than needed


def test_what_the_caller_has_read_is_not_counted_as_lost(place: Place) -> None:
    box = place.open(limit=8 * 400)
    box.append(*content(0))
    ahead = box.peek()
    assert ahead is not None
    lost = sum(box.append(*content(number)).records for number in range(1, 100))
    behind = box.peek(ahead)  # the next that is still there
    assert behind == box.peek() or held(behind or ahead) == held(box.peek() or ahead)
    box.release(ahead)  # it gave way: nothing happens
    assert held(ahead) == content(0)
    left = drain(box)
    assert lost == 2 * (99 - len(left))


def test_a_batch_above_the_limit_is_what_is_lost(place: Place) -> None:
    box = place.open(limit=4000)
    box.append(*content(1))
    assert box.append(*content(2, size=4000, records=3)) == (size_of(content(2, size=4000, records=3)), 3)
    assert drain(box) == [content(1)]


def test_a_lower_limit_acts_at_the_next_batch(place: Place) -> None:
    box = place.open()
    for number in range(60):
        box.append(*content(number))
    box.close()
    box = place.open(limit=2000)
    assert box.records == 120
    assert box.append(*content(60)).records > 0 and sum(files_in(place.path).values()) <= 2000
    assert drain(box)[-1] == content(60)


def test_damaged_files_give_way_before_batches_do(place: Place) -> None:
    for number in range(1, 4):
        (place.path / f"{number:016x}.segment").write_bytes(b"x" * 130)
    box = place.open(limit=3200)
    assert len(files_in(place.path)) == 3
    while not box.append(*content(7)).records:
        assert sum(files_in(place.path).values()) <= 3200
    assert not [name for name in files_in(place.path) if name.endswith("damaged")]


def test_the_number_of_segments_is_bounded(place: Place) -> None:
    box = place.open(limit=40_000, segment_bytes=1000)
    for number in range(1000):
        box.append(*content(number, size=8 + number * 37 % 900))
        assert len(files_in(place.path)) <= 2 * 40 + 1


def test_a_full_disk_is_an_error_that_leaves_no_trace_and_passes(small_disk: Place) -> None:
    box = small_disk.open(limit=1 << 30, segment_bytes=300_000)
    made: list[Content] = []
    filler = small_disk.path / "filler"
    filler.write_bytes(bytes(100_000))
    caught = 0
    while not caught:
        made.append(content(len(made), size=30_001))
        try:
            box.append(*made[-1])
        except OSError as error:
            caught = error.errno or 0
    assert caught == errno.ENOSPC and len(made) > 20
    for _ in range(3):  # in the middle of a segment, and where a new one would begin
        with pytest.raises(OSError, match="No space left"):
            box.append(*content(1000, size=280_000))
    assert sum(files_in(small_disk.path).values()) - 100_000 == box.disk_bytes
    assert UNFINISHED not in files_in(small_disk.path)
    filler.unlink()
    assert box.append(*made[-1]) == (0, 0)
    kill(box)
    again = small_disk.open()
    assert again.damaged == (0, 0, 0) and drain(again) == made


def test_reading_makes_room_on_a_full_disk(small_disk: Place) -> None:
    box = small_disk.open(limit=1 << 30, segment_bytes=100_000)
    made: list[Content] = []
    with contextlib.suppress(OSError):
        while True:
            box.append(*content(len(made), size=30_001))
            made.append(content(len(made), size=30_001))
    out = []
    for _ in range(4):
        stored = box.peek()
        assert stored is not None
        out.append(held(stored))
        box.release(stored)
    box.append(*content(len(made), size=30_001))
    assert out + drain(box) == [*made, content(len(made), size=30_001)]


def test_a_file_size_limit_is_an_error_like_another(place: Place) -> None:
    """RLIMIT_FSIZE cuts a write in the middle."""
    box = place.open(segment_bytes=100_000)
    box.append(*content(1, size=3000))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, before[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            box.append(*content(2, size=3000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert files_in(place.path)[f"{1:016x}.segment"] == segment.FIRST_ENTRY + size_of(content(1, size=3000))
    box.append(*content(3, size=3000))
    assert drain(box) == [content(1, size=3000), content(3, size=3000)]


def test_a_read_only_disk_is_read_and_not_written(small_disk: Place) -> None:
    box = small_disk.open()
    for number in range(5):
        box.append(*content(number))
    box.close()
    subprocess.run(["mount", "-o", "remount,ro", small_disk.path], check=True)
    box = small_disk.open()
    with pytest.raises(OSError, match="Read-only"):
        box.append(*content(9))
    assert drain(box) == [content(number) for number in range(5)] and box.damaged == (0, 0, 0)
    assert box.records == 0 and box.disk_bytes > 0
    subprocess.run(["mount", "-o", "remount,rw", small_disk.path], check=True)
    box.append(*content(9))
    assert drain(box) == [content(9)]


@contextlib.contextmanager
def not_deletable(path: Path) -> Iterator[None]:
    """What is mounted somewhere can be written, and not be removed."""
    subprocess.run(["mount", "--bind", path, path], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", path], check=True)


def test_no_room_can_be_made(small_disk: Place) -> None:
    box = small_disk.open(limit=3200)
    for number in range(6):
        box.append(*content(number))
    with not_deletable(small_disk.path / f"{1:016x}.segment"):
        for number in range(6, 100):
            try:
                assert box.append(*content(number)) == (0, 0)
            except OSError:
                break
        with pytest.raises(OSError, match="busy"):
            box.append(*content(number))
        assert 3200 < box.disk_bytes <= 3200 + size_of(content(0)) + segment.FIRST_ENTRY
        assert box.records == 2 * number
    assert box.append(*content(number)) == (2 * size_of(content(0)), 4)
    assert drain(box) == [content(one) for one in range(2, number + 1)]


def test_what_was_delivered_and_cannot_be_deleted_is_not_delivered_again(small_disk: Place) -> None:
    box = small_disk.open(limit=3200)
    for number in range(6):
        box.append(*content(number))
    first = small_disk.path / f"{1:016x}.segment"
    size = first.stat().st_size
    with not_deletable(first):
        assert len(drain(box)) == 6
        assert (box.bytes, box.records, box.disk_bytes) == (0, 0, size)
        kill(box)
        box = small_disk.open(limit=3200)
        assert (box.bytes, box.records, box.disk_bytes) == (0, 0, size) and box.peek() is None
    for number in range(60):  # it goes when its room is needed
        box.append(*content(number))
        assert box.disk_bytes == sum(files_in(small_disk.path).values())
    assert not first.exists()


# -- what others do to the directory


def test_a_directory_that_vanishes_is_an_error_and_what_was_read_stays_whole(place: Place) -> None:
    box = place.open()
    for number in range(5):
        box.append(*content(number))
    stored = box.peek()
    shutil.rmtree(place.path)
    with pytest.raises(FileNotFoundError):
        box.append(*content(5))
    assert stored is not None and held(stored) == content(0)
    delivered = drain(box)
    assert all(one in [content(number) for number in range(5)] for one in delivered)
    assert sum(one[4] for one in delivered) + box.damaged.records == 10 and (box.records, box.disk_bytes) == (0, 0)


def test_a_segment_that_somebody_removed_is_damage(place: Place) -> None:
    box = place.open()
    for number in range(6):
        box.append(*content(number))
    assert len(files_in(place.path)) == 3
    (place.path / f"{1:016x}.segment").unlink()
    (place.path / f"{3:016x}.segment").unlink()
    box.append(*content(6))
    assert f"{4:016x}.segment" in files_in(place.path)
    assert drain(box) == [content(number) for number in (2, 3, 6)] and box.damaged.records == 8
    assert box.disk_bytes == 0 and files_in(place.path) == {}


def test_files_that_are_not_ours_stay_as_they_are(place: Place, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"theirs")
    (place.path / "notes.txt").write_bytes(b"x")
    (place.path / f"{1:016x}.segment").symlink_to(victim)
    os.mkfifo(place.path / f"{2:016x}.segment")
    os.link(victim, place.path / f"{3:016x}.segment")
    (place.path / f"{4:016x}.segment").mkdir()
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(place.path / f"{5:016x}.segment"))
    (place.path / "ffffffffffffffff.segment").write_bytes(b"y")
    before = set(files_in(place.path))
    box = place.open(limit=3200)
    for number in range(60):
        box.append(*content(number))
    assert drain(box)[-1] == content(59) and box.damaged == (0, 0, 0)
    box.close()
    assert set(files_in(place.path)) == before and victim.read_bytes() == b"theirs"


def test_another_users_segment_is_left_alone(place: Place) -> None:
    if os.geteuid() != 0:
        skip_or_fail("giving files away needs root")
    filled(place.path, orderly=True)
    os.chown(place.path / f"{1:016x}.segment", 12345, 12345)
    box = place.open()
    assert len(drain(box)) == 4 and list(files_in(place.path)) == [f"{1:016x}.segment"]


def later_version(data: bytes, version: int) -> bytes:
    """As another version would begin a segment: its checksum is its own business."""
    return data[:16] + struct.pack("<II", version, 7) + data[24:]


def test_another_versions_segments_are_kept_for_it(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    made = filled(place.path, orderly=True)
    path = sorted(place.path.iterdir())[1]
    data = later_version(path.read_bytes(), 2)
    path.write_bytes(data)
    box = place.open(limit=3200)
    assert box.other_versions == 1 and box.damaged == (0, 0, 0) and "version 2" in caplog.text
    assert drain(box) == [made[0], *made[3:]]
    for number in range(100):
        box.append(*content(number))
    box.close()
    assert (place.path / f"{2:016x}.version-2").read_bytes() == data
    assert place.open().other_versions == 1


def test_what_another_version_has_set_aside_is_taken_up_again(place: Place) -> None:
    made = filled(place.path, orderly=True)
    path = sorted(place.path.iterdir())[1]
    path.rename(place.path / path.name.replace("segment", "version-1"))
    box = place.open()
    assert drain(box) == made and files_in(place.path) == {}


def test_an_unfinished_segment_goes(place: Place) -> None:
    (place.path / UNFINISHED).write_bytes(b"half")
    assert drain(place.open()) == [] and files_in(place.path) == {}


# -- use


def test_batches_are_released_in_order(place: Place) -> None:
    box = place.open()
    for number in range(4):
        box.append(*content(number))
    first = box.peek()
    assert first is not None
    second = box.peek(first)
    assert second is not None
    with pytest.raises(ValueError, match="older"):
        box.release(second)
    box.release(first)
    box.release(first)  # nothing happens
    box.release(second)
    assert drain(box) == [content(2), content(3)]


@pytest.mark.parametrize("name", ["", "x" * 21, "grüße"])
def test_a_format_must_fit(place: Place, name: str) -> None:
    with pytest.raises(ValueError, match="format|ascii"):
        place.open().append(b"x", b"", b"", name, 1)


def test_memoryviews_go_in_and_the_longest_name_comes_out(place: Place) -> None:
    box = place.open()
    box.append(memoryview(b"abc")[1:], memoryview(bytearray(b"index")), memoryview(b""), "kafka-v2-zstd-and-so", 7)
    assert drain(box) == [(b"bc", b"index", b"", "kafka-v2-zstd-and-so", 7)]


def test_starting_reads_the_heads_only(place: Place) -> None:
    box = place.open(limit=1 << 30, segment_bytes=1 << 20)
    for number in range(200):
        box.append(*content(number, size=100_000))
    kill(box)  # the newest one has no mark of its end

    def read_so_far() -> int:
        with open("/proc/self/io", encoding="ascii") as file:
            return int(file.readline().split()[1])

    before = read_so_far()
    box = place.open(limit=1 << 30)
    assert read_so_far() - before < 10_000 and box.records == 400
    before = read_so_far()
    assert box.peek() is not None
    assert read_so_far() - before < 101_000


def test_the_checksum_is_that_of_the_standard() -> None:
    assert crc32c.crc32c(b"123456789") == 0xE3069283


def test_nothing_is_left_open(place: Place) -> None:
    before = len(os.listdir("/proc/self/fd"))
    box = place.open()
    for number in range(40):
        box.append(*content(number))
    drain(box)
    box.append(*content(1))
    box.close()
    assert len(os.listdir("/proc/self/fd")) == before
