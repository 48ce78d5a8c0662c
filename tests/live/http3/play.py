"""HTTP/3 by aioquic: a server that prints its port, and a client that makes connections of one exchange each.

    python -m tests.live.http3.play NAME server HOST CERTIFICATE KEY [retry]
    python -m tests.live.http3.play NAME client HOST PORT CONNECTIONS [VERSION]

NAME is that of the process. The client prints "done" and waits for the end of its input.
"""

from __future__ import annotations

import asyncio
import ctypes
import ssl
import sys
from typing import Any

from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.asyncio.server import serve
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import QuicEvent

BODY = b"x" * 100_000


class Server(QuicConnectionProtocol):
    """Answers each request with BODY."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.http = H3Connection(self._quic)

    def quic_event_received(self, event: QuicEvent) -> None:
        for happened in self.http.handle_event(event):
            if isinstance(happened, HeadersReceived):
                self.http.send_headers(happened.stream_id, [(b":status", b"200")])
                self.http.send_data(happened.stream_id, BODY, end_stream=True)
                self.transmit()


class Client(QuicConnectionProtocol):
    """One request."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.http = H3Connection(self._quic)
        self.got = 0
        self.done = asyncio.get_running_loop().create_future()

    async def ask(self, host: str) -> None:
        stream = self._quic.get_next_available_stream_id()
        names = {b":method": b"GET", b":scheme": b"https", b":authority": host.encode(), b":path": b"/http3"}
        self.http.send_headers(stream, list(names.items()), end_stream=True)
        self.transmit()
        await self.done

    def quic_event_received(self, event: QuicEvent) -> None:
        for happened in self.http.handle_event(event):
            if isinstance(happened, DataReceived):
                self.got += len(happened.data)
                if happened.stream_ended:
                    self.done.set_result(None)


def say(what: object) -> None:
    """A line for the test."""
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


async def serving(host: str, certificate: str, key: str, *, retry: bool) -> None:
    configuration = QuicConfiguration(is_client=False, alpn_protocols=H3_ALPN)
    configuration.load_cert_chain(certificate, key)
    server: Any = await serve(host, 0, configuration=configuration, create_protocol=Server, retry=retry)
    say(server._transport.get_extra_info("sockname")[1])
    await asyncio.Event().wait()


async def calling(host: str, port: int, connections: int, version: int) -> None:
    for _ in range(connections):
        configuration = QuicConfiguration(alpn_protocols=H3_ALPN, verify_mode=ssl.CERT_NONE)
        configuration.original_version = version
        async with connect(host, port, configuration=configuration, create_protocol=Client) as client:
            assert isinstance(client, Client)
            await client.ask(host)
            assert client.got == len(BODY)
    say("done")
    sys.stdin.read()


def main(name: str, role: str, host: str, *rest: str) -> None:
    """As above."""
    ctypes.CDLL(None).prctl(15, name.encode())  # PR_SET_NAME
    if role == "server":
        asyncio.run(serving(host, *rest[:2], retry="retry" in rest))
    else:
        asyncio.run(calling(host, int(rest[0]), int(rest[1]), int(rest[2]) if rest[2:] else 1))


if __name__ == "__main__":
    main(*sys.argv[1:])
