"""Numbered exchanges, sent by a client of our own over raw sockets, and checked as they come back.

The path of an exchange ends in `/NUMBER/SIZE`; the server answers with :func:`text` of both. So every answer names its
question, and every byte of it is known beforehand. A header `X-Process: PID NAME` says which process answered.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

SCALE = float(os.environ.get("MATRIX_SCALE", "1"))
EXCHANGES = int(180 * SCALE)
SIZES = (40, 300, 12_000, 90, 1_400, 70_000, 600, 25, 30_000, 5_000, 200_000, 150)
POSTED = (10, 2_000, 20_000)


def text(number: int, size: int) -> str:
    """The body that belongs to a number: `17.17.17.17...`, so long."""
    unit = f"{number}."
    return (unit * (size // len(unit) + 1))[:size]


@dataclass
class Exchange:
    """A request, what its answer must be, and what was seen of it on the client's side."""

    number: int
    method: str
    path: str
    size: int
    body: str = ""
    client: str = ""
    server: str = ""
    pid: int = 0
    name: str = ""
    peer: str = ""


@dataclass(frozen=True)
class Answer:
    """A response: fields with lower-case names, and the body without transfer coding."""

    status: int
    fields: dict[str, str]
    body: bytes


def comm(pid: int | str = "self") -> str:
    """The name of a process: that of its first thread."""
    return Path(f"/proc/{pid}/comm").read_text().rstrip("\n")


def plan(prefix: str, count: int, sizes: tuple[int, ...] = SIZES) -> list[Exchange]:
    """Exchanges number 1000 and on, each third one a POST."""
    exchanges = []
    for number in range(1000, 1000 + count):
        size = sizes[number % len(sizes)]
        post = number % 3 == 0
        exchanges.append(
            Exchange(
                number,
                "POST" if post else "GET",
                f"{prefix}/{number}/{size}",
                size,
                text(number, POSTED[number // 3 % len(POSTED)]) if post else "",
            )
        )
    return exchanges


class Reader:
    """Responses from one connection."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._data = b""

    def _more(self) -> None:
        piece = self._sock.recv(65536)
        if not piece:
            raise EOFError(f"the server closed; in hand: {self._data[:200]!r}")
        self._data += piece

    def _line(self) -> bytes:
        while b"\r\n" not in self._data:
            self._more()
        line, _, self._data = self._data.partition(b"\r\n")
        return line

    def _bytes(self, count: int) -> bytes:
        pieces, have = [self._data], len(self._data)
        while have < count:
            piece = self._sock.recv(262144)
            if not piece:
                raise EOFError(f"{have} of {count} bytes")
            pieces.append(piece)
            have += len(piece)
        data = b"".join(pieces)
        self._data = data[count:]
        return data[:count]

    def _chunks(self) -> bytes:
        body = []
        while size := int(self._line().split(b";")[0], 16):
            body.append(self._bytes(size))
            assert self._line() == b""
        assert self._line() == b""
        return b"".join(body)

    def _rest(self) -> bytes:
        try:
            while True:
                self._more()
        except EOFError:
            return self._data

    def answer(self) -> Answer:
        """The next one."""
        status = int(self._line().split(b" ")[1])
        fields = {}
        while line := self._line().decode():
            name, _, value = line.partition(":")
            fields[name.lower()] = value.strip()
        if fields.get("transfer-encoding") == "chunked":
            body = self._chunks()
        elif "content-length" in fields:
            body = self._bytes(int(fields["content-length"]))
        else:
            body = self._rest()
        return Answer(status, fields, body)


def send(sock: socket.socket, exchange: Exchange, *, close: bool) -> None:
    """One request; every other body by a call of its own."""
    head = f"{exchange.method} {exchange.path} HTTP/1.1\r\nHost: h\r\n"
    if close:
        head += "Connection: close\r\n"
    if exchange.method == "POST":
        head += f"Content-Type: text/plain\r\nContent-Length: {len(exchange.body)}\r\n"
    if exchange.number % 2:
        sock.sendall(f"{head}\r\n{exchange.body}".encode())
    else:
        sock.sendall(f"{head}\r\n".encode())
        if exchange.body:
            sock.sendall(exchange.body.encode())


def note(exchange: Exchange, answer: Answer) -> None:
    """The answer is the right one; which process gave it is kept."""
    assert answer.status == 200, (exchange, answer)
    wanted = text(exchange.number, exchange.size).encode()
    assert answer.body == wanted, (exchange.path, len(wanted), len(answer.body), answer.body[:60])
    pid, _, name = answer.fields.get("x-process", "0 ").partition(" ")
    exchange.pid, exchange.name = int(pid), name
    exchange.peer = answer.fields.get("x-peer", "")


def note_beast(exchanges: dict[int, Exchange], line: str, port: int) -> None:
    """A line of the Beast client: number, own address, status, length, whether the body was right, server's process."""
    number, client, status, length, right, pid, name = line.split(" ", 6)
    exchange = exchanges[int(number)]
    assert (status, int(length), right) == ("200", exchange.size, "right"), line
    exchange.client, exchange.server, exchange.pid, exchange.name = client, f"127.0.0.1:{port}", int(pid), name


def converse(port: int, exchanges: list[Exchange], *, close: bool) -> None:
    """All of them over one connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        reader = Reader(sock)
        address, own_port = sock.getsockname()
        for exchange in exchanges:
            exchange.client, exchange.server = f"{address}:{own_port}", f"127.0.0.1:{port}"
            send(sock, exchange, close=close)
            note(exchange, reader.answer())


def drive(port: int, exchanges: list[Exchange], *, keep_alive: bool = True, connections: int = 4, each: int = 15) -> None:
    """Over ``connections`` at a time, with ``each`` exchanges on one before it is closed (or only one)."""
    length = each if keep_alive else 1
    batches = [exchanges[at : at + length] for at in range(0, len(exchanges), length)]
    together(connections, batches, lambda batch: converse(port, batch, close=not keep_alive))


def together(threads: int, batches: list[list[Exchange]], work: Callable[[list[Exchange]], None]) -> None:
    """``work`` for all batches, in ``threads`` at a time; the first failure is raised."""
    waiting, failures = list(reversed(batches)), list[Exception]()

    def one() -> None:
        while waiting and not failures:
            try:
                work(waiting.pop())
            except IndexError:
                return
            except Exception as error:  # seen below, in the test's own thread
                failures.append(error)

    running = [threading.Thread(target=one, daemon=True) for _ in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    if failures:
        raise failures[0]
