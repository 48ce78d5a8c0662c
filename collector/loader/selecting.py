"""Which processes are captured where their owners decide: a bit for each, as in selection.py. A process is captured as the
one that made it (bpf/owners.h), until it was found out whose it is; all are looked at again when something changes.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator

from collector.loader.bits import Bits
from collector.loader.mapped import Proc
from collector.loader.owning import Owning
from collector.loader.selection import WORDS

LOOK_SECONDS = 30.0  # between two looks at all processes: what went wrong meanwhile is put right


class OwnedSelection:
    """``bits``: the descriptor of the map; ``owning`` decides. It has the methods of selection.py's, and more."""

    def __init__(self, bits: int, owning: Owning, proc: Proc | None = None) -> None:
        self._bits = Bits(bits, WORDS)
        self._owning = owning
        self._proc = proc or Proc()
        self._ours: frozenset[int] = frozenset()
        self._next_look = 0.0
        self._chosen: list[int] = []  # processes that are captured from now on
        self._stopped = False

    def begin(self) -> None:
        """Before anything is attached, once in the life of the programs: nobody is known, so the default decides."""
        self._bits.fill(not self._owning.default)

    def adopt(self, known: Collection[int]) -> None:
        """The bits stay as the loader before us has left them, but for those of processes of ours that are gone."""

    def update(self, ours: Collection[int]) -> None:
        """``ours``: the processes of the collector, this one aside."""
        self._ours = frozenset((*ours, os.getpid()))
        for pid in self._ours:
            self._bits.put(pid, True)

    def turn(self, now: float) -> None:
        """Look at all processes, from time to time and when something has changed."""
        if now >= self._next_look or self._owning.moved:
            self._next_look = now + LOOK_SECONDS
            self._owning.moved = False
            for pid in self._proc.pids():
                self.decide(pid, self._owning.look(pid, now))

    def decide(self, pid: int, selected: bool) -> None:
        """From now on."""
        left_alone = not selected or pid in self._ours or self._stopped
        if self._bits.get(pid) != left_alone:
            self._bits.put(pid, left_alone)
            if not left_alone:
                self._chosen.append(pid)

    def captures(self, pid: int) -> bool:
        """Is it captured?"""
        return not self._bits.get(pid)

    def newly_chosen(self) -> Iterator[int]:
        """The processes that are captured since the last call, and were not before."""
        chosen, self._chosen = self._chosen, []
        yield from chosen

    def stop(self) -> None:
        """No process any more, at once and whatever is attached."""
        self._stopped = True
        self._bits.fill(True)
