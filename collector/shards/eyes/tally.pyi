"""Types of tally.pyx."""

from typing import Final, Self

DURATION_BUCKETS: Final[int]

class Tally:
    exchanges: int
    def __new__(cls) -> Self: ...
    def take(self) -> list[tuple[bytes, int]]: ...
