"""Which libraries processes have mapped, and the probes in them: found, attached, released when nobody maps them any more.

A library is a file, by device and inode as /proc/PID/maps has them; a probe in it acts in every process that maps it, those
that start later included. A file that is rewritten in place has its probes where other instructions are now: each look
compares, lets go of all of them, and has the file read again. Looking is done in slices between two looks at the rings, and
reading a file by a child (locate.py), so that nothing waits for it.
"""

from __future__ import annotations

import functools
import logging
import os
import re
import time
from collections import deque
from collections.abc import Iterator, Sequence

from collector.loader import locate
from collector.loader.catalogue import Catalogue
from collector.loader.probes.attachments import Attachments, Target
from collector.loader.probes.probe import Build, Probe, Source, Unsupported, Uprobe

log = logging.getLogger("loader")

LOOK_SECONDS = 1.0  # between the beginnings of two looks at all processes
SLICE_SECONDS = 0.002  # of a look, or of attaching, at a time
ABSENT_LOOKS = 2  # whole looks without a library before it is released
LIBRARIES = 4096  # at a time: a bound for those who map file after file
MAPS_BYTES = 16 << 20
PATHS = 8192  # whose source is remembered
WARN_SECONDS = 60.0  # between two warnings of what may happen at every look
DELETED = " (deleted)"  # what the kernel puts behind the path of a file that is unlinked
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


def stamp(fd: int) -> str:
    """Tells a file, and whether it was written to: the device that it is on, size and times."""
    status = os.fstat(fd)
    return f"{status.st_dev:x}.{status.st_size:x}.{status.st_mtime_ns:x}.{status.st_ctime_ns:x}"


def file_of(key: str) -> str:
    """The device and inode in a target's key."""
    return ":".join(key.split(":")[:3])


class Libraries:
    """``modules``: those of the further sources, for the child; ``catalogue``: where found libraries get a number; ``uid``:
    the user that the child becomes, None when there is none.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        modules: Sequence[str],
        build: Build,
        attachments: Attachments,
        catalogue: Catalogue,
        uid: int | None,
    ) -> None:
        self._modules = modules
        self._attachments = attachments
        self._catalogue = catalogue
        self._uid = uid
        # of each source that has any, in the order in which they are attached
        self._probes: dict[str, dict[str, Probe]] = {}
        for source in sources:
            uprobes = {probe.program: probe for probe in source.probes(build) if isinstance(probe.at, Uprobe)}
            if uprobes:
                self._probes[source.name] = uprobes
        self._sources = [source for source in sources if source.name in self._probes]
        self._source_of = functools.lru_cache(PATHS)(self._find_source)
        # All by device and inode. The target's key of those that are read, or that an earlier loader attached
        self._done: dict[str, str] = {}
        for key in attachments.targets():
            if self._done.setdefault(file_of(key), key) != key:
                attachments.release(key, soon=True)  # two states of one file: the look finds the other out
        # how many looks in a row a library was absent; those of an earlier loader are found again, or released
        self._known: dict[str, int] = dict.fromkeys(self._done, 0)
        self._ready: set[str] = set()  # of these, those that are read, or waiting for it
        self._seen: set[str] = set()  # in this look
        self._compared: set[str] = set()  # of these, those of which nothing more is to be learnt in this look
        self._warned: dict[str, float] = {}
        self._pids: deque[int] | None = None
        self._next_look = 0.0
        # files to be read, with the descriptors by which they are attached to: the same file whatever becomes of its path
        self._waiting: deque[tuple[Target, Source, int]] = deque()
        self._job: locate.Job | None = None
        # what is to be attached; no probe: the library is done, and its descriptor closed
        self._work: deque[tuple[Probe | None, Target, int, list[int], int]] = deque()

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
            self._compared = set()
        while self._pids and time.monotonic() < until:
            self._look_at(self._pids.popleft())
        if not self._pids:
            self._pids = None
            self._release_absent()

    def _look_at(self, pid: int) -> None:
        try:
            with open(f"/proc/{pid}/maps", "rb") as maps:
                text = maps.read(MAPS_BYTES)
        except OSError:
            return  # it is gone
        tried = set()
        for place, device, inode, path in mappings(text):
            file = f"{device}:{inode}"
            if file in self._compared or file in tried:
                continue
            # anybody can map a library under another path, so an unwanted path says nothing of the file
            source = self._source_of(path.removesuffix(DELETED))
            if file in self._known:
                self._seen.add(file)
            elif source is None:
                continue
            elif len(self._known) >= LIBRARIES:
                self._warn("%d libraries at a time are the most: others are left alone, as %r", LIBRARIES, path)
                continue
            if file in self._ready and file not in self._done:
                self._compared.add(file)  # that is done before anything is attached
                continue
            try:
                fd = open_mapped(pid, place, inode, path)
            except OSError:
                tried.add(file)  # another process may have it too
                continue
            if not self._take(Target(device, inode, f"/proc/self/fd/{fd}", path, stamp(fd)), source, fd):
                os.close(fd)

    def _find_source(self, path: str) -> Source | None:
        return next((source for source in self._sources if source.wants(path)), None)

    def _take(self, target: Target, source: Source | None, fd: int) -> bool:
        """Compare a file with what it was, and let it be read if that is needed: whether the descriptor is kept for it."""
        file = target.file
        done = self._done.get(file)
        if done is not None and done != target.key:
            before = done.removeprefix(file + ":").partition(".")[0]
            if before != target.stamp.partition(".")[0]:
                return False  # on another device: the process has put it in the place of the one that it maps
            self._forget(target, done)
        if file in self._ready:
            self._compared.add(file)
            return False
        if source is None:
            return False  # another process may have it under its own name
        self._seen.add(file)
        self._compared.add(file)
        self._known[file] = 0
        self._ready.add(file)
        self._waiting.append((target, source, fd))
        return True

    def _forget(self, target: Target, key: str) -> None:
        """A file is not what was read: detach all of it, and read it again."""
        log.warning("changed in place, its probes are released: library %r (%s)", target.name, target.file)
        self._done.pop(target.file, None)
        self._ready.discard(target.file)
        self._attachments.release(key, soon=True)
        self._catalogue.remove(key)

    def _warn(self, text: str, *arguments: object) -> None:
        """What may happen at every look, once a minute."""
        now = time.monotonic()
        if now >= self._warned.get(text, now):
            self._warned[text] = now + WARN_SECONDS
            log.warning(text, *arguments)

    def _release_absent(self) -> None:
        for file, absent in list(self._known.items()):
            self._known[file] = 0 if file in self._seen else absent + 1
            if self._known[file] >= ABSENT_LOOKS and not self._busy(file):
                del self._known[file]
                self._ready.discard(file)
                key = self._done.pop(file, None)
                if key is not None:
                    self._catalogue.remove(key)
                if key is not None and key in self._attachments.targets():
                    self._attachments.release(key)
                    log.info("released: library %s", file)

    def _busy(self, file: str) -> bool:
        return any(target.file == file for target, *_rest in self._waiting) or any(
            target.file == file for _probe, target, *_rest in self._work
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
                self._warn("not attached, to be tried again: %r: cannot start a child to read it: %s", target.name, error)
                self._waiting.popleft()
                self._ready.discard(target.file)
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
            self._done[target.file] = target.key  # until it is rewritten
            os.close(fd)
            return
        number = self._catalogue.add(target.key, found)
        for program, probe in probes.items():
            if isinstance(probe.at, Uprobe) and probe.at.on_demand:
                continue
            offsets = [site.offset for site in found.sites if site.program == program]
            # perf events one at a time: each takes some 10 ms
            portions = [offsets] if self._attachments.multi else [[offset] for offset in offsets]
            self._work.extend((probe, target, fd, portion, number) for portion in portions if portion)
        self._work.append((None, target, fd, [], number))

    # ---- attaching

    def _attach(self) -> None:
        probe, target, fd, offsets, number = self._work[0]
        if stamp(fd) != target.stamp:
            self._work = deque(work for work in self._work if work[1] != target)
            self._forget(target, target.key)
            os.close(fd)
            return
        self._work.popleft()
        if probe is None:
            os.close(fd)
            self._done[target.file] = target.key
            log.info("attached: library %r (%s), %s", target.name, target.file, self._catalogue.names()[number])
            return
        try:
            self._attachments.attach(probe, target, offsets, cookie=number)
        except OSError as error:
            log.warning("not attached: %s in library %r (%s): %s", probe.program, target.name, probe.without, error)

    def close(self) -> None:
        """End the child, if there is one."""
        if self._job is not None:
            self._job.kill()
            self._job = None
