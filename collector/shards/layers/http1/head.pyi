"""Types of head.pyx: only what tests ask; the parser itself is for Cython (head.pxd)."""

from typing import Any

def head_fields(data: bytes, response: bool = False) -> dict[str, Any] | int: ...
