"""Long streams of real programs: WebSocket chats with compression, clear and TLS; server-sent events as they come."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.bench.tls import certificate
from tests.live.harness import Collector, Program, wait_for

pytestmark = [pytest.mark.live, pytest.mark.timeout(180)]

CLIENTS, MESSAGES = 4, 60


@pytest.fixture(scope="module")
def collector(live: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    running = Collector(tmp_path_factory.mktemp("streams"))
    yield running
    assert running.stop() == 0, running.log()


def logged(path: Path) -> list[tuple[str, int, str]]:
    return [tuple(json.loads(line)) for line in path.read_text().splitlines()]


def shown(records: list[dict[str, Any]]) -> list[tuple[str, int, str]]:
    """What the events of records say, in the form of the logs."""
    out = []
    for record in sorted(records, key=lambda record: int(record["part"])):
        for event in json.loads(record["events"]):
            assert event["fin"] and not event.get("truncated") and not event.get("undecoded"), event
            text = event["payload"]
            if event["opcode"] == 2 and not event.get("payloadEncoding"):
                text = base64.b64encode(text.encode()).decode()
            out.append((event["from"], event["opcode"], text))
    return out


def both_over(collector: Collector, path: str) -> bool:
    """Has the last part of the server's and of the client's stream come?"""
    return len([record for record in collector.records(path) if record.get("lastPart") == "true"]) == 2


def talk(url: str, seed: int, messages: int, folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "tests.live.chat", "client", url, str(seed), str(messages), str(folder)])


@pytest.mark.parametrize("run", ["clear", "tls"])
def test_a_chat(collector: Collector, tmp_path: Path, run: str) -> None:
    certificate(tmp_path)
    files = [str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")] if run == "tls" else []
    server = Program(sys.executable, "-m", "tests.live.chat", "server", str(tmp_path), *files)
    scheme = "wss" if files else "ws"
    try:
        if files:  # until the probes are in the library
            wait_for(lambda: talk(f"{scheme}://127.0.0.1:{server.port}/warm", 99, 1, tmp_path).wait(30) == 0
                     and len(collector.records("/warm")) > 1 and collector.settled(), 30)  # fmt: skip
        clients = [talk(f"{scheme}://127.0.0.1:{server.port}/{run}{n}", n, MESSAGES, tmp_path) for n in range(CLIENTS)]
        assert [client.wait(60) for client in clients] == [0] * CLIENTS
        for n in range(CLIENTS):
            path = f"/{run}{n}"
            said = logged(tmp_path / f"client-{n}.jsonl")
            assert Counter(said) == Counter(logged(tmp_path / f"server-{run}{n}.jsonl"))
            wait_for(partial(both_over, collector, path), 30)
            records = collector.records(path)
            handshakes = [record for record in records if "events" not in record]
            assert sorted(record["direction"] for record in handshakes) == ["1", "2"]
            assert {(record["statusCode"], record["connection_type"]) for record in handshakes} == {("101", "WEBSOCKET")}
            assert all("permessage-deflate" in record["responseHeaders"] for record in handshakes)
            for direction in "12":
                parts = [record for record in records if "events" in record and record["direction"] == direction]
                # a program that lives for a moment may be over before its TLS object's socket is known
                assert {record["marks"] for record in parts} <= ({"[]", '["peer_unknown"]'} if files else {"[]"})
                assert Counter(shown(parts)) == Counter(said)
                for who in ("client", "server"):
                    assert [event for event in shown(parts) if event[0] == who] == [line for line in said if line[0] == who]
    finally:
        server.close()


def test_a_websocket_over_http2(collector: Collector) -> None:
    """Node at both ends, which are one process: it has both as its own."""
    script = str(Path(__file__).with_name("extended_connect.js"))
    done = subprocess.run(["node", script, str(MESSAGES)], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == f"done {MESSAGES}\n"
    wait_for(partial(both_over, collector, "/over-h2"), 30)
    texts = [f"message {n} " + "x" * (n * 7 % 400) for n in range(MESSAGES)]
    for direction in "12":
        records = [record for record in collector.records("/over-h2") if record["direction"] == direction]
        (handshake,) = [record for record in records if "events" not in record]
        assert (handshake["method"], handshake["statusCode"], handshake["protocol"]) == ("CONNECT", "200", "http2")
        assert handshake["connection_type"] == "WEBSOCKET" and {record["marks"] for record in records} == {"[]"}
        said = shown([record for record in records if "events" in record])
        assert said == [(who, 1, pre + text) for text in texts for who, pre in (("client", ""), ("server", "to "))]


def test_events_come_out_before_their_stream_ends(collector: Collector) -> None:
    server = Program(sys.executable, "-m", "tests.live.chat", "events")
    try:
        client = subprocess.Popen(
            ["curl", "-sN", f"http://127.0.0.1:{server.port}/events"], stdout=subprocess.PIPE, text=True
        )
        assert wait_for(lambda: collector.records("/events"), 10) and client.poll() is None
        text, _ = client.communicate(timeout=30)
        wait_for(partial(both_over, collector, "/events"), 20)
        for direction in "12":
            records = [record for record in collector.records("/events") if record["direction"] == direction]
            records.sort(key=lambda record: int(record["part"]))
            assert len(records) > 2 and {record["marks"] for record in records} == {"[]"}
            assert "".join(record["responsePayload"] for record in records) == text
            assert all(record["responsePayload"].endswith("\n\n") for record in records if record["responsePayload"])
    finally:
        server.close()
