"""System calls that a confined process made and did not get: by the kernel's own event at the end of each call.

    python -m tests.live.refused COMMAND...       runs it, and prints what confined processes below it were refused

Nothing is slowed down or changed, as strace would: the events are those of a tracing instance of its own, which follows the
process and all that it starts. A process counts from its `seccomp` or `landlock_restrict_self` on, with all of its threads.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import select
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import seccomp

from collector.loader import kernel

_LINE = re.compile(
    r"\s(?P<thread>.{1,16})-(?P<tid>\d+)\s+\(\s*(?P<pid>[-\d]+)\) .*: sys_exit: NR (?P<call>-?\d+) = (?P<result>-?\d+)"
)
_REFUSALS = (errno.EPERM, errno.EACCES, errno.ENOSYS)
_SECCOMP, _LANDLOCK = (seccomp.resolve_syscall(seccomp.Arch.NATIVE, name) for name in ("seccomp", "landlock_restrict_self"))
_EXPECTED = {("clone3", errno.ENOSYS)}  # libc asks for it first, with every thread; then it takes clone


class Refused:
    """Follows ``pid``, and all that it starts from now on. Raises OSError where there is no tracefs. ``close`` has to be
    called; afterwards ``calls`` (what was refused: how often) and ``confined`` (process: its module) are complete.
    """

    def __init__(self, pid: int) -> None:
        tracefs = kernel.find_tracefs()
        if tracefs is None:
            raise OSError(errno.ENOENT, "no tracefs")
        self.calls: Counter[str] = Counter()
        self.confined: dict[int, str] = {}
        self._instance = Path(f"{tracefs}/instances/collector-test-{os.getpid()}-{pid}")
        self._instance.mkdir()
        try:
            wanted = " || ".join([f"ret == -{number}" for number in _REFUSALS] + [f"id == {_SECCOMP}", f"id == {_LANDLOCK}"])
            self._write("events/raw_syscalls/sys_exit/filter", wanted)
            self._write("options/record-tgid", "1")
            self._write("options/event-fork", "1")
            self._write("set_event_pid", str(pid))
            self._write("events/raw_syscalls/sys_exit/enable", "1")
            self._pipe = os.open(self._instance / "trace_pipe", os.O_RDONLY | os.O_NONBLOCK)
        except OSError:
            self._instance.rmdir()
            raise
        self._ended = threading.Event()
        self._rest = b""
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _write(self, name: str, text: str) -> None:
        (self._instance / name).write_text(text)

    def _read(self) -> None:
        while not self._ended.is_set():
            select.select([self._pipe], [], [], 0.05)
            self._take()
        self._take()

    def _take(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self._pipe, 1 << 16):
                *lines, self._rest = (self._rest + data).split(b"\n")
                for line in lines:
                    self._line(line.decode("utf-8", "replace"))

    def _line(self, line: str) -> None:
        found = _LINE.search(line)
        if found is None:
            if line and not line.startswith("CPU:"):  # [LOST n EVENTS]
                self.calls[line] += 1
            return
        pid = int(found["pid"] if found["pid"].isdigit() else found["tid"])
        call, result = int(found["call"]), int(found["result"])
        if call in (_SECCOMP, _LANDLOCK) and result == 0:
            self.confined.setdefault(pid, _command(pid))
        elif pid in self.confined and -result in _REFUSALS:
            name = seccomp.resolve_syscall(seccomp.Arch.NATIVE, call)
            name = name.decode() if isinstance(name, bytes) else str(call)
            if (name, -result) not in _EXPECTED:
                self.calls[f"{self.confined[pid]} ({found['thread'].strip()}): {name} {errno.errorcode[-result]}"] += 1

    def close(self) -> None:
        """No more events; ``calls`` has all that there were."""
        if self._ended.is_set():
            return
        self._write("events/raw_syscalls/sys_exit/enable", "0")
        self._ended.set()
        self._thread.join()
        os.close(self._pipe)
        self._instance.rmdir()


def _command(pid: int) -> str:
    """The module that it runs, as far as it can still be asked."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_text("utf-8", "replace")
    except OSError:
        words = ""
    found = re.search(r"collector\.[a-z_.]+", words)
    return found[0] if found else f"process {pid}"


def main() -> int:
    """The exit code is the command's, or 99 when something was refused."""
    refused = Refused(os.getpid())
    try:
        code = subprocess.run(sys.argv[1:], check=False).returncode
    finally:
        refused.close()
    for call, times in refused.calls.most_common():
        print(f"{times:6} {call}", file=sys.stderr)
    print(f"{len(refused.confined)} confined processes", file=sys.stderr)
    return 99 if refused.calls else code


if __name__ == "__main__":
    raise SystemExit(main())
