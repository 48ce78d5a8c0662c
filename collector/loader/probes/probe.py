"""The vocabulary of probe sources: programs, where they are attached, and what a source says of itself.

A source is everything the collector knows of one place where bytes can be taken: the system calls, or one library. It
is data and pure functions; attachments.py alone opens and closes probes, compiler.py alone loads programs.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from elftools.elf.elffile import ELFFile

TPX, RAW = "tpx", "raw"
SOCKET, DESCRIPTOR = "socket", "descriptor"


@dataclass(frozen=True, slots=True)
class Build:
    """What was compiled: how system calls are hooked (TPX, RAW) and what a connection is known by (SOCKET, DESCRIPTOR)."""

    variant: str
    identity: str


class ProgramType(enum.IntEnum):
    """How a program is loaded: enum bpf_prog_type of include/uapi/linux/bpf.h."""

    UPROBE = 2  # BPF_PROG_TYPE_KPROBE
    TRACEPOINT = 5
    RAW_TRACEPOINT = 17


@dataclass(frozen=True, slots=True)
class Program:
    """A function of the kernel side's text that is loaded as a program."""

    name: str
    type: ProgramType


@dataclass(frozen=True, slots=True)
class Tracepoint:
    """A tracepoint of tracefs."""

    category: str
    name: str
    type = ProgramType.TRACEPOINT

    def __str__(self) -> str:
        return f"{self.category}:{self.name}"


@dataclass(frozen=True, slots=True)
class RawTracepoint:
    """A raw tracepoint: the kernel's own arguments, not those of its format."""

    name: str
    type = ProgramType.RAW_TRACEPOINT

    def __str__(self) -> str:
        return f"raw:{self.name}"


@dataclass(frozen=True, slots=True)
class Uprobe:
    """Instructions of a library, for all processes that map it; `Source.locate` finds them. ``returns``: when the function
    that begins there returns. ``on_demand``: for those processes only which the kernel side asks for (bpf/objects.h `want`).
    """

    returns: bool = False
    on_demand: bool = False
    type = ProgramType.UPROBE

    def __str__(self) -> str:
        return "uretprobe" if self.returns else "uprobe"


@dataclass(frozen=True, slots=True)
class Probe:
    """A program and its place. ``without`` says what is missing if it cannot be attached; nothing works if a ``required``
    one cannot. ``need`` names a statistic of the kernel side (compiler.STATS): then the probe is attached when that is
    first above zero, and at the start otherwise. A Uprobe is attached when a library is found.
    """

    program: str
    at: Tracepoint | RawTracepoint | Uprobe
    without: str
    required: bool = False
    need: str = ""


@dataclass(frozen=True, slots=True)
class Jump:
    """An entry of a program array: ``program`` goes on where another one jumps to ``index`` of the map ``table``."""

    table: str
    index: int
    program: str


@dataclass(frozen=True, slots=True)
class Site:
    """An instruction of a library, for a program: ``offset`` in bytes from the beginning of the file."""

    program: str
    offset: int


VALUES = 8  # of one library
LIBRARY_BYTES = 47  # of its name


@dataclass(frozen=True, slots=True)
class Found:
    """What a source has found in a file: its places, the name of the ``library`` with the version as far as it is known
    (`openssl-3.0.22`), and at most VALUES numbers for the programs (bpf/maps.h `libraries`).
    """

    sites: tuple[Site, ...]
    library: str
    values: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Unsupported:
    """Why nothing can be attached in a file."""

    why: str


class Source(Protocol):
    """One place where bytes can be taken. Sources inherit from this class and say what differs."""

    name: str  # unique, and no slash in it
    text: str = ""  # kernel text that is compiled behind that of bpf/collector.c
    maps: tuple[str, ...] = ()  # of that text: what user space needs
    executables: bool = False  # may it be in the executable of a process too, whatever its name?

    def programs(self, build: Build) -> Sequence[Program]:
        """Every program of the source, those without a probe included (targets of jumps, what the loader runs itself)."""
        ...

    def probes(self, build: Build) -> Sequence[Probe]:
        """In the order in which they are attached: what keeps state right before what makes data, so that a program never
        sees data of which it missed the opening.
        """
        ...

    def jumps(self, build: Build) -> Sequence[Jump]:
        """Entries of program arrays; they are made before any probe is attached."""
        return ()

    def wants(self, path: str) -> bool:
        """May a file that a process has mapped under this path be a library of this source? Pure, and asked often."""
        return False

    def locate(self, elf: ELFFile) -> Found | Unsupported:
        """Where the Uprobes of this source belong in a file. Pure; it runs in an unprivileged child that lives for this one
        file, whose author may be hostile: it may raise and may take long, and then nothing is attached there.
        """
        return Unsupported("no library")
