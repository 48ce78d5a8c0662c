"""What is read of processes, of a real one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from collector.report import processes
from collector.report.processes import Process
from collector.runtime import STACKS_SIGNAL

SECRET = "--password=canary-1"
CHILD = """
import sys, faulthandler, signal
from collector.runtime import show_stacks_on_signal
if "catches" in sys.argv:
    show_stacks_on_signal()
def waits_here(local):
    sys.stdout.write("ready\\n")
    sys.stdout.flush()
    sys.stdin.read()
waits_here("canary-2")
"""


def started(*arguments: str) -> subprocess.Popen[str]:
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, *arguments, SECRET],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None and child.stdout.readline() == "ready\n"
    return child


@pytest.fixture
def child() -> Iterator[subprocess.Popen[str]]:
    process = started("catches")
    yield process
    process.kill()
    process.communicate()


def test_of_a_process_its_use_is_read_and_none_of_its_arguments(child: subprocess.Popen[str]) -> None:
    text = processes.use([Process(child.pid, "a child")]) + processes.kernel_stacks([Process(child.pid, "a child")])
    for word in ("VmRSS", "Pss:", "CPU:", "Max core file size", "descriptors:", "system call"):
        assert word in text
    assert "canary" not in text


def test_one_that_has_gone_is_said() -> None:
    gone = started()
    gone.communicate()
    here = [Process(gone.pid, "gone")]
    assert "No such file or directory" in processes.use(here) + processes.kernel_stacks(here)
    assert "not asked" in processes.ask_for_stacks(here)
    assert processes.tree(gone.pid) == []


def test_who_catches_the_signal_writes_its_stacks_without_values(child: subprocess.Popen[str]) -> None:
    assert processes.ask_for_stacks([Process(child.pid, "a child")]) == f"{child.pid} a child: asked\n"
    assert child.stderr is not None
    said = child.stderr.readline() + child.stderr.readline() + child.stderr.readline()
    _, rest = child.communicate()
    assert "waits_here" in said + rest and "canary" not in said + rest and child.returncode == 0


def test_who_does_not_catch_it_is_left_alone() -> None:
    process = started()
    assert "does not catch" in processes.ask_for_stacks([Process(process.pid, "another")])
    process.communicate()
    assert process.returncode == 0


def test_the_tree_names_what_each_process_is(child: subprocess.Popen[str]) -> None:
    found = {process.pid: process.name for process in processes.tree(os.getpid())}
    assert found[os.getpid()] == "supervisor" and found[child.pid] == "child"


def test_the_signal_is_not_one_of_those_with_another_meaning() -> None:
    assert STACKS_SIGNAL not in (signal.SIGHUP, signal.SIGUSR1, signal.SIGTERM, signal.SIGINT)
