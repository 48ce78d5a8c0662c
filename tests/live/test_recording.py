"""`--record --redact` with real servers: what its file holds, and that a replay gives the records of the live collector."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from collector import capturefile
from tests.bench.tls import certificate
from tests.collector.test_files import replay
from tests.live.harness import Collector, Nginx, wait_for
from tests.live.kafka_broker import Broker
from tests.live.test_adversity import replaced
from tests.live.test_capture import curl
from tests.live.test_kafka import broker, consume, topic  # noqa: F401 - a fixture
from tests.live.test_redaction import cases, contexts, play  # noqa: F401 - fixtures
from tests.live.tlsplay import attached
from tests.recorded import comparable
from tests.secrets.matrix import Case
from tests.secrets.playing import by_client, leaks_of, plainly

pytestmark = [pytest.mark.live, pytest.mark.timeout(180)]

SECRETS = ("hunter2-8f14e45f", "sid-0cc175b9c0f1", "key-92eb5ffee6ae", "token-4a8a08f09d37")
ANSWER = json.dumps({"hello": "wörld", "access_token": SECRETS[3], "filler": "x" * 400})


def locations(directory: Path) -> str:
    """What is answered comes from behind a Unix socket: a `return` would answer before the request is read, which HTTP/2
    tells by a reset (RFC 9113 section 8.1) that curl takes for an error.
    """
    behind = directory / "behind"
    return f"""location / {{
    gzip on; gzip_min_length 1; gzip_types application/json; gzip_proxied any;
    proxy_pass http://unix:{behind}:;
}} }}
server {{ listen unix:{behind};
    location / {{
        default_type application/json; add_header Set-Cookie "session={SECRETS[1]}; Path=/";
        return 200 '{ANSWER}';
    }}"""


@pytest.fixture
def nginx(live: None, tmp_path: Path) -> Iterator[Nginx]:
    certificate(tmp_path)
    with tempfile.TemporaryDirectory() as directory:  # nginx's workers have to reach the socket, as another user
        os.chmod(directory, 0o755)
        server = Nginx(tmp_path, locations(Path(directory)), tls=(tmp_path / "cert.pem", tmp_path / "key.pem"), http2=True)
        yield server
        server.close()


def log_in(url: str, *arguments: str) -> None:
    """Three requests of one connection."""
    target = f"{url}?api_key={SECRETS[2]}&page=2"
    arguments = arguments or ("--http1.1",)
    fields = ("-H", "Content-Type: application/json", "-u", f"ann:{SECRETS[0]}", "--compressed", *arguments)
    curl("-k", *fields, "-d", json.dumps({"user": "ann", "password": SECRETS[0]}), target, target, target)


def by_id(lines: list[str], part: str) -> dict[str, dict[str, Any]]:
    records = (json.loads(line) for line in lines)
    return {record["recordId"]: comparable(record) for record in records if part in record["path"]}


@pytest.mark.parametrize(("policy", "version"), [("secrets", "--http1.1"), ("strict", "--http1.1"), ("secrets", "--http2")])
def test_nginx_and_curl(nginx: Nginx, tmp_path: Path, policy: str, version: str) -> None:
    path = tmp_path / "a.cap"
    c = Collector(tmp_path, "--record", str(path), "--redact", COLLECTOR_POLICY=policy)
    try:
        wait_for(lambda: attached(c, "libssl.so.3"), 60)
        log_in(f"https://127.0.0.1:{nginx.port}/login", version)
        c.wait_records("/login", 6)
        written = c.metric("collector_redacted_file_exchanges_total")
        assert written >= 6 and c.metric("collector_record_file_bytes_total") == 0
    finally:
        code = c.stop()
    assert code == 0, c.log()
    assert path.stat().st_mode & 0o777 == 0o600
    done = replay(str(path), "--output", "-")
    assert done.returncode == 0, done.stderr
    again, before = by_id(done.stdout.splitlines(), "/login"), by_id(c.output.read_text().splitlines(), "/login")
    assert len(before) == 6 and again == before
    for record in again.values():
        fields = {name.lower(): value for name, value in record["requestHeaders"].items()}
        assert record["tls"] == "true" and fields["authorization"] == "Basic [redacted:authorization]"
        assert record["type"] == ("HTTP/2.0" if version == "--http2" else "HTTP/1.1")
    for data in (path.read_bytes(), done.stdout.encode(), c.output.read_bytes()):
        assert not [secret for secret in SECRETS if secret.encode() in data]


def test_a_file_goes_on_when_the_sink_is_killed(nginx: Nginx, tmp_path: Path) -> None:
    path = tmp_path / "a.cap"
    c = Collector(tmp_path, "--record", str(path), "--redact", COLLECTOR_POLICY="secrets")
    try:
        wait_for(lambda: attached(c, "libssl.so.3"), 60)
        log_in(f"https://127.0.0.1:{nginx.port}/before")
        c.wait_records("/before", 6)
        victim = c.child("sink.process")
        os.kill(victim, signal.SIGKILL)
        wait_for(lambda: replaced(c, "sink.process", victim), 20)
        log_in(f"https://127.0.0.1:{nginx.port}/after")
        c.wait_records("/after", 6)
    finally:
        code = c.stop()
    assert code == 0, c.log()
    done = replay(str(path), "--output", "-")
    assert done.returncode == 0, done.stderr
    live = c.output.read_text().splitlines()
    for part in ("/before", "/after"):
        assert by_id(done.stdout.splitlines(), part) == by_id(live, part)


def test_a_file_that_cannot_be_written(nginx: Nginx, tmp_path: Path) -> None:
    c = Collector(tmp_path, "--record", "/dev/full", "--redact", COLLECTOR_POLICY="secrets")
    try:
        wait_for(lambda: attached(c, "libssl.so.3"), 60)
        log_in(f"https://127.0.0.1:{nginx.port}/unrecorded")
        c.wait_records("/unrecorded", 6)
        wait_for(lambda: c.metric("collector_redacted_file_skipped_bytes_total") > 1000)
        assert c.metric("collector_redacted_file_bytes_total") == 0
    finally:
        code = c.stop()
    assert code == 1
    assert c.log().count("--record: No space left on device") == 2  # in the log, and at the end
    assert "0 dropped, 0 failed;" in c.log()


def test_what_is_no_record_is_not_in_the_file(nginx: Nginx, tmp_path: Path) -> None:
    """A filter leaves it out; so does the file."""
    path, policy = tmp_path / "a.cap", tmp_path / "policy.yaml"
    policy.write_text("version: 1\nredaction: {builtin: secrets}\nrules:\n- exclude: {paths: ['/left-out*']}\n")
    c = Collector(tmp_path, "--record", str(path), "--redact", COLLECTOR_POLICY=str(policy))
    try:
        wait_for(lambda: attached(c, "libssl.so.3"), 60)
        log_in(f"https://127.0.0.1:{nginx.port}/left-out")
        log_in(f"https://127.0.0.1:{nginx.port}/kept")
        c.wait_records("/kept", 6)
    finally:
        code = c.stop()
    assert code == 0, c.log()
    data = b"".join(span.data for span in capturefile.Recording(str(path)).spans())
    assert b"/kept" in data and b"/left-out" not in data


@pytest.mark.timeout(300)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("codec", ["snappy", "zstd"])
def test_records_go_to_kafka(nginx: Nginx, broker: Broker, tmp_path: Path, codec: str) -> None:  # noqa: F811
    """Their batches are compressed when they come to the sink, which has given up its files by then."""
    path, name = tmp_path / "a.cap", topic(broker, f"recorded-{codec}")
    c = Collector(
        tmp_path,
        *("--output", "kafka", "--record", str(path), "--redact"),
        COLLECTOR_POLICY="secrets",
        AKTO_KAFKA_BROKER_MAL=broker.address,
        COLLECTOR_KAFKA_TOPIC=name,
        COLLECTOR_COMPRESSION=codec,
    )
    try:
        wait_for(lambda: attached(c, "libssl.so.3"), 60)
        log_in(f"https://127.0.0.1:{nginx.port}/kafka")
        wait_for(lambda: c.metric("collector_redacted_file_exchanges_total") >= 6, 20)
    finally:
        code = c.stop()
    assert code == 0, c.log()
    messages = [message.value.decode() for message in consume(broker, name, 6)]
    done = replay(str(path), "--output", "-")
    assert done.returncode == 0, done.stderr
    again, before = by_id(done.stdout.splitlines(), "/kafka"), by_id(messages, "/kafka")
    assert len(before) == 6 and again == before


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("policy", ["secrets", "strict"])
def test_no_secret_that_the_records_do_not_hold(
    live: None,
    cases: list[Case],  # noqa: F811
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],  # noqa: F811
    policy: str,
    tmp_path: Path,
) -> None:
    """Of many kinds, in many places, in clear and inside TLS."""
    path, who = tmp_path / "a.cap", dict[str, int]()
    c = Collector(tmp_path, "--record", str(path), "--redact", COLLECTOR_POLICY=policy)
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            wait_for(lambda: attached(c, "libssl.so.3"), 60)
            for secure in (None, contexts):
                for number, case in enumerate(cases):
                    who[play(case, server, secure, "127.0.0.1")] = number
    finally:
        code = c.stop()
    assert code == 0, c.log()
    done = replay(str(path), "--output", "-")
    assert done.returncode == 0, done.stderr
    records, again = c.output.read_bytes(), done.stdout.encode()

    def leaks(text: bytes) -> set[str]:
        parts = {client: part for client, part in by_client(text.splitlines()).items() if client in who}
        assert len(parts) > 0.8 * len(who), "most are there"
        return {leak.partition(": b'")[0] for leak in leaks_of(cases, parts, policy, who)}

    assert leaks(again) <= leaks(records)
    assert set(plainly(path.read_bytes(), cases, policy)) <= set(plainly(records, cases, policy))
