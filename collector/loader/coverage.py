"""Is a probe in a file, or in what a process has mapped of it? Asked of the bytes: the kernel writes a breakpoint into each
mapping of a file that has a probe.

Where a file system lies over others (overlay: the image of a container), one file has many device numbers, one for each
container that runs the image. The inode number is the same, and it stays the same when a container writes to the file and so
gets a copy of its own: then the processes that had it mapped before have the file below, and those that map it from then on
the copy. No number of the file tells that (docs/decisions/0015-uprobes.md).
"""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterable
from typing import Generic, NamedTuple, TypeVar

from collector.loader.mapped import Mapping, Proc, Process

_BREAKPOINT = 0xCC
_NOP5, _CALL = 0x0F, 0xE8  # from kernel 6.18 on a probe on a nop of five bytes becomes a call when it was hit
_PAGE = mmap.PAGESIZE
_MAP_FAILED = ctypes.c_void_p(-1).value

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]


class Witness(NamedTuple):
    """A place in a file where nobody had a probe before ours: its offset, and the byte that is there without one."""

    offset: int
    byte: int

    def is_probed(self, byte: int) -> bool:
        """Is this what the kernel puts there?"""
        return byte != self.byte and (byte == _BREAKPOINT or (self.byte == _NOP5 and byte == _CALL))


def overlaid(device: str) -> bool:
    """May a file on this device be the same as one on another? Such devices are none of a disk."""
    return device.startswith("00:")


def witness(fd: int, offset: int) -> Witness | None:
    """A place of a file as a witness; None: there is a probe already, whoever's it is, or it cannot be read."""
    try:
        byte = os.pread(fd, 1, offset)
    except OSError:
        return None
    found = Witness(offset, byte[0] if byte else _BREAKPOINT)
    return found if in_file(fd, found) is False else None


def in_file(fd: int, place: Witness) -> bool | None:
    """Would a process that maps the file now find a probe there? None: it cannot be read.

    A private mapping of our own gets the same breakpoints as everybody's. It is read through /proc, which says EIO where the
    file has become shorter and a load would be the end of us.
    """
    page = place.offset // _PAGE * _PAGE
    address = _libc.mmap(None, _PAGE, mmap.PROT_READ, mmap.MAP_PRIVATE, fd, page)
    if address in (None, _MAP_FAILED):
        return None
    try:
        memory = os.open("/proc/self/mem", os.O_RDONLY | os.O_CLOEXEC)
        try:
            byte = os.pread(memory, 1, address + place.offset - page)
        finally:
            os.close(memory)
    except OSError:
        return None
    finally:
        _libc.munmap(address, _PAGE)
    return place.is_probed(byte[0]) if byte else None


def in_process(proc: Proc, pid: int, mapping: Mapping, place: Witness) -> bool | None:
    """Is there a probe where a process has mapped it? None: it is in another part of the file, or cannot be read."""
    begin, end = (int(address, 16) for address in mapping.place.split("-"))
    address = begin + place.offset - mapping.offset
    if not begin <= address < end:
        return None
    byte = proc.byte(pid, address)
    return None if byte is None else place.is_probed(byte)


T = TypeVar("T")


class Coverage(Generic[T]):
    """Whose probes are in a mapping, as far as that is known: it stays so as long as the mapping does."""

    def __init__(self, proc: Proc) -> None:
        self._proc = proc
        self._known: dict[int, tuple[Process, dict[tuple[str, str], tuple[T, ...]]]] = {}

    def known(self, pid: int, mapping: Mapping) -> tuple[T, ...]:
        """What was found; nothing when that is not known."""
        process, found = self._known.get(pid, (None, {}))
        if not found or process != self._proc.process(pid):
            self._known.pop(pid, None)
            return ()
        return found.get((mapping.place, mapping.file), ())

    def find(self, pid: int, mapping: Mapping, candidates: Iterable[tuple[T, Witness]]) -> tuple[T, ...]:
        """Those of the candidates whose witness has a probe in this mapping."""
        found = tuple(one for one, place in candidates if in_process(self._proc, pid, mapping, place))
        process = self._proc.process(pid)
        if found and process is not None:
            _process, mappings = self._known.setdefault(pid, (process, {}))
            mappings[mapping.place, mapping.file] = found
        return found

    def forget(self) -> None:
        """Everything: something was released."""
        self._known.clear()

    def keep(self, pids: Iterable[int]) -> None:
        """Forget all other processes."""
        for pid in self._known.keys() - set(pids):
            del self._known[pid]
