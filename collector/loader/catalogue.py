"""The libraries that probes are attached in, by number: the number is the cookie of their probes, the place of their values
in the kernel's array `libraries` (bpf/maps.h), and what EVENT_TLS calls them by; shards are told which name belongs to it.
"""

from __future__ import annotations

import collections
import struct
from collections.abc import Mapping

from collector.loader import kernel
from collector.loader.probes.probe import LIBRARY_BYTES, VALUES, Found

NUMBERS = 1024  # of bpf/maps.h LIBRARY_NUMBERS; 0 is no library
KEY_BYTES = 95
_ENTRY = struct.Struct(f"={VALUES}Q{LIBRARY_BYTES + 1}s{KEY_BYTES + 1}s")
SIZE = _ENTRY.size


class Catalogue:
    """``table``: the descriptor of `libraries`; what an earlier loader wrote there still holds."""

    def __init__(self, table: int) -> None:
        self._table = table
        self._numbers: dict[str, int] = {}
        self._names: dict[int, str] = {}
        for number in range(1, NUMBERS):
            entry = kernel.map_lookup(table, struct.pack("=I", number), SIZE) or bytes(SIZE)
            *_values, name, key = _ENTRY.unpack(entry)
            if key.rstrip(b"\0"):
                self._numbers[key.rstrip(b"\0").decode()] = number
                self._names[number] = name.rstrip(b"\0").decode()
        self._untold = dict(self._names)  # whether that loader came to it is not known
        self._free = collections.deque(number for number in range(1, NUMBERS) if number not in self._names)

    def names(self) -> Mapping[int, str]:
        """The name of each number in use; of 0 it is empty."""
        return collections.defaultdict(str, self._names)

    def untold(self) -> Mapping[int, str]:
        """The names that have come since the last call, by number."""
        untold, self._untold = self._untold, {}
        return untold

    def add(self, target: str, source: str, found: Found) -> int:
        """The number of what a source has found in a file, by the target's key; 0 when there is none left: then nobody knows
        its name. Raises OSError.
        """
        key = f"{target}/{source}"
        number = self._numbers.get(key) or (self._free.popleft() if self._free else 0)
        if not number or len(key) > KEY_BYTES:
            return 0
        values = found.values + (0,) * (VALUES - len(found.values))
        entry = _ENTRY.pack(*values, found.library.encode(), key.encode())
        kernel.map_update(self._table, struct.pack("=I", number), entry)
        if self._names.get(number) != found.library:
            self._untold[number] = found.library
        self._numbers[key], self._names[number] = number, found.library
        return number

    def remove(self, target: str) -> None:
        """The file is released. Its numbers are the last ones to be used again."""
        for key in [key for key in self._numbers if key.partition("/")[0] == target]:
            number = self._numbers.pop(key)
            del self._names[number]
            self._free.append(number)
            kernel.map_update(self._table, struct.pack("=I", number), bytes(SIZE))
