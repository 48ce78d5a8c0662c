"""SIGTERM while numbered exchanges are made: what was made is delivered, in the spool, or failed; to the record.

`pytest -s` prints the figures of docs/reliability.md.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from collector import status
from collector.sink.kafka import inside
from collector.sink.spool import Spool
from collector.sink.spool_directory import prepare
from tests.live.harness import Collector, wait_for
from tests.live.kafka_broker import Broker, free_port, needs_broker
from tests.live.numbered import NumberedLoad, Reader, exchanges, make_topic

pytestmark = [pytest.mark.live, pytest.mark.timeout(120), pytest.mark.filterwarnings("ignore::ResourceWarning")]

SAID = re.compile(
    r"stopped: (?P<made>\d+) records \(\d+ marked\), (?P<delivered>\d+) delivered, (?P<dropped>\d+) dropped, "
    r"(?P<failed>\d+) failed(?:, (?P<spooled>\d+) in the spool)?(?P<left>.*?); .* events, (?P<lost>\d+) lost"
)


@dataclass
class Stopped:
    """A collector that was stopped under load: its exit code, the figures of its last line, and the load's numbers."""

    code: int
    figures: dict[str, int]
    load: NumberedLoad
    before: int  # records that were due when it was told to stop

    def check(self, records: list[dict[str, str]]) -> None:
        """``records``: all that came out. Until the moment at which capture ended nothing is missing, nothing is there
        twice, and there are as many as the figures say.
        """
        got = exchanges(records, self.load.prefix)
        assert set(got.values()) <= {1}
        for direction in "12":
            for n, answered in enumerate(self.load.answered):
                numbers = sorted(
                    int(path.rpartition("/")[2]) for d, path in got if (d, path.split("/")[2]) == (direction, str(n))
                )
                assert numbers == list(range(len(numbers))) and len(numbers) <= answered + 1
        assert self.before <= len(records) == self.figures["made"]


def stopped(directory: Path, brokers: str, topic: str, **environment: str) -> Stopped:
    collector = Collector(
        directory,
        "--output",
        "kafka",
        "--pid",
        str(os.getpid()),  # client and server of the load: what else runs on this machine is not counted
        AKTO_KAFKA_BROKER_MAL=brokers,
        COLLECTOR_KAFKA_TOPIC=topic,
        AKTO_TRAFFIC_BATCH_TIME_SECS="0.5",
        **environment,
    )
    load = NumberedLoad("/stop")
    try:
        wait_for(lambda: load.total() >= 600)
        wait_for(lambda: status.ask(str(directory / "run"))["totals"]["sink_records"] > 0)
        before = 2 * load.total()
        code = collector.stop()
    finally:
        load.stop()
        collector.stop()
    said = SAID.search(collector.log())
    assert said is not None and not said["left"], collector.log()[-2000:]
    figures = {name: int(value or 0) for name, value in said.groupdict().items()}
    print(f"{environment}: exit code {code}, {figures}")  # noqa: T201
    assert figures["made"] == figures["delivered"] + figures["spooled"] + figures["failed"] and not figures["lost"]
    return Stopped(code, figures, load, before)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    needs_broker()
    (tmp_path / "kafka").mkdir()
    one = Broker(tmp_path / "kafka")
    one.start()
    yield one
    one.close()


def test_with_a_broker_all_is_delivered(live: None, broker: Broker, tmp_path: Path) -> None:
    topic = make_topic(broker.address, "stops")
    end = stopped(tmp_path, broker.address, topic)
    reader = Reader(broker.address, topic)
    records = reader.read()
    reader.close()
    end.check(records)
    assert end.code == 0 and end.figures["delivered"] == end.figures["made"]


def test_without_a_broker_all_is_in_the_spool(live: None, tmp_path: Path) -> None:
    end = stopped(tmp_path, f"127.0.0.1:{free_port()}", "stops", COLLECTOR_SPOOL_DIR=str(tmp_path / "spool"))
    end.check(spooled(tmp_path / "spool"))
    assert end.code == 0 and end.figures["spooled"] == end.figures["made"]


def test_without_a_broker_and_a_spool_all_has_failed(live: None, tmp_path: Path) -> None:
    end = stopped(tmp_path, f"127.0.0.1:{free_port()}", "stops")
    assert end.before <= end.figures["made"] == end.figures["failed"] and end.code == 1


def spooled(directory: Path) -> list[dict[str, str]]:
    """All records of a spool."""
    fd = prepare(str(directory), os.getuid(), os.getgid())
    spool = Spool(fd, limit_bytes=1 << 30)
    os.close(fd)
    out: list[dict[str, str]] = []
    stored = spool.peek()
    while stored is not None:
        out.extend(json.loads(value or b"") for _key, value, _headers in inside.records(stored.records))
        stored = spool.peek(stored)
    spool.close()
    return out
