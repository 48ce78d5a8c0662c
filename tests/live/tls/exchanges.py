"""The exchanges of a run, decided by a seed: what is asked for, by which connection, and how its answers are read.

The path of an exchange ends in `/NUMBER/SIZE`: the server answers with :func:`content` of both. Bodies are cut out of one
file of random letters (`pool`), so that no piece of a body looks like another, and making one costs nothing in any language.

A client gets its connections as lines, and begins with the next one as soon as it has the time:

    READING METHOD,PATH,BYTES METHOD,PATH,BYTES ...

BYTES is the length of the request's body. READING says how answers are read:

whole       as they come
stalled     in answers of more than 1 MB the client stops for a while in the beginning
partial     a few bytes at a time
abandoned   the connection is closed in the middle of its last answer

All but the last are closed behind the last answer.
"""

from __future__ import annotations

import random
import string
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

FIRST = 1000  # exchanges with smaller numbers are for warming up
MEGABYTE = 1 << 20
POOL_BYTES = 7 * MEGABYTE
OFFSETS = 1_000_000

STALLED = ((700, 5 * MEGABYTE, 20), (40, 4 * MEGABYTE, 900))
PARTIAL = ((60, 12_000), (30_000, 300), (1_500, 20_000), (16_384, 16_385))
ABANDONED = ((500, 2 * MEGABYTE), (90, 600, 3 * MEGABYTE))
LARGE_REQUESTS = (5 * MEGABYTE, MEGABYTE, 300_000)
LARGE_ANSWERS = (5 * MEGABYTE, 1_500_000, 700_000, 0, 1)


@dataclass(frozen=True)
class Exchange:
    """A request and its answer: the lengths of both bodies."""

    number: int
    method: str
    path: str
    request: int
    answer: int

    @property
    def status(self) -> int:
        """What servers answer."""
        return 200 if self.number % 7 else 201

    @property
    def chunked(self) -> bool:
        """Servers answer in chunks, without a Content-Length."""
        return self.number % 4 == 3


@dataclass
class Connection:
    """Exchanges one after another, and how their answers are read."""

    reading: str = "whole"
    exchanges: list[Exchange] = field(default_factory=list)

    def line(self) -> str:
        """What a client is told."""
        return " ".join([self.reading, *(f"{e.method},{e.path},{e.request}" for e in self.exchanges)]) + "\n"

    def abandoned(self, exchange: Exchange) -> bool:
        """The client does not wait for the end of this answer."""
        return self.reading == "abandoned" and exchange is self.exchanges[-1]


def pool(seed: int = 1) -> bytes:
    """The letters of which all bodies are made."""
    return "".join(random.Random(seed).choices(string.ascii_letters + string.digits, k=POOL_BYTES)).encode()


def content(letters: bytes, number: int, size: int, *, request: bool = False) -> bytes:
    """A body: the exchange's number, a full stop, letters; so long."""
    start = (number * 4099 + (500_009 if request else 0)) % OFFSETS
    head = b"%d." % number
    return (head + letters[start : start + size])[:size]


def plan(name: str, count: int = 1000, *, bodies_alone: bool = False) -> list[Connection]:
    """Connections with ``count`` exchanges in all, the same for each ``name``. With ``bodies_alone`` an exchange with a
    request body has its connection for itself (a client that has one body for all that it does)."""
    maker = _Maker(name, bodies_alone)
    special = [maker.connection("stalled", sizes) for sizes in STALLED]
    special += [maker.connection("partial", sizes) for sizes in PARTIAL]
    special += [maker.connection("abandoned", sizes) for sizes in ABANDONED]
    special += [maker.connection("whole", (20, size, 20)) for size in LARGE_ANSWERS]
    special += [maker.uploads(size) for size in LARGE_REQUESTS]
    connections = []
    left = count - sum(len(c.exchanges) for c in special)
    while left > 0:
        connections.append(maker.ordinary(left))
        left -= len(connections[-1].exchanges)
    for connection in special:
        connections.insert(maker.random.randrange(len(connections) + 1), connection)
    return connections


def warm_up(name: str, number: int) -> Connection:
    """A connection of two exchanges before all others, ``number`` and the next one."""
    assert number + 1 < FIRST
    return Connection("whole", [Exchange(n, "GET", f"/{name}/{n}/40", 0, 40) for n in (number, number + 1)])


def all_exchanges(connections: Iterable[Connection]) -> list[Exchange]:
    """Those of all connections."""
    return [exchange for connection in connections for exchange in connection.exchanges]


class _Maker:
    def __init__(self, name: str, bodies_alone: bool) -> None:
        self.random = random.Random(name)
        self._name = name
        self._alone = bodies_alone
        self._next = FIRST

    def _exchange(self, method: str, request: int, answer: int) -> Exchange:
        number = self._next
        self._next += 1
        return Exchange(number, method, f"/{self._name}/{number}/{answer}", request, answer)

    def _size(self) -> int:
        kind = self.random.random()
        if kind < 0.05:
            return 0
        limit = 1_500 if kind < 0.65 else 16_000 if kind < 0.9 else 70_000
        return self.random.randrange(1, limit)

    def connection(self, reading: str, answers: tuple[int, ...]) -> Connection:
        """Answers of given lengths."""
        return Connection(reading, [self._exchange("GET", 0, size) for size in answers])

    def uploads(self, size: int) -> Connection:
        """A request body of a given length."""
        around = [] if self._alone else [self._exchange("GET", 0, 30) for _ in range(2)]
        return Connection("whole", [*around[:1], self._exchange("POST", size, 300), *around[1:]])

    def ordinary(self, left: int) -> Connection:
        """One to thirty exchanges, every third one with a request body."""
        if self._alone and self.random.random() < 0.5:
            return Connection("whole", [self._exchange(self._method(), self._size(), self._size())])
        connection = Connection()
        for _ in range(min(left, self.random.choice((1, 2, 5, 15, 30)))):
            if self.random.random() < 0.35 and not self._alone:
                connection.exchanges.append(self._exchange(self._method(), self._size(), self._size()))
            else:
                method = "DELETE" if self.random.random() < 0.1 and not self._alone else "GET"
                connection.exchanges.append(self._exchange(method, 0, self._size()))
        return connection

    def _method(self) -> str:
        return self.random.choice(("POST", "POST", "PUT", "PATCH"))


def write_pool(directory: Path) -> bytes:
    """The file `pool` in ``directory``; what is in it."""
    letters = pool()
    (directory / "pool").write_bytes(letters)
    return letters
