"""`.streams.jsonl`: two-sided streams as text, turned into events.

A line with the key `connection` opens a connection (client, server, start, epoch); the following lines are its events:
`dir` (c2s, s2c), `t` (seconds since the start of the file) and one of `data_b64`, `gap` (bytes missing), `end`.
Connections are merged by `t`. Nobody knows which process it was, so each file is a process number and each connection
a descriptor of it; the server's side is taken: direction 1.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator
from dataclasses import dataclass

from collector import abi
from collector.errors import DamagedFileError

BASE_NS = 1_000_000_000  # event time of t = 0 of the first file: not 0, which means "never" in places
FILE_GAP_NS = 86400 * 1_000_000_000  # silence between two files: every timer of the first one is over


@dataclass(slots=True)
class _Line:
    t_ns: int
    connection: int
    order: int
    direction: int
    kind: str
    data: bytes
    size: int


@dataclass(slots=True)
class _Connection:
    number: int
    client: tuple[str, int]
    server: tuple[str, int]
    mid: bool
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


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    host = host.strip("[]")
    abi.address16(host)
    return host, int(port)


class StreamsFile:
    """One parsed file. ``epoch_ns`` is the wall time of t = 0 (0 when unknown); ``error`` is what stopped the reading
    (None at a good end): the events before it are kept.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.epoch_ns = 0
        self.error: DamagedFileError | None = None
        self._connections: list[_Connection] = []
        self._lines: list[_Line] = []
        self._read()
        self._lines.sort(key=lambda line: (line.t_ns, line.connection, line.order))

    def _read(self) -> None:
        offset = 0
        with open(self.path, "rb") as file:
            for number, raw in enumerate(file):
                try:
                    self._line(raw, number)
                except (ValueError, KeyError, TypeError, OSError, binascii.Error) as error:
                    self.error = DamagedFileError(f"{self.path}: line {number + 1}, offset {offset}: {error}")
                    return
                offset += len(raw)

    def _line(self, raw: bytes, order: int) -> None:
        if not raw.strip():
            return
        item = json.loads(raw)
        if not isinstance(item, dict):
            raise ValueError("not a JSON object")
        if "connection" in item:
            if item.get("epoch") is not None:
                self.epoch_ns = int(float(item["epoch"]) * 1e9)
            self._connections.append(_Connection(
                len(self._connections), _address(item["client"]), _address(item["server"]), item.get("start") == "mid",
                [0, 0], [False, False], False, False, False))
            return
        if not self._connections:
            raise ValueError("an event before the first connection")
        direction = {"c2s": abi.IN, "s2c": abi.OUT}[item["dir"]]
        t_ns = int(round(float(item["t"]) * 1e9))
        if t_ns < 0:
            raise ValueError("t is negative")
        data, size = b"", 0
        if "data_b64" in item:
            kind, data = "data", base64.b64decode(item["data_b64"], validate=True)
        elif "gap" in item:
            kind, size = "gap", int(item["gap"])
            if size < 0:
                raise ValueError("gap is negative")
        elif "end" in item:
            kind = "rst" if item["end"] == "rst" else "end"
        else:
            raise ValueError("none of data_b64, gap, end")
        self._lines.append(_Line(t_ns, len(self._connections) - 1, order, direction, kind, data, size))

    def events(self, tgid: int, base_ns: int) -> Iterator[Event]:
        """Ring records in order of time; connections are fds 0, 1, ... of process ``tgid``."""
        last_ns = base_ns
        for line in self._lines:
            connection = self._connections[line.connection]
            ts = last_ns = base_ns + line.t_ns
            conn_id = _identity(tgid, connection.number)
            ident = (conn_id, tgid, connection.number)
            if connection.closed:
                continue
            if not connection.opened:
                connection.opened = True
                yield Event(conn_id, ts, abi.pack_process(tgid, b"replay", ts_ns=ts) + abi.pack_open(
                    ident, ts_ns=ts, role=abi.SERVER, start=abi.MID if connection.mid else abi.SEEN,
                    local=connection.server, remote=connection.client))
            d = line.direction
            if line.kind == "data":
                record = abi.pack_data(ident, d, connection.position[d], line.data, ts_ns=ts)
                connection.position[d] += len(line.data)
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
        return Event(_identity(tgid, connection.number), ts_ns, abi.pack_close(
            (_identity(tgid, connection.number), tgid, connection.number), ts_ns=ts_ns, final_in=connection.position[0],
            final_out=connection.position[1]))
