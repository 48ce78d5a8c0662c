"""Finding the libraries that processes have mapped."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.loader import libraries
from collector.loader.libraries import Libraries, mappings, open_mapped
from collector.loader.probes.attachments import Attachments, Target
from collector.loader.probes.probe import SOCKET, TPX, Build, Probe
from tests.conftest import ROOT
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


class Recorder(Attachments):
    """Attaches nothing, and says what it was told to."""

    def __init__(self, *, multi: bool) -> None:
        super().__init__({}, "", multi=multi)
        self.places: list[tuple[str, str, tuple[int, ...]]] = []
        self.held: set[str] = set()

    def attach(self, probe: Probe, target: Target | None = None, offsets: Sequence[int] = ()) -> None:
        """The file must be there now."""
        assert target is not None
        assert os.stat(target.path).st_ino == target.inode
        self.places.append((target.key, probe.program, tuple(offsets)))
        self.held.add(target.key)

    def targets(self) -> set[str]:
        """Those with anything."""
        return self.held

    def release(self, target: str) -> None:
        """At once."""
        self.held.remove(target)


@pytest.mark.parametrize("multi", [True, False])
def test_a_library_is_found_read_attached_and_released(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, multi: bool) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(libraries, "LOOK_SECONDS", 0)
    path = build.library("demo", tmp_path)
    library = ctypes.CDLL(str(path))
    recorder = Recorder(multi=multi)
    recorder.held.add("fe:01:1")  # of an earlier loader, and gone meanwhile
    found = Libraries([SOURCE], ["tests.demo.source"], BUILD, recorder, None)

    def turned() -> bool:
        found.turn(0)
        return len(recorder.places) == (6 if multi else 7) and "fe:01:1" not in recorder.held

    assert wait_for(turned, 30)
    assert [program for _key, program, _places in recorder.places] == [*PLACES, *(() if multi else ("demo_enter",))]
    (key,) = {key for key, _program, _places in recorder.places}
    assert key.endswith(f":{path.stat().st_ino}")
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


def test_without_a_source_of_libraries_nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "listdir", lambda *_arguments: pytest.fail("looked"))
    Libraries([], [], BUILD, Recorder(multi=True), None).turn(0)
