"""Decisions of the supervisor as pure functions, log lines, counters in shared memory, control messages."""

from __future__ import annotations

import json
import logging
import os

import pytest

from collector import control, logs
from collector.counters import CORE, CounterMemory, Counters
from collector.supervisor import memory, policy

MIB = 1 << 20


def test_first_restart_is_at_once_then_ever_later() -> None:
    history = policy.History()
    delays = []
    for n in range(9):
        history.ended(float(n), was_ready=True, lived_seconds=1)
        delays.append(policy.restart_delay(history))
    assert delays == [0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


def test_a_long_healthy_life_forgives() -> None:
    history = policy.History()
    for n in range(5):
        history.ended(float(n), was_ready=True, lived_seconds=1)
    history.ended(100.0, was_ready=True, lived_seconds=3600)
    assert policy.restart_delay(history) == 0.0


def test_a_child_that_cannot_start_is_given_up() -> None:
    history = policy.History()
    for n in range(policy.MAX_FAILED_STARTS):
        assert n == 0 or policy.restart_delay(history) is not None
        history.ended(float(n), was_ready=False, lived_seconds=0.1)
    assert policy.restart_delay(history) is None


def test_hangs() -> None:
    assert policy.hangs(ready=True, silent_seconds=6, lived_seconds=100)
    assert not policy.hangs(ready=True, silent_seconds=4, lived_seconds=100)
    assert not policy.hangs(ready=False, silent_seconds=30, lived_seconds=30)
    assert policy.hangs(ready=False, silent_seconds=61, lived_seconds=61)


def test_what_killed_a_shard_twice_is_skipped() -> None:
    assert policy.suspects({1: 1, 2: 2, 3: 5}) == [2, 3]


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


def test_child_lines_become_records_and_foreign_text_an_error(caplog: pytest.LogCaptureFixture) -> None:
    lines = logs.ChildLines("shard-7")
    record = json.dumps({"t": 0, "level": "WARNING", "name": "shard", "message": "hello"}).encode()
    with caplog.at_level(logging.DEBUG):
        lines.feed(record[:10])
        lines.feed(record[10:] + b"\nTraceback:\n  boom\n" + b"[" * 5000 + b"\n")
    assert [(r.name, r.levelname) for r in caplog.records] == [("shard-7", "WARNING"), ("shard-7", "ERROR")]
    assert caplog.records[0].getMessage() == "hello" and "boom" in caplog.records[1].getMessage()


def test_a_full_log_pipe_never_blocks() -> None:
    read, write = os.pipe()
    handler = logs.PipeHandler(write)
    for _ in range(3000):
        handler.emit(logging.LogRecord("x", logging.ERROR, "", 0, "y" * 200, (), None))
    assert handler.dropped > 0
    os.close(read)
    os.close(write)


def test_rate_limit_says_how_many_were_left_out() -> None:
    limit = logs.RateLimit()
    passed = 0
    for n in range(100):
        record = logging.LogRecord("x", logging.ERROR, "", 0, "again", (), None)
        record.created = 1000.0 + n * 0.01
        passed += limit.filter(record)
    record = logging.LogRecord("x", logging.ERROR, "", 0, "again", (), None)
    record.created = 2000.0
    assert passed == 20 and limit.filter(record) and "80 more" in record.msg


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


def test_control_messages_carry_descriptors_and_refuse_nonsense() -> None:
    ours, theirs = control.pair()
    read, write = os.pipe()
    control.send(ours, {"kind": "x"}, [write])
    received = control.receive(theirs)
    assert received is not None and received[0] == {"kind": "x"}
    os.write(received[1][0], b"hi")
    assert os.read(read, 2) == b"hi"
    ours.send(b"[1]")
    with pytest.raises(ValueError, match="object"):
        control.receive(theirs)
    ours.close()
    assert control.receive(theirs) is None
    theirs.close()
    for fd in (read, write, received[1][0]):
        os.close(fd)
