"""A batch in the sink: the records of one shard, and how far its delivery has come."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from collector.router import batches


class Batch:
    """Records with their index and details (collector/router/batches.py), in ``format``.

    ``token`` goes back to the sink's loop when the batch is done with. ``at`` is how far the destination has got, in a
    unit of its own (bytes, records): a delivery that failed half-way goes on from there. ``left`` is the number of
    records whose fate is open. ``held`` is the memory that is free once the batch is done with: the records, and as often
    again as there are ``copies`` of them. Raises ProtocolError when the index ends inside an entry.
    """

    __slots__ = ("records", "index", "details", "token", "format", "count", "left", "at", "held")

    def __init__(
        self,
        records: bytes | memoryview,
        index: bytes | memoryview,
        details: bytes | memoryview,
        token: Any = None,
        format: str = batches.JSON_LINES,
        copies: int = 1,
    ) -> None:
        self.records = records
        self.index = index
        self.details = details
        self.token = token
        self.format = format
        self.count = self.left = batches.count(index)
        self.at = 0
        self.held = copies * len(records)

    def __iter__(self) -> Iterator[tuple[bytes, bytes, batches.Place]]:
        """Each record without its newline, its details, and its place in the order. Raises ProtocolError, before the
        first record, when the index does not describe the records.
        """
        return batches.iterate(self.records, self.index, self.details)
