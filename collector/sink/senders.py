"""How many records came of each life of a shard, and how many of them are settled.

A shard that is killed can send nothing again: what it had made and we have not taken is lost, and what we have taken and not
settled is lost with us. Both are the supervisor's to count (collector/supervisor/losses.py), by these numbers.
"""

from __future__ import annotations

# After the end of a shard, what it had put on the wire is here: the kernel has it all, and we read while there is any.
ARRIVES_SECONDS = 0.3


class Senders:
    """Lives of shards by the epoch of their channel (collector/router/outbox.py). Seconds are monotonic."""

    def __init__(self) -> None:
        self._taken: dict[int, int] = {}
        self._left: dict[int, int] = {}  # of these, not settled
        self._asked: dict[int, float] = {}  # ended, and not answered yet: since when
        self._ended: set[int] = set()  # and answered

    def took(self, epoch: int, records: int) -> None:
        """A batch has come."""
        self._taken[epoch] = self._taken.get(epoch, 0) + records
        self._left[epoch] = self._left.get(epoch, 0) + records

    def settled(self, epoch: int, records: int) -> None:
        """A batch is done with."""
        self._left[epoch] = self._left.get(epoch, 0) - records
        if epoch in self._ended:
            self._forget_settled(epoch)

    def ended(self, epoch: int, now: float) -> None:
        """The supervisor says that this life is over."""
        self._asked.setdefault(epoch, now)

    def answers(self, now: float) -> list[tuple[int, int]]:
        """Lives that are over and of which nothing can come any more, each once: (epoch, records taken). To be called
        when all that has come is taken.
        """
        out = []
        for epoch, since in list(self._asked.items()):
            if now - since >= ARRIVES_SECONDS:
                del self._asked[epoch]
                self._ended.add(epoch)
                out.append((epoch, self._taken.pop(epoch, 0)))
                self._forget_settled(epoch)
        return out

    def orphaned(self) -> int:
        """Records of lives that are over, which would be lost with us."""
        return sum(self._left[epoch] for epoch in self._ended)

    def _forget_settled(self, epoch: int) -> None:
        if not self._left.get(epoch):
            self._left.pop(epoch, None)
            self._ended.remove(epoch)
