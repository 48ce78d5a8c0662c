"""Counters in shared memory."""

from __future__ import annotations

import mmap
import os

import pytest

from collector.counters import CORE, CounterMemory, Counters


def test_counters_are_shared_and_cannot_be_made_shorter() -> None:
    ours = CounterMemory(3)
    theirs = CounterMemory(3, os.dup(ours.fd))
    a = Counters(ours.block(1), ("x", "y"))
    b = Counters(theirs.block(1), ("x", "y"))
    b.add("y", 5)
    assert a["y"] == 5 and a.snapshot() == {"x": 0, "y": 5}
    assert ours.block(1)[CORE + 1] == 5
    with pytest.raises(OSError, match="not permitted"):
        os.ftruncate(theirs.fd, 0)
    with pytest.raises(IndexError):
        ours.block(3)


def test_a_read_only_descriptor_can_never_write() -> None:
    ours = CounterMemory(1)
    Counters(ours.block(0), ("x",))["x"] = 7
    fd = ours.read_only_fd()
    theirs = CounterMemory(1, fd, read_only=True)
    assert Counters(theirs.block(0), ("x",))["x"] == 7
    with pytest.raises(TypeError, match="read-only"):
        theirs.block(0)[0] = 1
    with pytest.raises(PermissionError):
        mmap.mmap(fd, 0, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    os.close(fd)


def test_names_that_do_not_fit_are_refused_and_numbers_wrap() -> None:
    block = CounterMemory(1).block(0)
    with pytest.raises(ValueError, match="too many"):
        Counters(block, tuple(map(str, range(CORE + 1))))
    counters = Counters(block, ("x",))
    counters["x"] = 2**64 - 1
    counters.add("x", 2)
    assert counters["x"] == 1
