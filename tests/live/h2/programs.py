"""Python programs of the HTTP/2 matrix, and curl: `programs.py MODE ...`, inside TLS, or in clear if H2_CLEAR is set.

hypercorn LOG          an ASGI application; in clear it takes the upgrade from HTTP/1, too
httpx PORT LOG         makes the connections that standard input names, the exchanges of one after another (side by side it
                       loses count of its streams now and then)
curl PORT LOG          the same: with prior knowledge, or by the upgrade if H2_UPGRADE is set
grpc-server            grpcio: the service matrix.Echo, and the one for health
grpc-client PORT N     calls both: some unary calls, then a stream of N messages each way

Servers print their port, then serve until killed.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.live.tls.calls import Call, Reader, calls, connections, note
from tests.live.tls.servers import Answers, application

BED = Path(os.environ.get("TLS_BED", "."))
CLEAR = bool(os.environ.get("H2_CLEAR"))
SCHEME = "http" if CLEAR else "https"


def opened(log: str) -> int:
    return os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def hypercorn(log: str) -> None:
    from hypercorn.asyncio import serve
    from hypercorn.config import Config

    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(512)
    config = Config()
    config.bind = [f"fd://{listener.fileno()}"]
    config.loglevel = "ERROR"
    config.include_server_header = False
    if not CLEAR:
        config.certfile, config.keyfile, config.alpn_protocols = str(BED / "server.pem"), str(BED / "server.key"), ["h2"]
    print(listener.getsockname()[1], flush=True)
    asyncio.run(serve(application(Answers(log)), config))


def httpx(port: str, log: str) -> None:
    import ssl

    import httpx

    file = opened(log)
    tls = ssl.create_default_context(cafile=str(BED / "ca.pem"))

    async def exchange(client: httpx.AsyncClient, call: Call) -> None:
        url = f"{SCHEME}://127.0.0.1:{port}{call.path}"
        async with client.stream(call.method, url, content=call.body or None, headers=call.headers) as answer:
            address = answer.extensions["network_stream"].get_extra_info("client_addr")
            assert answer.http_version == "HTTP/2"
            reader = Reader(call)
            async for piece in answer.aiter_raw():
                reader.take(piece)
            note(file, call, answer.status_code, reader, address)

    async def connection(line: str) -> None:
        limits = httpx.Limits(max_connections=1)
        async with httpx.AsyncClient(
            verify=tls, trust_env=False, timeout=60, http1=False, http2=True, limits=limits
        ) as client:
            for call in calls(line):
                await exchange(client, call)

    async def work() -> None:
        loop, lines = asyncio.get_running_loop(), connections()
        while (line := await loop.run_in_executor(None, next, lines, None)) is not None:
            await connection(line)

    asyncio.run(work())


def curl_options(port: str, call: Call, directory: Path) -> Iterator[str]:
    """Lines of a configuration file for one exchange."""
    yield f'url = "{SCHEME}://127.0.0.1:{port}{call.path}"'
    yield f"request = {call.method}"
    yield "http2" if not CLEAR or os.environ.get("H2_UPGRADE") else "http2-prior-knowledge"
    yield f'cacert = "{BED}/ca.pem"'
    yield f'output = "{directory}/{call.number}"'
    yield 'write-out = "%{json}\\n"'
    yield "silent"
    if call.body:
        (directory / f"{call.number}.body").write_bytes(call.body)
        yield f'data-binary = "@{directory}/{call.number}.body"'
        yield 'header = "Content-Type: text/plain"'


def curl(port: str, log: str) -> None:
    """In clear a process for each exchange: curl 7.88 cannot go on with such a connection."""
    file = opened(log)
    for line in connections():
        made = list(calls(line))
        for group in [[call] for call in made] if CLEAR else [made]:
            curl_group(port, file, group)


def curl_group(port: str, file: int, group: list[Call]) -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        options = "\nnext\n".join("\n".join(curl_options(port, call, directory)) for call in group)
        command = ["curl", "--disable", "--noproxy", "*", "--config", "-"]
        said = subprocess.run(command, input=options, capture_output=True, text=True, check=True).stdout
        for call, told in zip(group, map(json.loads, said.splitlines()), strict=True):
            assert told["http_version"] == "2", told
            reader = Reader(call)
            body = directory / str(call.number)
            reader.take(body.read_bytes() if body.exists() else b"")
            note(file, call, told["http_code"], reader, (told["local_ip"], told["local_port"]))


def grpc_server() -> None:
    from concurrent.futures import ThreadPoolExecutor

    import grpc
    from grpc_health.v1 import health, health_pb2_grpc

    class Echo(grpc.GenericRpcHandler):  # type: ignore[misc]
        def service(self, details: grpc.HandlerCallDetails) -> Any:
            if details.method == "/matrix.Echo/One":
                return grpc.unary_unary_rpc_method_handler(lambda asked, _context: b"to " + asked)
            if details.method == "/matrix.Echo/Many":
                return grpc.stream_stream_rpc_method_handler(many)
            return None

    def many(asked: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        context.set_trailing_metadata((("x-last", "1"),))
        for message in asked:
            yield b"to " + message

    server = grpc.server(ThreadPoolExecutor(4), handlers=(Echo(),))
    health_pb2_grpc.add_HealthServicer_to_server(health.HealthServicer(), server)
    if CLEAR:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        pair = ((BED / "server.key").read_bytes(), (BED / "server.pem").read_bytes())
        port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials((pair,)))
    server.start()
    print(port, flush=True)
    server.wait_for_termination()


def grpc_client(port: str, count: str) -> None:
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    if CLEAR:
        channel = grpc.insecure_channel(f"127.0.0.1:{port}")
    else:
        channel = grpc.secure_channel(f"localhost:{port}", grpc.ssl_channel_credentials((BED / "ca.pem").read_bytes()))
    with channel:
        one, many = channel.unary_unary("/matrix.Echo/One"), channel.stream_stream("/matrix.Echo/Many")
        for n in range(50):
            compression = grpc.Compression.Gzip if n % 2 else grpc.Compression.NoCompression
            assert one(b"message %d" % n, compression=compression, timeout=10) == b"to message %d" % n
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
        print("health", health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))
        got = 0
        for n, message in enumerate(many((b"%d" % n for n in range(int(count))), timeout=60)):
            assert message == b"to %d" % n, (n, message)
            got += 1
        assert got == int(count)
        print("messages", got)


def main() -> None:
    mode, *arguments = sys.argv[1:]
    ways: dict[str, Any] = {
        "hypercorn": hypercorn,
        "httpx": httpx,
        "curl": curl,
        "grpc-server": grpc_server,
        "grpc-client": grpc_client,
    }
    ways[mode](*arguments)


if __name__ == "__main__":
    main()
