"""Processes that the kernel tells of: when they are looked at."""

from __future__ import annotations

import os
import struct
import time

import pytest

from collector.loader import kernel, newcomers
from collector.loader.newcomers import RING_BYTES, Newcomers
from collector.loader.ringbuffer import Ring, memfd_ring

FOREVER = float("inf")


class Kernel:
    """Acts as bpf/newcomers.h."""

    def __init__(self, told: int) -> None:
        self.told = told
        self.memory = memfd_ring(RING_BYTES)
        self.ring = Ring(self.memory, RING_BYTES, memfd=True)

    def begins(self, pid: int) -> bool:
        """Was that worth telling?"""
        if kernel.map_lookup(self.told, struct.pack("=I", pid), 1) is not None:
            return False
        kernel.map_update(self.told, struct.pack("=I", pid), b"\0")
        return self.ring.put(struct.pack("=IIII", 4, 0, pid, 0))


@pytest.fixture
def of_kernel(told: int) -> Kernel:
    return Kernel(told)


def test_a_process_is_looked_at_a_little_later_and_told_of_again_from_then_on(of_kernel: Kernel) -> None:
    found = Newcomers(of_kernel.ring, of_kernel.told)
    assert of_kernel.begins(7) and not of_kernel.begins(7)
    assert list(found.due(100.0, FOREVER)) == [] and found.waiting
    assert of_kernel.begins(8)
    assert list(found.due(100.011, FOREVER)) == [7]
    assert not of_kernel.begins(8) and of_kernel.begins(7), "what it maps while it is looked at is told of"
    assert list(found.due(100.022, FOREVER)) == [8]
    assert list(found.due(100.033, FOREVER)) == [], "it was looked at just now"
    assert list(found.due(100.062, FOREVER)) == [7]
    assert not found.waiting
    list(found.due(200.0, FOREVER))
    assert not found._looked


def test_looking_takes_no_more_than_a_part_of_a_cpu(of_kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    spent = iter(range(1000))
    monkeypatch.setattr(time, "thread_time", lambda: float(next(spent)))  # a second each
    found = Newcomers(of_kernel.ring, of_kernel.told)
    for pid in range(1, 4):
        of_kernel.begins(pid)
    assert list(found.due(0.0, FOREVER)) == []
    assert list(found.due(1.0, FOREVER)) == [1]
    assert list(found.due(2.0, FOREVER)) == []
    assert list(found.due(2.0 + 1 / newcomers.PART, FOREVER)) == [2]
    assert found.waiting


def test_there_is_no_time(of_kernel: Kernel) -> None:
    found = Newcomers(of_kernel.ring, of_kernel.told)
    of_kernel.begins(1)
    assert list(found.due(0.0, FOREVER)) == list(found.due(1.0, 0.0)) == []
    assert list(found.due(2.0, FOREVER)) == [1]


def test_what_an_earlier_loader_has_not_looked_at_is_told_of_again(of_kernel: Kernel) -> None:
    of_kernel.begins(7)
    of_kernel.ring.drain(RING_BYTES)
    Newcomers(of_kernel.ring, of_kernel.told)
    assert of_kernel.begins(7)


def test_more_than_can_wait_are_left_to_the_look_at_all_processes(
    of_kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(newcomers, "WAITING", 1)
    found = Newcomers(of_kernel.ring, of_kernel.told)
    of_kernel.begins(7)
    of_kernel.begins(8)
    list(found.due(0.0, FOREVER))
    assert list(found.due(1.0, FOREVER)) == [7]
    assert of_kernel.begins(8), "it is told of again all the same"
    os.close(of_kernel.memory)
