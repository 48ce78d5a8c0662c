"""Which libraries processes have mapped, and the probes in them: found, attached, released when nobody maps them any more.

A library is a file, by device and inode as /proc/PID/maps has them; a probe in it acts in every process that maps it, those
that start later included. Looking is done in slices between two looks at the rings, and reading a file by a child
(locate.py), so that nothing waits for it.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections import deque
from collections.abc import Iterator, Sequence

from collector.loader import locate
from collector.loader.probes.attachments import Attachments, Target
from collector.loader.probes.probe import Build, Probe, Source, Unsupported, Uprobe

log = logging.getLogger("loader")

LOOK_SECONDS = 1.0  # between the beginnings of two looks at all processes
SLICE_SECONDS = 0.002  # of a look, or of attaching, at a time
ABSENT_LOOKS = 2  # whole looks without a library before it is released
LIBRARIES = 4096  # at a time: a bound for those who map file after file
MAPS_BYTES = 16 << 20
_MAPPING = re.compile(rb"^0*([0-9a-f]+-)0*([0-9a-f]+) ..x. [0-9a-f]+ ([0-9a-f]+:[0-9a-f]+) ([0-9]+) +(/.*)$", re.MULTILINE)


def mappings(text: bytes) -> Iterator[tuple[str, str, int, str]]:
    """(range of addresses, device, inode, path) of each file that is mapped executable, from the text of /proc/PID/maps. The
    range is written as in /proc/PID/map_files, without leading zeros.
    """
    for found in _MAPPING.finditer(text):
        yield (found[1] + found[2]).decode(), found[3].decode(), int(found[4]), os.fsdecode(found[5])


def open_mapped(pid: int, place: str, inode: int, path: str) -> int:
    """A descriptor of a file that a process has mapped, however it is mounted there. Raises OSError when it is gone."""
    try:
        fd = os.open(f"/proc/{pid}/map_files/{place}", os.O_RDONLY | os.O_CLOEXEC)
    except PermissionError:  # needs CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN; the path may be another file by now
        fd = os.open(f"/proc/{pid}/root{path}", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    if os.fstat(fd).st_ino != inode:
        os.close(fd)
        raise FileNotFoundError(2, "another file by now", path)
    return fd


class Libraries:
    """``modules``: those of the further sources, for the child; ``uid``: the user it becomes, None when there is none."""

    def __init__(
        self, sources: Sequence[Source], modules: Sequence[str], build: Build, attachments: Attachments, uid: int | None
    ) -> None:
        self._modules = modules
        self._attachments = attachments
        self._uid = uid
        # of each source that has any, in the order in which they are attached
        self._probes: dict[str, dict[str, Probe]] = {}
        for source in sources:
            uprobes = {probe.program: probe for probe in source.probes(build) if isinstance(probe.at, Uprobe)}
            if uprobes:
                self._probes[source.name] = uprobes
        self._sources = [source for source in sources if source.name in self._probes]
        # how many looks in a row a library was absent; those of an earlier loader are found again, or released
        self._known: dict[str, int] = dict.fromkeys(attachments.targets(), 0)
        self._ready: set[str] = set()  # of these, those that were read
        self._seen: set[str] = set()  # in this look
        self._pids: deque[int] | None = None
        self._next_look = 0.0
        # files to be read, with the descriptors by which they are attached to: the same file whatever becomes of its path
        self._waiting: deque[tuple[Target, Source, int]] = deque()
        self._job: locate.Job | None = None
        # what is to be attached; no probe: the library is done, and its descriptor closed
        self._work: deque[tuple[Probe | None, Target, int, list[int]]] = deque()

    def turn(self, now: float) -> None:
        """Some of what is to be done."""
        if not self._sources:
            return
        until = time.monotonic() + SLICE_SECONDS
        self._read()
        while self._work and time.monotonic() < until:
            self._attach()
        self._look(now, until)

    # ---- looking

    def _look(self, now: float, until: float) -> None:
        if self._pids is None:
            if now < self._next_look:
                return
            self._next_look = now + LOOK_SECONDS
            self._pids = deque(int(name) for name in os.listdir("/proc") if name.isdigit())
            self._seen = set()
        while self._pids and time.monotonic() < until:
            self._look_at(self._pids.popleft())
        if not self._pids:
            self._pids = None
            self._release_absent()

    def _look_at(self, pid: int) -> None:
        try:
            with open(f"/proc/{pid}/maps", "rb") as file:
                text = file.read(MAPS_BYTES)
        except OSError:
            return  # it is gone
        for place, device, inode, path in mappings(text):
            key = f"{device}:{inode}"
            if key in self._seen:
                continue
            self._seen.add(key)
            if key in self._ready or len(self._known) >= LIBRARIES and key not in self._known:
                continue
            source = next((source for source in self._sources if source.wants(path)), None)
            if source is None:
                continue
            try:
                fd = open_mapped(pid, place, inode, path)
            except OSError:
                self._seen.discard(key)  # another process may have it too
                continue
            self._known[key] = 0
            self._ready.add(key)
            self._waiting.append((Target(device, inode, f"/proc/self/fd/{fd}", path), source, fd))

    def _release_absent(self) -> None:
        for key, absent in list(self._known.items()):
            self._known[key] = 0 if key in self._seen else absent + 1
            if self._known[key] >= ABSENT_LOOKS and not self._busy(key):
                del self._known[key]
                self._ready.discard(key)
                if key in self._attachments.targets():
                    self._attachments.release(key)
                    log.info("released: library %s", key)

    def _busy(self, key: str) -> bool:
        return any(target.key == key for target, *_rest in self._waiting) or any(
            target.key == key for _probe, target, *_rest in self._work
        )

    # ---- reading

    def _read(self) -> None:
        if not self._waiting:
            return
        target, source, fd = self._waiting[0]
        if self._job is None:
            try:
                self._job = locate.Job(source.name, self._modules, fd, self._uid)
            except OSError as error:
                log.warning("not attached: %r: cannot start a child to read it: %s", target.name, error)
                self._waiting.popleft()
                os.close(fd)
            return
        data = self._job.poll()
        if data is None:
            return
        self._job = None
        self._waiting.popleft()
        probes = self._probes[source.name]
        found = locate.read_answer(data, list(probes), os.fstat(fd).st_size)
        if isinstance(found, Unsupported):
            log.warning("not attached: %r: %s", target.name, found.why)
            os.close(fd)
            return
        for program, probe in probes.items():
            offsets = [site.offset for site in found if site.program == program]
            # perf events one at a time: each takes some 10 ms
            portions = [offsets] if self._attachments.multi else [[offset] for offset in offsets]
            self._work.extend((probe, target, fd, portion) for portion in portions if portion)
        self._work.append((None, target, fd, []))

    # ---- attaching

    def _attach(self) -> None:
        probe, target, fd, offsets = self._work.popleft()
        if probe is None:
            os.close(fd)
            log.info("attached: library %r (%s)", target.name, target.key)
            return
        try:
            self._attachments.attach(probe, target, offsets)
        except OSError as error:
            log.warning("not attached: %s in library %r (%s): %s", probe.program, target.name, probe.without, error)

    def close(self) -> None:
        """End the child, if there is one."""
        if self._job is not None:
            self._job.kill()
            self._job = None
