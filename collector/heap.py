"""Memory that was freed, back to the system: the allocator keeps it for the next batches (supervisor/child.py), and when
memory is short that is not what it is for.
"""

from __future__ import annotations

import ctypes
import time

_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it

SECONDS, EVERY_SECONDS = 1.5, 0.2  # what is given up is freed when it is acknowledged, some moments later


def trim() -> None:
    """Give back what is free. Some milliseconds."""
    if _trim is not None:
        _trim(0)


class Trimmer:
    """Trims a few times after `begin`."""

    def __init__(self) -> None:
        self._until = self._next = 0.0

    def begin(self) -> None:
        """Something was given up."""
        self._until = time.monotonic() + SECONDS

    def turn(self) -> bool:
        """Trim if it is due. Was it?"""
        now = time.monotonic()
        if now > self._until or now < self._next:
            return False
        self._next = now + EVERY_SECONDS
        trim()
        return True
