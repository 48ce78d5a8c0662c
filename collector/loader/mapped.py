"""What processes have mapped, as /proc says it: the files, and which process it is."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import NamedTuple

MAPS_BYTES = 16 << 20
DELETED = " (deleted)"  # what the kernel puts behind the path of a file that is unlinked
_MAPPING = re.compile(rb"^0*([0-9a-f]+-)0*([0-9a-f]+) ..x. ([0-9a-f]+) ([0-9a-f]+:[0-9a-f]+) ([0-9]+) +(/.*)$", re.MULTILINE)
_START_TIME = 19  # of the fields of /proc/PID/stat behind the name, the first of which is the state


class Mapping(NamedTuple):
    """A part of a file that is mapped executable. ``place`` is the range of addresses, written as in /proc/PID/map_files;
    ``offset``: which byte of the file is at its beginning.
    """

    place: str
    device: str
    inode: int
    path: str
    offset: int

    @property
    def file(self) -> str:
        """Device and inode."""
        return f"{self.device}:{self.inode}"


class Process(NamedTuple):
    """A process id and when that process began, in the kernel's ticks: ids are used again."""

    pid: int
    started: int

    def __str__(self) -> str:
        return f"{self.pid}.{self.started}"

    @classmethod
    def read(cls, text: str) -> Process:
        """The reverse of str()."""
        pid, _, started = text.partition(".")
        return cls(int(pid), int(started))


def mappings(text: bytes) -> Iterator[Mapping]:
    """Of each file that is mapped executable, from the text of /proc/PID/maps. In ranges there are no leading zeros."""
    for found in _MAPPING.finditer(text):
        place = (found[1] + found[2]).decode()
        yield Mapping(place, found[4].decode(), int(found[5]), os.fsdecode(found[6]), int(found[3], 16))


class Proc:
    """A mounted proc file system."""

    def __init__(self, root: str = "/proc") -> None:
        self._root = root

    def pids(self) -> list[int]:
        """Those of all processes."""
        return [int(name) for name in os.listdir(self._root) if name.isdigit()]

    def process(self, pid: int) -> Process | None:
        """The process that has this number now."""
        try:
            with open(f"{self._root}/{pid}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
            return Process(pid, int(fields[_START_TIME]))
        except (OSError, IndexError, ValueError):
            return None

    def mappings(self, pid: int) -> list[Mapping]:
        """The files that a process has mapped executable; none when it is gone."""
        try:
            with open(f"{self._root}/{pid}/maps", "rb") as maps:
                return list(mappings(maps.read(MAPS_BYTES)))
        except OSError:
            return []

    def byte(self, pid: int, address: int) -> int | None:
        """Of a process's memory; None when it cannot be read."""
        try:
            memory = os.open(f"{self._root}/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
            try:
                return os.pread(memory, 1, address)[0]
            finally:
                os.close(memory)
        except (OSError, IndexError):
            return None

    def program(self, pid: int) -> str:
        """The path of the file that a process executes, as in its mappings; empty when it is gone."""
        try:
            return os.readlink(f"{self._root}/{pid}/exe").replace("\n", "\\012")
        except OSError:
            return ""

    def comm(self, pid: int) -> str:
        """The name of a process; empty when it is gone."""
        return self._text(pid, "comm").decode(errors="replace").removesuffix("\n")

    def cgroups(self, pid: int) -> bytes:
        """Its control groups, a line for each hierarchy; empty when it is gone."""
        return self._text(pid, "cgroup")

    def _text(self, pid: int, name: str) -> bytes:
        try:
            with open(f"{self._root}/{pid}/{name}", "rb") as file:
                return file.read(MAPS_BYTES)
        except OSError:
            return b""

    def place(self, pid: int, mapping: Mapping) -> str:
        """The path that leads to a file that a process has mapped."""
        return f"{self._root}/{pid}/map_files/{mapping.place}"

    def open(self, pid: int, mapping: Mapping) -> int:
        """A descriptor of a file that a process has mapped, however it is mounted there. Raises OSError when it is gone, or
        somebody has a lease of it (fcntl F_SETLEASE): opening it would wait for the holder, for 45 seconds if it pleases.
        """
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
        try:
            fd = os.open(self.place(pid, mapping), flags)
            # before kernel 6.8 the mappings of an overlay have the numbers of the file below
            same = os.fstat(fd).st_ino == mapping.inode or mapping in self.mappings(pid)
        except PermissionError:  # needs CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN; the path may be another file by now
            fd = os.open(f"{self._root}/{pid}/root{mapping.path}", flags)
            same = os.fstat(fd).st_ino == mapping.inode
        if not same:
            os.close(fd)
            raise FileNotFoundError(2, "another file by now", mapping.path)
        return fd


def stamp(fd: int) -> str:
    """Tells a file, and whether it was written to: the device that it is on, size and times."""
    status = os.fstat(fd)
    return f"{status.st_dev:x}.{status.st_size:x}.{status.st_mtime_ns:x}.{status.st_ctime_ns:x}"
