"""Probes on demand: asked for by the kernel side, attached for one process, gone with it."""

from __future__ import annotations

import os
import struct
import subprocess
from collections.abc import Callable

import pytest

from collector.loader import demand, kernel
from collector.loader.demand import WANTED, WATCHED, Demand
from collector.loader.mapped import Proc, Process
from collector.loader.probes.attachments import Attachments


def ask(wanting: int, pid: int) -> None:
    kernel.map_update(wanting, struct.pack("=I", pid), struct.pack("=I", WANTED))


def state(wanting: int, pid: int) -> int:
    value = kernel.map_lookup(wanting, struct.pack("=I", pid), 4)
    return struct.unpack("=I", value)[0] if value else 0


class Attached(Attachments):
    """Says what it was told to release."""

    def __init__(self, *processes: Process) -> None:
        super().__init__({}, "", multi=True)
        self.adopt({f"fe:01:1/x/1@{process}": os.open("/dev/null", os.O_RDONLY) for process in processes})


def never(_process: Process) -> bool:
    pytest.fail("attached")


def listed(asked: list[Process]) -> Callable[[Process], bool]:
    def attach(process: Process) -> bool:
        asked.append(process)
        return True

    return attach


def living() -> subprocess.Popen[bytes]:
    return subprocess.Popen(["cat"], stdin=subprocess.PIPE)


def test_a_process_is_watched_once_all_is_attached_and_forgotten_when_it_ends(wanting: int) -> None:
    answers, asked = [False, True], list[Process]()

    def attach(process: Process) -> bool:
        asked.append(process)
        return answers.pop(0)

    found = Demand(wanting, Attached(), Proc(), attach, never)
    found.turn(0)
    with living() as program:
        ask(wanting, program.pid)
        found.turn(10)
        assert state(wanting, program.pid) == WANTED and found.watches(program.pid) is None
        found.turn(20)
        process = Proc().process(program.pid)
        assert state(wanting, program.pid) == WATCHED and found.watches(program.pid) == process
        assert asked == [process, process]
        found.turn(30)
        assert len(asked) == 2
        program.communicate()
    found.turn(40)
    assert state(wanting, program.pid) == 0 and found.watches(program.pid) is None


def test_a_process_that_is_gone_already_is_forgotten(wanting: int) -> None:
    with living() as program:
        program.communicate()
    ask(wanting, program.pid)
    Demand(wanting, Attached(), Proc(), never, never).turn(0)
    assert state(wanting, program.pid) == 0


def test_what_an_earlier_loader_attached_goes_with_its_process_also_when_the_number_is_used_again(wanting: int) -> None:
    with living() as program:
        process = Proc().process(program.pid)
        assert process is not None
        before = Process(process.pid, process.started - 100)
        for others in ([before], [before, process], [process, before]):
            attachments = Attached(*others)
            ask(wanting, program.pid)
            asked: list[Process] = []
            found = Demand(wanting, attachments, Proc(), listed(asked), never)
            found.turn(0)
            assert asked == [process] and state(wanting, program.pid) == WATCHED
            assert attachments.processes() == {process} & {*others}
        found = Demand(wanting, attachments, Proc(), never, never)
        found.turn(0)
        assert found.watches(program.pid) == process
        program.communicate()
    found.turn(10)
    assert not attachments.processes() and state(wanting, program.pid) == 0


def test_a_watched_process_that_a_new_loader_finds_in_the_map(wanting: int) -> None:
    with living() as program:
        kernel.map_update(wanting, struct.pack("=I", program.pid), struct.pack("=I", WATCHED))
        found = Demand(wanting, Attached(), Proc(), never, never)
        found.turn(0)
        assert found.watches(program.pid) == Proc().process(program.pid)
        program.communicate()


def test_the_map_is_read_whole(wanting: int) -> None:
    pids = set(range(5_000_000, 5_000_200))
    for pid in pids:
        ask(wanting, pid)
    read = kernel.Entries(wanting, 4, 4, demand.ENTRIES).read()
    assert {struct.unpack("=I", key)[0] for key, _value in read} == pids


def test_nobody_waits_for_ever_for_a_file_that_is_not_read(wanting: int) -> None:
    asked: list[Process] = []
    with living() as program:
        ask(wanting, program.pid)
        found = Demand(wanting, Attached(), Proc(), lambda _process: False, listed(asked))
        found.turn(0)
        found.turn(demand.LATE_SECONDS)
        assert not asked and state(wanting, program.pid) == WANTED
        found.turn(demand.LATE_SECONDS + 1)
        assert asked and state(wanting, program.pid) == WATCHED
        program.communicate()
