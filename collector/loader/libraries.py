"""Which libraries processes have mapped, and the probes in them: found, attached, released when nobody maps them any more.

A library is a file, by device and inode as /proc/PID/maps has them; a probe in it acts in every process that maps it, those
that start later included, unless it is one on demand (demand.py). A file that is rewritten in place has its probes where
other instructions are now: each look compares, lets go of all of them, and has the file read again. Looking is done in
slices between two looks at the rings, and reading a file by a child (reading.py), so that nothing waits for it.

A file may be a library of a source by its name (Source.wants), and of some sources if it is the program of a process
(Source.executables).
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import os
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from collector.loader.catalogue import Catalogue
from collector.loader.choice import Choice
from collector.loader.coverage import Coverage, Witness, in_file, overlaid, witness
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
# Whole looks without a library before the supervisor lets go of it, and before it is released: who maps it in between is
# seen from the beginning.
ABSENT_LOOKS, RELEASE_LOOKS = 2, 3
NEWCOMERS_LOOKS = 6  # before it is released while there are processes that are to be looked at
LIBRARIES = 4096  # at a time: a bound for those who map file after file
WITNESSES = 8  # places of a library of which one may tell it from others
PATHS = 8192  # whose sources are remembered
WARN_SECONDS = 60.0  # between two warnings of what may happen at every look
RETRY_SECONDS, RETRY_MOST_SECONDS = 1.0, 300.0  # after what failed: the first time, and doubled until that


@dataclass(frozen=True, slots=True)
class OnDemand:
    """Places of a library for some processes: those that ask (``asks``), or else those of the choice (choice.py). ``order``:
    that of all probes; ``number``: the library's.
    """

    asks: bool
    order: int
    probe: Probe
    offsets: tuple[int, ...]
    number: int


@dataclass(eq=False, slots=True)
class Library:
    """A file as it was read, or as an earlier loader attached it. ``asked``: the sources that have answered, or are being
    asked; ``busy``: it is being read or attached; ``place``: where it has a probe, if others may have the file under another
    number; ``absent``: how many looks in a row nobody had it mapped; ``failed``: something of it could not be done since it
    is busy, so it is read again, ``not_before`` a time; ``delay``: until then.
    """

    target: Target
    asked: set[str] = field(default_factory=set)
    busy: bool = False
    demand: list[OnDemand] = field(default_factory=list)
    place: Witness | None = None
    absent: int = 0
    failed: bool = False
    delay: float = 0.0
    not_before: float = 0.0

    @property
    def inode(self) -> int:
        """Of the file, on whatever device."""
        return self.target.inode


@dataclass(eq=False, slots=True)
class File:
    """A file by device and inode, as processes have it mapped: its stamp when it was compared last, and the library that it
    was then. ``holder``: who had it mapped last; ``absent``: how many looks in a row nobody had.
    """

    library: Library
    stamp: str
    holder: tuple[int, Mapping]
    absent: int = 0


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
    descriptor of the map of that name, and ``newcomers``, who is to be looked at at once. ``choice``: whose libraries get
    probes; ``look_seconds``: at least so long between two looks at all processes, unless names are chosen.
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
        choice: Choice | None = None,
        look_seconds: float = 0.0,
    ) -> None:
        self._choice = choice or Choice()
        self._newcomers = newcomers
        # what is attached process by process is needed by who begins no program (fork), and by who gets a name
        self._look_seconds = 0.0 if self._choice.names else look_seconds
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
        for key in attachments.targets():  # of an earlier loader; read again, for what is on demand in them
            self._libraries[key] = Library(Target.of_key(key))
        self._files: dict[str, File] = {}  # by device and inode
        self._requests: dict[Request, Library] = {}  # that are being read or attached
        self._coverage: Coverage[Library] = Coverage(self._proc)
        self._seen: set[str] = set()  # files in this look
        self._used: set[Library] = set()  # likewise, by a mapping that has their probes
        self._compared: set[str] = set()  # of these, those of which nothing more is to be learnt in this look
        self._warned: dict[str, float] = {}
        # until when, and the files and libraries that it has
        self._costly: dict[int, tuple[float, frozenset[str], frozenset[Library]]] = {}
        self._pids: deque[int] | None = None
        self._next_look = self._next_comparison = self._look_took = 0.0
        self._now = 0.0
        self._work: deque[Work] = deque()
        self._demand = Demand(
            wanting if self._sources else None,
            attachments,
            self._proc,
            functools.partial(self._attach_for, asked=True, anyway=False),
            functools.partial(self._attach_for, asked=True),
        )

    def turn(self, now: float) -> None:
        """Some of what is to be done."""
        if not self._sources:
            return
        self._now = now
        until = time.monotonic() + SLICE_SECONDS
        while self._work and time.monotonic() < until and not self._leaving(self._work[0].library.target):
            self._attach()
        # what has a number now is attached in the next turn: before that, others may be told its name
        for request, answers in self._reading.turn(now):
            self._answered(request, answers)
        if self._newcomers is not None:
            for pid in self._newcomers.due(now, until):
                self._visit(pid, now)
        self._look(now, until)
        self._demand.turn(now)

    def come(self, pid: int, now: float) -> None:
        """That process is captured from now on."""
        if self._newcomers is not None:
            self._newcomers.add(pid, now)

    def figures(self) -> tuple[int, int, int]:
        """Files with probes, files that are to be tried again, files that were read."""
        failed = sum(1 for library in self._libraries.values() if library.delay)
        return len(self._attachments.targets()), failed, self._reading.read_files

    def pause(self) -> float:
        """Seconds until the next turn at most: there is something to do, or may be."""
        if self._work:
            return WORK_SECONDS
        waiting = self._reading.busy or (self._newcomers is not None and self._newcomers.waiting)
        return READ_SECONDS if waiting else LOOK_SECONDS

    def probed(self) -> set[str]:
        """The files (device:inode) in which something is attached."""
        targets = self._attachments.targets()
        return {name for name, file in self._files.items() if file.library.target.key in targets}

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
            self._coverage.keep(self._pids)
            self._costly = {pid: rest for pid, rest in self._costly.items() if rest[0] > now}
            self._seen = set()
            self._used = set()
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
            self._used |= rest[2]
            return
        began = time.thread_time()
        seen, used = self._seen, self._used
        self._seen, self._used = set(), set()
        self._look_at(pid)
        took = time.thread_time() - began
        self._look_took += min(took, COSTLY_SECONDS)
        if took > COSTLY_SECONDS:
            self._costly[pid] = now + LOOK_PART * took, frozenset(self._seen), frozenset(self._used)
        else:
            self._costly.pop(pid, None)
        self._seen |= seen
        self._used |= used

    def _compare(self) -> None:
        """Between two looks at all processes: has a file been written to? By the process that had it last."""
        self._compared = set()
        for name, file in list(self._files.items()):
            pid, mapping = file.holder
            if file.library.busy or mapping.file != name:
                continue
            try:
                fd = self._proc.open(pid, mapping)
            except OSError:
                continue
            if not self._take(Request(pid, mapping, fd, stamp(fd), frozenset(file.library.asked), True)):
                os.close(fd)

    def _look_at(self, pid: int) -> None:
        if not self._choice.everybody and not self._choice.takes(self._proc, pid):
            return
        mapped = self._proc.mappings(pid)
        if not mapped:
            return
        program = self._proc.program(pid) if self._executables else ""
        tried = set()
        for mapping in mapped:
            wanted = self._wanted(mapping, program)
            file = self._files.get(mapping.file)
            if file is not None:
                self._seen.add(mapping.file)
                self._use(pid, mapping, file)
            elif not wanted:
                continue  # anybody can map a library under another path: that says nothing of the file
            elif len(self._files) >= LIBRARIES:
                self._warn("%d libraries at a time are the most: others are left alone, as %r", LIBRARIES, mapping.path)
                continue
            if mapping.file in tried or self._nothing_new(mapping.file, file, wanted):
                continue
            try:
                fd = self._proc.open(pid, mapping)
            except OSError:
                tried.add(mapping.file)  # another process may have it too
                continue
            by_name = self._named(mapping.path.removesuffix(DELETED))
            if not self._take(Request(pid, mapping, fd, stamp(fd), wanted, bool(by_name))):
                os.close(fd)
        watched = self._demand.watches(pid)
        process = watched or (self._proc.process(pid) if self._choice.names else None)
        if process is not None:
            self._attach_for(process, mapped, asked=watched is not None)

    def _use(self, pid: int, mapping: Mapping, file: File) -> None:
        """Note whose probes are in a mapping."""
        file.holder = pid, mapping
        if not overlaid(mapping.device) or file.library.place is None:
            self._used.add(file.library)
            return
        found = self._coverage.known(pid, mapping)
        if not found:
            libraries = [one for one in self._libraries.values() if one.inode == mapping.inode and one.place is not None]
            found = self._coverage.find(pid, mapping, [(one, one.place) for one in libraries if one.place is not None])
        self._used.update(found or (file.library,))

    def _wanted(self, mapping: Mapping, program: str) -> frozenset[str]:
        """The sources that are to be asked of a file which a process has mapped; ``program``: what it executes."""
        by_name = self._named(mapping.path.removesuffix(DELETED))
        return by_name | self._executables if mapping.path == program else by_name

    def _nothing_new(self, name: str, file: File | None, wanted: frozenset[str]) -> bool:
        """Has this look compared the file already, and is nobody to be asked? Nor is a file while it is read or attached:
        that is done before each attaching.
        """
        if file is None:
            return False
        library = file.library
        return library.busy or (name in self._compared and (wanted <= library.asked or self._now < library.not_before))

    def _find_named(self, path: str) -> frozenset[str]:
        return frozenset(source.name for source in self._sources if source.wants(path))

    def _take(self, request: Request) -> bool:
        """Compare a file with what it was, and let it be read if that is needed: whether the descriptor is kept for it."""
        target = request.target
        file = self._files.get(target.file)
        if file is not None and file.stamp.partition(".")[0] != target.filesystem:
            return False  # on another device: the process has put it in the place of the one that it maps
        self._compared.add(target.file)
        if file is not None and file.stamp == request.stamp:
            library = file.library
        else:
            self._forget_outdated(request, file)
            known = self._libraries.get(target.key) or self._same(request)
            if known is not None and known.busy:
                return False  # when that is attached, it can be seen
            library = known or Library(target)
            if known is not None and known.target.key != target.key:
                log.info("the same file: %r (%s) as %s", target.name, target.file, known.target.file)
        asked = request.only(request.sources - library.asked)
        asks = bool(asked.sources) and self._now >= library.not_before and self._reading.ask(asked)
        if asks:
            library.asked |= asked.sources
            library.busy = True
            self._requests[asked] = library
        elif library.target.key not in self._libraries:
            return False  # too many are waiting: at the next look
        if not library.target.name:  # an earlier loader's
            library.target = dataclasses.replace(library.target, name=target.name)
        self._libraries[library.target.key] = library
        self._files[target.file] = File(library, request.stamp, (request.pid, request.mapping))
        self._seen.add(target.file)
        self._used.add(library)
        return asks

    def _forget_outdated(self, request: Request, file: File | None) -> None:
        """A file is not what it was. Either it was written to: then its probes are wrong. Or it is a copy now, and who has
        mapped what it was before keeps the probes. An earlier loader that attached it as it is has answered that.
        """
        target = request.target
        if target.key in self._attachments.targets():
            return
        of_file = [one for one in self._libraries.values() if one.target.file == target.file]
        for library in {*of_file, file.library} if file is not None else of_file:
            if library.busy or library.target.key == target.key:
                continue
            place = self._place(library, request.fd)
            if overlaid(target.device) and place is not None and in_file(request.fd, place) is False:
                log.info("a copy by now, whoever mapped it before keeps its probes: %r (%s)", target.name, target.file)
            else:
                self._forget(library)

    def _same(self, request: Request) -> Library | None:
        """The library that a file is under another device number, if there is one."""
        target = request.target
        if not overlaid(target.device):
            return None
        others = [
            one
            for one in self._libraries.values()
            if one.inode == target.inode and one.target.device != target.device and overlaid(one.target.device)
        ]
        # a copy may have probes at the same places as what is below it, from where this is
        for other in sorted(others, key=lambda one: one.target.contents != target.contents):
            if other.target.size != target.size:
                continue
            if other.busy:
                return other
            place = self._place(other, request.fd)
            probed = in_file(request.fd, place) if place is not None else None
            if probed or (probed is None and other.target.contents == target.contents):
                return other
        return None

    def _place(self, library: Library, fd: int) -> Witness | None:
        if library.place is None:
            offset = self._attachments.place(library.target.key)
            byte = os.pread(fd, 1, offset) if offset is not None else b""
            if offset is not None and byte:
                library.place = Witness(offset, byte[0])
        return library.place

    def _forget(self, library: Library) -> None:
        """A file is not what was read: detach all of it."""
        log.warning("changed in place, its probes are released: library %r (%s)", library.target.name, library.target.file)
        self._release(library, soon=True)

    def _release(self, library: Library, *, soon: bool = False) -> None:
        key = library.target.key
        self._libraries.pop(key, None)
        for name in [name for name, file in self._files.items() if file.library is library]:
            del self._files[name]
        self._coverage.forget()
        self._catalogue.remove(key)
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
        for name, file in list(self._files.items()):
            file.absent = 0 if name in self._seen else file.absent + 1
            if file.absent >= RELEASE_LOOKS and not file.library.busy:
                del self._files[name]
        # whom nobody has looked at yet may have mapped it in this moment; where that never ends, it does not count for ever
        newcomers = self._newcomers is not None and self._newcomers.waiting
        for library in list(self._libraries.values()):
            if library in self._used:
                if library.absent >= ABSENT_LOOKS:
                    self._attachments.restore(library.target.key)
                library.absent = 0
                continue
            library.absent += 1
            if library.absent >= (NEWCOMERS_LOOKS if newcomers else RELEASE_LOOKS) and not library.busy:
                self._release(library)
            elif library.absent == ABSENT_LOOKS:
                self._attachments.withdraw(library.target.key)

    # ---- what was read

    def _answered(self, request: Request, answers: Answers | None) -> None:
        """``request`` has come back, with what the sources say that could be asked; None: its process had ended before."""
        library = self._requests[request]
        target = library.target
        if answers is None:
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
            # in order: by the first one a new loader knows what an earlier one has attached
            offsets = tuple(sorted(site.offset for site in found.sites if site.program == program))
            assert isinstance(probe.at, Uprobe)
            if offsets and (probe.at.on_demand or self._choice.names):
                yield OnDemand(probe.at.on_demand, self._order[program], probe, offsets, number)
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
        del self._requests[request]
        library.busy = library.failed = False
        if not library.asked and library.target.key not in self._attachments.targets() and not library.delay:
            self._release(library)

    # ---- attaching

    def _leaving(self, target: Target) -> bool:
        """Are there still probes in the file that were released? What is attached there now would act twice."""
        return self._attachments.leaving(target.file, anywhere=overlaid(target.device))

    def _attach(self) -> None:
        work = self._work[0]
        library, request = work.library, work.request
        if stamp(request.fd) != request.stamp:
            self._work = deque(other for other in self._work if other.request is not request)
            self._end(library, request)
            self._forget(library)
            return
        self._work.popleft()
        if work.probe is None:
            library.demand = [*library.demand, *work.demand]
            if not library.failed:
                library.delay = 0.0
            if library.target.key in self._attachments.targets():
                log.info("attached: library %r (%s)", library.target.name, library.target.file)
            self._end(library, request)
            if self._choice.names:
                self._look_at(request.pid)  # it is for processes, not for the file
            return
        place = None
        if library.place is None and overlaid(library.target.device):
            place = next(filter(None, (witness(request.fd, offset) for offset in work.offsets[:WITNESSES])), None)
        try:
            self._attachments.attach(work.probe, library.target.at(request.target.path), work.offsets, cookie=work.number)
            library.place = library.place or place
        except OSError as error:
            source = next(name for name, probes in self._probes.items() if work.probe.program in probes)
            text = "%s in library %r (%s): %s"
            self._failed(library, source, text, work.probe.program, library.target.name, work.probe.without, error)

    def _attach_for(self, process: Process, mapped: Sequence[Mapping] = (), *, asked: bool, anyway: bool = True) -> bool:
        """Attach for a process what there is for it in the files that it maps; ``asked``: what is on demand, too. Not
        ``anyway``: only if all of them are read, False if they are not.
        """
        mapped = mapped or self._proc.mappings(process.pid)
        program = self._proc.program(process.pid) if self._executables else ""
        places: dict[tuple[int, str], tuple[OnDemand, Target]] = {}
        for mapping in mapped:
            file = self._files.get(mapping.file)
            if file is None:
                if not anyway and self._wanted(mapping, program):
                    return False
                continue
            if not anyway and (file.library.busy or not file.library.asked):
                return False
            path = self._proc.place(process.pid, mapping)
            for one in file.library.demand:
                if one.asks and not asked:
                    continue
                places.setdefault((one.order, file.library.target.key), (one, file.library.target.at(path)))
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
