"""The last lines of the log, for `collector report`: a ring in memory without a name, 256 KiB.

The supervisor writes it and the health child, which answers `collector report`, has it mapped read-only: so the lines can
be had when the supervisor does not run any more, and nothing has to be sent for them while nobody asks.

    0    the bytes written since the start, 8 bytes
    8    the ring: the byte with the number n lies at n modulo its size
"""

from __future__ import annotations

import logging
import mmap
import os
import struct

from collector import memfd

SIZE = 256 << 10
_PIECE = 4096  # written at once
_MOST = 32 << 10  # of one message
_HEAD = struct.Struct("=Q")


class Writer:
    """The supervisor's side; makes the memory. Raises OSError."""

    def __init__(self) -> None:
        self._fd = memfd.create("collector-log", _HEAD.size + SIZE)
        self._map = mmap.mmap(self._fd, _HEAD.size + SIZE)
        self._written = 0

    def read_only_fd(self) -> int:
        """A new descriptor that cannot be mapped for writing; the caller closes it."""
        return os.open(f"/proc/self/fd/{self._fd}", os.O_RDONLY | os.O_CLOEXEC)

    def write(self, text: str) -> None:
        """Add a message of one line or several; what is beyond 32 KiB is left out."""
        data = text.encode("utf-8", "replace")[: _MOST - 1] + b"\n"
        for at in range(0, len(data), _PIECE):
            self._write(data[at : at + _PIECE])

    def _write(self, data: bytes) -> None:
        if self._fd < 0:
            return
        at = self._written % SIZE
        first = min(len(data), SIZE - at)
        self._map[_HEAD.size + at : _HEAD.size + at + first] = data[:first]
        self._map[_HEAD.size : _HEAD.size + len(data) - first] = data[first:]
        self._written += len(data)
        _HEAD.pack_into(self._map, 0, self._written)  # last: what is counted is there

    def close(self) -> None:
        """Give the memory back."""
        if self._fd >= 0:
            self._map.close()
            os.close(self._fd)
            self._fd = -1


class Reader:
    """The other side; ``fd`` stays the caller's. Raises OSError, ValueError."""

    def __init__(self, fd: int) -> None:
        self._map = mmap.mmap(fd, _HEAD.size + SIZE, prot=mmap.PROT_READ)

    def read(self) -> bytes:
        """The whole lines that are there, oldest first; what may have been overwritten meanwhile is left out."""
        (end,) = _HEAD.unpack_from(self._map)
        ring = self._map[_HEAD.size :]
        (later,) = _HEAD.unpack_from(self._map)
        begin = max(0, later + _PIECE - SIZE)  # a piece can be half written, beyond what is counted
        if begin >= end:
            return b""
        first, last = begin % SIZE, end % SIZE
        data = ring[first:last] if first < last else ring[first:] + ring[:last]
        return data if begin == 0 else data.partition(b"\n")[2]


class Handler(logging.Handler):
    """Keeps the lines of the log, as ``formatter`` writes them."""

    def __init__(self, formatter: logging.Formatter) -> None:
        super().__init__()
        self.setFormatter(formatter)
        self.lines = Writer()

    def emit(self, record: logging.LogRecord) -> None:
        """Add a line."""
        try:
            self.lines.write(self.format(record))
        except Exception:  # noqa: BLE001 - as the handlers of the library: no log line ends the program
            self.handleError(record)

    def say(self, text: str) -> None:
        """Add a line that is no record."""
        self.acquire()
        try:
            self.lines.write(text)
        finally:
            self.release()

    def close(self) -> None:
        """Give the memory back."""
        self.lines.close()
        super().close()
