"""The loader's part of owners: who is asked, what shards are told, and which processes are captured."""

from __future__ import annotations

import itertools
import logging
import struct
import sys
import time
from collections.abc import Callable, Iterable, Mapping

from collector.clock import SystemClock
from collector.errors import PreflightError
from collector.loader import kernel
from collector.loader.libraries import Libraries
from collector.loader.mapped import Proc
from collector.loader.owning import RING_BYTES, Owning
from collector.loader.ringbuffer import Ring
from collector.loader.selecting import OwnedSelection
from collector.settings import LoaderSettings, OwnerSettings

log = logging.getLogger("loader")

EVENTS = 1024  # of one message


def without_process_ids(settings: OwnerSettings) -> None:
    """In a pid namespace of our own the kernel's process ids say nothing. Raises PreflightError where pods are selected."""
    if not settings.default:
        raise PreflightError("pods cannot be selected from a pid namespace of our own: hostPID: true is missing")
    log.warning("records name no pods, and all are captured: a pid namespace of our own (hostPID: true is missing)")


class Ownership:
    """``maps``: the kernel's, by name; ``tell`` sends an event to the shard of a ring, ``tell_all`` to every shard.
    ``selection``: where owners decide who is captured; None where they do not. Raises OSError.
    """

    def __init__(
        self,
        maps: Mapping[str, int],
        settings: LoaderSettings,
        clock: SystemClock,
        tell: Callable[[int, bytes], None],
        tell_all: Callable[[bytes], None],
    ) -> None:
        assert settings.owners is not None
        self._clock = clock
        self._tell = tell
        self._tell_all = tell_all
        self._processes, self._rings = maps["processes"], range(settings.rings)
        self._owning = Owning(Ring(maps["owners"], RING_BYTES), settings.owners)
        kernel.map_update(maps["owners_wanted"], bytes(4), struct.pack("=I", 1))
        self.selection: OwnedSelection | None = None
        if settings.owners.selects and not settings.pids and not settings.names:
            self.selection = OwnedSelection(maps["pid_bits"], maps["groups"], self._owning, Proc(settings.proc))

    @property
    def unknown(self) -> int:
        """Processes of which nobody could say whose they were."""
        return self._owning.unknown

    def listen(self, fd: int) -> None:
        """The process that follows the API server tells of pods there."""
        self._owning.listen(fd)

    def introduce(self, tgid: int, ring: int) -> bytes:
        """The event for a new shard of a process that has a connection open in that ring."""
        return self._owning.introduce(tgid, ring, time.monotonic(), self._clock.monotonic_ns())

    def turn(self) -> None:
        """Each turn of the loop, before the rings are read."""
        self._owning.hear()
        self.answer()
        self._send(self._owning.changes(time.monotonic(), self._clock.monotonic_ns()))
        if self.selection is None:
            self._owning.moved.clear()
        if self._owning.peers_changed and (events := self._owning.peers(self._clock.monotonic_ns())):
            self._tell_all(b"".join(events))

    def answer(self) -> None:
        """What was asked up to now: to be called when the end of a span is known, and before a shard is told of it."""
        decide = self.selection.decide if self.selection is not None else None
        self._send(self._owning.answers(time.monotonic(), self._clock.monotonic_ns(), decide))
        if self._owning.overflowed:
            self._tell_everybody()

    def _tell_everybody(self) -> None:
        """Nobody knows who could not ask: so all shards are told of all processes, and all are looked at again."""
        self._owning.overflowed = False
        if self.selection is not None:
            self.selection.look_again()
        tgids = [int.from_bytes(key, sys.byteorder) for key in kernel.map_keys(self._processes, 4)]
        events = self._owning.everybody(tgids, self._rings, time.monotonic(), self._clock.monotonic_ns())
        while portion := b"".join(itertools.islice(events, EVENTS)):
            self._tell_all(portion)

    def introduction(self) -> bytes:
        """What a new shard is told: who has which address."""
        return b"".join(self._owning.all_peers(self._clock.monotonic_ns()))

    def come(self, libraries: Libraries) -> None:
        """The processes that are captured since the last call, and were not before, may have libraries."""
        if self.selection is not None:
            for pid in self.selection.newly_chosen():
                libraries.come(pid, time.monotonic())

    def _send(self, events: Iterable[tuple[int, bytes]]) -> None:
        for ring, event in events:
            self._tell(ring, event)
