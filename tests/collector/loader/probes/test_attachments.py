"""Attaching for real, with programs that do nothing: by perf events and by links, released, told, adopted."""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from collector import control
from collector.loader import elf, kernel
from collector.loader.probes import attachments
from collector.loader.probes.attachments import Attachments, Target
from collector.loader.probes.probe import Probe, ProgramType, Tracepoint, Uprobe
from tests.conftest import skip_or_fail
from tests.demo import build
from tests.live.harness import wait_for

pytestmark = pytest.mark.live
ENTRY, RETURN = Probe("entry", Uprobe(), "nothing"), Probe("return", Uprobe(returns=True), "nothing")


def empty_program(kind: ProgramType, attach_type: int = 0) -> int:
    """A program that returns 0 (bpf(BPF_PROG_LOAD))."""
    instructions = ctypes.create_string_buffer(struct.pack("=BBhiBBhi", 0xB7, 0, 0, 0, 0x95, 0, 0, 0), 16)
    licence = ctypes.create_string_buffer(b"GPL")
    attributes = struct.pack(
        "=IIQQIIQII16sII",
        kind,
        2,
        ctypes.addressof(instructions),
        ctypes.addressof(licence),
        0,
        0,
        0,
        0,
        0,
        b"",
        0,
        attach_type,
    )
    buffer = ctypes.create_string_buffer(attributes, 128)
    number = ctypes.c_long(280 if platform.machine() == "aarch64" else 321)
    fd = ctypes.CDLL(None, use_errno=True).syscall(number, ctypes.c_long(5), buffer, ctypes.c_long(128))
    if fd < 0:
        raise OSError(ctypes.get_errno(), "BPF_PROG_LOAD")
    return int(fd)


@pytest.fixture(params=["multi", "perf"])
def attached(live: None, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Attachments]:
    monkeypatch.setattr(attachments, "CLOSE_AFTER_SECONDS", 0)
    multi = request.param == "multi"
    kind = kernel.TRACE_UPROBE_MULTI if multi else 0
    programs = {
        "entry": empty_program(ProgramType.UPROBE, kind),
        "return": empty_program(ProgramType.UPROBE, kind),
        "tracepoint": empty_program(ProgramType.TRACEPOINT),
    }
    if multi and not kernel.has_uprobe_multi(programs["entry"]):
        skip_or_fail("links of many uprobes need kernel 6.6")
    out = Attachments(programs, kernel.find_tracefs() or "", multi=multi)
    yield out
    out.close_kernel()
    for target in out.targets():
        out.release(target)
    for fd in programs.values():
        os.close(fd)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = build.library("demo", tmp_path_factory.mktemp("library"))
    with build.mapped(ctypes.CDLL(str(path))):
        yield path


def target(library: Path) -> Target:
    return Target("0:1", library.stat().st_ino, str(library))


def offsets(library: Path) -> list[int]:
    with library.open("rb") as file:
        return sorted(elf.functions(ELFFile(file), {"demo_new", "demo_read", "demo_free"}).values())


def breakpoints(library: Path) -> list[int]:
    """The offsets at which there is a breakpoint where this process has mapped the library."""
    line = next(
        line.split()
        for line in Path("/proc/self/maps").read_text().splitlines()
        if line.endswith(str(library)) and line.split()[1][2] == "x"
    )
    begin, first = int(line[0].split("-")[0], 16), int(line[2], 16)
    with open("/proc/self/mem", "rb", buffering=0) as memory:
        return [at for at in offsets(library) if os.pread(memory.fileno(), 1, begin + at - first) == b"\xcc"]


def test_uprobes_are_attached_told_and_released(attached: Attachments, library: Path) -> None:
    places, where = offsets(library), target(library)
    attached.attach(ENTRY, where, places[:2])
    attached.attach(RETURN, where, places[2:])
    assert breakpoints(library) == places and len(attached) == 3 and attached.targets() == {where.key}
    told = dict(pair for names, fds, _gone in attached.delta() for pair in zip(names, fds, strict=True))
    assert len(told) == (2 if attached.multi else 3) and all(name.startswith(where.key + "/") for name in told)
    assert not list(attached.delta())
    attached.attach(ENTRY, where, places[:2])  # once is enough
    assert not list(attached.delta()) and len(attached) == 3
    attached.release(where.key)
    assert not len(attached) and [gone for _names, _fds, gone in attached.delta()] == [list(told)]
    wait_for(lambda: not breakpoints(library))


def test_what_was_withdrawn_is_attached_until_it_is_released(attached: Attachments, library: Path) -> None:
    places, where = offsets(library), target(library)
    attached.attach(ENTRY, where, places)
    told = [name for names, _fds, _gone in attached.delta() for name in names]
    attached.withdraw(where.key)
    assert [gone for _names, _fds, gone in attached.delta()] == [told] and breakpoints(library) == places
    attached.restore(where.key)
    attached.restore(where.key)
    assert [names for names, _fds, _gone in attached.delta()] == [told] and breakpoints(library) == places
    attached.withdraw(where.key)
    attached.restore(where.key)  # before the supervisor was told
    assert [(names, gone) for names, _fds, gone in attached.delta()] == [([], told), (told, [])]
    attached.withdraw(where.key)
    list(attached.delta())
    attached.release(where.key)
    assert not len(attached) and not list(attached.delta())
    wait_for(lambda: not breakpoints(library))


def test_a_file_is_left_alone_until_its_probes_are_closed(
    attached: Attachments, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else what goes through it meanwhile would be told twice."""
    close, closing = os.close, threading.Event()

    def slow(fd: int) -> None:
        if threading.current_thread() is not threading.main_thread():
            closing.wait()
        close(fd)

    monkeypatch.setattr(os, "close", slow)
    where = target(library)
    attached.attach(ENTRY, where, offsets(library)[:1])
    assert not attached.leaving(where.file)
    attached.release(where.key)
    assert attached.leaving(where.file) and not attached.leaving(where.file[:-1])
    closing.set()
    wait_for(lambda: not attached.leaving(where.file))
    assert not breakpoints(library)


def test_what_was_released_before_it_was_told_is_never_told(attached: Attachments, library: Path) -> None:
    attached.attach(ENTRY, target(library), offsets(library))
    attached.release(target(library).key)
    assert not list(attached.delta())


def test_an_adopted_probe_is_not_attached_again(attached: Attachments, library: Path) -> None:
    places, where = offsets(library), target(library)
    attached.attach(ENTRY, where, places)
    told = [(names, fds) for names, fds, _gone in attached.delta()]
    later = Attachments({"entry": -1}, "", multi=attached.multi)  # it could attach nothing
    for names, fds in told:
        later.adopt(dict(zip(names, map(os.dup, fds), strict=True)))
    later.attach(ENTRY, where, places)
    assert len(later) == len(places) and not list(later.delta())
    attached.release(where.key)
    assert breakpoints(library) == places
    later.release(where.key)
    wait_for(lambda: not breakpoints(library))


def test_deltas_are_portions_for_one_message(attached: Attachments, library: Path) -> None:
    held = {f"1:1/entry/{number:x}": os.open("/dev/null", os.O_RDONLY) for number in range(250)}
    attached.adopt(held)
    attached.release("1:1")
    portions = [gone for _names, _fds, gone in attached.delta()]
    assert [len(portion) for portion in portions] == [control.MAX_FDS, control.MAX_FDS, 50]


def test_a_missing_tracepoint_is_told_once(attached: Attachments) -> None:
    probe = Probe("tracepoint", Tracepoint("sched", "no_such_tracepoint"), "nothing")
    assert isinstance(attached.attach_once(probe), FileNotFoundError)
    assert attached.attach_once(probe) is None and not len(attached)
    there = Probe("tracepoint", Tracepoint("sched", "sched_process_exit"), "nothing")
    assert attached.attach_once(there) is None and attached.attach_once(there) is None and len(attached) == 1
    attached.close_kernel()
    assert not len(attached)


def test_too_many_descriptors_are_refused(attached: Attachments, library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attached, "_most", 0)
    with pytest.raises(OSError, match="RLIMIT_NOFILE"):
        attached.attach(ENTRY, target(library), offsets(library))
    assert not len(attached) and not list(attached.delta())
