"""The descriptor that the sink gets: opened again at SIGHUP, when a file changes that it was made of, and when a file of
records has reached its size.

For Kafka it is memory with certificates and secrets (collector/sink/kafka/security.py): the sink has no right to read
those files. A Kubernetes secret changes by a link that leads elsewhere, a file by being written or replaced; all of it shows
when its status is asked for now and then.

Each descriptor has a number. The sink notes, in memory that outlives it, the number of the one it works with. Until it has
gone over to a new one the old one stays open here: if it is killed before, its next life begins with the old one again,
takes back the line that was cut short there, and goes over then.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from typing import Any

from collector import files
from collector.counters import Counters
from collector.errors import CollectorError
from collector.supervisor.starting import Plan

log = logging.getLogger("supervisor")

LOOK_SECONDS = 2.0
ROTATE_AGAIN_SECONDS = 10.0  # after a rotation that failed
_MOST_OPEN = 16  # descriptors that a sink which does not answer has not gone over to


class Output:
    """``notes`` are the sink's numbers, ``own`` the supervisor's; ``tell`` sends the sink a message with a descriptor."""

    def __init__(self, plan: Plan, notes: Counters, own: Counters, tell: Callable[[dict[str, Any], int], None]) -> None:
        self._reopen = plan.reopen
        self._rotation = plan.rotation
        self._notes = notes
        self._own = own
        self._tell = tell
        self._made_of = dict(plan.made_of)
        self._next_look = time.monotonic() + LOOK_SECONDS
        self._next_rotation = 0.0
        self._cannot_rotate = ""  # why, as it was logged
        self._number = 0
        # what the sink may be at work with, oldest first; none at all when it needs none
        self._open = [(0, plan.output_fd)] if plan.output_fd is not None else []

    def fds(self) -> list[int]:
        """For the start of the sink: what its last life worked with."""
        self._let_go()
        return [fd for _number, fd in self._open[:1]]

    def sink_started(self) -> None:
        """It has to go over to what was opened since."""
        if len(self._open) > 1:
            self._tell({"kind": "output", "number": self._open[-1][0]}, self._open[-1][1])

    def turn(self, now: float) -> None:
        """Open again what has to be."""
        if self._changed(now):
            self.open_again("files of the output have changed")
        if self._rotation is None or now < self._next_rotation:
            return
        self._let_go()
        if len(self._open) == 1 and self._rotation.due(self._open[0][1]):
            self._rotate(now)

    def open_again(self, why: str) -> bool:
        """Is there a new descriptor, and was the sink told?"""
        if self._reopen is None:
            log.info("%s: the output is not a file; nothing to reopen", why)
            return False
        try:
            fd = self._reopen()
        except (CollectorError, OSError) as error:
            log.error("%s: %s; continuing with what is open", why, error)
            return False
        if fd is None:
            return False
        self._let_go()
        self._number += 1
        self._open.append((self._number, fd))
        if len(self._open) > _MOST_OPEN:
            os.close(self._open.pop(1)[1])
        self._tell({"kind": "output", "number": self._number}, fd)
        return True

    def _let_go(self) -> None:
        """Close what the sink is done with."""
        while len(self._open) > 1 and self._notes["output_number"] >= self._open[1][0]:
            os.close(self._open.pop(0)[1])

    def _changed(self, now: float) -> bool:
        """Has a file changed since the last call? Asks every few seconds. A change that cannot be used (a certificate whose
        key is still to come) is not asked about again: the next one will be noticed.
        """
        if not self._made_of or now < self._next_look:
            return False
        self._next_look = now + LOOK_SECONDS
        before, self._made_of = self._made_of, {path: files.signature(path) for path in self._made_of}
        return before != self._made_of

    def _rotate(self, now: float) -> None:
        """What the sink has open goes on under another name; the sink is told of a new file. When something fails it writes
        on to what it has, and we try again later.
        """
        assert self._rotation is not None
        fd = self._open[0][1]
        try:
            renamed = self._rotation.rename(fd)
        except OSError as error:
            why = str(error.strerror)
            if why != self._cannot_rotate:
                log.error("cannot rotate %s: %s; it grows beyond COLLECTOR_OUTPUT_MAX_BYTES", self._rotation.path, why)
            self._cannot_rotate = why
        else:
            self._cannot_rotate = ""
            if self.open_again("rotation"):
                if renamed:
                    self._own.add("output_rotations")
                    log.info("%s rotated", self._rotation.path)
                return
            if renamed:
                self._rotation.undo(fd)
        self._own.add("output_rotation_errors")
        self._next_rotation = now + ROTATE_AGAIN_SECONDS
