"""What every child process does first: control channel, logs, counters, signals, privileges.

    child = Child.begin(ShardStart, NAMES)     # reads the start message
    child.drop_privileges()                    # shards, sink and health: another user, no files
    confine.limit_calls(confine.SHARD)         # the same, when all is there that they need
    while not child.stopping: ...; child.beat()

`run_process` is the whole of a process's `main`.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import faulthandler
import logging
import mmap
import os
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, Protocol, TypeVar

from collector import confine, control, cores, logs
from collector.counters import CounterMemory, Counters
from collector.settings import Start

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 1, 4, 24, 38
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
_LAST_CAPABILITY = 63

S = TypeVar("S", bound=Start)

_libc = ctypes.CDLL(None, use_errno=True)


def prctl(option: int, argument: int) -> bool:
    """One system call with one argument; did it work?"""
    return int(_libc.prctl(option, ctypes.c_ulong(argument), 0, 0, 0)) == 0


def prctl2(option: int, argument: int) -> bool:
    """prctl(2) with further arguments zero, for options whose first argument is a command."""
    return int(_libc.prctl(option, ctypes.c_ulong(argument), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0))) == 0


def end_with_parent(parent: int) -> None:
    """Be killed when the process that started us, ``parent``, ends; at once if it has ended already."""
    prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        raise SystemExit(1)


def drop_privileges(uid: int | None) -> None:
    """Become an ordinary user for good: no groups, no capabilities, none to be gained, no core dumps
    (unless they are asked for).

    Without a ``uid`` to become (we are not root, or our user namespace has none) there are only capabilities to lose.
    Raises OSError.
    """
    if os.geteuid() == 0:
        for capability in range(_LAST_CAPABILITY + 1):
            if not prctl(_PR_CAPBSET_DROP, capability):
                if ctypes.get_errno() == errno.EINVAL or uid is None:
                    break
                raise OSError(ctypes.get_errno(), "cannot drop a capability from the bounding set")
    if uid is None or os.geteuid() != 0:
        prctl2(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
        header = struct.pack("=Ii", 0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this process
        if _libc.capset(header, struct.pack("=6I", *[0] * 6)) != 0:
            raise OSError(ctypes.get_errno(), "cannot give up capabilities")
        if not prctl(_PR_SET_NO_NEW_PRIVS, 1) or not prctl(_PR_SET_DUMPABLE, cores.wanted()):
            raise OSError(ctypes.get_errno(), "cannot give up privileges")
        return
    try:
        os.setgroups([])
    except PermissionError:
        with open("/proc/self/setgroups", encoding="ascii") as file:
            if file.read().strip() != "deny":  # a user namespace may forbid it; its groups give nothing outside
                raise
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    if not prctl(_PR_SET_NO_NEW_PRIVS, 1) or not prctl(_PR_SET_DUMPABLE, cores.wanted()):
        raise OSError(ctypes.get_errno(), "cannot give up privileges")
    prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # changing the user cleared it


STACKS_SIGNAL = signal.SIGUSR2  # has a process of ours write the stacks of its threads: a child to its log


def show_stacks_on_signal(fd: int = 2) -> None:
    """From now on STACKS_SIGNAL has the stacks written to ``fd``: at once that of the thread that it interrupts,
    which works in compiled code, too; then those of all threads, by the interpreter, for they must not run meanwhile:
    faulthandler alone reads their frames while they change, and has crashed busy processes. Names of files and functions and
    numbers of lines, no values. To be called by the main thread.
    """
    signal.signal(STACKS_SIGNAL, lambda _number, _frame: faulthandler.dump_traceback(fd, all_threads=True))
    faulthandler.register(STACKS_SIGNAL, fd, all_threads=False, chain=True)


def hide_stacks() -> None:
    """Undo `show_stacks_on_signal`; the signal is ignored from now on."""
    faulthandler.unregister(STACKS_SIGNAL)
    signal.signal(STACKS_SIGNAL, signal.SIG_IGN)


class Usage:
    """What this process uses, into its counters ``cpu_ns`` and ``resident_bytes``; after its files are out of reach, too."""

    SECONDS = 1.0

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._next = 0.0
        self._statm = -1
        with contextlib.suppress(OSError):
            self._statm = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)

    def turn(self) -> None:
        """Look, if it is time to."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + self.SECONDS
        self._counters["cpu_ns"] = time.process_time_ns()
        if self._statm >= 0:
            self._counters["resident_bytes"] = int(os.pread(self._statm, 128, 0).split()[1]) * mmap.PAGESIZE


class Child(Generic[S]):
    """The process itself, as its supervisor sees it. ``start`` is the start message, ``fds`` its descriptors."""

    def __init__(self, channel: socket.socket, start: S, fds: list[int], names: Sequence[str]) -> None:
        self.channel = channel
        self.start = start
        self.fds = fds
        self.stopping = False
        memory = CounterMemory(start.blocks, fds[0])
        self.block = memory.block(start.block)
        self.counters = Counters(self.block, names)
        self._usage = Usage(self.counters)
        channel.setblocking(False)
        self.beat()

    @classmethod
    def begin(cls, kind: type[S], names: Sequence[str]) -> Child[S]:
        """Read the start message from the channel in argv; ends the process when there is no supervisor. Raises
        ProtocolError when it is not of this kind.
        """
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        cores.forbid()
        # Ctrl-C, timeout(1) and systemd signal the whole group: the order of the end is the supervisor's business
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        channel = socket.socket(fileno=int(sys.argv[1]))
        received = control.receive(channel)
        if received is None:
            sys.exit(0)
        message, fds = received
        message.pop("kind", None)
        start = kind.from_message(message)
        logs.set_up_child(start.log_level)
        faulthandler.enable()  # a crash in compiled code says where
        show_stacks_on_signal()
        return cls(channel, start, fds, names)

    def beat(self) -> None:
        """Tell the supervisor that the main loop runs, and what it has cost."""
        self.counters["heartbeat_ns"] = time.monotonic_ns()
        self._usage.turn()
        self.counters["log_lines_dropped"] = logs.dropped_lines()

    def ready(self) -> None:
        """Tell the supervisor that this child does its work."""
        self.beat()
        self.counters["ready"] = 1
        self.say({"kind": "ready"})

    def say(self, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
        """Send the supervisor a message; a supervisor that is gone ends us."""
        try:
            self.channel.setblocking(True)
            control.send(self.channel, message, fds)
        except OSError:
            self.stopping = True
        finally:
            self.channel.setblocking(False)

    def hear(self) -> list[dict[str, Any]]:
        """Messages of the supervisor that are here now; `stop` sets ``stopping``. Descriptors that came along are
        under "fds".
        """
        heard: list[dict[str, Any]] = []
        while True:
            try:
                received = control.receive(self.channel)
            except (BlockingIOError, InterruptedError):
                return heard
            except OSError:
                received = None
            if received is None:
                logging.getLogger("child").error("the supervisor is gone")
                os._exit(1)
            if received[0].get("kind") == "stop":
                self.stopping = True
            heard.append({**received[0], "fds": received[1]})

    def drop_privileges(self, rules: Iterable[confine.Rule] = (), *, network: bool = False) -> None:
        """Become the user of the start message, for good: see the function of that name. From then on this thread and those
        that it makes can open no other files than these: see `confine.limit_files`.
        """
        confine.prepare_heaps()
        drop_privileges(self.start.uid)
        confine.limit_files(rules, network=network)


class Process(Protocol):
    """What a process's module makes of its Child."""

    def run(self) -> int:
        """Until told to stop; the exit code."""

    def close(self) -> None:
        """Let go of sockets."""


def run_process(kind: type[S], names: Sequence[str], make: Callable[[Child[S]], Process]) -> int:
    """The life of a child process; returns its exit code."""
    process = make(Child.begin(kind, names))
    try:
        return process.run()
    finally:
        process.close()
