"""Counters in shared memory: one block per child process, that child the only writer, the supervisor the reader.

They outlive the process that writes them, so what a killed process had taken in and not given out is known.
A block is 128 unsigned 64-bit numbers. The first 64 belong to the compiled core (shards/state.pxd), the others to
the Python around it; the names are in counter_names.py.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence

from collector import memfd

BLOCK = 128
CORE = 64


class CounterMemory:
    """All blocks of one collector, in a memfd that children inherit."""

    def __init__(self, blocks: int, fd: int | None = None, *, read_only: bool = False) -> None:
        self.blocks = blocks
        if fd is None:
            fd = memfd.create("collector-counters", max(mmap.PAGESIZE, blocks * BLOCK * 8))
        self.fd = fd
        self._map = mmap.mmap(fd, 0, prot=mmap.PROT_READ if read_only else mmap.PROT_READ | mmap.PROT_WRITE)
        self._numbers = memoryview(self._map).cast("Q")

    def read_only_fd(self) -> int:
        """A new descriptor that cannot be mapped for writing; the caller closes it."""
        return os.open(f"/proc/self/fd/{self.fd}", os.O_RDONLY | os.O_CLOEXEC)

    def block(self, number: int) -> memoryview:
        """The numbers of one child; raises IndexError."""
        if not 0 <= number < self.blocks:
            raise IndexError(number)
        return self._numbers[number * BLOCK : (number + 1) * BLOCK]


class Counters:
    """A block by names. ``names[i]`` lies at ``offset + i``."""

    def __init__(self, block: memoryview, names: Sequence[str], offset: int = CORE) -> None:
        if offset + len(names) > BLOCK:
            raise ValueError("too many counters for a block")
        self._block = block
        self._at = {name: offset + i for i, name in enumerate(names)}

    def __getitem__(self, name: str) -> int:
        return int(self._block[self._at[name]])

    def __setitem__(self, name: str, value: int) -> None:
        self._block[self._at[name]] = value

    def add(self, name: str, amount: int = 1) -> None:
        """Count up (wraps at 2**64, which no counter reaches)."""
        at = self._at[name]
        self._block[at] = (self._block[at] + amount) & 0xFFFFFFFFFFFFFFFF

    def snapshot(self) -> dict[str, int]:
        """All values, by name."""
        return {name: int(self._block[at]) for name, at in self._at.items()}
