"""One child, a real process: started with its message, spoken with, reaped; and one that sends nonsense."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from collector.counters import CounterMemory, Counters
from collector.metrics import COMMON
from collector.settings import Start
from collector.supervisor import child as module
from collector.supervisor.child import ChildProcess
from tests.live.harness import wait_for

# As a module of its own it is started as the collector's children are. It answers everything with what it has heard.
PROGRAM = """
import os, socket, sys
from collector.runtime import Child
from collector.settings import Start
child = Child.begin(Start, ("heartbeat_ns", "cpu_ns", "log_lines_dropped", "ready"))
child.ready()
while not child.stopping:
    for message in child.hear():
        what = message.get("what")
        if what == "die":
            os._exit(7)
        if what == "nonsense":
            child.channel.send(b"[1]")
        elif what == "flood":
            for n in range(400):
                child.say({"kind": "n", "n": n})
        elif what:
            child.say({"kind": "heard", "what": what, "same": [os.fstat(fd).st_ino for fd in message["fds"]]})
    child.beat()
print("nobody reads this")
"""


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ChildProcess]:
    (tmp_path / "echoes.py").write_text(PROGRAM)
    here = Path(module.__file__).resolve().parents[2]
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{here}")
    memory = CounterMemory(1)
    one = ChildProcess("echo-0", "echo", "echoes", 0, Counters(memory.block(0), COMMON))
    one.memory = memory  # type: ignore[attr-defined]
    one.start(Start(log_level="INFO", block=0, blocks=1, uid=None), [memory.fd], str(tmp_path))
    yield one
    one.kill()
    wait_for(lambda: one.pid is None or one.reap())


def heard(child: ChildProcess) -> dict[str, object]:
    """The next message that it says."""
    out: list[tuple[dict[str, object], list[int]]] = []
    wait_for(lambda: out or out.extend(child.said()) or out)
    assert len(out) == 1 and out[0][1] == []
    return out[0][0]


def test_it_starts_says_so_and_ends(child: ChildProcess) -> None:
    assert heard(child) == {"kind": "ready"} and child.counters["ready"] == 1 and child.counters["heartbeat_ns"] > 0
    assert child.lives == 1 and child.pid is not None
    read, write = os.pipe()
    assert child.tell({"kind": "x", "what": "hello"}, [read])
    assert heard(child) == {"kind": "heard", "what": "hello", "same": [os.fstat(read).st_ino]}
    os.close(read)
    os.close(write)
    assert child.tell({"kind": "stop"})
    wait_for(child.reap)
    assert child.exit_code == 0 and child.pid is None
    assert not child.tell({"kind": "x"}) and child.said() == [] and not child.reap()


def test_what_it_said_before_its_end_is_heard_when_asked_for(child: ChildProcess) -> None:
    heard(child)
    child.tell({"kind": "x", "what": "last words"})
    child.tell({"kind": "x", "what": "die"})
    wait_for(lambda: child.reap(listen=True))
    assert child.exit_code == 7
    assert [message["what"] for message, _fds in child.said()] == ["last words"]


def test_a_malformed_message_is_its_end(child: ChildProcess, caplog: pytest.LogCaptureFixture) -> None:
    heard(child)
    child.tell({"kind": "x", "what": "nonsense"})
    wait_for(lambda: child.said() or child.reap())
    wait_for(lambda: child.pid is None or child.reap())
    assert child.exit_code == -signal.SIGKILL and "echo-0 sent a malformed control message; killing it" in caplog.text


def test_one_that_talks_without_end_does_not_hold_the_supervisor(child: ChildProcess) -> None:
    heard(child)
    child.tell({"kind": "x", "what": "flood"})
    found: list[object] = []
    most = 0
    while len(found) < 400:
        said = child.said()
        most = max(most, len(said))
        found += [message["n"] for message, _fds in said]
    assert found == list(range(400)) and most <= module.MESSAGES_A_TURN


def test_a_start_message_that_does_not_fit_ends_it(child: ChildProcess, caplog: pytest.LogCaptureFixture) -> None:
    """Its traceback is in the log."""
    from collector.settings import HealthStart

    child.kill()
    wait_for(child.reap)
    memory = child.memory  # type: ignore[attr-defined]
    child.start(HealthStart(log_level="INFO", block=0, blocks=1, uid=None, all_blocks=1, state={}), [memory.fd])
    wait_for(child.reap)
    assert child.exit_code == 1 and "unknown or missing: all_blocks, state" in caplog.text
    assert child.lives == 2
