"""The live kernel, with a policy: no secret of what programs said, in clear or inside TLS, is in anything that the collector
writes: records, its log, its pages, a recording that it was asked to redact.
"""

from __future__ import annotations

import os
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench.tls import certificate
from tests.live.harness import Collector, wait_for
from tests.live.kafka_broker import Broker
from tests.live.test_kafka import broker, consume, topic  # noqa: F401
from tests.live.tlsplay import attached
from tests.secrets.matrix import Case
from tests.secrets.playing import by_client, by_client_of_messages, leaks_of, plainly, sample
from tests.secrets.running import CLIENT

pytestmark = [pytest.mark.live, pytest.mark.slow, pytest.mark.timeout(300)]
SHARE = 1 if os.environ.get("SECRETS") == "all" else 8  # of the cases, one in so many


@pytest.fixture(scope="module")
def contexts(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """The server's, the client's."""
    folder = tmp_path_factory.mktemp("certificate")
    certificate(folder)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    return server, client


def play(case: Case, server: socket.socket, contexts: tuple[ssl.SSLContext, ssl.SSLContext] | None, source: str) -> str:
    """The calls of a case, on a connection of its own from address ``source``, one side in a thread; the client's end."""

    def serve() -> None:
        accepted, _ = server.accept()
        if contexts:
            accepted = contexts[0].wrap_socket(accepted, server_side=True)
        with accepted:
            speak(accepted, case, False)

    other = threading.Thread(target=serve)
    other.start()
    own = socket.create_connection(server.getsockname(), source_address=(source, 0))
    end = f"{source}:{own.getsockname()[1]}"
    if contexts:
        own = contexts[1].wrap_socket(own)
    with own:
        speak(own, case, True)
    other.join(20)
    return end


def speak(sock: socket.socket, case: Case, client: bool) -> None:
    """One side: its calls are sent, the other's are awaited."""
    sock.settimeout(10)
    for asks, data in case.calls:
        if (asks == CLIENT) == client:
            sock.sendall(data)
            continue
        wanted = len(data)
        while wanted:
            piece = sock.recv(wanted)
            assert piece, "the other side is gone"
            wanted -= len(piece)


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    return list(sample("live", each=2))[::SHARE]


@pytest.fixture(params=["secrets", "strict"])
def policy(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def collector(live: None, tmp_path: Path, policy: str) -> Iterator[Collector]:
    found = Collector(tmp_path, "--record", str(tmp_path / "capture"), "--redact", COLLECTOR_POLICY=policy)
    try:
        yield found
    finally:
        found.stop()


def test_no_secret_is_written(
    collector: Collector, cases: list[Case], policy: str, contexts: tuple[ssl.SSLContext, ssl.SSLContext], tmp_path: Path
) -> None:
    who: dict[str, int] = {}
    pages = ""
    with socket.create_server(("127.0.0.1", 0)) as server:
        wait_for(lambda: attached(collector, "libssl.so.3"), 60)
        for net, secure in ((1, None), (2, contexts)):
            for number, case in enumerate(cases):  # each with an address of its own, for ports come again
                who[play(case, server, secure, f"127.{net}.{number >> 7}.{1 + number % 128}")] = number
        for page in ("metrics", "healthz", "readyz"):
            pages += collector.page(page)
    assert collector.stop() == 0, collector.log()
    data = collector.output.read_bytes()
    parts = {client: text for client, text in by_client(data.splitlines()).items() if client in who}
    assert len(parts) > 0.9 * len(who), "most were recorded"
    leaked = leaks_of(cases, parts, policy, who) + plainly(data, cases, policy)
    assert not leaked, f"{len(leaked)}:\n" + "\n".join(leaked[:60])
    for name, text in (("log", collector.log()), ("pages", pages)):
        assert not plainly(text.encode(), cases, policy), name
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert not plainly(path.read_bytes(), cases, policy), path


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_no_secret_reaches_a_broker(
    live: None,
    broker: Broker,  # noqa: F811
    cases: list[Case],
    policy: str,
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
    tmp_path: Path,
) -> None:
    name = topic(broker, f"live-secrets-{policy}")
    c = Collector(
        tmp_path,
        *("--output", "kafka"),
        COLLECTOR_POLICY=policy,
        AKTO_KAFKA_BROKER_MAL=broker.address,
        COLLECTOR_KAFKA_TOPIC=name,
        COLLECTOR_COMPRESSION="none",
    )
    try:
        wait_for(lambda: attached(c, "libssl.so.3"), 60)
        with socket.create_server(("127.0.0.1", 0)) as server:
            who = {
                play(case, server, contexts if number % 2 else None, f"127.3.{number >> 7}.{1 + number % 128}"): number
                for number, case in enumerate(cases)
            }
    finally:
        code = c.stop()
    assert code == 0, c.log()
    parts = by_client_of_messages(consume(broker, name, int(0.9 * len(who)), 60))
    parts = {client: text for client, text in parts.items() if client in who}
    assert len(parts) > 0.9 * len(who), "most were recorded"
    leaked = leaks_of(cases, parts, policy, who)
    logs = [path for path in broker.directory.rglob("*.log") if path.parent.name.startswith(name)]
    assert logs
    for path in logs:
        leaked += plainly(path.read_bytes(), cases, policy)
    assert not leaked, f"{len(leaked)}:\n" + "\n".join(leaked[:60])
