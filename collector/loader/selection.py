"""Which processes are captured, as the kernel programs read it at every call (bpf/selection.h): a bit for each process, set
for those that are left alone.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Collection

from collector.loader import compiler, kernel

WORDS = compiler.DEFAULTS["MAX_PIDS"] // 64


class Selection:
    """``bits``: the descriptor of the map; ``chosen``: the processes to capture, all but our own when it is empty."""

    def __init__(self, bits: int, chosen: Collection[int] = ()) -> None:
        self._map = bits
        self._chosen = frozenset(chosen)
        self._words: dict[int, int] = {}  # as they are in the map
        self._set: set[int] = set()  # the processes with a bit, or with --pid those without
        self._rest = (1 << 64) - 1 if chosen else 0  # a word of which nobody has said anything

    def begin(self) -> None:
        """Before anything is attached, once in the life of the programs. Raises OSError."""
        if self._chosen:
            kernel.array_fill(self._map, struct.pack("=Q", self._rest), WORDS)

    def adopt(self, known: Collection[int]) -> None:
        """These may have bits that the loader before us had set; those of processes that are gone must be cleared. Our own
        is not set yet.
        """
        self._set = set(self._chosen) or set(known) - {os.getpid()}
        for pid in self._set:
            self._words[pid >> 6] = self._words.get(pid >> 6, self._rest) ^ 1 << (pid & 63)

    def update(self, ours: Collection[int]) -> None:
        """``ours``: the processes of the collector, this one aside. Raises OSError."""
        wanted = set(self._chosen) or {*ours, os.getpid()}
        for pid in self._set ^ wanted:
            word = self._words.get(pid >> 6, self._rest) ^ 1 << (pid & 63)
            self._words[pid >> 6] = word
            kernel.map_update(self._map, struct.pack("=I", pid >> 6), struct.pack("=Q", word))
        self._set = wanted

    def stop(self) -> None:
        """No process any more, at once and whatever is attached. Raises OSError."""
        kernel.array_fill(self._map, b"\xff" * 8, WORDS)
