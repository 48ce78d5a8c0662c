"""What a destination of records is. Each is a file beside this one and a line in `destinations.py`.

A destination delivers, and says what became of each record; it has no queue, no thread and no retries of its own
(`queue.py`, `delivery.py`, `retry.py`). docs/adding-a-destination.md tells how one is made.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Protocol, Self

from collector.config import Config
from collector.rotation import Rotation
from collector.settings import BatchSettings
from collector.sink.batch import Batch

# (batch, records delivered, records failed) -> is nothing of the batch left? May be called from any thread.
Settled = Callable[[Batch, int, int], bool]


class Notes(Protocol):
    """Numbers that outlive the process (collector.counters.Counters)."""

    def __getitem__(self, name: str) -> int:
        """The value."""

    def __setitem__(self, name: str, value: int) -> None:
        """Set it."""


class Destination(ABC):
    """See the module. The class methods are asked by the command line and the supervisor, before there is a sink; the
    others by the sink, `open`, `deliver`, `give_up`, `idle` and `close` in the thread that delivers.
    """

    kind: ClassVar[str]
    metavar: ClassVar[str]  # how its outputs are written, for --help
    accepts: ClassVar[frozenset[str]]  # formats of batches (collector/router/batches.py)
    wants_details: ClassVar[bool] = False  # are the shards to make the details of each record?
    takes_orphans: ClassVar[bool] = True  # may it get answers without a request, if these are wanted?
    blocks: ClassVar[bool] = True  # may `deliver` wait? Then it gets a thread
    network: ClassVar[bool] = False  # does it make connections? Else the sink cannot (collector/confine.py)
    up_at_start: ClassVar[bool] = True  # is it taken to work before it has taken anything?

    def __init__(self, settled: Settled) -> None:
        self.settled = settled

    # -- before there is a sink

    @classmethod
    @abstractmethod
    def claims(cls, output: str) -> bool:
        """Does this value of --output or COLLECTOR_OUTPUT mean this destination?"""

    @classmethod
    def default(cls, config: Config) -> str:
        """The output when none is named and the settings point here; "" when they do not."""
        return ""

    @classmethod
    def check(cls, output: str, config: Config, named: str) -> None:
        """Raise ConfigError for what cannot work; ``named`` is how the user gave the output."""

    @classmethod
    @abstractmethod
    def describe(cls, output: str, config: Config) -> str:
        """Where the records go, for the start line."""

    @classmethod
    def open_output(cls, output: str, config: Config, *, shared: bool) -> int | None:
        """A descriptor to be passed to the sink, or None. Raises ConfigError."""
        return None

    @classmethod
    def reopens(cls, output: str, config: Config) -> bool:
        """Is `open_output` called again at SIGHUP?"""
        return False

    @classmethod
    def rotation(cls, output: str, config: Config, *, shared: bool) -> Rotation | None:
        """How a file of records is rotated by its size; None for no rotation."""
        return None

    @classmethod
    def made_of(cls, output: str, config: Config) -> tuple[str, ...]:
        """Files that `open_output` reads: it is also called again when one of them changes."""
        return ()

    @classmethod
    def batches(cls, config: Config) -> BatchSettings:
        """How the shards of a live collector make batches; of a replay, which brings them into order, JSON lines."""
        return BatchSettings()

    @classmethod
    def options(cls, config: Config) -> dict[str, Any]:
        """Its part of the sink's start message: what `make` gets."""
        return {}

    # -- in the sink

    @classmethod
    @abstractmethod
    def make(cls, options: dict[str, Any], *, fd: int | None, notes: Notes, settled: Settled) -> Self:
        """The destination at work, before the process drops its privileges. ``fd`` is what `open_output` opened; it stays
        the caller's. Raises ProtocolError for options that are not those of `options`.
        """

    def bound(self, most_bytes: int) -> None:
        """Have no more than about so many bytes of records under way. Before `open`."""
        return

    def open(self) -> None:
        """The thread begins."""

    @abstractmethod
    def deliver(self, batch: Batch) -> None:
        """Deliver a batch, going on from ``batch.at``. Each record is settled when the destination's own acknowledgement
        has it, before this returns or later. Raises DestinationError when it has to be called again, or never again.
        """

    def give_up(self, batch: Batch) -> None:
        """`deliver` raised, and is not called again: settle the records that are still with us. They have failed."""
        self.settled(batch, 0, batch.left)

    def forget(self, batch: Batch) -> None:
        """`deliver` raised, and is not called again: somebody else has the batch, of which nothing was handed over."""

    def idle(self) -> None:
        """There is nothing to deliver now; called a few times a second."""

    def check_health(self) -> str | None:
        """Why nothing can be delivered now, or "" if it can; None when only an attempt tells. Called about twice a second,
        also between two attempts at a batch: a destination that has a connection looks after it here.
        """
        return None

    @property
    def largest(self) -> int:
        """Bytes of the largest batch that can be delivered, 0 for any: shards make none that is larger, and cut records
        to it. May change.
        """
        return 0

    def reopen(self, fd: int, number: int) -> None:
        """Go on with this descriptor, which is ours now, and once the old one is done with, note its number as
        `output_number`: another life begins with the one whose number is there. May be called from any thread.
        """
        os.close(fd)

    def close(self) -> None:
        """The thread ends; everything is settled, or given up."""
