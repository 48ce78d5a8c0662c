"""Types of preamble.pyx: only what tests ask; the parser itself is for Cython (preamble.pxd)."""

from typing import Any

def preamble(data: bytes | bytearray | memoryview) -> dict[str, Any] | int: ...
