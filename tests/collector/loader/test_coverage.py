"""Is there a probe in a file, in a mapping? With real probes, whose programs do nothing."""

from __future__ import annotations

import ctypes
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from collector.loader import coverage, elf, kernel
from collector.loader.coverage import Coverage, Witness
from collector.loader.mapped import Mapping, Proc
from collector.loader.probes.probe import ProgramType
from tests.collector.loader.probes.test_attachments import empty_program
from tests.demo import build
from tests.live.harness import wait_for

ME = os.getpid()


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Path]:
    path = build.library("demo", tmp_path)
    with build.mapped(ctypes.CDLL(str(path))):
        yield path


@pytest.fixture
def fd(library: Path) -> Iterator[int]:
    found = os.open(library, os.O_RDONLY)
    yield found
    os.close(found)


def place(library: Path, function: str = "demo_read") -> int:
    with library.open("rb") as file:
        return elf.functions(ELFFile(file), {function})[function]


def mapping_of(library: Path) -> Mapping:
    return next(one for one in Proc().mappings(ME) if one.path == str(library))


@pytest.mark.live
def test_a_probe_is_seen_in_the_file_and_in_what_maps_it_and_not_in_a_copy(live: None, library: Path, fd: int) -> None:
    offset = place(library)
    before = coverage.witness(fd, offset)
    assert before is not None and before == (offset, library.read_bytes()[offset])
    copy = shutil.copy(library, library.with_name("copy"))
    other = os.open(copy, os.O_RDONLY)
    assert coverage.in_file(fd, before) is False and coverage.in_process(Proc(), ME, mapping_of(library), before) is False
    probe = kernel.attach_uprobe(empty_program(ProgramType.UPROBE), str(library), offset, returns=False)
    try:
        assert coverage.in_file(fd, before) is True and coverage.in_process(Proc(), ME, mapping_of(library), before) is True
        assert coverage.in_file(other, before) is False
        assert coverage.witness(fd, offset) is None, "somebody has a probe there"
        assert coverage.witness(fd, place(library, "demo_write")) is not None
    finally:
        os.close(probe)
        os.close(other)
    wait_for(lambda: coverage.in_file(fd, before) is False)


def test_what_cannot_be_read_says_nothing(library: Path, fd: int) -> None:
    size = library.stat().st_size
    beyond = Witness(size + 100_000, 0x55)
    assert coverage.in_file(fd, beyond) is None and coverage.witness(fd, beyond.offset) is None
    assert coverage.in_process(Proc(), ME, mapping_of(library), beyond) is None
    assert coverage.in_process(Proc(), 1 << 22, mapping_of(library), Witness(place(library), 0x55)) is None
    read, write = os.pipe()
    assert coverage.in_file(read, Witness(0, 0)) is None and coverage.witness(read, 0) is None
    os.close(read)
    os.close(write)


def test_a_breakpoint_that_the_file_has_itself_is_no_probe() -> None:
    assert not Witness(0, 0xCC).is_probed(0xCC) and Witness(0, 0x55).is_probed(0xCC) and not Witness(0, 0x55).is_probed(0x55)
    assert Witness(0, 0x0F).is_probed(0xE8) and not Witness(0, 0xE8).is_probed(0xE8) and not Witness(0, 0x55).is_probed(0xE8)


def test_what_was_found_holds_as_long_as_the_mapping(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offset = place(library)
    byte = library.read_bytes()[offset]
    mapping = mapping_of(library)
    proc = Proc()
    found: Coverage[str] = Coverage(proc)
    monkeypatch.setattr(proc, "byte", lambda _pid, _address: byte)
    assert found.find(ME, mapping, [("a", Witness(offset, byte))]) == () and found.known(ME, mapping) == ()
    monkeypatch.setattr(proc, "byte", lambda _pid, _address: 0xCC)
    assert found.find(ME, mapping, [("a", Witness(offset, byte)), ("b", Witness(1 << 40, byte))]) == ("a",)
    assert found.known(ME, mapping) == ("a",) and found.known(ME, mapping._replace(place="0-1000")) == ()
    found.keep([ME])
    assert found.known(ME, mapping) == ("a",)
    monkeypatch.setattr(proc, "process", lambda _pid: None)
    assert found.known(ME, mapping) == (), "another process has the number now"
    found.keep([])
    found.forget()
    assert not found._known
