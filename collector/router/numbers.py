"""Sets of message numbers, as acknowledgements carry them: almost all below some number, and some ranges above it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence


class Numbers:
    """A set of numbers from 1 on that only grows. All numbers below ``below`` are in it, and those of `ranges`."""

    __slots__ = ("below", "_starts", "_ends")

    def __init__(self, below: int = 1, ranges: Sequence[tuple[int, int]] = ()) -> None:
        self.below = below
        # Ranges that neither overlap nor touch each other or ``below``, in order: from a start, up to but not with its end.
        self._starts = [start for start, _ in ranges]
        self._ends = [end for _, end in ranges]

    def __contains__(self, number: int) -> bool:
        at = bisect_right(self._starts, number)
        return number < self.below or (at > 0 and number < self._ends[at - 1])

    def add(self, number: int) -> bool:
        """Put a number in. False when it was in already."""
        if number in self:
            return False
        starts, ends = self._starts, self._ends
        at = bisect_right(starts, number)
        joins_next = at < len(starts) and starts[at] == number + 1
        if number == self.below:
            self.below += 1
            if joins_next:
                self.below = ends.pop(0)
                del starts[0]
        elif at and ends[at - 1] == number:
            ends[at - 1] += 1
            if joins_next:
                ends[at - 1] = ends.pop(at)
                del starts[at]
        elif joins_next:
            starts[at] = number
        else:
            starts.insert(at, number)
            ends.insert(at, number + 1)
        return True

    @property
    def scattered(self) -> bool:
        """Is a number missing below the highest one?"""
        return bool(self._starts)

    def ranges(self) -> Iterator[tuple[int, int]]:
        """What is in it above ``below``: (first number, one behind the last), the lowest first."""
        return zip(self._starts, self._ends, strict=True)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Numbers) and (self.below, self._starts, self._ends) == (
            other.below,
            other._starts,
            other._ends,
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<below {self.below}" + "".join(f", {start}-{end - 1}" for start, end in self.ranges()) + ">"
