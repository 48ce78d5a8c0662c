"""Types of receive.pyx."""

from typing import Final, Self

RESULTS: Final[dict[int, str]]

class Lines:
    def __new__(cls, limit: int) -> Self: ...
    def feed(self, data: bytes) -> tuple[str, int, bytes | None]: ...
    def waiting(self) -> tuple[bytes, int]: ...
