"""No core file, by no way, unless it is asked for: of a real process that ends by a signal."""

from __future__ import annotations

import mmap
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from collector import cores, memfd
from collector.router import slots

CRASH = """
import os, signal, sys
from collector import cores, runtime
cores.forbid()
sys.stdout.write(open("/proc/self/limits").read())
sys.stdout.flush()
os.chdir(sys.argv[1])
os.kill(os.getpid(), signal.SIGSEGV)
"""


def crash(directory: Path, **environment: str) -> str:
    def raise_limit() -> None:
        hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
        resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))

    done = subprocess.run(
        [sys.executable, "-c", CRASH, str(directory)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
        preexec_fn=raise_limit,
    )
    assert done.returncode == -signal.SIGSEGV
    return next(line for line in done.stdout.splitlines() if line.startswith("Max core file size"))


def cores_are_files_here() -> bool:
    pattern = Path("/proc/sys/kernel/core_pattern").read_text().strip()
    return not pattern.startswith(("|", "/", "@")) and resource.getrlimit(resource.RLIMIT_CORE)[1] > 1 << 20


def test_there_is_none(tmp_path: Path) -> None:
    assert crash(tmp_path).split()[4:6] == ["1", "1"]  # a program of a pipe is not started, either: see collector/cores.py
    assert list(tmp_path.iterdir()) == []


def test_there_is_one_when_it_is_asked_for(tmp_path: Path) -> None:
    assert crash(tmp_path, COLLECTOR_CORE_DUMPS="yes").split()[4:6] != ["1", "1"]
    if cores_are_files_here():
        assert len(list(tmp_path.iterdir())) == 1


def test_a_limit_that_cannot_be_raised_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def refuse(_what: int, limits: tuple[int, int]) -> None:
        asked.append(limits)
        if limits != (0, 0):
            raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(resource, "setrlimit", refuse)
    cores.forbid()
    assert asked == [(1, 1), (0, 0)]


@pytest.mark.parametrize("side", ["shard", "sink"])
def test_batches_are_left_out_of_any(side: str) -> None:
    fd = slots.create(4)
    number = os.fstat(fd).st_ino
    kept = slots.Writer(fd) if side == "shard" else slots.Reader()
    if isinstance(kept, slots.Reader):
        kept.add(0, 1, fd)
    assert "dd" in flags(number)


def flags(inode: int) -> list[str]:
    """VmFlags of the mapping of a file without a name; `dd`: not in a dump (proc_pid_smaps(5))."""
    here = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        fields = line.split()
        if not fields[0].endswith(":"):
            here = fields[4] == str(inode)
        elif here and fields[0] == "VmFlags:":
            return fields[1:]
    raise AssertionError("not mapped")


def test_memory_that_was_not_left_out_has_no_such_flag() -> None:
    fd = memfd.create("plain", mmap.PAGESIZE)
    with mmap.mmap(fd, mmap.PAGESIZE) as mapped:
        inode = os.fstat(fd).st_ino
        assert "dd" not in flags(inode)
        cores.leave_out(mapped)
        assert "dd" in flags(inode)
    os.close(fd)
