"""What the health pages say of the counters and of the supervisor's words."""

from __future__ import annotations

import json
import mmap
import os
import time
from pathlib import Path

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from collector import counter_names, lag, metrics
from collector.counters import CounterMemory, Counters
from collector.health import pages
from collector.health.pages import Pages
from collector.lag import Lag
from collector.runtime import Usage

STATE = {
    "kind": "state",
    "fds": [],
    "live": [True, "ok"],
    "ready": [False, "not ready: loader"],
    "unseen": [["nginx", "io_uring", 2]],
    "unsupported": [
        ["collector_tls_unsupported_connections", "jsse", "java", 3],
        ["collector_quic_unsupported_connections", "client", "curl", 4],
    ],
    "policy": {"name": "shop", "digest": "0123456789abcdef", "words": "shop (0123456789abcdef): nothing is redacted"},
    "pid": 7,
    "children": [],
    "notes": [],
}


def made() -> tuple[Pages, CounterMemory]:
    memory = CounterMemory(2 + 3)
    own = CounterMemory(1)
    Counters(memory.block(4), counter_names.SUPERVISOR_NAMES)["heartbeat_ns"] = time.monotonic_ns()
    return Pages(memory, Counters(own.block(0), counter_names.HEALTH_NAMES), dict(STATE)), memory


def test_words_and_codes() -> None:
    health, _memory = made()
    answers = {path: health.public(path) for path in ("/healthz", "/readyz", "/metrics", "/status", "/")}
    assert answers["/healthz"] is not None and answers["/healthz"].status == 200 and answers["/healthz"].body == b"ok\n"
    assert answers["/readyz"] is not None and answers["/readyz"].status == 503
    assert answers["/readyz"].body == b"not ready: loader\n"
    assert answers["/status"] is answers["/"] is None  # those are not for everybody
    status = health.private("/status")
    assert status is not None and json.loads(status.body)["ready_words"] == "not ready: loader"


def test_a_silent_supervisor_is_neither_live_nor_ready_unless_we_were_stopped_too() -> None:
    health, memory = made()
    supervisor = Counters(memory.block(4), counter_names.SUPERVISOR_NAMES)
    supervisor["heartbeat_ns"] = time.monotonic_ns() - int((pages.SILENT_SECONDS + 5) * 1e9)
    for path in ("/healthz", "/readyz"):
        answer = health.public(path)
        assert answer is not None and answer.status == 503 and b"no heartbeat for 15 s" in answer.body
    assert not health.status()["live"] and not health.status()["ready"]
    health.was_stopped()
    assert health.status()["live"]
    health = made()[0]
    assert health.status()["live"]


def test_every_declared_metric_is_there() -> None:
    health, memory = made()
    Counters(memory.block(1), counter_names.CORE_NAMES, 0)["records"] = 5
    answer = health.public("/metrics")
    assert answer is not None
    text = answer.body.decode()
    assert 'collector_records_total{shard="0"} 0.0' in text and 'collector_records_total{shard="1"} 5.0' in text
    assert 'collector_unseen_processes{process="nginx",reason="io_uring"} 2.0' in text
    assert 'collector_policy_info{digest="0123456789abcdef",policy="shop"} 1.0' in text
    assert 'collector_quic_unsupported_connections_total{process="curl",role="client"} 4.0' in text
    for name in {metric.name for metric in metrics.METRICS if metric.role != "core"}:
        assert f"\n{name}" in text, name
    assert health.public("/metrics") is not None and health.status()["totals"]["records"] == 5


def test_what_each_process_uses() -> None:
    health, memory = made()
    Counters(memory.block(0), counter_names.SHARD_NAMES)["cpu_ns"] = 2_500_000_000
    block = Counters(memory.block(3), counter_names.SINK_NAMES)
    Usage(block).turn()
    answer = health.public("/metrics")
    assert answer is not None
    text = answer.body.decode()
    assert 'collector_shard_cpu_seconds_total{shard="0"} 2.5' in text
    used = psutil.Process()
    cpu, resident = (
        float(text.split(f'\n{name}{{process="sink"}} ')[1].split("\n")[0])
        for name in ("collector_process_cpu_seconds_total", "collector_process_resident_bytes")
    )
    assert 0 < cpu <= sum(used.cpu_times()[:2]) + 0.05
    assert resident == pytest.approx(used.memory_info().rss, rel=0.1)


def test_the_lag_is_a_histogram_of_prometheus() -> None:
    health, memory = made()
    counted = Lag()
    for seconds, records in ((0.05, 10), (0.1, 1), (3.0, 5), (1000.0, 2)):
        counted.observe(round(seconds * 1e9), records)
    block = Counters(memory.block(3), counter_names.SINK_NAMES)
    for name, value in counted.counters().items():
        block[name] = value
    answer = health.public("/metrics")
    assert answer is not None
    families = {family.name: family for family in text_string_to_metric_families(answer.body.decode())}
    samples = {(s.name, s.labels.get("le")): s.value for s in families[lag.METRIC].samples}
    assert samples[f"{lag.METRIC}_bucket", "0.1"] == 11 and samples[f"{lag.METRIC}_bucket", "2.5"] == 11
    assert samples[f"{lag.METRIC}_bucket", "5.0"] == 16 and samples[f"{lag.METRIC}_bucket", "+Inf"] == 18
    assert samples[f"{lag.METRIC}_count", None] == 18
    assert samples[f"{lag.METRIC}_sum", None] == pytest.approx(0.5 + 0.1 + 15 + 2000)


def test_names_of_processes_can_be_anything() -> None:
    rows = [
        {"name": name, "operations": 1, "compat": 0, "quic": 0} for name in ("\ud800", 'a"\n\\', "", *map(str, range(100)))
    ]
    health = made()[0]
    health.state["unseen"] = metrics.unseen(rows)
    assert len(health.state["unseen"]) == metrics.UNSEEN_NAMES + 1
    answer = health.public("/metrics")
    assert answer is not None and b'process="?"' in answer.body and b'process="other",reason="io_uring"} 39.0' in answer.body


def test_what_is_given_to_read_cannot_be_written() -> None:
    memory = CounterMemory(1)
    fd = memory.read_only_fd()
    reader = CounterMemory(1, fd, read_only=True)
    memory.block(0)[3] = 4
    assert reader.block(0)[3] == 4
    with pytest.raises(TypeError):
        reader.block(0)[3] = 5
    with pytest.raises(PermissionError):
        mmap.mmap(fd, 0)
    assert Path(f"/proc/self/fd/{fd}").stat().st_mode & 0o777 == 0o600  # nor opened again by another user
    os.close(fd)


def test_the_status_says_what_each_process_uses() -> None:
    health, memory = made()
    shard = Counters(memory.block(1), counter_names.SHARD_NAMES)
    shard["cpu_ns"], shard["resident_bytes"] = 5, 7
    usage = health.status()["usage"]
    assert list(usage) == ["shard-0", "shard-1", "loader", "sink", "supervisor", "health"]
    assert usage["shard-1"] == {"cpu_ns": 5, "resident_bytes": 7}
