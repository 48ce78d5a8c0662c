"""Python clients of the TLS matrix. `clients.py MODE PORT LOG` makes the connections that standard input names.

requests   eight threads, ssl.SSLSocket
httpx      eight tasks on asyncio (anyio): ssl.MemoryBIO
aiohttp    eight tasks on asyncio: asyncio's own TLS

A line of LOG for each answer: number, status, the body's length and hash, the connection's own address.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

from tests.live.tls.calls import Call, Reader, calls, connections, note

BED = Path(os.environ.get("TLS_BED", "."))
WORKERS = 8


def context() -> ssl.SSLContext:
    """A client's, with a certificate."""
    made = ssl.create_default_context(cafile=str(BED / "ca.pem"))
    made.load_cert_chain(BED / "client.pem", BED / "client.key")
    made.set_alpn_protocols(["http/1.1"])
    return made


def with_requests(port: int, log: int) -> None:
    import requests
    import urllib3.connection
    import urllib3.connectionpool

    here = threading.local()

    class Connection(urllib3.connection.HTTPSConnection):
        """Tells its thread its address, which requests does not pass on."""

        def connect(self) -> None:
            super().connect()
            here.address = self.sock.getsockname()

    urllib3.connectionpool.HTTPSConnectionPool.ConnectionCls = Connection

    def one(line: str) -> None:
        with requests.Session() as session:
            session.trust_env = False
            session.verify, session.cert = str(BED / "ca.pem"), (str(BED / "client.pem"), str(BED / "client.key"))
            for call in calls(line):
                url = f"https://127.0.0.1:{port}{call.path}"
                with session.request(
                    call.method, url, data=call.body or None, headers=call.headers, stream=True, timeout=60
                ) as answer:
                    reader = Reader(call)
                    while (piece := answer.raw.read(reader.bytes)) and reader.take(piece):
                        time.sleep(reader.pause)
                    note(log, call, answer.status_code, reader, here.address)

    in_threads(one)


def in_threads(one: Callable[[str], None]) -> None:
    """``one`` for each connection, in some threads. The first failure ends the process."""
    lock, lines = threading.Lock(), connections()

    def work() -> None:
        while True:
            with lock:
                line = next(lines, None)
            if line is None:
                return
            try:
                one(line)
            except BaseException:
                import traceback

                traceback.print_exc()
                os._exit(1)

    threads = [threading.Thread(target=work) for _ in range(WORKERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


async def in_tasks(one: Callable[[str], Coroutine[Any, Any, None]]) -> None:
    """``one`` for each connection, in some tasks."""
    waiting = asyncio.Queue[str | None](WORKERS)

    async def work() -> None:
        while (line := await waiting.get()) is not None:
            await one(line)

    async def read() -> None:
        loop, lines = asyncio.get_running_loop(), connections()
        while (line := await loop.run_in_executor(None, next, lines, None)) is not None:
            await waiting.put(line)
        for _ in range(WORKERS):
            await waiting.put(None)

    await asyncio.gather(read(), *(work() for _ in range(WORKERS)))


async def pieces(call: Call, reader: Reader, read: Callable[[int], Any]) -> None:
    """Read an answer as the connection wants it."""
    while (piece := await read(reader.bytes)) and reader.take(piece):
        if reader.pause:
            await asyncio.sleep(reader.pause)


def following(coming: AsyncIterator[bytes]) -> Callable[[int], Any]:
    """An iterator's pieces, whatever their lengths; nothing at its end."""
    return lambda _: anext(coming, b"")


def with_httpx(port: int, log: int) -> None:
    import httpx

    tls = context()

    async def one(line: str) -> None:
        async with httpx.AsyncClient(verify=tls, trust_env=False, timeout=60) as client:
            for call in calls(line):
                url = f"https://127.0.0.1:{port}{call.path}"
                async with client.stream(call.method, url, content=call.body or None, headers=call.headers) as answer:
                    address = answer.extensions["network_stream"].get_extra_info("client_addr")
                    reader = Reader(call)
                    await pieces(call, reader, following(answer.aiter_raw(reader.bytes)))
                    note(log, call, answer.status_code, reader, address)

    asyncio.run(in_tasks(one))


def with_aiohttp(port: int, log: int) -> None:
    import aiohttp

    class Connector(aiohttp.TCPConnector):
        """Keeps the address of its connection, which the answer may have given back already."""

        address: tuple[str, int] = ("", 0)

        async def connect(self, *arguments: Any, **named: Any) -> Any:
            connection = await super().connect(*arguments, **named)
            assert connection.transport is not None
            self.address = connection.transport.get_extra_info("sockname")
            return connection

    tls = context()

    async def one(line: str) -> None:
        connector = Connector(ssl=tls, limit=1)
        async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as session:
            for call in calls(line):
                url = f"https://127.0.0.1:{port}{call.path}"
                async with session.request(call.method, url, data=call.body or None, headers=call.headers) as answer:
                    reader = Reader(call)
                    await pieces(call, reader, answer.content.read)
                    note(log, call, answer.status, reader, connector.address)

    asyncio.run(in_tasks(one))


def main() -> None:
    mode, port, log = sys.argv[1:]
    ways = {"requests": with_requests, "httpx": with_httpx, "aiohttp": with_aiohttp}
    ways[mode](int(port), os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT))


if __name__ == "__main__":
    main()
