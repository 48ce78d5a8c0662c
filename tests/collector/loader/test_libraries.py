"""Finding the libraries that processes have mapped."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.loader import kernel, libraries, locate
from collector.loader.catalogue import NUMBERS, SIZE, Catalogue
from collector.loader.libraries import Libraries, mappings, open_mapped
from collector.loader.probes.attachments import Attachments, Target
from collector.loader.probes.probe import SOCKET, TPX, Build, Probe
from tests.conftest import ROOT, skip_or_fail
from tests.demo import build
from tests.demo.source import PLACES, SOURCE
from tests.live.harness import wait_for

BUILD = Build(TPX, SOCKET)

MAPS = rb"""55d0c0e00000-55d0c0e2c000 r--p 00000000 fe:01 131 /usr/bin/x
55d0c0e2c000-55d0c0f00000 r-xp 0002c000 fe:01 131 /usr/bin/x
7f0000000000-7f0000001000 rwxp 00000000 00:00 0
7f0000002000-7f0000003000 r-xp 00001000 00:2f 77                         /a b/lib demo.so (deleted)
7ffe00000000-7ffe00002000 r-xp 00000000 00:00 0                          [vdso]
7f0000004000-7f0000005000 r-xs 00000000 fe:01 9 /new\012line
"""


def test_mapped_files_that_are_executable() -> None:
    assert list(mappings(MAPS)) == [
        ("55d0c0e2c000-55d0c0f00000", "fe:01", 131, "/usr/bin/x"),
        ("7f0000002000-7f0000003000", "00:2f", 77, "/a b/lib demo.so (deleted)"),
        ("7f0000004000-7f0000005000", "fe:01", 9, "/new\\012line"),
    ]


@given(st.binary(max_size=400))
def test_any_text_is_read(data: bytes) -> None:
    list(mappings(data))


def test_our_own_mappings_open_to_the_same_files() -> None:
    for place, _device, inode, path in mappings(Path("/proc/self/maps").read_bytes()):
        fd = open_mapped(os.getpid(), place, inode, path)
        assert os.path.samestat(os.fstat(fd), os.stat(path))
        os.close(fd)
        with pytest.raises(OSError, match=r"another file|No such"):
            open_mapped(os.getpid(), place, inode + 1, path)


def catalogue() -> Catalogue:
    """One with a table of its own."""
    table = kernel.create_array(SIZE, NUMBERS)
    return Catalogue(table)


class Recorder(Attachments):
    """Attaches nothing, and says what it was told to."""

    def __init__(self, *, multi: bool) -> None:
        super().__init__({}, "", multi=multi)
        self.places: list[tuple[str, str, tuple[int, ...]]] = []
        self.held: set[str] = set()
        self.soon = False  # the last release

    def attach(
        self, probe: Probe, target: Target | None = None, offsets: Sequence[int] = (), *, cookie: int = 0, pid: int = 0
    ) -> None:
        """The file must be there now."""
        assert target is not None
        assert os.stat(target.path).st_ino == target.inode
        assert cookie and not pid
        self.places.append((target.key, probe.program, tuple(offsets)))
        self.held.add(target.key)

    def targets(self) -> set[str]:
        """Those with anything."""
        return self.held

    def release(self, target: str, *, soon: bool = False) -> None:
        """At once."""
        self.held.discard(target)
        self.soon = soon


@pytest.fixture
def fast(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Children find the sources of the tests, looks follow one another, and only what this process has mapped of the test's
    directory is looked at: other tests and other processes may have a libdemo.so too.
    """
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(libraries, "LOOK_SECONDS", 0)
    listdir = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: [str(os.getpid())] if path == "/proc" else listdir(path))
    ours = str(tmp_path) + "/"
    monkeypatch.setattr(libraries, "mappings", lambda text: (found for found in mappings(text) if found[3].startswith(ours)))


@pytest.mark.parametrize("multi", [True, False])
def test_a_library_is_found_read_attached_and_released(tmp_path: Path, fast: None, multi: bool) -> None:
    path = build.library("demo", tmp_path)
    library = ctypes.CDLL(str(path))
    recorder = Recorder(multi=multi)
    recorder.held.add("fe:01:1")  # of an earlier loader, and gone meanwhile
    found = Libraries([SOURCE], ["tests.demo.source"], BUILD, recorder, catalogue(), None)

    def turned() -> bool:
        found.turn(0)
        return len(recorder.places) == (6 if multi else 7) and "fe:01:1" not in recorder.held

    assert wait_for(turned, 30)
    assert [program for _key, program, _places in recorder.places] == [*PLACES, *(() if multi else ("demo_enter",))]
    (key,) = {key for key, _program, _places in recorder.places}
    assert key.split(":")[2] == str(path.stat().st_ino)
    opened = set(os.listdir("/proc/self/fd"))
    for _ in range(200):
        found.turn(0)
    assert len(recorder.places) == (6 if multi else 7) and set(os.listdir("/proc/self/fd")) <= opened
    ctypes.CDLL(None).dlclose(ctypes.c_void_p(library._handle))

    def released() -> bool:
        found.turn(0)
        return not recorder.held

    assert wait_for(released, 30)
    found.close()


@contextlib.contextmanager
def mapped(path: Path) -> Iterator[None]:
    """This process has it mapped, executable."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_EXEC):
        yield


def looking(recorder: Recorder) -> Libraries:
    return Libraries([SOURCE], ["tests.demo.source"], BUILD, recorder, catalogue(), None)


def turn_until(found: Libraries, condition: Callable[[], bool]) -> bool:
    def turned() -> bool:
        found.turn(0)
        return condition()

    return wait_for(turned, 30)


def whole_looks(found: Libraries, count: int = 3) -> None:
    """So many from begin to end."""
    for _ in range(count + 1):
        turn_until(found, lambda: found._pids is None)
        found.turn(0)


def rewrite(path: Path) -> None:
    """In place, by someone who keeps the size and the time of modification."""
    time.sleep(0.02)  # the kernel's clock of such times moves with its ticks
    status = path.stat()
    with path.open("r+b") as file:
        file.seek(status.st_size // 2)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(byte)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_a_library_that_is_rewritten_in_place_is_released_and_read_again(tmp_path: Path, fast: None) -> None:
    path = build.library("demo", tmp_path)
    recorder = Recorder(multi=True)
    found = looking(recorder)
    with mapped(path):
        assert turn_until(found, lambda: len(recorder.places) == 6 and not found._work)
        (before,) = recorder.held
        rewrite(path)
        assert turn_until(found, lambda: before not in recorder.held) and recorder.soon
        assert turn_until(found, lambda: len(recorder.places) == 12 and not found._work)
        (after,) = recorder.held
        assert after != before and libraries.file_of(after) == libraries.file_of(before)
        whole_looks(found)
        assert len(recorder.places) == 12
        # a new loader sees whether it was rewritten meanwhile
        rewrite(path)
        found = looking(recorder)
        assert turn_until(found, lambda: after not in recorder.held)
        assert turn_until(found, lambda: len(recorder.places) == 18 and not found._work)


@pytest.mark.parametrize("attached", [0, 1, 6])
def test_a_library_that_is_rewritten_while_it_is_attached(tmp_path: Path, fast: None, attached: int) -> None:
    path = build.library("demo", tmp_path)

    class Rewriting(Recorder):
        def attach(
            self, probe: Probe, target: Target | None = None, offsets: Sequence[int] = (), *, cookie: int = 0, pid: int = 0
        ) -> None:
            super().attach(probe, target, offsets, cookie=cookie, pid=pid)
            if len(self.places) == attached:
                rewrite(path)

    recorder = Rewriting(multi=True)
    found = looking(recorder)
    with mapped(path):
        assert turn_until(found, lambda: bool(found._waiting))
        if not attached:
            rewrite(path)
        assert turn_until(found, lambda: len(recorder.places) == attached + 6 and not found._work)
        assert len(recorder.held) == 1
        (key,) = recorder.held
        assert len({program for name, program, _places in recorder.places if name == key}) == 6
    assert turn_until(found, lambda: not recorder.held)


def test_a_file_that_was_no_library_is_read_again_when_it_is_rewritten(tmp_path: Path, fast: None) -> None:
    path = tmp_path / "libdemo.so"
    path.write_bytes(bytes(5000))
    recorder = Recorder(multi=True)
    found = looking(recorder)
    (tmp_path / "true").mkdir()
    true = build.library("demo", tmp_path / "true").read_bytes()
    with mapped(path):
        assert turn_until(found, lambda: bool(found._done))
        path.write_bytes(true)
        assert turn_until(found, lambda: len(recorder.places) == 6)


def test_nobody_hides_a_library_by_mapping_it_under_another_path(tmp_path: Path, fast: None) -> None:
    path = build.library("demo", tmp_path)
    other = tmp_path / "innocent"
    os.link(path, other)
    recorder = Recorder(multi=True)
    found = looking(recorder)
    with mapped(other):
        whole_looks(found, 1)
        assert not found._known
        with mapped(path):
            assert turn_until(found, lambda: len(recorder.places) == 6 and not found._work)
        whole_looks(found)  # it is mapped all the same
        assert recorder.held
    assert turn_until(found, lambda: not recorder.held)


def test_a_library_that_was_unlinked_before(tmp_path: Path, fast: None) -> None:
    path = build.library("demo", tmp_path)
    recorder = Recorder(multi=True)
    with mapped(path):
        path.unlink()
        found = looking(recorder)
        try:
            place = next(
                place for place, _d, _i, name in mappings(Path("/proc/self/maps").read_bytes()) if str(path) in name
            )
            os.close(os.open(f"/proc/self/map_files/{place}", os.O_RDONLY))
        except PermissionError:
            skip_or_fail("needs CAP_CHECKPOINT_RESTORE")
        assert turn_until(found, lambda: len(recorder.places) == 6 and not found._work)
        found = looking(recorder)  # a new loader
        assert turn_until(found, lambda: len(recorder.places) == 12 and not found._work)
        whole_looks(found)
        assert len(recorder.held) == 1


def test_a_child_that_cannot_be_started_is_tried_again(
    tmp_path: Path, fast: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = build.library("demo", tmp_path)
    recorder = Recorder(multi=True)
    found = looking(recorder)
    failed = []

    def fail(*_arguments: object) -> None:
        failed.append(1)
        raise BlockingIOError(11, "no more processes")

    with mapped(path):
        with monkeypatch.context() as patch:
            patch.setattr(locate, "Job", fail)
            assert turn_until(found, lambda: len(failed) == 3)
        assert caplog.text.count("cannot start a child") == 1
        assert turn_until(found, lambda: len(recorder.places) == 6)


def test_more_libraries_than_may_be_are_told_of_once_a_minute(
    tmp_path: Path, fast: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(libraries, "LIBRARIES", 0)
    path = build.library("demo", tmp_path)
    found = looking(Recorder(multi=True))
    with mapped(path):
        whole_looks(found)
        assert not found._known and caplog.text.count("others are left alone") == 1


def test_without_a_source_of_libraries_nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "listdir", lambda *_arguments: pytest.fail("looked"))
    Libraries([], [], BUILD, Recorder(multi=True), catalogue(), None).turn(0)
