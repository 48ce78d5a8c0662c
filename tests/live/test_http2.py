"""HTTP/2 of real servers and clients, in clear and inside TLS: as many records as they say, each as they logged it."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench.tls import certificate
from tests.live.harness import Collector, Nginx, Program, wait_for

pytestmark = [pytest.mark.live, pytest.mark.timeout(180)]

LARGE = json.dumps(["large"] * 4000)
ANSWER = """
    location /echo { add_header X-Echo $http_x_n; return 200 '{"of":"$request_uri"}'; }
    location /upload { client_max_body_size 1m; client_body_buffer_size 1m; proxy_pass http://127.0.0.1:%d/got; }
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("certificates")
    certificate(found)
    return found


@pytest.fixture(scope="module")
def collector(live: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    running = Collector(tmp_path_factory.mktemp("http2"))
    yield running
    assert running.stop() == 0, running.log()


@pytest.fixture(scope="module")
def echo() -> Iterator[Program]:
    program = Program("echo")
    yield program
    program.close()


@pytest.fixture(scope="module", params=["clear", "tls"])
def nginx(
    request: pytest.FixtureRequest,
    folder: Path,
    collector: Collector,
    echo: Program,
) -> Iterator[Nginx]:
    files = (folder / "cert.pem", folder / "key.pem") if request.param == "tls" else None
    with tempfile.TemporaryDirectory() as name:  # one that nginx's user reaches
        one = Nginx(Path(name), ANSWER % echo.port, tls=files, http2=True)
        (one.root / "large.json").write_text(LARGE)
        try:
            if files:
                wait_for(lambda: re.search(r"attached: library '[^']*/libssl", collector.log()), 30)
                wait_for(lambda: curl(one, "/echo/first") and len(collector.records("/echo/first")) > 1, 30)
            yield one
        finally:
            one.close()


def curl(nginx: Nginx, path: str, *arguments: str) -> str:
    """One request on a connection of its own (curl 7.88 cannot go on with one in clear)."""
    command = ["curl", "-sk", "--http2-prior-knowledge" if nginx.scheme == "http" else "--http2"]
    url = f"{nginx.scheme}://127.0.0.1:{nginx.port}{path}"
    return subprocess.run([*command, *arguments, url], capture_output=True, text=True, check=True, timeout=60).stdout


def test_curl_and_nginx(collector: Collector, nginx: Nginx) -> None:
    run = nginx.scheme
    for n in range(5):
        curl(nginx, f"/echo/{run}/{n}?q=1", "-H", "X-N: 7", "-H", "Cookie: a=1; b=2")
    records = [r for r in collector.wait_records(f"/echo/{run}/", 10) if r["protocol"] == "http2"]
    assert Counter(r["direction"] for r in records) == {"1": 5, "2": 5}
    for record in records:
        assert record["type"] == "HTTP/2.0" and record["method"] == "GET" and record["statusCode"] == "200"
        assert json.loads(record["responsePayload"]) == {"of": record["path"]}
        assert record["request"]["x-n"] == record["response"]["x-echo"] == "7"
        assert record["request"]["cookie"] == "a=1; b=2" and record["request"]["host"] == f"127.0.0.1:{nginx.port}"
        assert record["tls"] == ("true" if run == "https" else "false") and not record["mark"], record["mark"]
    if run == "https":
        assert {r["alpn"] for r in records} == {"h2"}


def test_bodies(collector: Collector, nginx: Nginx, folder: Path) -> None:
    body = "a" * 50_000
    (folder / "body").write_text(body)
    curl(nginx, f"/upload/{nginx.scheme}", "--data-binary", f"@{folder}/body")
    curl(nginx, f"/large.json?{nginx.scheme}")
    for record in collector.wait_records(f"/upload/{nginx.scheme}", 2):
        assert record["method"] == "POST" and record["requestSize"] == "50000" and not record["mark"]
        assert record["requestPayload"] == body, (len(record["requestPayload"]), record["direction"])
        assert record["statusCode"] == "200" and not record["mark"]
    for record in collector.wait_records(f"/large.json?{nginx.scheme}", 2):
        assert record["responsePayload"] == LARGE and not record["mark"]


GRPC = """
import sys, time
from concurrent.futures import ThreadPoolExecutor
import grpc

class Echo(grpc.GenericRpcHandler):
    def service(self, details):
        if details.method.endswith("/One"):
            return grpc.unary_unary_rpc_method_handler(lambda asked, _context: asked[::-1])
        def many(asked, context):
            for message in asked:
                yield message * 2
            context.set_trailing_metadata((("x-last", "1"),))
        return grpc.stream_stream_rpc_method_handler(many)

server = grpc.server(ThreadPoolExecutor(4), handlers=(Echo(),), compression=grpc.Compression.Gzip)
port = server.add_insecure_port("127.0.0.1:0")
server.start()
with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
    one, many = channel.unary_unary("/live.Echo/One"), channel.stream_stream("/live.Echo/Many")
    for n in range(50):
        assert one(b"message %d" % n) == (b"message %d" % n)[::-1]
    assert list(many(iter([b"%d" % n for n in range(100)]))) == [b"%d" % n * 2 for n in range(100)]
    try:
        channel.unary_unary("/live.Other/None", request_serializer=None)(b"", timeout=5)
    except grpc.RpcError as error:
        print(error.code())
server.stop(1).wait()
"""


def test_grpc(collector: Collector) -> None:
    """grpcio at both ends, in clear: unary calls, a stream in both directions, messages that the server compresses."""
    subprocess.run([sys.executable, "-c", GRPC], check=True, timeout=60, stdout=subprocess.DEVNULL)
    calls = collector.wait_records("/live.Echo/One", 100)
    for record in calls:
        asked = base64.b64decode(record["requestPayload"])
        assert base64.b64decode(record["responsePayload"]) == asked[::-1] and asked.startswith(b"message ")
        assert record["protocol"] == "grpc" and record["response"]["grpc-status"] == "0" and not record["mark"]
    assert Counter(record["requestPayload"] for record in calls).most_common(1)[0][1] == 2
    for record in collector.wait_records("/live.Echo/Many", 2):
        assert [base64.b64decode(each) for each in json.loads(record["requestPayload"])] == [b"%d" % n for n in range(100)]
        assert [base64.b64decode(each) for each in json.loads(record["responsePayload"])] == [
            b"%d" % n * 2 for n in range(100)
        ]
        assert record["requestMessages"] == record["responseMessages"] == "100" and record["response"]["x-last"] == "1"


def test_many_streams_side_by_side(collector: Collector, nginx: Nginx) -> None:
    """h2load: 10 connections of 100 streams at a time."""
    url = f"{nginx.scheme}://127.0.0.1:{nginx.port}/echo/load/{nginx.scheme}"
    command = ["h2load", "-n", "5000", "-c", "10", "-m", "100", "-t", "1", url]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    assert "5000 succeeded" in said, said
    records = collector.wait_records(f"/echo/load/{nginx.scheme}", 10_000, 60)
    assert Counter(r["direction"] for r in records) == {"1": 5000, "2": 5000}
    assert not [r for r in records if r["mark"] or r["statusCode"] != "200"]
    assert len({(r["recordId"], r["direction"]) for r in records}) == 10_000
