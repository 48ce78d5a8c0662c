"""A chat server and its clients over WebSocket (websockets), and server-sent events: programs of test_streams.py.

    python -m tests.live.chat server DIRECTORY [CERTIFICATE KEY]    tells its port; logs what it received and sent
    python -m tests.live.chat client URL SEED MESSAGES DIRECTORY    logs what it sent and received
    python -m tests.live.chat events                                tells its port: events over HTTP/1, chunked

A line of a log is JSON: [who spoke, opcode, text or base64].
"""

from __future__ import annotations

import asyncio
import base64
import json
import random
import ssl
import sys
from pathlib import Path
from typing import TextIO

from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

WORDS = ["lorem", "ipsum", "straße", "漢字", '"quoted"', "\\", "\n", "😀"]


def note(log: TextIO, who: str, message: str | bytes) -> None:
    text = message if isinstance(message, str) else base64.b64encode(message).decode()
    log.write(json.dumps([who, 1 if isinstance(message, str) else 2, text]) + "\n")
    log.flush()


def tell(port: int) -> None:
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()


async def server(directory: Path, files: list[str]) -> None:
    context = None
    if files:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*files)

    async def talk(end: ServerConnection) -> None:
        assert end.request is not None
        with (directory / f"server{end.request.path.replace('/', '-')}.jsonl").open("w") as log:
            async for message in end:
                note(log, "client", message)
                for answer in (message, f"{len(message)} received") if len(message) % 2 else (message,):
                    note(log, "server", answer)
                    await end.send(answer)

    async with serve(talk, "127.0.0.1", 0, ssl=context) as running:
        tell(next(iter(running.sockets)).getsockname()[1])
        await asyncio.get_running_loop().create_future()


async def client(url: str, seed: int, messages: int, directory: Path) -> None:
    rng = random.Random(seed)
    context = None
    if url.startswith("wss:"):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    with (directory / f"client-{seed}.jsonl").open("w") as log:
        async with connect(url, ssl=context) as end:
            for _ in range(messages):
                size = rng.choice([1, 5, 40, 400])
                text: str | bytes = " ".join(rng.choice(WORDS) for _ in range(size))
                if rng.random() < 0.3:
                    text = rng.randbytes(size)
                note(log, "client", text)
                await (end.send(text) if rng.random() < 0.8 else end.send([text[: size // 2], text[size // 2 :]]))
                for _ in range(2 if len(text) % 2 else 1):
                    note(log, "server", await end.recv())


async def events() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for n in range(30):
            event = b"id: %d\ndata: %s\n\n" % (n, b"x" * n)
            writer.write(b"%x\r\n%s\r\n" % (len(event), event))
            await writer.drain()
            await asyncio.sleep(0.1)
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        writer.close()

    running = await asyncio.start_server(answer, "127.0.0.1", 0)
    tell(running.sockets[0].getsockname()[1])
    await running.serve_forever()


if __name__ == "__main__":
    if sys.argv[1] == "server":
        asyncio.run(server(Path(sys.argv[2]), sys.argv[3:]))
    elif sys.argv[1] == "client":
        asyncio.run(client(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), Path(sys.argv[5])))
    else:
        asyncio.run(events())
