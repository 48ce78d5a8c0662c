"""Many connections at once, with large bodies both ways; a program for each side.

    python crowd.py serve CONNECTIONS BYTES            prints its port; serves until killed
    python crowd.py call PORT CONNECTIONS BYTES ROUNDS PREFIX

In each round every caller sends its request, and the server answers none before all are there: so all of their bodies wait
at the same moment. The caller compares each answer with what it asked for, and prints how many were right.
"""

from __future__ import annotations

import asyncio
import resource
import sys

FILLER = b"the quick brown fox jumps over the lazy dog; "


def body(name: str, size: int) -> bytes:
    """So many bytes that begin with the name."""
    head = f"{name} ".encode()
    return (head + FILLER * (size // len(FILLER) + 1))[:size]


async def read_message(reader: asyncio.StreamReader) -> tuple[str, bytes] | None:
    """The start line's second word, and the body."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
    except asyncio.IncompleteReadError:
        return None
    fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:-2])
    return head.split(" ")[1], await reader.readexactly(int(fields["Content-Length"]))


async def serve(connections: int, size: int) -> None:
    barrier = asyncio.Barrier(connections)

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while (message := await read_message(reader)) is not None:
            await barrier.wait()
            answer = body(message[0], size)
            head = f"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {len(answer)}\r\n\r\n"
            writer.write(head.encode() + answer)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(one, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)  # noqa: T201
    await server.serve_forever()


async def call(port: int, connections: int, size: int, rounds: int, prefix: str) -> None:
    opening = asyncio.Semaphore(100)

    async def one(number: int) -> int:
        right = 0
        async with opening:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for turn in range(rounds):
            path = f"/{prefix}/{number}/{turn}"
            content = body(path, size)
            head = f"POST {path} HTTP/1.1\r\nHost: h\r\nContent-Type: text/plain\r\nContent-Length: {len(content)}\r\n\r\n"
            writer.write(head.encode() + content)
            await writer.drain()
            message = await read_message(reader)
            right += message == ("200", body(path, size))
        writer.close()
        return right

    print(sum(await asyncio.gather(*(one(n) for n in range(connections)))))  # noqa: T201


def main() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    mode, *rest = sys.argv[1:]
    if mode == "serve":
        asyncio.run(serve(*map(int, rest)))
    else:
        port, connections, size, rounds = map(int, rest[:4])
        asyncio.run(call(port, connections, size, rounds, rest[4]))


if __name__ == "__main__":
    main()
