"""`.streams.jsonl`: two-sided streams as text, turned into events.

A line with the key `connection` opens a connection (client, server, start, epoch); the following lines are its events:
`dir` (c2s, s2c), `t` (seconds since the start of the file, never falling within a connection) and one of `data_b64`, `gap`
(bytes missing), `end`. Connections are merged by `t`. Nobody knows which process it was, so each file is a process number
and each connection a descriptor of it; the server's side is taken: direction 1.

A damaged line is named and left out. What it said is unknown, so the events behind it do not go on where those before it
stopped: they are a connection of their own, joined in the middle; and if the line may have opened a connection, one whose
ends are unknown.
"""

from __future__ import annotations

import base64
import json
import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, NoReturn

from collector import abi
from collector.errors import DamagedFileError
from collector.router import partition

BASE_NS = 1_000_000_000  # event time of t = 0: not 0, which means "never" in places
MAX_LINE_BYTES = 16 << 20
MAX_ERRORS = 20  # named one by one; further ones are counted
# Times are nanoseconds in 64 bits, and their sum must fit into the positive half.
_MAX_T, _MAX_EPOCH = 1 << 31, 1 << 32
_MAX_POSITION = 1 << 62
_RINGS = partition.ring_count(1, 64)  # a ring of each connection that does not depend on how many shards there are
_ADDRESS = re.compile(r"(.*):([0-9]{1,5})", re.DOTALL)


@dataclass(slots=True)
class _Line:
    """An event: what must be known to put it in order, and where it stands in the file. Its bytes are read again."""

    t_ns: int
    connection: int
    order: int
    offset: int
    length: int
    direction: int
    kind: str
    size: int


@dataclass(slots=True)
class _Connection:
    number: int
    client: tuple[str, int]
    server: tuple[str, int]
    mid: bool
    last_ns: int
    sizes: list[int]
    finished: list[bool]
    position: list[int]
    ended: list[bool]
    reset: bool
    opened: bool
    closed: bool


@dataclass(frozen=True, slots=True)
class Event:
    """Ring records of one connection, back to back."""

    conn_id: int
    ts_ns: int
    record: bytes


def _identity(tgid: int, number: int) -> int:
    """The conn_id of a file's connection; the low 12 bits are a CPU's number in live ones."""
    return (tgid << 32 | number + 1) << 12


def _address(item: dict[str, Any], key: str) -> tuple[str, int]:
    text = _member(item, key)
    match = _ADDRESS.fullmatch(text) if isinstance(text, str) else None
    if match is None or int(match[2]) > 65535:
        raise ValueError(f"{key} is no address with a port")
    host = match[1]
    bracketed = host.startswith("[") and host.endswith("]")
    if bracketed:
        host = host[1:-1]
    try:
        abi.address16(host)
    except (OSError, ValueError):
        raise ValueError(f"{key} is no address with a port") from None
    if bracketed != (":" in host):
        raise ValueError(f"{key} is no address with a port")  # an IPv6 address stands in brackets, nothing else
    return host, int(match[2])


def _member(item: dict[str, Any], key: str) -> Any:
    if key not in item:
        raise ValueError(f"{key} is missing")
    return item[key]


def _nanoseconds(value: Any, key: str, below: int) -> int:
    """A number of seconds from 0 to ``below``."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or not 0 <= value < below:
        raise ValueError(f"{key} is no number of seconds from 0 to {below}")
    return round(value * 1e9)


def _count(value: Any, key: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{key} is no whole number from 0 on")
    return value


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    item = dict(pairs)
    if len(item) != len(pairs):
        raise ValueError("a key is there twice")
    return item


def _constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")


def _object(raw: bytes) -> dict[str, Any]:
    """The JSON object of a line. Raises ValueError."""
    try:
        item = json.loads(raw.decode("utf-8"), object_pairs_hook=_pairs, parse_constant=_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(item, dict):
        raise ValueError("not a JSON object")
    return item


def _data(item: dict[str, Any]) -> bytes:
    text = item["data_b64"]
    if not isinstance(text, str):
        raise ValueError("data_b64 is no text")
    return base64.b64decode(text, validate=True)


def _lines(file: BinaryIO) -> Iterator[tuple[int, int, bytes | None]]:
    """(offset, length, line); None for a line that is too long to be read."""
    offset = 0
    while raw := file.readline(MAX_LINE_BYTES + 1):
        length = len(raw)
        if length <= MAX_LINE_BYTES:
            yield offset, length, raw
        else:
            while not raw.endswith(b"\n") and (raw := file.readline(1 << 20)):
                length += len(raw)
            yield offset, length, None
        offset += length


class StreamsFile:
    """One file. ``epoch_ns`` is the wall time of t = 0 (0 when unknown); ``errors`` are the damaged lines (MAX_ERRORS of
    them, and one that counts the others). Raises OSError.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.epoch_ns = 0
        self.errors: list[DamagedFileError] = []
        self._epoch_known = False
        self._damaged = 0
        self._names: set[int] = set()
        self._connections: list[_Connection] = []
        self._current: _Connection | None = None
        self._lost: _Connection | None = None  # behind damage: what the next event's connection is made of
        self._lines: list[_Line] = []
        self._read()
        self._lines.sort(key=lambda line: (line.t_ns, line.connection, line.order))

    @property
    def error(self) -> DamagedFileError | None:
        """The first damage, or None."""
        return self.errors[0] if self.errors else None

    def _read(self) -> None:
        with open(self.path, "rb") as file:
            for order, (offset, length, raw) in enumerate(_lines(file)):
                item = None
                try:
                    if raw is None:
                        raise ValueError(f"longer than {MAX_LINE_BYTES} bytes")
                    if raw.strip():
                        item = _object(raw)
                        self._line(item, order, offset, length)
                except ValueError as error:
                    self._damage(f"line {order + 1}, offset {offset}: {error}", item)
        if not self._connections and not self._damaged:
            self._damage("offset 0: holds no connection", None)
        if self._damaged > MAX_ERRORS:
            self.errors.append(DamagedFileError(f"{self.path}: {self._damaged - MAX_ERRORS} more damaged lines"))

    def _damage(self, text: str, item: dict[str, Any] | None) -> None:
        self._damaged += 1
        if self._damaged <= MAX_ERRORS:
            self.errors.append(DamagedFileError(f"{self.path}: {text}"))
        before = self._current or self._lost
        an_event = item is not None and "connection" not in item and before is not None
        self._lost = self._connection(*(before.client, before.server) if an_event and before else (("", 0), ("", 0)))
        self._current = None

    @staticmethod
    def _connection(client: tuple[str, int], server: tuple[str, int], *, mid: bool = True) -> _Connection:
        return _Connection(0, client, server, mid, 0, [0, 0], [False, False], [0, 0], [False, False], False, False, False)

    def _line(self, item: dict[str, Any], order: int, offset: int, length: int) -> None:
        """Take in a line. Raises ValueError; then nothing of it was taken in."""
        if "connection" in item:
            self._opening(item)
            return
        if self._current is None and self._lost is None:
            raise ValueError("an event before the first connection")
        direction = {"c2s": abi.IN, "s2c": abi.OUT}.get(str(_member(item, "dir")))
        if direction is None:
            raise ValueError("dir is neither c2s nor s2c")
        t_ns = _nanoseconds(_member(item, "t"), "t", _MAX_T)
        kinds = [key for key in ("data_b64", "gap", "end") if key in item]
        if len(kinds) != 1:
            raise ValueError("not one of data_b64, gap, end")
        kind: str = kinds[0]
        size = 0
        if kind == "data_b64":
            size = len(_data(item))
        elif kind == "gap":
            size = _count(item["gap"], "gap")
        elif not isinstance(item["end"], str):
            raise ValueError("end is no text")
        elif item["end"] == "rst":
            kind = "rst"
        connection = self._current or self._lost
        assert connection is not None
        if t_ns < connection.last_ns:
            raise ValueError("t falls")
        if connection.finished[direction] and kind in ("data_b64", "gap"):
            raise ValueError("bytes behind the end of their direction")
        if connection.sizes[direction] + size > _MAX_POSITION:
            raise ValueError("too many bytes in one direction")
        if self._current is None:
            self._add(connection)
        connection.last_ns = t_ns
        connection.sizes[direction] += size
        connection.finished[direction] = connection.finished[direction] or kind in ("end", "rst")
        self._lines.append(_Line(t_ns, connection.number, order, offset, length, direction, kind, size))

    def _opening(self, item: dict[str, Any]) -> None:
        name = _count(item["connection"], "connection")
        if name in self._names:
            raise ValueError(f"connection {name} was opened before")
        client, server = _address(item, "client"), _address(item, "server")
        start = item.get("start", "syn")
        if start not in ("syn", "open", "mid"):
            raise ValueError("start is none of syn, open, mid")
        if item.get("epoch") is not None:
            epoch_ns = _nanoseconds(item["epoch"], "epoch", _MAX_EPOCH)
            if self._epoch_known and epoch_ns != self.epoch_ns:
                raise ValueError("epoch is another one than before")
            self.epoch_ns, self._epoch_known = epoch_ns, True
        self._names.add(name)
        self._add(self._connection(client, server, mid=start == "mid"))

    def _add(self, connection: _Connection) -> None:
        connection.number = len(self._connections)
        self._connections.append(connection)
        self._current = connection
        self._lost = None

    def _bytes(self, fd: int, line: _Line) -> bytes:
        """The bytes of an event, read again. Raises DamagedFileError when the file is another one by now."""
        try:
            data = _data(_object(os.pread(fd, line.length, line.offset)))
        except (ValueError, KeyError):
            data = b""
        if len(data) != line.size:
            raise DamagedFileError(f"{self.path}: line {line.order + 1}, offset {line.offset}: changed while it was read")
        return data

    def events(self, tgid: int, base_ns: int) -> Iterator[Event]:
        """Ring records in order of time; connections are fds 0, 1, ... of process ``tgid``."""
        with open(self.path, "rb") as file:
            yield from self._events(file.fileno(), tgid, base_ns)

    def _events(self, fd: int, tgid: int, base_ns: int) -> Iterator[Event]:
        last_ns = base_ns
        for line in self._lines:
            connection = self._connections[line.connection]
            ts = last_ns = base_ns + line.t_ns
            conn_id = _identity(tgid, connection.number)
            ident = (conn_id, tgid, connection.number)
            if connection.closed:
                continue  # a second end
            if not connection.opened:
                connection.opened = True
                yield Event(
                    conn_id,
                    ts,
                    abi.pack_process(tgid, b"replay", ts_ns=ts)
                    + abi.pack_open(
                        ident,
                        ts_ns=ts,
                        role=abi.SERVER,
                        ring=partition.ring_of(conn_id, _RINGS),
                        start=abi.MID if connection.mid else abi.SEEN,
                        local=connection.server,
                        remote=connection.client,
                    ),
                )
            d = line.direction
            if line.kind == "data_b64":
                record = abi.pack_data(ident, d, connection.position[d], self._bytes(fd, line), ts_ns=ts)
                connection.position[d] += line.size
                yield Event(conn_id, ts, record)
            elif line.kind == "gap":
                connection.position[d] += line.size
            else:
                connection.ended[d] = True
                connection.reset = connection.reset or line.kind == "rst"
                if all(connection.ended):
                    connection.closed = True
                    yield self._close(connection, tgid, ts)
                else:
                    yield Event(conn_id, ts, abi.pack_eof(ident, d, connection.position[d], ts_ns=ts))
        for connection in self._connections:
            if connection.reset and not connection.closed:
                connection.closed = True
                yield self._close(connection, tgid, last_ns)

    @staticmethod
    def _close(connection: _Connection, tgid: int, ts_ns: int) -> Event:
        return Event(
            _identity(tgid, connection.number),
            ts_ns,
            abi.pack_close(
                (_identity(tgid, connection.number), tgid, connection.number),
                ts_ns=ts_ns,
                final_in=connection.position[0],
                final_out=connection.position[1],
            ),
        )
