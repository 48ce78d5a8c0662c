"""`collector check --tls`: every process that uses TLS, with what, whether its plaintext can be captured, and at what cost.

It says what a collector would do, and which probes are there already, whoever has put them there. Nothing is attached to any
program. Files are read by children (forkserver.py, tls/contents.py), as the loader has them read.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from collector import errors
from collector.loader import decode, forkserver, locate
from collector.loader.mapped import Proc, stamp
from collector.loader.probes import sources as probe_sources
from collector.loader.probes.probe import RAW, SOCKET, Build, Found, Source, Unsupported, Uprobe
from collector.loader.tls import cost, implementations, processes
from collector.loader.tls.cost import Cost
from collector.loader.tls.processes import File, Library, Reading

Answer = tuple[str, Found | Unsupported]  # of a source, by its name
ATTACHED, CAN_BE, CANNOT = "attached", "can be captured", "not captured"
INSTRUCTION_BYTES = 16  # the longest has 15
JOBS = max(2, os.cpu_count() or 1)  # children at a time
_BREAKPOINT = b"\xcc"
_POLL_SECONDS = 0.005


@dataclass(frozen=True, slots=True)
class Row:
    """One implementation of TLS in one process. ``places``: probes on emulated and on single-stepped instructions (those
    that are only attached on demand included); ``why``: of CANNOT.
    """

    pid: int
    process: str
    library: str
    version: str
    file: str
    state: str
    source: str = ""
    places: tuple[int, int] = (0, 0)
    why: str = ""


Name = tuple[str, str]  # of a file: which it is, and its stamp


class _Located:
    """What the sources find in files, each file read once (forkserver.py). Raises OSError."""

    def __init__(self, sources: Sequence[Source], modules: Sequence[str], uid: int | None, proc: Proc) -> None:
        self._proc = proc
        self._sources: list[Source] = []
        self._programs: dict[str, list[str]] = {}
        self._on_demand: dict[str, set[str]] = {}
        for source in sources:
            places = {probe.program: probe.at for probe in source.probes(Build(RAW, SOCKET)) if isinstance(probe.at, Uprobe)}
            if places:
                self._sources.append(source)
                self._programs[source.name] = list(places)
                self._on_demand[source.name] = {program for program, at in places.items() if at.on_demand}
        self._server = forkserver.Server(modules, uid)
        self._jobs: dict[Name, tuple[forkserver.Job, int]] = {}
        self._waiting: deque[tuple[Name, int, list[str]]] = deque()
        self._found: dict[Name, list[Answer]] = {}

    def ask(self, pid: int, file: File) -> Name | None:
        """The name of the answer; None when no source is to be asked."""
        asked = [source.name for source in self._sources if source.wants(file.path) or source.executables and file.program]
        if not asked:
            return None
        try:
            fd = self._proc.open(pid, file.mappings[0])
        except OSError:
            return None
        name = file.key, stamp(fd)
        if name in self._found:
            os.close(fd)
        else:
            self._found[name] = []
            self._waiting.append((name, fd, asked))
        return name

    def turn(self) -> bool:
        """Some of what is to be done, without waiting. False when there is nothing to do."""
        for name, (job, fd) in list(self._jobs.items()):
            lines = job.poll()
            if lines is None:
                continue
            if job.overdue:
                self._server.kill(job)
            size = os.fstat(fd).st_size
            os.close(fd)
            del self._jobs[name]
            for line in lines:
                source, answer = locate.read_line(line, self._programs, size)
                if answer is not None:
                    self._found[name].append((source, self._whole(source, answer)))
        while self._waiting and len(self._jobs) < JOBS:
            name, fd, asked = self._waiting.popleft()
            self._jobs[name] = self._server.read(fd, asked), fd
        return bool(self._waiting or self._jobs)

    def _whole(self, source: str, answer: Found | Unsupported) -> Found | Unsupported:
        """What is only there on demand is no library: it helps another one."""
        if isinstance(answer, Found) and {site.program for site in answer.sites} <= self._on_demand[source]:
            return Unsupported("nothing but what belongs to another library")
        return answer

    def found(self, name: Name | None) -> list[Answer]:
        """The answers, when there is no more to do."""
        return self._found[name] if name is not None else []

    def close(self) -> None:
        """End the children."""
        self._server.close()


def places(code: Sequence[bytes]) -> tuple[int, int]:
    """How many of these instructions the kernel emulates, and how many it runs under single step."""
    emulated = 0
    for each in code:
        first = next(decode.instructions(each, 0), None)
        emulated += first is not None and decode.emulated(first)
    return emulated, len(code) - emulated


def _read_places(pid: int, file: File, found: Found, proc: Proc) -> tuple[tuple[int, int], bool]:
    """(the two numbers of a Row, is a breakpoint at one of the places already?). Raises OSError."""
    offsets = sorted({site.offset for site in found.sites})
    fd = proc.open(pid, file.mappings[0])
    try:
        code = [os.pread(fd, INSTRUCTION_BYTES, offset) for offset in offsets]
    finally:
        os.close(fd)
    return places(code), any(
        _byte(pid, file, offset) == _BREAKPOINT != each[:1] for offset, each in zip(offsets, code, strict=True)
    )


def _byte(pid: int, file: File, offset: int) -> bytes:
    """That of a file's offset in the memory of a process; empty when it is not mapped there, or not ours to look at."""
    for mapping in file.mappings:
        begin, end = (int(number, 16) for number in mapping.place.split("-"))
        at = begin + offset - mapping.offset
        if begin <= at < end:
            with contextlib.suppress(OSError), open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
                return os.pread(memory.fileno(), 1, at)
    return b""


def rows_of(
    pid: int, files: Sequence[File], libraries: Sequence[Library], located: Mapping[str, Sequence[Answer]], proc: Proc
) -> list[Row]:
    """Of one process. ``located``: what the sources have found, by `File.key`."""
    try:
        with open(f"/proc/{pid}/comm", "rb") as comm:
            name = comm.read(64).rstrip(b"\n").decode("utf-8", "replace")
    except OSError:
        return []
    out = []
    used = set()
    for library in libraries:
        mine = [each for each in located.get(library.file.key, ()) if each[0] == implementations.source_of(library.name)]
        common = (pid, name, library.name, library.version, library.file.path)
        found = [(source, answer) for source, answer in mine if isinstance(answer, Found)]
        if found and (library.file.key, library.name) not in used:
            used |= {(library.file.key, library.name), (library.file.key, found[0][0])}
            out.append(_row(pid, library.file, found[0][1], found[0][0], common, proc))
            continue
        said = "; ".join(answer.why for _source, answer in mine if isinstance(answer, Unsupported))
        why = processes.why_not(library)
        out.append(Row(*common, CANNOT, why=f"{why} ({said})" if said else why))
    for file in files:  # what a source finds, and the tables of implementations.py do not know
        for source, answer in located.get(file.key, ()):
            if isinstance(answer, Found) and (file.key, source) not in used and not processes.is_beside(file):
                out.append(_row(pid, file, answer, source, (pid, name, "", "", file.path), proc))
    return out


def _row(pid: int, file: File, found: Found, source: str, common: tuple[int, str, str, str, str], proc: Proc) -> Row:
    library, _, version = found.library.partition("-")
    common = (*common[:2], common[2] or library, common[3] or version, common[4])
    try:
        counts, attached = _read_places(pid, file, found, proc)
    except OSError:
        return Row(*common, CAN_BE, source)
    return Row(*common, ATTACHED if attached else CAN_BE, source, counts)


def survey(uid: int | None, modules: Sequence[str] = ()) -> tuple[list[Row], int]:
    """(a row for each implementation of TLS in each process, processes that are not ours to look at). ``uid``: the user that
    reads files, None when there is none; ``modules``: of further probe sources.
    """
    proc = Proc()
    reading, located = Reading(uid, proc), _Located(probe_sources(modules), modules, uid, proc)
    asked = []
    hidden = 0
    for pid in sorted(proc.pids()):
        files = processes.files_of(pid, proc)
        if not files:
            hidden += not os.access(f"/proc/{pid}/maps", os.R_OK) and proc.process(pid) is not None
            continue
        asked.append((pid, files, reading.ask(pid, files), {file.key: located.ask(pid, file) for file in files}))
    try:
        while any([reading.turn(), located.turn()]):
            time.sleep(_POLL_SECONDS)
    finally:
        reading.close()
        located.close()
    rows: list[Row] = []
    for pid, files, names, answers in asked:
        libraries = processes.libraries_in(files, reading.known(names) or {})
        rows += rows_of(pid, files, libraries, {key: located.found(name) for key, name in answers.items()}, proc)
    return rows, hidden


def how(row: Row, costs: Cost) -> str:
    """The last column of the table: probes and what a hit costs, or why not."""
    if row.state == CANNOT:
        return row.why
    parts = []
    for number, words, each in (
        (row.places[0], "emulated", costs.emulated_ns),
        (row.places[1], "single-stepped", costs.stepped_ns),
    ):
        if number:
            parts.append(f"{number} {words}" + (f" ({each / 1000:.1f} us a hit)" if each is not None else ""))
    return f"{row.source}: probes on " + ", ".join(parts or ["instructions that cannot be read"])


def table(rows: Sequence[Row], costs: Cost) -> str:
    """What is printed."""
    lines = [("PID", "PROCESS", "LIBRARY", "VERSION", "STATE", "HOW, OR WHY NOT", "FILE")]
    lines += [
        (str(row.pid), row.process, row.library, row.version or "-", row.state, how(row, costs), row.file) for row in rows
    ]
    clean = [tuple("".join(c if c.isprintable() else "?" for c in cell) for cell in line) for line in lines]
    widths = [max(len(line[i]) for line in clean) for i in range(6)]
    return "".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(line, widths, strict=False)), line[6]]) + "\n"
        for line in clean
    )


def footer(costs: Cost, hidden: int) -> str:
    """What is said below the table."""
    lines = []
    if costs.cpuid_ns is not None:
        lines.append(f"a trap that a hypervisor takes part in (cpuid): {costs.cpuid_ns:.0f} ns")
    if costs.emulated_ns is not None and costs.stepped_ns is not None:
        lines.append(
            f"a hit of a probe, measured on code of this program: {costs.emulated_ns:.0f} ns where the kernel emulates the "
            f"instruction, {costs.stepped_ns:.0f} ns where it single-steps it"
        )
    if costs.why:
        lines.append(f"what a probe costs was not measured: {costs.why}")
    if hidden:
        lines.append(f"processes that may not be looked at, for want of CAP_SYS_PTRACE: {hidden}")
    return "".join(line + "\n" for line in lines)


def main(uid: int | None, *, as_json: bool) -> int:
    """`collector check --tls`; ``uid`` as in `survey`."""
    rows, hidden = survey(uid)
    costs = cost.measure()
    if as_json:
        said = {
            "processes": [
                {
                    "pid": row.pid,
                    "process": row.process,
                    "library": row.library,
                    "version": row.version,
                    "file": row.file,
                    "state": row.state,
                    "source": row.source,
                    "emulated_probes": row.places[0],
                    "single_stepped_probes": row.places[1],
                    "why": row.why,
                }
                for row in rows
            ],
            "cpuid_ns": costs.cpuid_ns,
            "emulated_probe_ns": costs.emulated_ns,
            "single_stepped_probe_ns": costs.stepped_ns,
            "not_measured": costs.why,
            "processes_not_readable": hidden,
        }
        sys.stdout.write(json.dumps(said) + "\n")
    else:
        sys.stdout.write((table(rows, costs) if rows else "no process uses TLS\n") + footer(costs, hidden))
    return errors.EXIT_OK
