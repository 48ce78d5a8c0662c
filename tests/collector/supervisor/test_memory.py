"""What the memory guard reads, and what it decides."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from collector import cgroups
from collector.cgroups import MemoryUse
from collector.supervisor import memory
from collector.supervisor.memory import Guard, Reading

MIB = 1 << 20


def test_memory_decisions() -> None:
    soft, hard = 400 * MIB, 500 * MIB
    assert [memory.decide(n * MIB, soft, hard) for n in (399, 400, 500, 501)] == ["ok", "shed", "shed", "restart"]
    assert memory.shard_budget(400 * MIB, 100 * MIB, 3) == 100 * MIB
    assert memory.shard_budget(100 * MIB, 200 * MIB, 3) == memory.MIN_BUDGET_BYTES


def test_own_memory_is_measured() -> None:
    assert 0 < memory.pss_bytes([os.getpid()]) <= memory.rss_bytes([os.getpid()])
    assert memory.pss_bytes([2**22 - 1]) == 0


def test_all_processes_below_count() -> None:
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'print(flush=True); input()'])"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()  # the grandchild runs
        found = memory.tree([child.pid])
        assert found[0] == child.pid and len(found) == 2
        assert child.pid in memory.tree([os.getpid()]) and memory.tree([2**22 - 1]) == [2**22 - 1]
        child.communicate(b"\n")


class System:
    """What the system would tell, in MiB, and how often it was asked for the dear reading."""

    def __init__(self) -> None:
        self.rss, self.pss, self.asked = 100, 80, 0
        self.cgroup: tuple[int, int] | None = None


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> System:
    values = System()

    def pss(_pids: object) -> int:
        values.asked += 1
        return values.pss * MIB

    monkeypatch.setattr(memory, "rss_bytes", lambda _pids: values.rss * MIB)
    monkeypatch.setattr(memory, "pss_bytes", pss)
    monkeypatch.setattr(
        cgroups, "memory_use", lambda: values.cgroup and MemoryUse(values.cgroup[0] * MIB, values.cgroup[1] * MIB)
    )
    return values


@pytest.fixture
def look(system: System) -> Callable[[Guard, float], Reading]:
    def turn(guard: Guard, now: float) -> Reading:
        reading = guard.turn(now, list)
        assert reading is not None
        return reading

    return turn


Look = Callable[[Guard, float], Reading]


def test_the_guard_looks_at_its_times_and_takes_the_dear_reading_only_when_it_must(system: System, look: Look) -> None:
    guard = Guard(400 * MIB, 500 * MIB, 0.5)
    assert look(guard, 1000.0).used == 80 * MIB == guard.pss  # the first look
    assert guard.turn(1000.4, list) is None
    assert look(guard, 1000.6).used == 100 * MIB and system.asked == 1
    system.rss, system.pss = 370, 350
    reading = look(guard, 1001.2)
    assert reading.used == 350 * MIB and system.asked == 2  # the cheap one is near the threshold
    assert reading.decision == memory.OK and reading.calm
    system.pss = 390
    reading = look(guard, 1002.0)
    assert reading.decision == memory.OK and not reading.calm
    system.rss = 100
    assert look(guard, 1002.0 + Guard.PSS_SECONDS).used == 390 * MIB and system.asked == 4


def test_what_is_nearer_to_its_limit_counts(system: System, look: Look) -> None:
    guard = Guard(150 * MIB, 200 * MIB, 0.5)
    system.cgroup = (100, 256)
    reading = look(guard, 1.0)
    assert (reading.what, reading.used, guard.cgroup, guard.cgroup_limit) == (
        "the cgroup uses",
        100 * MIB,
        100 * MIB,
        256 * MIB,
    )
    system.cgroup = (180, 256)
    assert look(guard, 2.0).decision == memory.SHED  # above 70 %
    system.cgroup = (218, 256)
    reading = look(guard, 3.0)
    assert reading.decision == memory.RESTART and reading.hard_name == "85 % of its limit"
    system.cgroup = (100, 1024)
    reading = look(guard, 4.0)
    assert reading.what == "the processes use" and reading.hard_name == "AKTO_MEM_THRESH_RESTART"
    system.cgroup = None
    assert look(guard, 5.0).what == "the processes use" and guard.cgroup == guard.cgroup_limit == 0


def test_the_budget_is_what_the_base_leaves(system: System, look: Look) -> None:
    guard = Guard(400 * MIB, 500 * MIB, 0.5)
    assert guard.budget(32 * MIB, 2) == (400 - 110 - 32) * MIB // 2  # not measured yet
    guard.measure_base([], 20 * MIB)
    assert guard.base == 100 * MIB and guard.budget(32 * MIB, 2) == (400 - 100 - 32) * MIB // 2
    assert Guard(10 * MIB, 20 * MIB, 1).budget(32 * MIB, 2) == memory.MIN_BUDGET_BYTES


def test_the_budget_leaves_room_for_what_the_cgroup_has_besides(system: System, look: Look) -> None:
    system.cgroup = (150, 300)  # the kernel's maps and the rings are in it, and are in no process
    guard = Guard(210 * MIB, 255 * MIB, 0.5)
    look(guard, 1.0)
    guard.measure_base([], 8 * MIB)
    assert guard.budget(16 * MIB, 2) == (210 - 150 - 16) * MIB // 2
