"""A list that is kept up to date by a watch, for as long as the collector runs: through disconnects, versions that are too
old, and an API server that is away.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from collector.kubernetes.api import ApiError, Gone, Parse, Server

FIRST_DELAY, MOST_DELAY = 0.5, 30.0  # seconds between attempts, doubled each time and spread
SHORTEST_SECONDS = 1.0  # of a watch without events that has ended by itself: shorter ones are not asked for at once
_log = logging.getLogger("kubernetes")


class Sink(Protocol):
    """What is told, of objects as `Follower.parse` makes them."""

    def replace(self, items: list[Any]) -> None:
        """All that there are: what was known and is not among them is gone."""

    def put(self, item: Any) -> None:
        """One that is new or has changed."""

    def remove(self, item: Any) -> None:
        """One that was deleted, as it was last seen."""


@dataclass(slots=True)
class Counts:
    """Since the start. ``behind``: the newest attempt has failed, so what is known may be old."""

    lists: int = 0
    watches: int = 0
    events: int = 0
    errors: int = 0
    behind: bool = True


@dataclass(slots=True)
class Follower:
    """One resource, ``path`` with ``query``. `run` returns when ``stop`` is set, at the end of what it waits for."""

    server: Server
    path: str
    query: Mapping[str, str]
    sink: Sink
    parse: Parse = lambda found: found  # noqa: E731 - a default
    stop: threading.Event = field(default_factory=threading.Event)
    counts: Counts = field(default_factory=Counts)
    first_delay: float = FIRST_DELAY
    random: Callable[[], float] = random.random
    _version: str = ""  # to go on from; empty: a list is wanted first
    _told: bool = False  # that the server is away

    def run(self) -> None:
        """Until ``stop``."""
        delay, gone = self.first_delay, False
        while not self.stop.is_set():
            began, before = time.monotonic(), self.counts.events
            try:
                self._turn()
                gone = False
                if self.counts.events > before or time.monotonic() - began >= SHORTEST_SECONDS:
                    delay = self.first_delay
                    continue
            except Gone as error:
                again, gone, self._version = not gone and bool(self._version), True, ""
                if again:
                    continue  # at once, for the server is there; but not over and over
                self._failed(error)
            except ApiError as error:
                self._failed(error)
            except Exception as error:  # or nothing of this resource would be heard any more
                self._version = ""
                self._failed(ApiError(f"{self.path}: {type(error).__name__}"))
            self.stop.wait(delay * (0.5 + self.random()))
            delay = min(delay * 2, MOST_DELAY)

    def _turn(self) -> None:
        """A list, if one is wanted, and a watch until the server ends it."""
        if not self._version:
            items, version = self.server.list(self.path, self.query, self.parse)
            self.sink.replace(items)
            self.counts.lists += 1
            self._version = version
            self._works()
        self.counts.watches += 1
        for event in self.server.watch(self.path, self.query, self._version, self._works):
            self._version = event.version or self._version
            if event.kind in ("ADDED", "MODIFIED"):
                self.sink.put(self.parse(event.object))
            elif event.kind == "DELETED":
                self.sink.remove(self.parse(event.object))
            self.counts.events += 1
            if self.stop.is_set():
                return
        self._works()

    def _works(self) -> None:
        self.counts.behind = False
        if self._told:
            _log.info("Kubernetes API: back")
            self._told = False

    def _failed(self, error: ApiError) -> None:
        self.counts.errors += 1
        self.counts.behind = True
        if not self._told:  # once for each time that it goes away
            _log.warning("Kubernetes API: %s; what is known stays, trying again", error)
            self._told = True
