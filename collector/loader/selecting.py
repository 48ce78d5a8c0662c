"""Which processes are captured where their owners decide: a bit for each, as in selection.py. A process is captured as the
one that made it (bpf/owners.h), or as all that begin a program in its control group, until it was found out whose it is; all
are looked at again when something changes.
"""

from __future__ import annotations

import contextlib
import os
import struct
import time
from collections.abc import Collection, Iterator

from collector.loader import kernel
from collector.loader.bits import Bits
from collector.loader.mapped import Proc
from collector.loader.owning import Owning
from collector.loader.selection import WORDS

LOOK_SECONDS = 30.0  # between two looks at all processes: what went wrong meanwhile is put right
LEAST_SECONDS = 0.5  # the same, when something changes all the time
SLICE_SECONDS = 0.02  # of a turn
CAPTURED, LEFT_ALONE, AS_IT_IS = 0, 1, 2  # bpf/owners.h enum group_verdict


class OwnedSelection:
    """``bits`` and ``groups``: the descriptors of the maps pid_bits and groups; ``owning`` decides. It has the methods of
    selection.py's, and more.
    """

    def __init__(self, bits: int, groups: int, owning: Owning, proc: Proc | None = None) -> None:
        self._bits = Bits(bits, WORDS)
        self._groups = groups
        self._owning = owning
        self._proc = proc or Proc()
        self._ours: frozenset[int] = frozenset()
        self._next_look, self._looked = 0.0, -LEAST_SECONDS
        self._again = False  # are all to be looked at soon?
        self._to_look_at: list[int] = []
        self._chosen: list[int] = []  # processes that are captured from now on
        self._stopped = False

    def begin(self) -> None:
        """Before anything is attached, once in the life of the programs: nobody is known, so the default decides."""
        self._bits.fill(not self._owning.default)

    def adopt(self, known: Collection[int]) -> None:  # noqa: ARG002 - as of the other kind
        """Bits and groups stay as the loader before us has left them, until it is known which pods there are."""
        self._owning.before = frozenset(int.from_bytes(key, "little") for key in kernel.map_keys(self._groups, 8))

    def update(self, ours: Collection[int]) -> None:
        """``ours``: the processes of the collector, this one aside."""
        self._ours = frozenset((*ours, os.getpid()))
        for pid in self._ours:
            self._bits.put(pid, True)

    def look_again(self) -> None:
        """Soon, at all processes."""
        self._again = True

    def turn(self, now: float) -> None:
        """Look at all processes, from time to time and soon after something has changed, some of them a turn: first at those
        that are known to have changed, for the others may be many.
        """
        moved, self._owning.moved = self._owning.moved, set()
        if self._owning.waits():
            for pid in moved:
                self.decide(pid, self._owning.look(pid, now))
            return
        if self._owning.before is not None:
            self._forget_groups(self._owning.before)
            self._owning.before = None
        self._again |= bool(moved)
        if now >= self._next_look or self._again and now >= self._looked + LEAST_SECONDS:
            self._next_look, self._looked, self._again = now + LOOK_SECONDS, now, False
            self._to_look_at = self._proc.pids()
            self._owning.new_groups = list(self._owning.groups)
        new, self._owning.new_groups = self._owning.new_groups, []
        for group in new:
            if (place := self._owning.groups.get(group)) is not None:
                self._decide_group(group, self._owning.captures(place, now))
        self._to_look_at += moved  # taken from the end
        until = time.monotonic() + SLICE_SECONDS
        while self._to_look_at and time.monotonic() < until:
            pid = self._to_look_at.pop()
            self.decide(pid, self._owning.look(pid, now))

    def _forget_groups(self, groups: frozenset[int]) -> None:
        """They are asked for again."""
        for group in groups - self._owning.groups.keys():
            with contextlib.suppress(FileNotFoundError):
                kernel.map_delete(self._groups, struct.pack("=Q", group))

    def decide(self, pid: int, selected: bool) -> None:
        """From now on. While the loader before us knows better, nobody is captured who was not."""
        left_alone = not selected or pid in self._ours or self._stopped
        if self._bits.get(pid) != left_alone and (left_alone or not self._owning.waits()):
            self._bits.put(pid, left_alone)
            if not left_alone:
                self._chosen.append(pid)

    def _decide_group(self, group: int, captured: bool | None) -> None:
        """What becomes of who begins a program there."""
        verdict = AS_IT_IS if captured is None else CAPTURED if captured else LEFT_ALONE
        with contextlib.suppress(OSError):  # no room: the kernel asks again
            kernel.map_update(self._groups, struct.pack("=Q", group), struct.pack("=B", verdict))

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
