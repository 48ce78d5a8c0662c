"""What the health pages say: /healthz, /readyz, /metrics; for `collector status` and `report`: /status, /log, /stacks.

Live fails only when the supervisor's own repair failed, or when it sends no heartbeat; ready means that probes are
attached and every child works.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from collector import counted, counter_names, lag, metrics, metrics_policy, unsupported
from collector.counters import CounterMemory, Counters
from collector.health.http import Answer
from collector.metric import COUNTER
from collector.recent import Reader

SILENT_SECONDS = 10.0  # without a turn of the supervisor's loop, of which there are ten a second
MOST_STACKS = 256 << 10  # bytes of a page
METRICS_AGE = 0.1  # seconds that a page of /metrics serves all who ask


class Pages:
    """``memory`` holds everybody's counters, ``own`` ours; ``state`` is what the supervisor told last; ``stacks`` is a
    descriptor of what it wrote when it was asked for its stacks, ``log`` has the last lines of the log.
    """

    PUBLIC = "/healthz, /readyz, /metrics"

    def __init__(
        self, memory: CounterMemory, own: Counters, state: dict[str, Any], stacks: int = -1, log: Reader | None = None
    ) -> None:
        self._stacks = stacks
        self._log = log
        self._memory = memory
        self._own = own
        self._supervisor = Counters(memory.block(memory.blocks - 1), counter_names.SUPERVISOR_NAMES)
        self.state = state
        self._metrics: tuple[float, bytes] | None = None
        self._excused_until = 0.0

    def public(self, path: str) -> Answer | None:
        """The pages for everybody who can reach the port."""
        if path == "/metrics":
            return Answer(200, self._metrics_text(), CONTENT_TYPE_LATEST)
        if path in ("/healthz", "/readyz"):
            good, words = self._said("live" if path == "/healthz" else "ready")
            return Answer(200 if good else 503, words.encode() + b"\n")
        return None

    def private(self, path: str) -> Answer | None:
        """Those for root on this node."""
        if path == "/status":
            return Answer(200, json.dumps(self.status()).encode(), "application/json")
        if path == "/log":
            return Answer(200, self._log.read() if self._log is not None else b"")
        if path == "/stacks":
            return Answer(200, os.pread(self._stacks, MOST_STACKS, 0) if self._stacks >= 0 else b"")
        return self.public(path)

    def was_stopped(self) -> None:
        """We did not run for some time, so the supervisor may not have run either: its silence proves nothing."""
        self._excused_until = time.monotonic() + SILENT_SECONDS

    def _said(self, what: str) -> tuple[bool, str]:
        silent = (time.monotonic_ns() - self._supervisor["heartbeat_ns"]) / 1e9
        if silent > SILENT_SECONDS and time.monotonic() > self._excused_until:
            return False, f"the supervisor has sent no heartbeat for {silent:.0f} s"
        good, words = self.state[what]
        return bool(good), str(words)

    def readings(self) -> list[counted.Reading]:
        """Everybody's numbers and our own."""
        return [*counted.readings(self._memory), ("health", {}, self._own.snapshot())]

    def status(self) -> dict[str, Any]:
        """Everything in one object (docs/troubleshooting.md)."""
        live, live_words = self._said("live")
        ready, ready_words = self._said("ready")
        readings = self.readings()
        totals = counted.totals(readings)
        return {
            **{name: value for name, value in self.state.items() if name not in ("kind", "fds")},
            "live": live,
            "live_words": live_words,
            "ready": ready,
            "ready_words": ready_words,
            "usage": {_name(role, labels): _usage(values) for role, labels, values in readings},
            "totals": {name: value for name, value in totals.items() if not name.endswith("heartbeat_ns")},
        }

    def _metrics_text(self) -> bytes:
        now = time.monotonic()
        if self._metrics is None or now - self._metrics[0] > METRICS_AGE:
            registry = CollectorRegistry(auto_describe=False)
            registry.register(_Families(self.readings(), self.state))
            self._metrics = (now, generate_latest(registry))
        return self._metrics[1]


def _name(role: str, labels: dict[str, str]) -> str:
    """Of a process, as the supervisor calls it."""
    return "-".join([role, *labels.values()])


def _usage(values: dict[str, int]) -> dict[str, int]:
    """What a process uses: CPU time in ns, resident memory in bytes."""
    return {"cpu_ns": values["cpu_ns"], "resident_bytes": values["resident_bytes"]}


class _Families:
    """The declared metrics with their current values, in prometheus_client's form."""

    def __init__(
        self,
        readings: list[counted.Reading],
        state: dict[str, Any],
    ) -> None:
        self._readings = readings
        self._unseen: list[tuple[str, str, int]] = state["unseen"]
        self._unsupported: list[unsupported.Sample] = state["unsupported"]
        self._policy: dict[str, str] = state["policy"]

    def collect(self) -> Iterable[Metric]:
        """Called by prometheus_client."""
        families: dict[str, Metric] = {}
        for declared in metrics.METRICS:
            role = "shard" if declared.role == "core" else declared.role
            shard_label = ["shard"] if role == "shard" else []
            names = [*shard_label, *(name for name, _ in declared.labels)]
            family = families.get(declared.name)
            if family is None:
                kind = CounterMetricFamily if declared.kind == COUNTER else GaugeMetricFamily
                family = families[declared.name] = kind(declared.name, declared.help, labels=names)
            for where, labels, values in self._readings:
                if where == role and declared.key in values:
                    family.add_metric(  # type: ignore[attr-defined]
                        [*(labels[name] for name in shard_label), *(value for _, value in declared.labels)],
                        values[declared.key] * declared.scale,
                    )
        for where, _labels, values in self._readings:
            if where == "sink":
                ends, total = lag.buckets(values)
                families[lag.METRIC] = HistogramMetricFamily(lag.METRIC, lag.HELP, buckets=ends, sum_value=total)
        unseen = GaugeMetricFamily(metrics.UNSEEN_METRIC, metrics.UNSEEN_HELP, labels=["process", "reason"])
        for process, reason, number in self._unseen:
            unseen.add_metric([process, reason], number)
        families[metrics.UNSEEN_METRIC] = unseen
        policy = GaugeMetricFamily(metrics_policy.INFO, metrics_policy.INFO_HELP, labels=["policy", "digest"])
        policy.add_metric([self._policy["name"], self._policy["digest"]], 1)
        families[metrics_policy.INFO] = policy
        for metric in unsupported.METRICS:
            counter = families[metric.name] = CounterMetricFamily(metric.name, metric.help, labels=metric.labels)
            for name, first, process, number in self._unsupported:
                if name == metric.name:
                    counter.add_metric([first, process], number)
        return families.values()

    def __iter__(self) -> Iterator[Any]:
        return iter(self.collect())
