"""Probes that are attached for those processes only which the kernel side asks for (Uprobe.on_demand; bpf/maps.h `wanting`).

    WANTED     a program has asked, at the process's first call that needs them
    WATCHED    what there is to attach in the files that the process maps is attached, or there is nothing

An entry goes, and its probes with it, when the process has ended; it is known by the time when it began, too, as process
ids are used again. A new loader finds both in the map and in the names of what was attached.
"""

from __future__ import annotations

import contextlib
import logging
import struct
from collections.abc import Callable

from collector.loader import kernel
from collector.loader.mapped import Proc, Process
from collector.loader.probes.attachments import Attachments

log = logging.getLogger("loader")

WANTED, WATCHED = 1, 2  # of bpf/maps.h
ENTRIES = 1024
TURN_SECONDS = 0.05  # between two looks at the map: a system call each
LATE_SECONDS = 5.0  # after which nobody waits for a file that cannot be read
GONE_SECONDS = 1.0  # between two looks whether processes have ended
_BPF_EXIST = 2


class Demand:
    """``wanting``: the descriptor of the map, None: nobody asks; ``attach`` attaches all for a process, or nothing: then it
    says False, as a file of it is not read yet. ``attach_anyway`` attaches what there is.
    """

    def __init__(
        self,
        wanting: int | None,
        attachments: Attachments,
        proc: Proc,
        attach: Callable[[Process], bool],
        attach_anyway: Callable[[Process], bool],
    ) -> None:
        self._map = wanting
        self._entries = kernel.Entries(wanting, 4, 4, ENTRIES) if wanting is not None else None
        self._attachments = attachments
        self._proc = proc
        self._attach = attach
        self._attach_anyway = attach_anyway
        self._asked: dict[int, float] = {}  # processes for which nothing could be attached yet, and since when
        self._watched: dict[int, Process] = {}
        self._next_turn = self._next_gone = 0.0

    def watches(self, pid: int) -> Process | None:
        """The process of this number, if it has all that it asked for."""
        return self._watched.get(pid)

    def turn(self, now: float) -> None:
        """What was asked for. Raises OSError."""
        if now < self._next_turn:
            return
        self._next_turn = now + TURN_SECONDS
        for key, value in self._entries.read() if self._entries is not None else ():
            (pid,), (state,) = struct.unpack("=I", key), struct.unpack("=I", value)
            if state == WANTED:
                self._serve(pid, now)
            elif pid not in self._watched:
                process = self._proc.process(pid)
                before = [one for one in self._attachments.processes() if one.pid == pid]
                if process is None or (before and process not in before):
                    self._forget(pid)
                else:  # an earlier loader's
                    self._watched[pid] = process
        if now >= self._next_gone:
            self._next_gone = now + GONE_SECONDS
            for process in {*self._watched.values(), *self._attachments.processes()}:
                if self._proc.process(process.pid) != process:
                    self.ended(process)

    def _serve(self, pid: int, now: float) -> None:
        process = self._proc.process(pid)
        before = self._watched.get(pid)
        if before is not None and before != process:
            self._attachments.release_process(self._watched.pop(pid))
        if process is None:
            self._forget(pid)
            return
        late = now > self._asked.setdefault(pid, now) + LATE_SECONDS
        if self._attach(process) or (late and self._attach_anyway(process)):
            self._asked.pop(pid, None)
            self._watched[pid] = process
            with contextlib.suppress(FileNotFoundError):  # others have needed the room: it asks again
                assert self._map is not None
                kernel.map_update(self._map, struct.pack("=I", pid), struct.pack("=I", WATCHED), _BPF_EXIST)
            log.info("attached: on demand, process %d", pid)

    def ended(self, process: Process) -> None:
        """A process has ended: its probes and its entry go."""
        self._attachments.release_process(process)
        if self._watched.get(process.pid) == process:
            del self._watched[process.pid]
            self._forget(process.pid)
        log.info("released: on demand, process %d", process.pid)

    def _forget(self, pid: int) -> None:
        self._asked.pop(pid, None)
        with contextlib.suppress(FileNotFoundError):
            assert self._map is not None
            kernel.map_delete(self._map, struct.pack("=I", pid))
