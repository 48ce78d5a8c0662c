"""Replay's order: everything is held until the end, then delivered by (end time, connection, stream position).

Recorded files are bounded, and with several shards nothing else gives the same output every time.
"""

from __future__ import annotations

import struct

from collector.shards.pipeline import INDEX_FORMAT
from collector.sink.destination import Batch

_PIECE_BYTES = 1 << 20


class Ordered:
    """Collects batches; ``batches`` gives them back in order."""

    def __init__(self) -> None:
        self._records: list[tuple[tuple[int, int, int], bytes, bytes]] = []

    def add(self, batch: Batch) -> None:
        """Keep the records of a batch."""
        self._records.extend((place, record, details) for record, details, place in batch)

    def batches(self) -> list[Batch]:
        """All records in order, in batches of about 1 MiB."""
        self._records.sort()
        out: list[Batch] = []
        records, index, details = bytearray(), bytearray(), bytearray()
        for (end_ns, conn_id, position), record, detail in self._records:
            records += record + b"\n"
            details += detail
            index += struct.pack(INDEX_FORMAT, len(record) + 1, len(detail), end_ns, conn_id, position)
            if len(records) > _PIECE_BYTES:
                out.append(Batch(bytes(records), bytes(index), bytes(details)))
                records, index, details = bytearray(), bytearray(), bytearray()
        if records:
            out.append(Batch(bytes(records), bytes(index), bytes(details)))
        self._records.clear()
        return out
