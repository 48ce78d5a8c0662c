"""Files on their way through the children that read them (forkserver.py): in which order, how many at a time, what is
remembered of those that were read before.

Libraries come first, those of each owner (device and user) in turn and one of each at a time: whoever maps file after
file that takes long to read makes only their own wait. Of files that are read only because they are the program of a
process there are thousands on a node, and most of them live for a moment: they are read while the process lives, and that
may take only a part of a CPU.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import time
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from collector.loader import coverage, forkserver, locate, mapped
from collector.loader.probes.attachments import Target
from collector.loader.probes.probe import Found, Unsupported

log = logging.getLogger("loader")

JOBS = 2  # at a time
WAITING = 64  # programs, and libraries of one owner; each has a descriptor
WAITING_LIBRARIES = 256  # of all owners
REMEMBERED = 8192  # files
REMEMBERED_SITES = 256  # of one that is remembered
# What reading programs may take: a part of a CPU, and so many seconds at once, as at the start
PROGRAMS_PART, PROGRAMS_SECONDS = 0.2, 20.0
QUIET_SECONDS = 30.0  # without anything to read, until the server goes; it takes 20 MiB, and a tenth of a second to start
RESTART_SECONDS = 1.0
WARN_SECONDS = 60.0

Answers = Mapping[str, Found | Unsupported]  # by source; what is missing could not be read


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """A file that a process has mapped, the descriptor by which it is read and attached to (the same file whatever becomes
    of its path), its stamp, and the sources to be asked. ``by_name``: it is not just the program of a process.
    """

    pid: int
    mapping: mapped.Mapping
    fd: int
    stamp: str
    sources: frozenset[str]
    by_name: bool

    @property
    def target(self) -> Target:
        """To attach to."""
        m = self.mapping
        return Target(m.device, m.inode, f"/proc/self/fd/{self.fd}", m.path, self.stamp)

    def only(self, sources: frozenset[str]) -> Request:
        """The same for fewer sources."""
        return dataclasses.replace(self, sources=sources)


class Reading:
    """``programs``: of each source the names that its answer may have; ``modules``, ``uid``: as forkserver.Server."""

    def __init__(
        self, programs: Mapping[str, Sequence[str]], modules: Sequence[str], uid: int | None, proc: mapped.Proc
    ) -> None:
        self._programs = programs
        self._modules = modules
        self._uid = uid
        self._proc = proc
        self._server: forkserver.Server | None = None
        self._server_from = self._quiet_since = 0.0
        self._warned = -WARN_SECONDS
        self._libraries: OrderedDict[tuple[int, int], deque[Request]] = OrderedDict()  # by owner, the next one first
        self._executables: deque[Request] = deque()
        self._ready: deque[tuple[Request, Answers]] = deque()
        self._jobs: list[tuple[Request, forkserver.Job, float]] = []
        self._remembered: OrderedDict[str, dict[str, Found | Unsupported]] = OrderedDict()
        self._allowance, self._allowance_at = PROGRAMS_SECONDS, 0.0
        self.read_files = 0

    @property
    def busy(self) -> bool:
        """Is anything being read?"""
        return bool(self._jobs or self._ready)

    def begin(self) -> None:
        """Have the server started ahead."""
        if self._programs:
            self._serve(time.monotonic())

    def ask(self, request: Request) -> bool:
        """Have a file read; False: too many wait."""
        known = self._remembered.get(_file(request))
        if known is not None and known.keys() >= request.sources:
            self._remembered.move_to_end(_file(request))
            self._ready.append((request, {name: known[name] for name in request.sources}))
            return True
        if request.by_name and sum(map(len, self._libraries.values())) >= WAITING_LIBRARIES:
            return False
        queue = self._libraries.get(_owner(request), deque()) if request.by_name else self._executables
        if len(queue) >= WAITING:
            return False
        queue.append(request)
        if request.by_name:
            self._libraries[_owner(request)] = queue
        return True

    def _next_library(self) -> Request | None:
        """That of the owner whose turn it is; None when every owner has one being read: the other job is for others."""
        busy = {_owner(request) for request, _job, _began in self._jobs if request.by_name}
        owner = next((owner for owner in self._libraries if owner not in busy), None)
        if owner is None:
            return None
        queue = self._libraries.pop(owner)
        request = queue.popleft()
        if queue:
            self._libraries[owner] = queue  # behind all others
        return request

    def turn(self, now: float) -> Iterator[tuple[Request, Answers | None]]:
        """What has been read; None: it was not, for its process has ended. Never blocks."""
        self._allowance = min(PROGRAMS_SECONDS, self._allowance + (now - self._allowance_at) * PROGRAMS_PART)
        self._allowance_at = now
        while self._ready:
            yield self._ready.popleft()
        for one in list(self._jobs):
            request, job, began = one
            lines = job.poll()
            if lines is None:
                continue
            self._jobs.remove(one)
            if job.overdue and self._server is not None:
                self._server.kill(job)
            if not request.by_name:
                self._allowance -= time.monotonic() - began
            yield request, self._read(request, lines)
        while len(self._jobs) < JOBS and (self._libraries or self._executables):
            library = self._next_library()
            if library is not None:
                request = library
            elif not self._executables:
                break
            elif self._proc.process(self._executables[0].pid) is None:
                request = self._executables.popleft()
                yield request, None
                continue
            elif self._allowance > 0:
                request = self._executables.popleft()
            else:
                break
            if not self._serve(now):
                yield request, {}
                break
            assert self._server is not None
            try:
                job = self._server.read(request.fd, sorted(request.sources))
            except OSError:
                self._end_server()
                yield request, {}
                break
            self._jobs.append((request, job, time.monotonic()))
            self.read_files += 1
        if self._jobs:
            self._quiet_since = now
        elif self._server is not None and now - self._quiet_since > QUIET_SECONDS:
            self._end_server()

    def _serve(self, now: float) -> bool:
        """Is the server there?"""
        if self._server is not None and self._server.ended():
            self._end_server()
        if self._server is None and now >= self._server_from:
            try:
                self._server, self._quiet_since = forkserver.Server(self._modules, self._uid), now
            except OSError as error:
                self._server_from = now + RESTART_SECONDS
                if now >= self._warned + WARN_SECONDS:
                    self._warned = now
                    log.warning("cannot start a child to read libraries, to be tried again: %s", error)
        return self._server is not None

    def _end_server(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    def _read(self, request: Request, lines: Sequence[bytes]) -> Answers:
        size = os.fstat(request.fd).st_size
        answers: dict[str, Found | Unsupported] = {}
        for line in lines:
            name, answer = locate.read_line(line, {name: self._programs[name] for name in request.sources}, size)
            if answer is not None:
                answers[name] = answer
        if sum(len(found.sites) for found in answers.values() if isinstance(found, Found)) <= REMEMBERED_SITES:
            key = _file(request)
            self._remembered[key] = {**self._remembered.pop(key, {}), **answers}
            if len(self._remembered) > REMEMBERED:
                self._remembered.popitem(last=False)
        return answers

    def close(self) -> None:
        """End the server and its children."""
        for _request, job, _began in self._jobs:
            job.close()
        self._end_server()


def _owner(request: Request) -> tuple[int, int]:
    status = os.fstat(request.fd)
    return status.st_dev, status.st_uid


def _file(request: Request) -> str:
    """One file of an image has many device numbers (coverage.py)."""
    if coverage.overlaid(request.mapping.device):
        return f"{request.mapping.inode}:{request.stamp.partition('.')[2]}"
    return request.target.key
