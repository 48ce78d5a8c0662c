"""Waiting for the compiler: as long as it works, and no longer than it may."""

from __future__ import annotations

import subprocess
import sys

import pytest

from collector import control, errors
from collector.loader import compiler, kernel, programs
from collector.loader.probes import probe

ANSWERS = """
import socket, sys, time
from collector import control
channel = socket.socket(fileno=int(sys.argv[1]))
control.send(channel, {"begun": True})
{work}
control.send(channel, {"done": True})
"""
WORKS = "while time.process_time() < 1.5: pass"
SLEEPS = "time.sleep(1.5)"


def looks_while_a_child(work: str) -> int:
    """How often it was seen to get on before it said that it was done."""
    seen = []
    ours, theirs = control.pair()
    command = [sys.executable, "-c", ANSWERS.replace("{work}", work), str(theirs.fileno())]
    with ours, subprocess.Popen(command, pass_fds=[theirs.fileno()]) as child:
        theirs.close()
        assert control.receive(ours) == ({"begun": True}, [])
        assert programs.wait_for_answer(ours, child.pid, lambda: seen.append(1)) == ({"done": True}, [])
        assert programs.wait_for_answer(ours, child.pid, lambda: seen.append(1)) is None
    return len(seen)


def test_a_child_gets_on_as_long_as_it_uses_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "LOOK_SECONDS", 0.1)
    assert looks_while_a_child(WORKS) >= 5
    assert looks_while_a_child(SLEEPS) <= 2  # on its way to sleep, at most


@pytest.mark.live
@pytest.mark.timeout(120)
def test_a_compiler_that_never_comes_to_an_end_is_ended(live: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "CPU_SECONDS", 1)
    with pytest.raises(errors.PreflightError, match="it used more than 1 s of CPU"):
        programs.compile_programs(
            {**compiler.DEFAULTS, "RINGS": 1, "CPUS": kernel.possible_cpus()}, [probe.TPX], probe.SOCKET
        )
