"""An image (images.py) into the kernel: its maps made, its programs verified and loaded. No compiler is needed for it.

The verifier takes most of the time, and it takes programs side by side: one thread for each CPU.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from collector.loader import kernel
from collector.loader.images import Image, ProgramImage
from collector.loader.probes.probe import ProgramType

MULTI, PERF = "multi", "perf"  # how uprobes are attached: all places of a file in one link, or an event for each

_VERIFIED = re.compile(r"verified_insns:\s*(\d+)")
_MOST_THREADS = 4  # the largest program alone takes a fifth of the time


class RefusedError(Exception):
    """The kernel does not take an image; ``log``: the end of what its verifier says of the program, if it is one."""

    def __init__(self, what: str, log: str = "") -> None:
        super().__init__(what)
        self.log = log


@dataclass(frozen=True, slots=True)
class InKernel:
    """Descriptors by name; ``verified``: instructions that the verifier looked at, by program (0 before kernel 5.16)."""

    uprobes: str
    programs: dict[str, int]
    maps: dict[str, int]
    verified: dict[str, int]


def load(image: Image, uprobes: str = "") -> InKernel:
    """Make the maps, load the programs. ``uprobes``: PERF, or MULTI where the kernel can. Raises RefusedError, with nothing
    left behind.
    """
    with contextlib.suppress(OSError, ValueError):  # what maps may hold together, before kernel 5.11
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    maps: dict[str, int] = {}
    programs: dict[str, int] = {}
    try:
        make_maps(image, maps)
        if uprobes != PERF:
            uprobes = MULTI if _takes_multi(image, maps) else PERF
        _load_programs(image, maps, uprobes, programs)
        verified = {name: _verified_instructions(fd) for name, fd in programs.items()}
    except BaseException:
        for fd in (*programs.values(), *maps.values()):
            os.close(fd)
        raise
    return InKernel(uprobes, programs, maps, verified)


def make_maps(image: Image, made: dict[str, int]) -> None:
    """The maps of an image, into ``made`` by name, those that others are like first. Raises RefusedError."""
    for one in sorted(image.maps, key=lambda one: bool(one.inner)):
        try:
            made[one.name] = kernel.create_map(
                one.type,
                one.key_bytes,
                one.value_bytes,
                one.entries,
                flags=one.flags,
                inner=made[one.inner] if one.inner else 0,
                name=one.name,
            )
        except OSError as error:
            raise RefusedError(f"map {one.name}: {os.strerror(error.errno or 0)}") from None


def _load_program(program: ProgramImage, license_: str, maps: Mapping[str, int], uprobes: str) -> int:
    try:
        return kernel.load_program(
            program.with_maps(maps),
            program.type,
            name=program.name,
            license_=license_,
            attach_type=_attach_type(program, uprobes),
        )
    except OSError as error:
        raise RefusedError(f"program {program.name}: {os.strerror(error.errno or 0)}") from None


def _attach_type(program: ProgramImage, uprobes: str) -> int:
    return kernel.TRACE_UPROBE_MULTI if program.type == ProgramType.UPROBE and uprobes == MULTI else 0


def _load_programs(image: Image, maps: Mapping[str, int], uprobes: str, loaded: dict[str, int]) -> None:
    """All of them, the largest first; ``loaded`` has those that the kernel took, also when it refuses others."""
    threads = min(_MOST_THREADS, len(os.sched_getaffinity(0)))
    refused: RefusedError | None = None
    with ThreadPoolExecutor(threads) as pool:
        waiting = {
            program.name: pool.submit(_load_program, program, image.license, maps, uprobes)
            for program in sorted(image.programs, key=lambda program: -len(program.instructions))
        }
        for program in image.programs:
            try:
                loaded[program.name] = waiting[program.name].result()
            except RefusedError as error:
                refused = refused or RefusedError(str(error), _complaint(program, image.license, maps, uprobes))
    if refused is not None:
        raise refused


def _complaint(program: ProgramImage, license_: str, maps: Mapping[str, int], uprobes: str) -> str:
    return kernel.verifier_log(
        program.with_maps(maps), program.type, license_=license_, attach_type=_attach_type(program, uprobes)
    )


def _takes_multi(image: Image, maps: Mapping[str, int]) -> bool:
    """Has the kernel links of many uprobes (6.6)? An older one may load such a program and cannot attach it."""
    candidates = [program for program in image.programs if program.type == ProgramType.UPROBE]
    if not candidates:
        return False
    program = min(candidates, key=lambda program: len(program.instructions))
    try:
        fd = _load_program(program, image.license, maps, MULTI)
    except RefusedError:  # if it is the program that is wrong, the load that follows says so
        return False
    try:
        return kernel.has_uprobe_multi(fd)
    finally:
        os.close(fd)


def _verified_instructions(fd: int) -> int:
    found = _VERIFIED.search(Path(f"/proc/self/fdinfo/{fd}").read_text())
    return int(found[1]) if found else 0
