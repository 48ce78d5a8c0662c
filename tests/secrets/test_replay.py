"""The same through the commands: no secret is in a file, in a broker, in its log on disk, on standard error."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.kafka_broker import Broker, needs_broker
from tests.secrets.matrix import Case
from tests.secrets.playing import by_client, by_client_of_messages, client_of, leaks_of, plainly, sample, write_streams
from tests.secrets.test_redaction import POLICIES

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
BUDGET = {"COLLECTOR_CPU_LIMIT": "0"}


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    return list(sample("replay", each=2))


@pytest.fixture(scope="module")
def streams(cases: list[Case], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("secrets") / "secrets.streams.jsonl"
    write_streams(path, cases)
    return path


def replay(streams: Path, *arguments: str, **environment: str) -> tuple[bytes, bytes]:
    """Its standard output and standard error."""
    done = subprocess.run(
        [sys.executable, "-m", "collector", "replay", str(streams), *arguments],
        capture_output=True,
        timeout=300,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout, done.stderr


def numbers(cases: list[Case]) -> dict[str, int]:
    return {client_of(number): number for number in range(len(cases))}


def show(leaks: list[str]) -> str:
    return f"{len(leaks)}:\n" + "\n".join(leaks[:60])


def test_without_a_policy_the_file_holds_them(cases: list[Case], streams: Path, tmp_path: Path) -> None:
    replay(streams, "--output", str(tmp_path / "out"))
    data = (tmp_path / "out").read_bytes()
    leaked = leaks_of(cases, by_client(data.splitlines()), "strict", numbers(cases))
    assert len(leaked) > 0.95 * sum("strict" in case.due and case.recorded for case in cases)


@POLICIES
def test_a_file_of_records(cases: list[Case], streams: Path, tmp_path: Path, policy: str) -> None:
    _out, said = replay(streams, "--output", str(tmp_path / "out"), COLLECTOR_POLICY=policy)
    data = (tmp_path / "out").read_bytes()
    parts = by_client(data.splitlines())
    assert len(parts) > 0.95 * len(cases)
    leaked = leaks_of(cases, parts, policy, numbers(cases))
    leaked += plainly(data, cases, policy) + plainly(said, cases, policy)
    assert not leaked, show(leaked)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    needs_broker()
    made = Broker(tmp_path_factory.mktemp("kafka"))
    made.start()
    yield made
    made.close()


@pytest.mark.live
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@POLICIES
def test_a_broker(cases: list[Case], streams: Path, broker: Broker, policy: str) -> None:
    from tests.live.test_kafka import consume, topic

    name = topic(broker, f"secrets-{policy}")
    environment = {
        "AKTO_KAFKA_BROKER_MAL": broker.address,
        "COLLECTOR_KAFKA_TOPIC": name,
        "COLLECTOR_COMPRESSION": "none",
        "COLLECTOR_POLICY": policy,
    }
    _out, said = replay(streams, **environment)
    messages = consume(broker, name, len(cases), 60)
    parts = by_client_of_messages(messages)
    assert len(parts) > 0.95 * len(cases)
    leaked = leaks_of(cases, parts, policy, numbers(cases)) + plainly(said, cases, policy)
    logs = [path for path in broker.directory.rglob("*.log") if path.parent.name.startswith(name)]
    assert logs
    for path in logs:
        leaked += [f"{path.name}: {leak}" for leak in plainly(path.read_bytes(), cases, policy)]
    assert not leaked, show(leaked)
