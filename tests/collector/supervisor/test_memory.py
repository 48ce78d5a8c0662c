"""What the memory guard reads, and what it decides."""

from __future__ import annotations

import os

import pytest

from collector.supervisor import memory
from collector.supervisor.memory import Guard

MIB = 1 << 20


def test_memory_decisions() -> None:
    soft, hard = memory.thresholds(400 * MIB, 500 * MIB, None)
    assert (soft, hard) == (400 * MIB, 500 * MIB)
    assert [memory.decide(n * MIB, soft, hard) for n in (399, 400, 500, 501)] == ["ok", "shed", "shed", "restart"]
    assert memory.thresholds(400 * MIB, 500 * MIB, 256 * MIB) == (256 * MIB * 70 // 100, 256 * MIB * 85 // 100)
    assert memory.shard_budget(400 * MIB, 100 * MIB, 3) == 100 * MIB
    assert memory.shard_budget(100 * MIB, 200 * MIB, 3) == memory.MIN_BUDGET_BYTES


def test_own_memory_is_measured() -> None:
    assert 0 < memory.pss_bytes([os.getpid()]) <= memory.rss_bytes([os.getpid()])
    assert memory.pss_bytes([2**22 - 1]) == 0


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """The sizes that the system would tell, in MiB, and how often it was asked for the dear one."""
    values = {"rss": 100, "pss": 80, "asked": 0}

    def pss(_pids: object) -> int:
        values["asked"] += 1
        return values["pss"] * MIB

    monkeypatch.setattr(memory, "rss_bytes", lambda _pids: values["rss"] * MIB)
    monkeypatch.setattr(memory, "pss_bytes", pss)
    return values


def test_the_guard_looks_at_its_times_and_takes_the_dear_reading_only_when_it_must(readings: dict[str, int]) -> None:
    guard = Guard(400 * MIB, 500 * MIB, 0.5)
    assert guard.turn(1000.0, list) == 80 * MIB == guard.pss  # the first look
    assert guard.turn(1000.4, list) is None
    assert guard.turn(1000.6, list) == 100 * MIB and readings["asked"] == 1
    readings.update(rss=450, pss=390)
    assert guard.turn(1001.2, list) == 390 * MIB and readings["asked"] == 2  # the cheap one is above the threshold
    readings.update(rss=100)
    assert guard.turn(1001.2 + Guard.PSS_SECONDS, list) == 390 * MIB and readings["asked"] == 3


def test_the_budget_is_what_the_base_leaves(readings: dict[str, int]) -> None:
    guard = Guard(400 * MIB, 500 * MIB, 0.5)
    assert guard.budget(32 * MIB, 2) == (400 - 110 - 32) * MIB // 2  # not measured yet
    guard.measure_base([], 20 * MIB)
    assert guard.base == 100 * MIB and guard.budget(32 * MIB, 2) == (400 - 100 - 32) * MIB // 2
    assert Guard(10 * MIB, 20 * MIB, 1).budget(32 * MIB, 2) == memory.MIN_BUDGET_BYTES
    assert [guard.decide(n * MIB) for n in (1, 400, 501)] == [memory.OK, memory.SHED, memory.RESTART]
