"""Python servers of the TLS matrix. `servers.py MODE LOG` prints the port, then serves until killed.

threads    http.server, a thread for each connection, ssl.SSLSocket
asyncio    uvicorn on asyncio: ssl.MemoryBIO
uvloop     uvicorn on uvloop

TLS_BED is the folder with certificates and the pool. A line of LOG for each request: number, method, the body's length and
hash, the peer's address.
"""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import socket
import socketserver
import ssl
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from tests.live.tls.exchanges import Exchange, content

BED = Path(os.environ.get("TLS_BED", "."))
PIECE = 16_000


class Answers:
    """What is answered to a request, which is written down first."""

    def __init__(self, log: str) -> None:
        self._letters = (BED / "pool").read_bytes()
        self._log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def __call__(self, method: str, path: str, body: bytes, peer: tuple[str, int]) -> tuple[Exchange, bytes]:
        number, size = map(int, path.split("/")[-2:])
        line = {
            "number": number,
            "method": method,
            "bytes": len(body),
            "sha256": hashlib.sha256(body).hexdigest(),
            "peer": f"{peer[0]}:{peer[1]}",
        }
        os.write(self._log, json.dumps(line).encode() + b"\n")
        return Exchange(number, method, path, len(body), size), content(self._letters, number, size)


def context() -> ssl.SSLContext:
    """A server's, that wants a client's certificate."""
    made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(BED / "ca.pem"))
    made.verify_mode = ssl.CERT_REQUIRED
    made.load_cert_chain(BED / "server.pem", BED / "server.key")
    made.set_alpn_protocols(["http/1.1"])
    return made


class Handler(http.server.BaseHTTPRequestHandler):
    """http.server's, after the handshake in the connection's own thread."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    tls: ssl.SSLContext
    answers: Answers

    def setup(self) -> None:
        self.request = self.tls.wrap_socket(self.request, server_side=True)
        super().setup()

    def finish(self) -> None:
        super().finish()
        self.request.close()

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        exchange, answer = self.answers(self.command, self.path, body, self.client_address)
        self.send_response(exchange.status)
        self.send_header("Content-Type", "text/plain")
        if not exchange.chunked:
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)
            return
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for at in range(0, len(answer), PIECE):
            piece = answer[at : at + PIECE]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        self.wfile.write(b"0\r\n\r\n")

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    """A thread for each connection."""

    daemon_threads = True
    request_queue_size = 512

    def handle_error(self, *_: object) -> None:
        """Clients may leave in the middle of an answer; anything else is missed by the test."""


def with_threads(answers: Answers) -> None:
    Handler.tls, Handler.answers = context(), answers
    server = Server(("127.0.0.1", 0), Handler)
    print(server.server_port, flush=True)
    server.serve_forever()


def application(answers: Answers) -> Callable[..., Any]:
    """An ASGI application."""

    async def one(scope: dict[str, Any], receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
        if scope["type"] != "http":
            return
        pieces = []
        while True:
            message = await receive()
            pieces.append(message.get("body", b""))
            if not message.get("more_body"):
                break
        exchange, answer = answers(scope["method"], scope["path"], b"".join(pieces), scope["client"])
        headers = [(b"content-type", b"text/plain")]
        if not exchange.chunked:
            headers.append((b"content-length", b"%d" % len(answer)))
        await send({"type": "http.response.start", "status": exchange.status, "headers": headers})
        for at in range(0, len(answer), 4 * PIECE):
            await send({"type": "http.response.body", "body": answer[at : at + 4 * PIECE], "more_body": True})
        await send({"type": "http.response.body"})

    return one


def with_uvicorn(answers: Answers, loop: Literal["asyncio", "uvloop"]) -> None:
    import uvicorn

    listener = socket.socket(proto=socket.IPPROTO_TCP)  # of no other does asyncio know that it is of TCP
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", 0))
    listener.listen(512)
    config = uvicorn.Config(
        application(answers),
        loop=loop,
        lifespan="off",
        log_level="error",
        ssl_certfile=BED / "server.pem",
        ssl_keyfile=str(BED / "server.key"),
        ssl_ca_certs=str(BED / "ca.pem"),
        ssl_cert_reqs=ssl.CERT_REQUIRED,
        timeout_keep_alive=60,
    )
    print(listener.getsockname()[1], flush=True)
    uvicorn.Server(config).run([listener])


def main() -> None:
    mode, log = sys.argv[1:]
    answers = Answers(log)
    if mode == "threads":
        with_threads(answers)
    else:
        with_uvicorn(answers, "uvloop" if mode == "uvloop" else "asyncio")


if __name__ == "__main__":
    main()
