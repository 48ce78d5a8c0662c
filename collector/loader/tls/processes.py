"""Which implementations of TLS a process has: its mapped files by name, and what is built into those that may have some.

Reading files is for a child (contents.py); what it has found is kept as long as a file is not written to.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Mapping as Dictionary
from dataclasses import dataclass

from collector.loader.mapped import DELETED, Mapping, Proc, stamp
from collector.loader.probes import SOURCES
from collector.loader.tls import contents, implementations
from collector.loader.tls.contents import Contents
from collector.loader.tls.implementations import BORINGSSL, DOTNET, LIBRESSL, OPENSSL, UNKNOWN, Named

SOURCE_NAMES = frozenset(source.name for source in SOURCES)
REMEMBERED = 4096  # files of which is known what they contain
JOB_FILES, JOB_BYTES = 32, 256 << 20  # of one child
FILES = 512  # of one process that are looked at


@dataclass(frozen=True, slots=True)
class File:
    """A file that a process has mapped executable: its mappings; its path without " (deleted)"; is it the program?"""

    mappings: tuple[Mapping, ...]
    path: str
    program: bool = False

    @property
    def key(self) -> str:
        """Which file it is: device and inode."""
        return self.mappings[0].file


@dataclass(frozen=True, slots=True)
class Library:
    """An implementation of TLS in a process. ``version``: "" when it is not known; ``built_in``: it is a part of this file,
    which is something else; ``runtime``: it is a language's, and may use another implementation.
    """

    name: str
    version: str
    file: File
    build_id: str = ""
    built_in: bool = False
    runtime: bool = False


def files_in(mappings: Iterable[Mapping], program: str) -> list[File]:
    """The files of these mappings, each once. ``program``: the path of what the process executes."""
    out: dict[str, list[Mapping]] = {}
    for mapping in mappings:
        if mapping.file in out or len(out) < FILES:
            out.setdefault(mapping.file, []).append(mapping)
    return [
        File(tuple(parts), parts[0].path.removesuffix(DELETED), any(part.path == program for part in parts))
        for parts in out.values()
    ]


def files_of(pid: int, proc: Proc) -> list[File]:
    """Those of a process; none when it is gone, is a kernel thread, or is not ours to look at."""
    return files_in(proc.mappings(pid), proc.program(pid))


def is_beside(file: File) -> bool:
    """Does it only hold what another library uses, and the version of that one? As libcrypto does for libssl."""
    base = file.path.rpartition("/")[2]
    return any(entry.beside is not None and entry.beside.fullmatch(base) for entry in implementations.NAMED)


def wanted(file: File, size: int) -> bool:
    """Must its contents be known?"""
    return (
        file.program
        or implementations.named(file.path) is not None
        or is_beside(file)
        or implementations.may_have_tls(file.path, size)
    )


def libraries_in(files: Sequence[File], known: Dictionary[str, Contents]) -> list[Library]:
    """The implementations in these files, the likeliest first: what the program has built in; libraries; what other files
    have built in; runtimes. ``known``: contents by `File.key`, of those that were read.
    """
    own: list[Library] = []
    found: list[Library] = []
    other: list[Library] = []
    runtimes: list[Library] = []
    order = {entry: number for number, entry in enumerate(implementations.NAMED)}
    by_name = [(entry, file) for file in files if (entry := implementations.named(file.path)) is not None]
    for entry, file in sorted(by_name, key=lambda pair: order[pair[0]]):
        library = _of_name(entry, file, files, known)
        (runtimes if entry.runtime else found).append(library)
    taken = {file.key for entry, file in by_name if not entry.runtime}
    for file in files:
        said = known.get(file.key)
        if said is None or file.key in taken:
            continue
        parts = [Library(name, version, file, said.build_id, built_in=True) for name, version in said.built_in.items()]
        (own if file.program else other).extend(parts)
    if any(library.name == OPENSSL for library in found):
        runtimes = [library for library in runtimes if library.name != DOTNET]  # it calls that OpenSSL
    return [*own, *found, *other, *runtimes]


def _of_name(entry: Named, file: File, files: Sequence[File], known: Dictionary[str, Contents]) -> Library:
    said = known.get(file.key, Contents())
    name, versions = entry.name, dict(said.versions)
    if entry.beside is not None:
        near = [other for other in files if entry.beside.fullmatch(other.path.rpartition("/")[2])]
        here = [other for other in near if os.path.dirname(other.path) == os.path.dirname(file.path)]
        for other in here or near[:1]:
            versions |= known.get(other.key, Contents()).versions
    if name == OPENSSL and BORINGSSL in said.built_in:
        name = BORINGSSL
    elif name == OPENSSL and LIBRESSL in versions and OPENSSL not in versions:
        name = LIBRESSL
    return Library(name, versions.get(name, ""), file, said.build_id, runtime=entry.runtime)


def is_probed(library: Library, probed: Callable[[str], bool]) -> bool:
    """Are there probes for it? ``probed``: are there any in a file, by `File.key`?"""
    return implementations.source_of(library.name) in SOURCE_NAMES and probed(library.file.key)


def label(libraries: Sequence[Library], files: Sequence[File], probed: Callable[[str], bool]) -> tuple[str, bool]:
    """(the name under which a process's TLS that is not seen is counted, has it a library with probes?). What is probed is
    seen, so it is the likeliest of the others. ``probed`` as in `is_probed`.
    """
    others = [library for library in libraries if not is_probed(library, probed)]
    hooked = any(probed(file.key) for file in files if not is_beside(file))
    if others:
        return others[0].name, hooked
    if libraries:
        return libraries[0].name, hooked
    program = next((file.path.rpartition("/")[2] for file in files if file.program), "")
    return program or UNKNOWN, hooked


class Reading:
    """The contents of files, read by children, one at a time. ``uid``: the user that they become."""

    def __init__(self, uid: int | None, proc: Proc) -> None:
        self._uid = uid
        self._proc = proc
        self._known: dict[tuple[str, str], Contents] = {}  # by key and stamp, the oldest first
        self._waiting: dict[tuple[str, str], int] = {}  # descriptors
        self._reading: list[tuple[str, str]] = []
        self._job: contents.Job | None = None

    def ask(self, pid: int, files: Sequence[File]) -> dict[str, tuple[str, str]]:
        """Let the files of a process be read that must be: by `File.key`, under which names `known` knows them."""
        names = {}
        for file in files:
            with contextlib.suppress(OSError):
                fd = self._proc.open(pid, file.mappings[0])
                name = file.key, stamp(fd)
                if name in self._known or name in self._waiting or name in self._reading:
                    names[file.key] = name
                elif wanted(file, os.fstat(fd).st_size):
                    self._waiting[name] = fd
                    names[file.key] = name
                    continue
                os.close(fd)
        return names

    def known(self, names: Dictionary[str, tuple[str, str]]) -> dict[str, Contents] | None:
        """The contents under these names; None when some are still to be read."""
        if any(name in self._waiting or name in self._reading for name in names.values()):
            return None
        return {key: self._known.get(name, contents.UNREADABLE) for key, name in names.items()}

    def turn(self) -> bool:
        """Some of what is to be done, without waiting. False when there is nothing to do."""
        if self._job is not None:
            found = self._job.contents()
            if found is None:
                return True
            for name, said in zip(self._reading, found, strict=True):
                self._known[name] = said
            self._reading, self._job = [], None
            while len(self._known) > REMEMBERED:
                del self._known[next(iter(self._known))]
        if self._waiting:
            self._start()
        return self.busy()

    def busy(self) -> bool:
        """Are there files to be read?"""
        return bool(self._waiting or self._job)

    def _start(self) -> None:
        fds: deque[int] = deque()
        size = 0
        for name, fd in list(self._waiting.items()):
            size += os.fstat(fd).st_size
            if fds and (len(fds) >= JOB_FILES or size > JOB_BYTES):
                break
            fds.append(self._waiting.pop(name))
            self._reading.append(name)
        try:
            self._job = contents.Job(list(fds), self._uid)
        except OSError:  # no child can be started: they are asked for again
            self._reading = []
        for fd in fds:
            os.close(fd)

    def close(self) -> None:
        """End the child, if there is one."""
        if self._job is not None:
            self._job.close()
            self._job, self._reading = None, []
        for fd in self._waiting.values():
            os.close(fd)
        self._waiting = {}


def why_not(library: Library) -> str:
    """Why nothing of it is captured, when there are no probes for it."""
    why = implementations.WHY.get(library.name)
    if library.name == implementations.GO and _before_1_17(library.version):
        why = implementations.OLD_GO
    if why is None:
        known = implementations.source_of(library.name) in SOURCE_NAMES
        why = implementations.NOT_FOUND if known else implementations.NO_PROBES
    if library.built_in and library.build_id:
        why += f"; build id {library.build_id}"
    return why


def _before_1_17(version: str) -> bool:
    parts = version.removeprefix("go").split(".")
    try:
        return (int(parts[0]), int(parts[1])) < (1, 17)
    except (IndexError, ValueError):
        return False
