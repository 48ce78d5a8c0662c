"""A start message arrives as the object that it was, or ends the process that it does not fit."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import collector
from collector.counter_names import COMMON
from collector.counters import CounterMemory, Counters
from collector.settings import Start
from collector.supervisor.child import ChildProcess
from tests.live.harness import wait_for

PROGRAM = """
from collector.counter_names import COMMON
from collector.runtime import Child, run_process
from collector.settings import Start

class Once:
    def __init__(self, child):
        self.child = child

    def run(self):
        self.child.say({"kind": "heard", "start": repr(self.child.start)})
        return 5

    def close(self):
        self.child.say({"kind": "closed"})

if __name__ == "__main__":
    raise SystemExit(run_process(Start, COMMON, Once))
"""
START = Start(log_level="INFO", block=0, blocks=1, uid=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherStart(Start):
    """Of another process."""

    more: int


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[ChildProcess, CounterMemory]]:
    (tmp_path / "once.py").write_text(PROGRAM)
    here = Path(collector.__file__).resolve().parents[1]
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{here}")
    memory = CounterMemory(1)
    one = ChildProcess("once-0", "once", "once", 0, Counters(memory.block(0), COMMON))
    yield one, memory
    one.discard()
    os.close(memory.fd)


def test_it_is_the_same_object_at_the_other_side(child: tuple[ChildProcess, CounterMemory]) -> None:
    one, memory = child
    one.start(START, [memory.fd])
    wait_for(lambda: one.reap(listen=True))
    assert one.exit_code == 5
    assert [message for message, _fds in one.said()] == [{"kind": "heard", "start": repr(START)}, {"kind": "closed"}]


def test_one_that_does_not_fit_ends_the_process_and_the_log_says_why(
    child: tuple[ChildProcess, CounterMemory], caplog: pytest.LogCaptureFixture
) -> None:
    one, memory = child
    one.start(OtherStart(log_level="INFO", block=0, blocks=1, uid=None, more=1), [memory.fd])
    wait_for(one.reap)
    assert one.exit_code == 1 and "Start: unknown or missing: more" in caplog.text
