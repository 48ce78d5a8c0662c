"""Python servers of the matrix. `servers.py MODE` prints the port, then serves until killed.

plain      a thread for each connection; says who its peer is (X-Peer)
forking    http.server with ForkingMixIn
uvicorn    uvicorn with uvloop
turns      after accept a second process is forked; the two answer in turn
halves     after accept a second process is forked; one reads, the other answers
passed     the accepted socket goes to another process by SCM_RIGHTS
dup        the accepted socket is dup'd and closed before the first byte
getfd      another process takes the accepted socket by pidfd_getfd
"""

from __future__ import annotations

import contextlib
import ctypes
import http.server
import os
import signal
import socket
import socketserver
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

PIDFD_GETFD = 438  # the same number on every architecture


def process() -> str:
    """`PID NAME` of this process."""
    return f"{os.getpid()} {Path('/proc/self/comm').read_text().strip()}"


def body_for(path: str) -> bytes:
    """The body that a path of the matrix asks for."""
    number, size = path.split("/")[-2:]
    unit = number + "."
    return (unit * (int(size) // len(unit) + 1))[: int(size)].encode()


def read_request(sock: socket.socket) -> str | None:
    """The path of the next request, after its body was read; None at the end."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = sock.recv(65536)
        if not piece:
            return None
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    length = next(
        (int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0
    )
    have = len(body)
    while have < length:
        have += len(sock.recv(65536))
    return head.split(b" ")[1].decode()


def answer(sock: socket.socket, path: str) -> None:
    """The answer to a path."""
    body, peer = body_for(path), sock.getpeername()
    head = (
        f"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nX-Process: {process()}\r\n"
        f"X-Peer: {peer[0]}:{peer[1]}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    sock.sendall(head.encode() + body)


def serve(sock: socket.socket) -> None:
    """Requests of one connection until its end."""
    with sock, contextlib.suppress(ConnectionError):
        while (path := read_request(sock)) is not None:
            answer(sock, path)


def in_thread(sock: socket.socket) -> None:
    threading.Thread(target=serve, args=(sock,), daemon=True).start()


def accept_all(listener: socket.socket, one: Callable[[socket.socket], None]) -> None:
    while True:
        one(listener.accept()[0])


def accept_forked(listener: socket.socket, one: Callable[[socket.socket], None]) -> None:
    """A process for each connection, which ends with it."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        sock = listener.accept()[0]
        if os.fork() == 0:
            listener.close()
            with contextlib.suppress(ConnectionError):
                one(sock)
            os._exit(0)
        sock.close()


def turns(sock: socket.socket) -> None:
    """This process and a child of it: who has the token reads a request, answers, and gives the token away."""
    ours, give_ours = os.pipe()
    theirs, give_theirs = os.pipe()
    os.write(give_ours, b"t")
    if os.fork() == 0:
        wait, give = theirs, give_ours
        os.close(give_theirs)
    else:
        wait, give = ours, give_theirs
        os.close(give_ours)
    while os.read(wait, 1):
        path = read_request(sock)
        if path is None:
            break
        answer(sock, path)
        os.write(give, b"t")


def halves(sock: socket.socket) -> None:
    """This process reads, a child of it answers."""
    paths, tell = os.pipe()
    if os.fork() == 0:
        os.close(tell)
        with os.fdopen(paths) as lines:
            for line in lines:
                answer(sock, line.rstrip("\n"))
        return
    while (path := read_request(sock)) is not None:
        os.write(tell, path.encode() + b"\n")


def dup_first(sock: socket.socket) -> None:
    copy = socket.socket(fileno=os.dup(sock.fileno()))
    sock.close()
    in_thread(copy)


def passed(listener: socket.socket) -> None:
    """The child serves what its parent accepts and sends to it."""
    here, there = socket.socketpair()
    if os.fork() == 0:
        listener.close()
        here.close()
        while (received := socket.recv_fds(there, 1, 1))[0]:
            in_thread(socket.socket(fileno=received[1][0]))
        return

    def send(sock: socket.socket) -> None:
        socket.send_fds(here, [b"s"], [sock.fileno()])
        sock.close()

    accept_all(listener, send)


def getfd(listener: socket.socket) -> None:
    """The child serves what it takes out of its parent."""
    here, there = socket.socketpair()
    parent = os.getpid()
    if os.fork() == 0:
        listener.close()
        here.close()
        pidfd, libc = os.pidfd_open(parent), ctypes.CDLL(None, use_errno=True)
        while number := there.recv(4):
            taken = libc.syscall(ctypes.c_long(PIDFD_GETFD), pidfd, int.from_bytes(number, "little"), 0)
            assert taken >= 0, os.strerror(ctypes.get_errno())
            in_thread(socket.socket(fileno=taken))
            there.send(b"t")
        return

    def offer(sock: socket.socket) -> None:
        here.send(sock.fileno().to_bytes(4, "little"))
        here.recv(1)
        sock.close()

    accept_all(listener, offer)


class Handler(http.server.BaseHTTPRequestHandler):
    """The matrix' answers by http.server."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = body_for(self.path)
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Process", process())
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


class ForkingServer(socketserver.ForkingMixIn, http.server.HTTPServer):
    """A process for each connection."""

    max_children = 100


def forking() -> None:
    server = ForkingServer(("127.0.0.1", 0), Handler)
    print(server.server_port, flush=True)
    server.serve_forever()


def print_port(listener: socket.socket) -> None:
    print(listener.getsockname()[1], flush=True)


async def application(scope: dict[str, Any], receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
    """The matrix' answers by ASGI; long ones in pieces."""
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    body = body_for(scope["path"])
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [
                (b"content-type", b"text/plain"),
                (b"content-length", b"%d" % len(body)),
                (b"x-process", process().encode()),
            ],
        }
    )
    for at in range(0, len(body), 20_000):
        await send({"type": "http.response.body", "body": body[at : at + 20_000], "more_body": True})
    await send({"type": "http.response.body"})


def with_uvicorn(listener: socket.socket) -> None:
    import uvicorn

    print_port(listener)
    uvicorn.Server(uvicorn.Config(application, loop="uvloop", lifespan="off", log_level="error")).run([listener])


def main() -> None:
    mode = sys.argv[1]
    if mode == "forking":
        return forking()
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", 0))
    listener.listen(512)
    if mode == "uvicorn":
        return with_uvicorn(listener)
    print_port(listener)
    ways: dict[str, Callable[[], None]] = {
        "plain": lambda: accept_all(listener, in_thread),
        "turns": lambda: accept_forked(listener, turns),
        "halves": lambda: accept_forked(listener, halves),
        "passed": lambda: passed(listener),
        "dup": lambda: accept_all(listener, dup_first),
        "getfd": lambda: getfd(listener),
    }
    return ways[mode]()


if __name__ == "__main__":
    main()
