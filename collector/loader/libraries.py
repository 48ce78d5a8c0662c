"""Which libraries processes have mapped, and the probes in them: found, attached, released when nobody maps them any more.

A library is a file, by device and inode as /proc/PID/maps has them; a probe in it acts in every process that maps it, those
that start later included, unless it is one on demand (demand.py). A file that is rewritten in place has its probes where
other instructions are now: each look compares, lets go of all of them, and has the file read again. Looking is done in
slices between two looks at the rings, and reading a file by a child (reading.py), so that nothing waits for it.

A file may be a library of a source by its name (Source.wants), and of some sources if it is the program of a process
(Source.executables).
"""

from __future__ import annotations

import functools
import logging
import os
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from collector.loader import coverage
from collector.loader.catalogue import Catalogue
from collector.loader.demand import Demand
from collector.loader.mapped import DELETED, Mapping, Proc, Process, stamp
from collector.loader.newcomers import Newcomers
from collector.loader.probes.attachments import Attachments, Target
from collector.loader.probes.probe import Build, Found, Probe, Source, Unsupported, Uprobe
from collector.loader.reading import Answers, Reading, Request

log = logging.getLogger("loader")

LOOK_SECONDS = 1.0  # between the beginnings of two looks at all processes, and between two comparisons of each file
LOOK_PART = 50  # of a CPU: what looking at all processes may take
WORK_SECONDS, READ_SECONDS = 0.001, 0.005  # between two turns, while something is attached or read
COSTLY_SECONDS = 0.01  # of a CPU: who takes more to look at is looked at less often than others
SLICE_SECONDS = 0.002  # of a look, or of attaching, at a time
ABSENT_LOOKS = 2  # whole looks without a library before it is released
LIBRARIES = 4096  # at a time: a bound for those who map file after file
PATHS = 8192  # whose sources are remembered
CHECKED = 65536  # mappings of one file that is another one's too
WARN_SECONDS = 60.0  # between two warnings of what may happen at every look
RETRY_SECONDS, RETRY_MOST_SECONDS = 1.0, 300.0  # after what failed: the first time, and doubled until that


@dataclass(frozen=True, slots=True)
class OnDemand:
    """Places of a library for those processes only that ask; ``order``: that of all probes; ``number``: the library's."""

    order: int
    probe: Probe
    offsets: tuple[int, ...]
    number: int


@dataclass(eq=False, slots=True)
class Library:
    """A file as it was read, or as an earlier loader attached it. ``asked``: the sources that have answered, or are being
    asked; ``busy``: it is being read or attached; ``holder``: who had it mapped last; ``absent``: how many looks in a row
    nobody had; ``failed``: something of it could not be done since it is busy, so it is read again, ``not_before`` a time;
    ``delay``: until then. ``same``: the library whose probes it has, being the same file on another device (coverage.py);
    ``byte``: where that can be seen, and what the file has there; ``checked``: the processes in which it was, by mapping.
    """

    target: Target
    asked: set[str] = field(default_factory=set)
    busy: bool = False
    demand: list[OnDemand] = field(default_factory=list)
    holder: tuple[int, Mapping] | None = None
    absent: int = 0
    failed: bool = False
    delay: float = 0.0
    not_before: float = 0.0
    same: Library | None = None
    byte: tuple[int, int] = (0, 0)
    checked: set[tuple[int, str]] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Work:
    """Offsets to be attached. Without a probe: the request is done, and its descriptor is closed."""

    library: Library
    request: Request
    probe: Probe | None = None
    offsets: tuple[int, ...] = ()
    number: int = 0
    demand: tuple[OnDemand, ...] = ()


class Libraries:
    """``modules``: those of the further sources, for the child; ``catalogue``: where found libraries get a number; ``uid``:
    the user that the child becomes, None when there is none. Where the kernel's process ids are ours: ``wanting``, the
    descriptor of the map of that name, and ``newcomers``, who is to be looked at at once. ``look_seconds``: at least so long
    between two looks at all processes.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        modules: Sequence[str],
        build: Build,
        attachments: Attachments,
        catalogue: Catalogue,
        uid: int | None,
        *,
        wanting: int | None = None,
        proc: Proc | None = None,
        newcomers: Newcomers | None = None,
        look_seconds: float = 0.0,
    ) -> None:
        self._newcomers = newcomers
        self._look_seconds = look_seconds
        self._attachments = attachments
        self._catalogue = catalogue
        self._proc = proc or Proc()
        # of each source that has any, in the order in which they are attached
        self._probes: dict[str, dict[str, Probe]] = {}
        for source in sources:
            uprobes = {probe.program: probe for probe in source.probes(build) if isinstance(probe.at, Uprobe)}
            if uprobes:
                self._probes[source.name] = uprobes
        self._sources = [source for source in sources if source.name in self._probes]
        self._order = {
            program: number
            for number, program in enumerate(program for probes in self._probes.values() for program in probes)
        }
        self._executables = frozenset(source.name for source in self._sources if source.executables)
        self._named = functools.lru_cache(PATHS)(self._find_named)
        self._reading = Reading({name: list(probes) for name, probes in self._probes.items()}, modules, uid, self._proc)
        self._reading.begin()
        self._libraries: dict[str, Library] = {}  # by the target's key
        self._files: dict[str, Library] = {}  # by device and inode
        for key in attachments.targets():
            library = self._libraries[key] = Library(Target.of_key(key))
            if self._files.setdefault(library.target.file, library) is not library:
                self._release(library, soon=True)  # two states of one file: the look finds the other out
        self._seen: set[str] = set()  # in this look
        self._compared: set[str] = set()  # of these, those of which nothing more is to be learnt in this look
        self._warned: dict[str, float] = {}
        self._costly: dict[int, tuple[float, frozenset[str]]] = {}  # until when, and the libraries that it has
        self._pids: deque[int] | None = None
        self._next_look = self._next_comparison = self._look_took = 0.0
        self._now = 0.0
        self._work: deque[Work] = deque()
        self._demand: Demand | None = None
        if wanting is not None and self._sources:
            self._demand = Demand(
                wanting, attachments, self._proc, functools.partial(self._attach_for, anyway=False), self._attach_for
            )

    def turn(self, now: float) -> None:
        """Some of what is to be done."""
        if not self._sources:
            return
        self._now = now
        until = time.monotonic() + SLICE_SECONDS
        while self._work and time.monotonic() < until and not self._attachments.leaving(self._work[0].request.target.file):
            self._attach()
        # what has a number now is attached in the next turn: before that, others may be told its name
        for request, answers in self._reading.turn(now):
            self._answered(request, answers)
        if self._newcomers is not None:
            for pid in self._newcomers.due(now, until):
                self._visit(pid, now)
        self._look(now, until)
        if self._demand is not None:
            self._demand.turn(now)

    def pause(self) -> float:
        """Seconds until the next turn at most: there is something to do, or may be."""
        if self._work:
            return WORK_SECONDS
        waiting = self._reading.busy or (self._newcomers is not None and self._newcomers.waiting)
        return READ_SECONDS if waiting else LOOK_SECONDS

    def probed(self) -> set[str]:
        """The files (device:inode) in which something is attached."""
        targets = self._attachments.targets()
        return {file for file, library in self._files.items() if library.target.key in targets}

    # ---- looking

    def _look(self, now: float, until: float) -> None:
        if self._pids is None:
            if now < self._next_look:
                if now >= self._next_comparison:
                    self._next_comparison = now + LOOK_SECONDS
                    self._compare()
                return
            self._next_look = now + max(LOOK_SECONDS, self._look_seconds, LOOK_PART * self._look_took)
            self._next_comparison = now + LOOK_SECONDS
            self._look_took = 0.0
            self._pids = deque(self._proc.pids())
            self._costly = {pid: rest for pid, rest in self._costly.items() if rest[0] > now}
            self._seen = set()
            self._compared = set()
        while self._pids and time.monotonic() < until:
            self._visit(self._pids.popleft(), now)
        if not self._pids:
            self._pids = None
            self._release_absent()

    def _visit(self, pid: int, now: float) -> None:
        """Look at a process, unless that took long and it was lately: those with many mappings do not hold the others up."""
        rest = self._costly.get(pid)
        if rest is not None and now < rest[0]:
            self._seen |= rest[1]
            return
        began = time.thread_time()
        before = self._seen
        self._seen = set()
        self._look_at(pid)
        files, self._seen = self._seen, before | self._seen
        took = time.thread_time() - began
        self._look_took += min(took, COSTLY_SECONDS)
        if took > COSTLY_SECONDS:
            self._costly[pid] = now + LOOK_PART * took, frozenset(files)
        else:
            self._costly.pop(pid, None)

    def _compare(self) -> None:
        """Between two looks at all processes: has a file been written to? By the process that had it last."""
        self._compared = set()
        for file, library in list(self._files.items()):
            if library.holder is None or library.busy:
                continue
            pid, mapping = library.holder
            try:
                fd = self._proc.open(pid, mapping)
            except OSError:
                continue
            if mapping.file != file or not self._take(Request(pid, mapping, fd, stamp(fd), frozenset(library.asked), True)):
                os.close(fd)

    def _look_at(self, pid: int) -> None:
        mapped = self._proc.mappings(pid)
        if not mapped:
            return
        program = self._proc.program(pid) if self._executables else ""
        tried = set()
        for mapping in mapped:
            # anybody can map a library under another path, so an unwanted path says nothing of the file
            by_name = self._named(mapping.path.removesuffix(DELETED))
            wanted = self._wanted(mapping, program)
            library = self._files.get(mapping.file)
            if library is not None and library.same is not None and not library.busy:
                library = self._still_the_same(library, pid, mapping)
            if library is not None:
                self._seen.add(mapping.file)
                library.holder = pid, mapping
            elif not wanted:
                continue
            elif len(self._files) >= LIBRARIES:
                self._warn("%d libraries at a time are the most: others are left alone, as %r", LIBRARIES, mapping.path)
                continue
            if mapping.file in tried or self._nothing_new(mapping.file, library, wanted):
                continue
            if library is not None and library.busy:
                self._compared.add(mapping.file)  # that is done before anything is attached
                continue
            try:
                fd = self._proc.open(pid, mapping)
            except OSError:
                tried.add(mapping.file)  # another process may have it too
                continue
            if not self._take(Request(pid, mapping, fd, stamp(fd), wanted, bool(by_name))):
                os.close(fd)
        if self._demand is not None:
            process = self._demand.watches(pid)
            if process is not None:
                self._attach_for(process, mapped)

    def _still_the_same(self, library: Library, pid: int, mapping: Mapping) -> Library | None:
        """A library that has another one's probes, if this process sees them too. Else it has a copy, which is read anew."""
        assert library.same is not None
        self._seen.add(library.same.target.file)
        here = pid, mapping.place
        if here in library.checked:
            return library
        if len(library.checked) >= CHECKED:
            library.checked.clear()
        if coverage.covered(self._proc, pid, mapping, *library.byte) is False:
            self._release(library)
            return None
        library.checked.add(here)
        return library

    def _wanted(self, mapping: Mapping, program: str) -> frozenset[str]:
        """The sources that are to be asked of a file which a process has mapped; ``program``: what it executes."""
        by_name = self._named(mapping.path.removesuffix(DELETED))
        return by_name | self._executables if mapping.path == program else by_name

    def _nothing_new(self, file: str, library: Library | None, wanted: frozenset[str]) -> bool:
        """Has this look compared the file already, and is nobody to be asked?"""
        return library is not None and file in self._compared and (wanted <= library.asked or self._now < library.not_before)

    def _find_named(self, path: str) -> frozenset[str]:
        return frozenset(source.name for source in self._sources if source.wants(path))

    def _take(self, request: Request) -> bool:
        """Compare a file with what it was, and let it be read if that is needed: whether the descriptor is kept for it."""
        target = request.target
        library = self._files.get(target.file)
        if library is not None and library.target.key != target.key:
            if library.target.filesystem != target.filesystem:
                return False  # on another device: the process has put it in the place of the one that it maps
            self._forget(library)
            library = None
        self._compared.add(target.file)
        missing = request.sources - library.asked if library is not None else request.sources
        if not missing or (library is not None and self._now < library.not_before):
            return False
        library = library or Library(target)
        if not self._reading.ask(request.only(missing)):
            return False  # there is much to do: at the next look
        self._files[target.file] = self._libraries[target.key] = library
        self._seen.add(target.file)
        library.target = target  # an earlier loader's has no name
        library.holder = request.pid, request.mapping
        library.asked |= missing
        library.busy = True
        return True

    def _forget(self, library: Library) -> None:
        """A file is not what was read: detach all of it."""
        log.warning("changed in place, its probes are released: library %r (%s)", library.target.name, library.target.file)
        self._release(library, soon=True)

    def _release(self, library: Library, *, soon: bool = False) -> None:
        key = library.target.key
        self._libraries.pop(key, None)
        for file in [file for file, other in self._files.items() if other is library]:
            del self._files[file]
        self._catalogue.remove(key)
        for other in [other for other in self._libraries.values() if other.same is library]:
            self._release(other)  # it has no probes any more: it is read again
        if key in self._attachments.targets():
            self._attachments.release(key, soon=soon)
            log.info("released: library %s", library.target.file)

    def _warn(self, text: str, *arguments: object) -> None:
        """What may happen at every look, once a minute."""
        now = time.monotonic()
        if now >= self._warned.get(text, now):
            self._warned[text] = now + WARN_SECONDS
            log.warning(text, *arguments)

    def _release_absent(self) -> None:
        for file, library in list(self._files.items()):
            library.absent = 0 if file in self._seen else library.absent + 1
            if library.absent >= ABSENT_LOOKS and not library.busy:
                self._release(library)

    # ---- what was read

    def _answered(self, request: Request, answers: Answers) -> None:
        """``request`` has come back, with what the sources say that could be asked."""
        target = request.target
        library = self._libraries.get(target.key)
        if library is None:
            os.close(request.fd)
            return
        if request.dropped:  # nobody lives who has it
            library.asked -= request.sources
            self._end(library, request)
            return
        names, demand = [], list[OnDemand]()
        for source in self._sources:
            if source.name not in request.sources:
                continue
            found = answers.get(source.name)
            if isinstance(found, Found):
                number = self._catalogue.add(target.key, source.name, found)
                names.append(found.library)
                demand += self._arrange(library, request, source.name, found, number)
            elif isinstance(found, Unsupported):
                # most programs are no library of anybody's
                by_name = source.name in self._named(target.name.removesuffix(DELETED))
                level = logging.WARNING if by_name else logging.DEBUG
                log.log(level, "not attached: %r: %s", target.name, found.why)
            else:
                self._failed(library, source.name, "%s could not read %r", source.name, target.name)
        if names:
            log.info("read: library %r (%s), %s", target.name, target.file, ", ".join(names))
        self._work.append(Work(library, request, demand=tuple(demand)))

    def _arrange(self, library: Library, request: Request, source: str, found: Found, number: int) -> Iterable[OnDemand]:
        for program, probe in self._probes[source].items():
            offsets = tuple(site.offset for site in found.sites if site.program == program)
            assert isinstance(probe.at, Uprobe)
            if offsets and probe.at.on_demand:
                yield OnDemand(self._order[program], probe, offsets, number)
                continue
            # perf events one at a time: each takes some 10 ms
            portions = [offsets] if self._attachments.multi else [(offset,) for offset in offsets]
            self._work.extend(Work(library, request, probe, portion, number) for portion in portions if portion)

    def _failed(self, library: Library, source: str, text: str, *arguments: object) -> None:
        """Something of a source could not be done, which may be otherwise later."""
        self._warn("not attached, to be tried again: " + text, *arguments)
        library.asked.discard(source)
        library.failed = True
        library.delay = min(RETRY_MOST_SECONDS, library.delay * 2 or RETRY_SECONDS)
        library.not_before = self._now + library.delay

    def _end(self, library: Library, request: Request) -> None:
        os.close(request.fd)
        library.busy = library.failed = False
        if (
            library.same is None
            and not library.asked
            and library.target.key not in self._attachments.targets()
            and not library.delay
        ):
            self._release(library)

    # ---- attaching

    def _attach(self) -> None:
        work = self._work[0]
        library, request = work.library, work.request
        if stamp(request.fd) != request.stamp:
            self._work = deque(other for other in self._work if other.request is not request)
            self._forget(library)
            os.close(request.fd)
            return
        if work.probe is not None and library.same is None and not self._is_new(library, request, work):
            return
        self._work.popleft()
        if work.probe is not None and library.same is not None:
            return
        if work.probe is None:
            library.demand = [*library.demand, *work.demand]
            if not library.failed:
                library.delay = 0.0
            if library.same is not None or library.target.key in self._attachments.targets():
                log.info("attached: library %r (%s)", library.target.name, library.target.file)
            self._end(library, request)
            return
        try:
            self._attachments.attach(work.probe, request.target, work.offsets, cookie=work.number)
        except OSError as error:
            source = next(name for name, probes in self._probes.items() if work.probe.program in probes)
            text = "%s in library %r (%s): %s"
            self._failed(library, source, text, work.probe.program, library.target.name, work.probe.without, error)

    def _is_new(self, library: Library, request: Request, work: Work) -> bool:
        """Before the first probe of a file: False when it cannot be told yet whether it has another library's probes; if it
        has, `same` is that library.
        """
        if library.target.key in self._attachments.targets():
            return True
        for other in list(self._files.values()):
            if other is library or other.same is not None or not coverage.alike(library.target, other.target):
                continue
            if other.target.key not in self._attachments.targets():
                continue
            offset = work.offsets[0]
            own = os.pread(request.fd, 1, offset)
            byte = offset, own[0] if own else coverage.BREAKPOINT
            mapping = self._with_byte(request, offset)
            found = coverage.covered(self._proc, request.pid, mapping, *byte) if mapping else None
            if found is None and self._proc.process(request.pid) is None:  # with the next one that has it
                self._work = deque(one for one in self._work if one.request is not request)
                self._release(library)
                os.close(request.fd)
                return False
            if found:
                library.same, library.byte = other, byte
                library.checked.add((request.pid, request.mapping.place))
                log.info("the same file: %r (%s) as %s", library.target.name, library.target.file, other.target.file)
                break
        return True

    def _with_byte(self, request: Request, offset: int) -> Mapping | None:
        """The mapping of the request's file, in its process, that has this byte of it."""
        for mapping in self._proc.mappings(request.pid):
            begin, end = (int(part, 16) for part in mapping.place.split("-"))
            if mapping.file == request.target.file and 0 <= offset - mapping.offset < end - begin:
                return mapping
        return None

    def _attach_for(self, process: Process, mapped: Sequence[Mapping] = (), *, anyway: bool = True) -> bool:
        """Attach for a process what is there on demand in the files that it maps. Not ``anyway``: only if all of them are
        read, False if they are not.
        """
        mapped = mapped or self._proc.mappings(process.pid)
        program = self._proc.program(process.pid) if self._executables else ""
        places: dict[tuple[int, str], tuple[OnDemand, Target]] = {}
        for mapping in mapped:
            library = self._files.get(mapping.file)
            if not anyway and (library.busy or not library.asked if library is not None else self._wanted(mapping, program)):
                return False
            if library is None:
                continue
            path = self._proc.place(process.pid, mapping)
            for one in library.demand:
                places.setdefault((one.order, library.target.key), (one, library.target.at(path)))
        # what keeps state right comes first, in whatever file it is
        for _key, (one, target) in sorted(places.items(), key=lambda item: item[0]):
            try:
                self._attachments.attach(one.probe, target, one.offsets, cookie=one.number, process=process)
            except OSError as error:
                text = "not attached for process %d: %s in library %r (%s): %s"
                self._warn(text, process.pid, one.probe.program, target.name, one.probe.without, error)
        return True

    def close(self) -> None:
        """End the children, if there are any."""
        self._reading.close()
