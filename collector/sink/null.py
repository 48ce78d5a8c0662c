"""Nowhere: takes everything and keeps nothing. For benchmarks."""

from __future__ import annotations

from typing import Any, Self

from collector.config import Config
from collector.router import batches
from collector.sink.batch import Batch
from collector.sink.destination import Destination, Notes, Settled


class Null(Destination):
    """See the module."""

    kind = metavar = "null"
    accepts = frozenset({batches.JSON_LINES})
    blocks = False

    @classmethod
    def claims(cls, output: str) -> bool:
        """The word `null`."""
        return output == "null"

    @classmethod
    def describe(cls, output: str, config: Config) -> str:
        """For the start line."""
        return "nowhere"

    @classmethod
    def make(cls, options: dict[str, Any], *, fd: int | None, notes: Notes, settled: Settled) -> Self:
        """See the base class."""
        return cls(settled)

    def deliver(self, batch: Batch) -> None:
        """Done with at once."""
        self.settled(batch, batch.count, 0)
