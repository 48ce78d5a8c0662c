"""One child process from the supervisor's side: real processes that obey (obedient.py), or do not."""

from __future__ import annotations

import logging
import os
import select
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from collector.counter_names import COMMON
from collector.counters import CounterMemory, Counters
from collector.supervisor.child import MESSAGES_A_TURN, ChildProcess
from tests.collector.supervisor.obedient import ObedientStart
from tests.conftest import ROOT

Message = tuple[dict[str, Any], list[int]]


class Rig:
    """A child and what it needs."""

    def __init__(self) -> None:
        self.memory = CounterMemory(1)
        self.counters = Counters(self.memory.block(0), COMMON)
        self.child = ChildProcess("obedient-0", "test", "tests.collector.supervisor.obedient", 0, self.counters)

    def start(self, fds: tuple[int, ...] = (), directory: str = "", answer: int = 0) -> None:
        self.child.start(
            ObedientStart(log_level="INFO", block=0, blocks=1, uid=None, answer=answer), [self.memory.fd, *fds], directory
        )
        assert self.hear("ready")[0] == {"kind": "ready"}
        self.child.ready = True

    def hear(self, kind: str) -> Message:
        """The next message, which must be of this kind."""
        assert self.child.channel is not None
        while True:
            select.select([self.child.channel], [], [])
            said = self.child.said()
            if said:
                assert [message["kind"] for message, _ in said] == [kind]
                return said[0]

    def reap(self, *, listen: bool = False) -> None:
        while not self.child.reap(listen=listen):
            time.sleep(0.002)


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(ROOT)])))
    made = Rig()
    yield made
    made.child.discard()
    os.close(made.memory.fd)


def descriptors() -> set[str]:
    links = (f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd"))
    return {os.readlink(link) for link in links if os.path.lexists(link)}


def test_a_child_gets_its_start_message_and_nothing_of_the_environment_and_of_its_directory(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLLECTOR_SHARDS", "7")
    (tmp_path / "planted").mkdir()
    for name in ("json", "struct", "collector"):
        (tmp_path / "planted" / f"{name}.py").write_text("raise SystemExit(99)")
    read, write = os.pipe()
    rig.start((write,), str(tmp_path / "planted"), answer=42)
    rig.child.tell({"kind": "report"})
    report, fds = rig.hear("report")
    assert report["start"]["answer"] == 42 and report["start"]["block"] == 0
    assert report["directory"] == str(tmp_path / "planted") and report["modules"] == []
    assert "COLLECTOR_SHARDS" not in report["environment"] and report["environment"]["MALLOC_ARENA_MAX"] == "2"
    os.write(fds[0], b"the same pipe")
    assert os.read(read, 100) == b"the same pipe"
    for fd in (read, write, *fds):
        os.close(fd)


def test_life_and_death(rig: Rig) -> None:
    child = rig.child
    assert repr(child) == "<obedient-0 down pid=None life=0>" and not child.reap() and not child.tell({"kind": "x"})
    rig.start()
    assert child.pid is not None and rig.counters["ready"] == 1 and "ready pid=" in repr(child)
    heartbeat = rig.counters["heartbeat_ns"]
    assert heartbeat <= time.monotonic_ns() and not child.reap()
    child.tell({"kind": "stop"})
    rig.reap()
    assert child.exit_code == 0 and child.channel is None and child.log_pipe is None
    child.ready = False  # as the supervisor does
    assert repr(child) == "<obedient-0 down pid=None life=1>"
    assert not child.reap() and child.said() == []
    rig.start()
    assert child.lives == 2 and child.exit_code is None
    child.kill()
    rig.reap()
    assert child.exit_code == -signal.SIGKILL


def test_what_it_said_last_is_heard(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.start()
    rig.child.tell({"kind": "exit", "code": 7})
    with caplog.at_level(logging.INFO):
        rig.reap(listen=True)
    assert rig.child.exit_code == 7
    assert [message for message, _ in rig.child.said()] == [{"kind": "last words"}] and rig.child.said() == []
    assert [(r.name, r.getMessage()) for r in caplog.records] == [("obedient-0", "a line without an end")]


def test_its_log_lines_are_passed_on_under_its_name(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.start()
    rig.child.tell({"kind": "log", "text": '{"t": 1, "level": "WARNING", "name": "x", "message": "from a child"}\nboom\n'})
    assert rig.child.log_pipe is not None
    with caplog.at_level(logging.INFO):
        while len(caplog.records) < 2:
            select.select([rig.child.log_pipe], [], [])
            rig.child.read_logs()
    assert [(r.name, r.levelname, r.getMessage()) for r in caplog.records] == [
        ("obedient-0", "WARNING", "from a child"),
        ("obedient-0", "ERROR", "boom"),
    ]


def test_a_child_that_talks_without_end_does_not_hold_the_supervisor(rig: Rig) -> None:
    rig.start()
    rig.child.tell({"kind": "flood", "count": 2 * MESSAGES_A_TURN})
    numbers: list[int] = []
    while len(numbers) < 2 * MESSAGES_A_TURN:
        said = rig.child.said()
        assert len(said) <= MESSAGES_A_TURN
        numbers += [message["number"] for message, _ in said]
    assert numbers == list(range(2 * MESSAGES_A_TURN))


def test_a_malformed_message_ends_it(rig: Rig) -> None:
    rig.start()
    rig.child.tell({"kind": "babble"})
    while rig.child.pid is not None and not rig.child.reap():
        assert rig.child.said() == []
    assert rig.child.exit_code == -signal.SIGKILL


def test_one_that_does_not_listen_is_not_waited_for(rig: Rig) -> None:
    rig.start()
    rig.child.tell({"kind": "deaf"})
    told = 0
    while rig.child.tell({"kind": "x", "text": "y" * 1000}):
        told += 1
    assert told > 0 and rig.child.pid is not None


def test_without_a_supervisor_it_ends(rig: Rig) -> None:
    rig.start()
    assert rig.child.channel is not None
    rig.child.channel.close()
    rig.child.channel = None
    rig.reap()
    assert rig.child.exit_code == 1


def test_a_start_that_fails_leaves_nothing_open(rig: Rig, tmp_path: Path) -> None:
    before = descriptors()
    with pytest.raises(FileNotFoundError):
        rig.child.start(ObedientStart(log_level="INFO", block=0, blocks=1, uid=None), [], str(tmp_path / "missing"))
    assert descriptors() == before and rig.child.pid is None
    rig.child.start(ObedientStart(log_level="INFO", block=0, blocks=1, uid=None), [rig.memory.fd])
    rig.child.discard()
    assert descriptors() == before and rig.child.pid is None
