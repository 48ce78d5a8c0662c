"""Types of receive.pyx."""

from typing import Final

RESULTS: Final[dict[int, str]]

class Lines:
    def __init__(self, limit: int) -> None: ...
    def feed(self, data: bytes) -> tuple[str, int, bytes | None]: ...
    def waiting(self) -> tuple[bytes, int]: ...
