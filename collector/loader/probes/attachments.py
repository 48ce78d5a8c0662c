"""What is attached, and the only place that opens and closes probes.

Everything is known by a name that says what it is:

    kernel/PROGRAM/PLACE                      a tracepoint
    DEVICE:INODE:STAMP/PROGRAM/OFFSET         one place of a library (perf event), the offset in hexadecimal
    DEVICE:INODE:STAMP/PROGRAM/multi-N-OFFSET N places of a library in one link (uprobe_multi), and the first of them
    DEVICE:INODE:STAMP/PROGRAM/...@PID.START  for the process that began then

STAMP is what the file was when it was read, so that a new loader sees that it was rewritten meanwhile.

The supervisor keeps a duplicate of each descriptor under its name, so that a new loader goes on with them: `delta` is
what it has not been told yet, `adopt` the reverse.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import resource
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from collector import control
from collector.loader import kernel
from collector.loader.mapped import Process
from collector.loader.probes.probe import Probe, RawTracepoint, Tracepoint, Uprobe

KERNEL = "kernel"
SPARE_DESCRIPTORS = 256  # of those that a process may have: for everything but probes
# The last one to close a probe waits until every CPU has left it, some 40 ms a link and 80 ms a perf event. So the loader
# closes later than the supervisor, and not in its loop. And several at a time, for who maps the library again meanwhile has
# to wait: 12 links take 0.1 s instead of 0.6.
CLOSE_AFTER_SECONDS = 1.0
CLOSERS = 8  # threads; half of the waiting for a perf event is for a lock of the kernel, so more would not help
CLOSE_SOON_SECONDS = 0.1  # where a probe does harm: even if the supervisor may have to wait


@dataclass(frozen=True, slots=True)
class Target:
    """A file that processes map, by ``device`` and ``inode`` as /proc/PID/maps has them. ``path`` leads to it now, and for
    this process; ``name`` is for messages; ``stamp`` changes when the file is written to.
    """

    device: str
    inode: int
    path: str
    name: str = ""
    stamp: str = ""

    @property
    def file(self) -> str:
        """Which file it is, whatever is in it."""
        return f"{self.device}:{self.inode}"

    @property
    def key(self) -> str:
        """Its part of a name."""
        return f"{self.file}:{self.stamp}" if self.stamp else self.file

    @property
    def filesystem(self) -> str:
        """The part of the stamp that tells where the file is."""
        return self.stamp.partition(".")[0]

    @property
    def size(self) -> str:
        """The part of the stamp that says how long the file is."""
        return self.stamp.split(".")[1] if self.stamp else ""

    @property
    def contents(self) -> str:
        """The stamp without the part that tells where the file is."""
        return self.stamp.partition(".")[2]

    @classmethod
    def of_key(cls, key: str) -> Target:
        """The reverse of ``key``."""
        device, minor, inode, *stamp = key.split(":")
        return cls(f"{device}:{minor}", int(inode), "", stamp="".join(stamp))

    def at(self, path: str) -> Target:
        """The same by another path."""
        return dataclasses.replace(self, path=path)


class Attachments:
    """``programs``: descriptors by name; ``multi``: uprobes go into links of many (the programs were loaded for it)."""

    def __init__(self, programs: Mapping[str, int], tracefs: str, *, multi: bool) -> None:
        self._programs = programs
        self._tracefs = tracefs
        self.multi = multi
        self._held: dict[str, int] = {}
        self._new: dict[str, int] = {}  # held, and not in a delta yet
        self._gone: list[str] = []  # likewise
        self._leaving: list[str] = []  # released, and not closed yet: the thread that closes takes them out
        self._withdrawn: set[str] = set()  # held, and no longer by the supervisor
        self._failed: set[str] = set()
        self._most = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - SPARE_DESCRIPTORS

    def __len__(self) -> int:
        """Places that are attached."""
        return sum(_places(name) for name in self._held)

    def targets(self) -> set[str]:
        """The keys of the libraries in which something is attached."""
        return {name.partition("/")[0] for name in self._held} - {KERNEL}

    def place(self, target: str) -> int | None:
        """An offset at which something is attached in a library for all processes, by the library's key."""
        for name in self._held:
            if name.startswith(target + "/") and "@" not in name:
                return int(name.rpartition("/")[2].rpartition("-")[2], 16)
        return None

    def attach(
        self,
        probe: Probe,
        target: Target | None = None,
        offsets: Sequence[int] = (),
        *,
        cookie: int = 0,
        process: Process | None = None,
    ) -> None:
        """Attach what is not attached yet: a tracepoint, or the ``offsets`` of a file, for all processes or for one;
        ``cookie`` is a number for the program. Raises OSError; what was attached before that stays.
        """
        if isinstance(probe.at, Uprobe):
            if target is None:
                raise ValueError(f"{probe.program}: a uprobe needs a file")
            self._attach_offsets(probe, probe.at, target, offsets, cookie, process)
            return
        name = f"{KERNEL}/{probe.program}/{probe.at}"
        if name not in self._held:
            self._hold(name, self._open(probe.program, probe.at))

    def _open(self, program: str, at: Tracepoint | RawTracepoint) -> int:
        if isinstance(at, RawTracepoint):
            return kernel.attach_raw_tracepoint(self._programs[program], at.name)
        return kernel.attach_tracepoint(self._programs[program], at.category, at.name, self._tracefs)

    def _attach_offsets(
        self, probe: Probe, at: Uprobe, target: Target, offsets: Sequence[int], cookie: int, process: Process | None
    ) -> None:
        program, path = self._programs[probe.program], target.path
        whose, pid = (f"@{process}", process.pid) if process is not None else ("", 0)
        if self.multi:
            name = f"{target.key}/{probe.program}/multi-{len(offsets)}-{offsets[0]:x}{whose}" if offsets else ""
            if name and name not in self._held:
                fd = kernel.attach_uprobes(program, path, offsets, returns=at.returns, cookie=cookie, pid=pid)
                self._hold(name, fd)
            return
        for offset in offsets:
            name = f"{target.key}/{probe.program}/{offset:x}{whose}"
            if name not in self._held:
                fd = kernel.attach_uprobe(program, path, offset, returns=at.returns, cookie=cookie, pid=pid)
                self._hold(name, fd)

    def _hold(self, name: str, fd: int) -> None:
        self._held[name] = self._new[name] = fd
        if len(self._held) > self._most:
            self._let_go([name])
            raise OSError(errno.EMFILE, "too many probes for the descriptors that a process may have (RLIMIT_NOFILE)")

    def attach_once(self, probe: Probe) -> OSError | None:
        """As `attach`, for a tracepoint that may be missing: what went wrong, the first time."""
        name = f"{KERNEL}/{probe.program}/{probe.at}"
        if name in self._held or name in self._failed:
            return None
        try:
            self.attach(probe)
        except OSError as error:
            self._failed.add(name)
            return error
        return None

    def withdraw(self, target: str) -> None:
        """Have the supervisor let go of a library, by its key: it is about to be released, and is still attached here."""
        for name in self._of(target):
            self._withdrawn.add(name)
            if self._new.pop(name, None) is None:
                self._gone.append(name)

    def restore(self, target: str) -> None:
        """It is not released after all."""
        for name in self._of(target):
            if name in self._withdrawn:
                self._withdrawn.remove(name)
                self._new[name] = self._held[name]

    def release(self, target: str, *, soon: bool = False) -> None:
        """Detach all of a library, by its key. It takes some time; other libraries do not wait."""
        names = self._of(target)
        soon = soon or self._withdrawn.issuperset(names)
        self._let_go(names, CLOSE_SOON_SECONDS if soon else CLOSE_AFTER_SECONDS)

    def _of(self, target: str) -> list[str]:
        return [name for name in self._held if name.startswith(target + "/")]

    def processes(self) -> set[Process]:
        """Those for which alone something is attached."""
        return {Process.read(name.rpartition("@")[2]) for name in self._held if "@" in name}

    def release_process(self, process: Process) -> None:
        """Detach what is attached for this process alone."""
        self._let_go([name for name in self._held if name.endswith(f"@{process}")])

    def _let_go(self, names: Sequence[str], seconds: float = CLOSE_AFTER_SECONDS) -> None:
        fds = []
        for name in names:
            fds.append(self._held.pop(name))
            if name in self._withdrawn:
                self._withdrawn.remove(name)
            elif self._new.pop(name, None) is None:
                self._gone.append(name)
        if fds:
            self._leaving += names
            threading.Thread(target=self._close_later, args=(names, fds, seconds), daemon=True).start()

    def _close_later(self, names: Sequence[str], fds: Sequence[int], seconds: float) -> None:
        def close(name: str, fd: int) -> None:
            with contextlib.suppress(OSError):
                os.close(fd)
            self._leaving.remove(name)

        time.sleep(seconds)
        with ThreadPoolExecutor(min(CLOSERS, len(fds))) as pool:
            list(pool.map(close, names, fds))

    def leaving(self, file: str, *, anywhere: bool = False) -> bool:
        """Are there still probes in a file that were released? ``anywhere``: or in one with the same inode number on another
        device.
        """
        names = list(self._leaving)
        if anywhere:
            inode = file.rpartition(":")[2]
            return any(name.partition("/")[0].split(":")[2:3] == [inode] for name in names)
        return any(name.startswith((file + ":", file + "/")) for name in names)

    def adopt(self, named: Mapping[str, int]) -> None:
        """Take over what an earlier loader had attached; it is in no delta."""
        self._held.update(named)

    def delta(self) -> Iterator[tuple[list[str], list[int], list[str]]]:
        """(names, their descriptors, names of what is released): what the supervisor must be told since the last call, in
        portions for one message each.
        """
        new, self._new = self._new, {}
        gone, self._gone = self._gone, []
        for first in range(0, len(gone), control.MAX_FDS):  # first: a name may come back
            yield [], [], gone[first : first + control.MAX_FDS]
        for names, fds in control.batches(new):
            yield names, fds, []

    def close_kernel(self) -> None:
        """Detach the tracepoints, several at a time: 25 take 1 s instead of 2. Probes of libraries end with the supervisor's
        duplicates, when nothing waits.
        """
        fds = [self._held.pop(name) for name in list(self._held) if name.startswith(KERNEL + "/")]
        with ThreadPoolExecutor(CLOSERS) as pool:
            list(pool.map(os.close, fds))


def _places(name: str) -> int:
    how = name.rpartition("/")[2].partition("@")[0]
    return int(how.split("-")[1]) if how.startswith("multi-") else 1
