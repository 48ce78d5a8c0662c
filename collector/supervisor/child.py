"""One child process: start, stop, kill, exit status, and what it says."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from collector import confine, control, cores
from collector.counters import Counters
from collector.logs import ChildLines
from collector.runtime import STACKS_SIGNAL
from collector.settings import Start
from collector.supervisor.policy import History

log = logging.getLogger("supervisor")

# A child gets what Python and the dynamic linker need, and none of the settings: those come by the channel.
_ENVIRONMENT = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TMPDIR",
    "VIRTUAL_ENV",
    "PYTHONPATH",
    "LD_LIBRARY_PATH",
    "LD_PRELOAD",
    "ASAN_OPTIONS",
    "UBSAN_OPTIONS",
    "PYTHONDONTWRITEBYTECODE",
    "PYTHONMALLOC",
    confine.VARIABLE,  # it concerns those that they start, too
    cores.VARIABLE,  # so does this
)

# Batches of some 100 KiB come and go all the time: let them come from the heap, not from fresh pages each time.
# Measured in the pipeline benchmark: 4 us of 24 us an exchange.
_ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(4 << 20), "MALLOC_TRIM_THRESHOLD_": str(16 << 20), "MALLOC_ARENA_MAX": "2"}

MESSAGES_A_TURN = 256  # a child that talks without end must not hold the supervisor


class ChildProcess:
    """A child's room in the supervisor; it survives the child's lives.

    ``name`` is unique (`shard-0`), ``role`` is loader, shard or sink. ``stdout`` is a descriptor or None for nowhere.
    """

    def __init__(self, name: str, role: str, module: str, block: int, counters: Counters, stdout: int | None = None) -> None:
        self.name = name
        self.role = role
        self.module = module
        self.block = block
        self.counters = counters
        self.history = History()
        self.ready = False
        self.lives = 0
        self.restart_at: float | None = None
        self.exit_code: int | None = None
        self.expected_to_end = False
        self._stdout = stdout
        self._process: subprocess.Popen[bytes] | None = None
        self.channel: socket.socket | None = None
        self.log_pipe: int | None = None
        self._lines = ChildLines(name)
        self._last_words: list[tuple[dict[str, Any], list[int]]] = []
        self.started_at = 0.0

    @property
    def pid(self) -> int | None:
        """Its process id while it lives."""
        return self._process.pid if self._process is not None else None

    def start(self, message: Start, fds: Sequence[int], directory: str = "") -> None:
        """Start a life: exec in ``directory``, then hand over the start message with descriptors. Raises OSError."""
        ours, theirs = control.pair()
        read, write = os.pipe2(os.O_CLOEXEC)
        environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        environment.update(_ALLOCATOR)
        if "PYTHONPATH" in environment:  # where it says "here", it means here and not ``directory``
            environment["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, environment["PYTHONPATH"].split(os.pathsep)))
        try:
            self._process = subprocess.Popen(
                # -P: nothing is imported from the working directory, which belongs to the children without privilege
                [sys.executable, "-P", "-m", self.module, str(theirs.fileno())],
                env=environment,
                cwd=directory or None,
                stdin=subprocess.DEVNULL,
                stderr=write,
                stdout=self._stdout if self._stdout is not None else subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                close_fds=True,
            )
        except OSError:
            ours.close()
            os.close(read)
            raise
        finally:
            theirs.close()
            os.close(write)
        os.set_blocking(read, False)
        self.channel = ours
        self.log_pipe = read
        self.ready = False
        self.exit_code = None
        self.restart_at = None
        self.lives += 1
        self.started_at = time.monotonic()
        self.counters["heartbeat_ns"] = time.monotonic_ns()
        self.counters["ready"] = 0
        control.send(ours, {"kind": "start", **message.to_message()}, fds)
        ours.setblocking(False)

    def tell(self, message: dict[str, Any], fds: Sequence[int] = ()) -> bool:
        """Send it a message, if it can be reached. Was it sent?"""
        if self.channel is not None:
            try:
                control.send(self.channel, message, fds)
                return True
            except OSError:
                log.debug("cannot reach the control channel of %s", self.name)
        return False

    def said(self) -> list[tuple[dict[str, Any], list[int]]]:
        """Its messages that are here now."""
        out, self._last_words = self._last_words, []
        while self.channel is not None and len(out) < MESSAGES_A_TURN:
            try:
                received = control.receive(self.channel)
            except (BlockingIOError, InterruptedError):
                break
            except OSError:
                received = None
            except (ValueError, RecursionError):
                log.error("%s sent a malformed control message; killing it", self.name)
                self.kill()
                break
            if received is None:
                break
            out.append(received)
        return out

    def read_logs(self) -> None:
        """Pass its log lines on."""
        for _ in range(64):  # a child that logs without end must not hold the supervisor
            if self.log_pipe is None:
                return
            try:
                data = os.read(self.log_pipe, 65536)
            except (BlockingIOError, InterruptedError):
                return
            if not data:
                return
            self._lines.feed(data)

    def reap(self, *, listen: bool = False) -> bool:
        """Has it ended since the last call? Then its exit code is known and its descriptors are closed. ``listen``: what it
        has said and nobody heard is in the next `said`.
        """
        if self._process is None or self._process.poll() is None:
            return False
        if listen:
            self._last_words = self.said()
        self.read_logs()
        self._lines.feed(b"\n")
        self.exit_code = self._process.returncode
        self._process = None
        self._close()
        return True

    def did_not_start(self, now: float, error: OSError) -> None:
        """A start has failed half-way."""
        log.error("cannot start %s: %s", self.name, error)
        self.discard()
        self.history.ended(now, was_ready=False, lived_seconds=0)

    def discard(self) -> None:
        """After a start that failed half-way: end what there is and close its descriptors."""
        self.kill()
        if self._process is not None:
            self._process.wait()
            self._process = None
        self._close()

    def _close(self) -> None:
        """Our ends of the channel and of the log pipe."""
        if self.channel is not None:
            self.channel.close()
            self.channel = None
        if self.log_pipe is not None:
            os.close(self.log_pipe)
            self.log_pipe = None

    def show_stacks(self) -> None:
        """Have it log where its threads are; one that is not ready could not."""
        if self._process is not None and self.ready:
            with contextlib.suppress(OSError):
                self._process.send_signal(STACKS_SIGNAL)

    def kill(self) -> None:
        """Send SIGKILL."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGKILL)

    def __repr__(self) -> str:
        state = "ready" if self.ready else "starting" if self.pid else "down"
        return f"<{self.name} {state} pid={self.pid} life={self.lives}>"
