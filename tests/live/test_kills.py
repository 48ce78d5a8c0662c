"""Each process killed, and each stopped until the supervisor kills it, while numbered exchanges go to a real broker: what
was made is in Kafka, or counted as lost.

`pytest -s` prints the figures of docs/reliability.md.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from collector import status
from tests.live.harness import Collector, wait_for
from tests.live.kafka_broker import Broker, needs_broker
from tests.live.numbered import NumberedLoad, Reader, exchanges, make_topic

pytestmark = [pytest.mark.live, pytest.mark.timeout(120), pytest.mark.filterwarnings("ignore::ResourceWarning")]

# causes of loss, by their names in `collector status`
LOST = (
    "supervisor_lost_exchanges",
    "supervisor_lost_records",
    "sink_failed_records",
    "sink_dropped_records",
    "loader_kernel_dropped_events",
)
QUIET_SECONDS = 1.5  # no record was delivered: three times the age at which a batch leaves


@dataclass
class Running:
    """One collector that delivers to a broker, for all rows."""

    collector: Collector
    reader: Reader

    def status(self) -> dict[str, Any]:
        """As `collector status --json`: over a Unix socket, so to ask makes no exchange."""
        return status.ask(str(self.collector.directory / "run"))

    def child(self, name: str) -> int:
        """The process of that name; 0 while there is none, or it is not at work."""
        children = self.status()["children"]
        return next((child["pid"] or 0 for child in children if child["name"] == name and child["ready"]), 0)

    def lost(self) -> dict[str, int]:
        """What is counted as lost, by cause."""
        totals = self.status()["totals"]
        return {cause: totals[cause] for cause in LOST}

    def settled(self) -> None:
        """Until nothing is delivered any more."""
        delivered, since = -1, time.monotonic()
        deadline = since + 30
        while time.monotonic() - since < QUIET_SECONDS:
            now = self.status()["totals"]["sink_delivered_records"]
            if now != delivered:
                delivered, since = now, time.monotonic()
            assert since < deadline, "it delivers without end"
            time.sleep(0.1)


@pytest.fixture(scope="module")
def running(live: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    needs_broker()
    broker = Broker(tmp_path_factory.mktemp("kafka"))
    broker.start()
    try:
        topic = make_topic(broker.address, "kills")
        collector = Collector(
            tmp_path_factory.mktemp("collector"),
            "--output",
            "kafka",
            "--pid",
            str(os.getpid()),  # client and server of the load: what else runs on this machine is not counted
            AKTO_KAFKA_BROKER_MAL=broker.address,
            COLLECTOR_KAFKA_TOPIC=topic,
            AKTO_TRAFFIC_BATCH_TIME_SECS="0.5",
        )
        reader = Reader(broker.address, topic)
        try:
            yield Running(collector, reader)
        finally:
            reader.close()
            code = collector.stop()
        assert code == 0, collector.log()[-2000:]
    finally:
        broker.close()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
@pytest.mark.parametrize("name", ["loader", "shard-0", "shard-1", "sink", "health"])
def test_what_was_made_is_delivered_or_counted(running: Running, name: str, how: signal.Signals) -> None:
    wait_for(lambda: running.status()["ready"], 10)
    before, victim = running.lost(), running.child(name)
    load = NumberedLoad(f"/{name}/{how.name}")
    try:
        wait_for(lambda: load.total() >= 300)
        os.kill(victim, how)
        wait_for(lambda: load.total() >= 600)
        wait_for(lambda: replaced(running, name, victim), 20)
        more = load.total() + 300
        wait_for(lambda: load.total() >= more)
    finally:
        made = load.stop()
    running.settled()
    got = exchanges(running.reader.read(), load.prefix)
    assert not got.keys() - made
    counted = {cause: n - before[cause] for cause, n in running.lost().items() if n != before[cause]}
    missing = len(made) - len(got)
    figures = f"made {len(made)}, delivered {len(got)}, twice {sum(got.values()) - len(got)}, counted as lost {counted}"
    print(f"{name} {how.name}: {figures}")  # noqa: T201
    if name.startswith("shard"):
        assert abs(missing - sum(counted.values())) <= len(made) / 100, figures
    else:
        assert not missing and not counted, figures


def replaced(running: Running, name: str, victim: int) -> bool:
    """Is another process in its place, and at work?"""
    try:
        return running.child(name) not in (0, victim)
    except status.NoAnswerError:  # it is the health child's turn
        return False
