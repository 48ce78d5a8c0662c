"""What the Python clients of the TLS matrix have in common: the lines that they are told, and the log that they write."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.live.tls.exchanges import MEGABYTE, content

STALL_SECONDS = 0.4
ABANDONED_AFTER = 100_000
LETTERS = (Path(os.environ["TLS_BED"]) / "pool").read_bytes() if "TLS_BED" in os.environ else b""


@dataclass(frozen=True)
class Call:
    """A request, and how its answer is read."""

    number: int
    method: str
    path: str
    body: bytes
    answer: int
    reading: str

    @property
    def headers(self) -> dict[str, str]:
        """Fields of its own; without one aiohttp would say that a body is binary, and then no record holds it."""
        return {"Content-Type": "text/plain"} if self.body else {}


def connections() -> Iterator[str]:
    """Lines of standard input as they come."""
    while line := sys.stdin.readline():
        yield line


def calls(line: str) -> Iterator[Call]:
    """The exchanges of a connection."""
    reading, *words = line.split()
    for place, word in enumerate(words, 1):
        method, path, size = word.split(",")
        number, answer = map(int, path.split("/")[-2:])
        body = content(LETTERS, number, int(size), request=True)
        how = "whole" if reading == "abandoned" and place < len(words) else reading
        yield Call(number, method, path, body, answer, how)


class Reader:
    """Takes an answer in: how many bytes next, and how long to wait before them."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._hash = hashlib.sha256()
        self.length = 0
        self.pause = 0.0
        self.bytes = 65536

    @property
    def digest(self) -> str:
        """The hash of what was taken."""
        return self._hash.hexdigest()

    def take(self, piece: bytes) -> bool:
        """More is wanted behind this piece."""
        first = not self.length
        self._hash.update(piece)
        self.length += len(piece)
        reading = self._call.reading
        self.pause = STALL_SECONDS if reading == "stalled" and first and self._call.answer > MEGABYTE else 0.0
        if reading == "partial":
            self.bytes = 7 if self.length < 2_000 else 90
        return not (reading == "abandoned" and self.length > ABANDONED_AFTER)


def note(log: int, call: Call, status: int, reader: Reader, address: tuple[str, int] | None) -> None:
    """A line of the log. ``address``: None where the client does not tell it."""
    line = {
        "number": call.number,
        "status": status,
        "bytes": reader.length,
        "sha256": reader.digest,
        "local": f"{address[0]}:{address[1]}" if address else "",
    }
    os.write(log, json.dumps(line).encode() + b"\n")
