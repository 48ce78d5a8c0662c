"""Which processes are captured: what stands in the map, against a model of it."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from collector.loader import compiler, kernel
from collector.loader.mapped import Proc
from collector.loader.selection import WORDS, Selection

PIDS = st.sets(st.integers(1, 300) | st.integers(1, WORDS * 64 - 1), max_size=6)


@pytest.fixture(scope="module")
def table(live: None) -> Iterator[int]:
    """An array as `pid_bits`."""
    fd = kernel._bpf(0, struct.pack("=IIII", 2, 4, 8, WORDS))  # BPF_MAP_CREATE, BPF_MAP_TYPE_ARRAY
    yield fd
    os.close(fd)


def traced(table: int, pid: int) -> bool:
    """As `traced` of bpf/selection.h."""
    value = kernel.map_lookup(table, struct.pack("=I", pid >> 6), 8)
    assert value is not None
    return not int.from_bytes(value, "little") >> (pid & 63) & 1


def clear(table: int) -> None:
    kernel.array_fill(table, bytes(8), WORDS)


pytestmark = pytest.mark.live
RELAXED = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@RELAXED
@given(steps=st.lists(PIDS, min_size=1, max_size=4), adopted=PIDS)
def test_all_but_our_own(table: int, steps: list[set[int]], adopted: set[int]) -> None:
    clear(table)
    before = Selection(table)
    before.begin()
    before.update(adopted)
    after = Selection(table)  # of a new loader, in the same process here
    after.adopt({*adopted, 1})
    kernel.map_update(table, struct.pack("=I", 0), struct.pack("=Q", after._words.get(0, 0)))  # pid 1 was ours, too
    for ours in steps:
        after.update(ours)
        for pid in {*ours, *adopted, 1, 2, 299, WORDS * 64 - 1, os.getpid()}:
            assert traced(table, pid) == (pid not in ours and pid != os.getpid()), pid
    after.stop()
    assert not any(traced(table, pid) for pid in {0, 1, 2, WORDS * 64 - 1, *adopted})


@RELAXED
@given(chosen=PIDS.filter(bool), ours=PIDS)
def test_chosen_ones_alone(table: int, chosen: set[int], ours: set[int]) -> None:
    clear(table)
    for loader in (Selection(table, chosen), Selection(table, chosen)):
        if loader._words == {} and traced(table, 0):
            loader.begin()
        else:
            loader.adopt(ours)
        loader.update(ours)
        for pid in {*chosen, *ours, 0, 1, 2, 299, os.getpid(), WORDS * 64 - 1}:  # 0: those outside of our namespace
            assert traced(table, pid) == (pid in chosen), pid


def test_the_map_is_as_large_as_there_are_processes() -> None:
    assert compiler.DEFAULTS["MAX_PIDS"] == WORDS * 64


class Processes(Proc):
    """As many as a test wants."""

    def __init__(self, comms: dict[int, str]) -> None:
        super().__init__()
        self.comms = comms

    def pids(self) -> list[int]:
        return list(self.comms)

    def comm(self, pid: int) -> str:
        return self.comms[pid]


def test_processes_of_some_names(table: int) -> None:
    clear(table)
    proc = Processes({7: "nginx", 8: "other", 9: "nginx", 10: "a-name-of-sixte"})
    selection = Selection(table, [8], ["nginx", "a-name-of-sixteen-bytes"], proc)
    selection.begin()
    selection.update([9])
    assert [traced(table, pid) for pid in (7, 8, 9, 10, 11, os.getpid())] == [True, True, False, True, False, False]
    proc.comms = {8: "other", 9: "nginx", 11: "nginx"}
    selection.turn(1.0)
    assert [traced(table, pid) for pid in (7, 8, 9, 10, 11)] == [False, True, False, False, True]
    proc.comms = {}
    selection.turn(1.1)
    assert traced(table, 11), "not so soon"
    later = Selection(table, [8], ["nginx"], Processes({12: "nginx"}))  # of a new loader
    later.adopt([])
    later.update([])
    assert [traced(table, pid) for pid in (8, 11, 12)] == [True, False, True]
    later.stop()
