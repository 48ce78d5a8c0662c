"""What is lost with a shard that dies, exactly: from what it wrote down in shared memory, and what the sink has of it.

    made        records of this life, but for those of the span that it was reading: they are made again by the next life
    taken       by the sink, whatever becomes of them: acknowledged before this life's present session with the sink began
                (`records_before_session`), and taken in that session, which the sink is asked about when nothing can come
                any more (collector/sink/senders.py)
    lost        made and not taken

Exchanges that were begun in spans that it had acknowledged, and not recorded, are lost: their bytes are gone from the ring.
What the sink has taken of a shard that is gone nobody can send again, so it is lost if the sink dies, too.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from collector.counters import Counters

log = logging.getLogger("supervisor")


class Losses:
    """``own``: the supervisor's counters, which it counts into; ``cores``: those of the shards' compiled parts. ``ask``
    tells the sink that the life of a shard is over; False when there is no sink.
    """

    def __init__(self, own: Counters, cores: Sequence[Counters], ask: Callable[[dict[str, Any]], bool]) -> None:
        self._own = own
        self._cores = cores
        self._ask = ask
        self._open: dict[int, tuple[int, int]] = {}  # epoch -> records lost if the sink took none: of its session, at all

    def ended(self, role: str, block: int, counters: Counters) -> None:
        """A child that should not have ended, or has not ended well. ``block``: a shard's number."""
        if role == "shard":
            self.shard_ended(self._cores[block], counters)
        elif role == "sink":
            self.sink_ended(counters)

    def shard_ended(self, core: Counters, counters: Counters) -> None:
        """``core`` and ``counters`` are the two parts of its block. What has not been counted yet is counted here, or when
        the sink has answered.
        """
        made, exchanges, state = core["records"], core["queued_exchanges"], core["buffer_bytes"]
        if counters["reading"]:
            made, exchanges, state = (counters[name] for name in ("span_records", "span_exchanges", "span_state_bytes"))
            self._own.add("records_made_again", core["records"] - made)
        self._own.add("lost_exchanges", exchanges)
        self._own.add("lost_state_bytes", state)
        epoch = counters["epoch"]
        not_acknowledged = max(0, made - counters["records_acknowledged"])
        if epoch:
            self._open[epoch] = (made - counters["records_before_session"], not_acknowledged)
            if not self._ask({"kind": "ended", "epoch": epoch}):
                self._count(self._open.pop(epoch)[1])
        counters["records_acknowledged"] = core["records"]  # where the next life begins to count
        counters["reading"] = counters["epoch"] = 0
        core["queued_exchanges"] = core["buffer_bytes"] = 0  # counted once

    def sink_said(self, epoch: int, taken: int) -> None:
        """The answer: so many records of that life came in the sink's life."""
        if epoch in self._open:
            of_session, not_acknowledged = self._open.pop(epoch)
            # a sink that was started since knows nothing of the session before; what was acknowledged is not lost
            self._count(min(of_session - taken, not_acknowledged))

    def sink_ended(self, counters: Counters) -> None:
        """It died with what it held of shards that are gone, and with its answers."""
        self._count(counters["orphaned_records"])
        counters["orphaned_records"] = 0
        for _of_session, not_acknowledged in self._open.values():
            self._count(not_acknowledged)
        self._open.clear()

    def _count(self, records: int) -> None:
        self._own.add("lost_records", max(0, records))
