"""Which processes are captured, as the kernel programs read it at every call (bpf/selection.h): a bit for each process, set
for those that are left alone.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Collection

from collector.loader import compiler, kernel
from collector.loader.choice import COMM_BYTES
from collector.loader.mapped import Proc

WORDS = compiler.DEFAULTS["MAX_PIDS"] // 64
LOOK_SECONDS = 0.5  # between two looks at the names of all processes, if names are chosen


class Selection:
    """``bits``: the descriptor of the map; ``chosen``: the processes to capture, and ``names``: those that are called so;
    all but our own when both are empty.
    """

    def __init__(
        self, bits: int, chosen: Collection[int] = (), names: Collection[str] = (), proc: Proc | None = None
    ) -> None:
        self._map = bits
        self._proc = proc or Proc()
        self._chosen = frozenset(chosen)
        self._names = frozenset(name.encode()[:COMM_BYTES].decode(errors="replace") for name in names)
        self._ours: frozenset[int] = frozenset()
        self._words: dict[int, int] = {}  # as they are in the map
        self._set: set[int] = set()  # the processes with a bit, or those without, if only some are chosen
        self._rest = (1 << 64) - 1 if chosen or names else 0  # a word of which nobody has said anything
        self._next_look = 0.0

    def begin(self) -> None:
        """Before anything is attached, once in the life of the programs. Raises OSError."""
        if self._rest:
            kernel.array_fill(self._map, struct.pack("=Q", self._rest), WORDS)

    def adopt(self, known: Collection[int]) -> None:
        """These may have bits that the loader before us had set; those of processes that are gone must be cleared. Our own
        is not set yet.
        """
        if self._names:
            self.begin()  # nobody knows whom it had found
            return
        self._set = set(self._chosen) or set(known) - {os.getpid()}
        for pid in self._set:
            self._words[pid >> 6] = self._words.get(pid >> 6, self._rest) ^ 1 << (pid & 63)

    def update(self, ours: Collection[int]) -> None:
        """``ours``: the processes of the collector, this one aside. Raises OSError."""
        self._ours = frozenset((*ours, os.getpid()))
        self._write()

    def turn(self, now: float) -> None:
        """Look for processes of the chosen names, from time to time. Raises OSError."""
        if self._names and now >= self._next_look:
            self._next_look = now + LOOK_SECONDS
            self._write()

    def _write(self) -> None:
        wanted: set[int] | frozenset[int] = self._ours
        if self._rest:
            named = {pid for pid in self._proc.pids() if self._proc.comm(pid) in self._names} if self._names else set()
            wanted = set(self._chosen) | named - self._ours
        for pid in self._set ^ wanted:
            word = self._words.get(pid >> 6, self._rest) ^ 1 << (pid & 63)
            self._words[pid >> 6] = word
            kernel.map_update(self._map, struct.pack("=I", pid >> 6), struct.pack("=Q", word))
        self._set = set(wanted)

    def stop(self) -> None:
        """No process any more, at once and whatever is attached. Raises OSError."""
        kernel.array_fill(self._map, b"\xff" * 8, WORDS)
