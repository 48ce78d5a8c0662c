"""The collector connects to its brokers and to nothing else, from its start to its end, whatever happens to them."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from collector import status
from tests.collector.kubernetes.api_server import running
from tests.live import connects
from tests.live.harness import Collector, wait_for
from tests.live.kafka_broker import Broker, free_port, needs_broker
from tests.live.numbered import NumberedLoad, make_topic

pytestmark = [pytest.mark.live, pytest.mark.timeout(180), pytest.mark.filterwarnings("ignore::ResourceWarning")]

OTHERS = """
import os, socket
port = {port}
if os.fork() == 0:
    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        with socket.socket(family) as sock:
            sock.connect_ex((host, port))
    for path in ("sink.sock", "/run/other.sock", "\\0abstract"):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect_ex(path)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"x", ("127.0.0.1", port))
    os._exit(0)
os.wait()
"""


def test_other_destinations_are_found(tmp_path: Path) -> None:
    log, port = tmp_path / "connects", free_port()
    subprocess.run([*connects.tracer(log), sys.executable, "-c", OTHERS.format(port=port)], check=True)
    wait_for(lambda: "SOCK_DGRAM" in log.read_text())
    seen = connects.calls(log)
    assert len({call.pid for call in seen}) == 1
    assert {
        (call.name, call.family, call.to.partition("|")[0]) for call in connects.strange(seen, [f"127.0.0.1:{port}"])
    } == {
        ("connect", "AF_INET6", f"::1:{port}"),
        ("connect", "AF_UNIX", "/run/other.sock"),
        ("connect", "AF_UNIX", "@abstract"),
        ("socket", "AF_INET", "SOCK_DGRAM"),
    }
    assert len(connects.strange(seen, [])) == 5


class Traced(Collector):
    traced = True


def test_brokers_and_nothing_else(live: None, tmp_path: Path) -> None:
    """Start, run, outage, SIGHUP, children killed, stop."""
    needs_broker()
    (tmp_path / "kafka").mkdir()
    broker = Broker(tmp_path / "kafka")
    broker.start()
    try:
        collector = Traced(
            tmp_path,
            "--output",
            "kafka",
            AKTO_KAFKA_BROKER_MAL=broker.address,
            COLLECTOR_KAFKA_TOPIC=make_topic(broker.address, "connects"),
            COLLECTOR_SPOOL_DIR=str(tmp_path / "spool"),
            AKTO_TRAFFIC_BATCH_TIME_SECS="0.2",
        )
        try:
            run_through(collector, broker)
        finally:
            code = collector.stop()
    finally:
        broker.close()
    assert code == 0, collector.log()[-2000:]
    seen = connects.calls(collector.connects)
    assert not connects.strange(seen, [broker.address])
    made: Counter[tuple[str, str]] = Counter((call.family, call.to) for call in seen if call.name == "connect")
    print(dict(made))  # noqa: T201
    assert made["AF_INET", broker.address] >= 3 and {("AF_UNIX", f"{name}.sock") for name in ("sink", "shard-0")} <= set(
        made
    )


def run_through(collector: Collector, broker: Broker) -> None:
    def totals(name: str) -> int:
        number: int = status.ask(str(collector.directory / "run"))["totals"][name]
        return number

    load = NumberedLoad("/connects", 2)
    try:
        wait_for(lambda: totals("sink_delivered_records") > 100, 30)
        broker.kill()
        wait_for(lambda: totals("sink_destination_up") == 0, 10)
        collector.process.send_signal(signal.SIGHUP)
        for module in ("sink.process", "loader.process"):
            victim = collector.child(module)
            subprocess.run(["kill", "-9", str(victim)], check=True)
            wait_for(lambda: collector.child(module) not in (0, victim), 20)  # noqa: B023 - asked at once
        broker.start()
        before = totals("sink_delivered_records")
        wait_for(lambda: totals("sink_delivered_records") > before + 100, 60)
        wait_for(lambda: totals("sink_spool_records") == 0, 30)
    finally:
        load.stop()


def test_the_api_server_and_nothing_else(live: None, tmp_path: Path) -> None:
    """In Kubernetes, with the server away for a while, and its follower killed."""
    with running("") as (api, server):
        api.token = ""
        place = f"127.0.0.1:{server.port}"
        api.change("ADDED", "1")
        collector = Traced(tmp_path, COLLECTOR_KUBERNETES="on", COLLECTOR_KUBERNETES_API=f"http://{place}", NODE_NAME="n1")
        try:
            wait_for(lambda: collector.metric("collector_kubernetes_pods") == 1, 30)
            api.refuses = 503
            api.disturb("cut")
            wait_for(lambda: collector.metric("collector_kubernetes_behind") == 1, 30)
            victim = collector.child("kubernetes.process")
            subprocess.run(["kill", "-9", str(victim)], check=True)
            wait_for(lambda: collector.child("kubernetes.process") not in (0, victim), 20)
            api.refuses = 0
            wait_for(lambda: collector.metric("collector_kubernetes_behind") == 0, 60)
        finally:
            code = collector.stop()
    assert code == 0, collector.log()[-2000:]
    seen = connects.calls(collector.connects)
    assert not connects.strange(seen, [place])
    assert sum(call.name == "connect" and call.to == place for call in seen) >= 4, "two resources, and two lives"
