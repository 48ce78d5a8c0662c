"""/healthz, /readyz and /metrics over HTTP, by default on the loopback address only.

Live fails only when the supervisor's own repair failed; ready means that probes are attached and every child works.
"""

from __future__ import annotations

import collections
import http.server
import logging
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from collector import metrics

log = logging.getLogger("health")


class State(Protocol):
    """What the endpoints ask the supervisor."""

    def live(self) -> tuple[bool, str]:
        """(is it alive, in words)."""

    def ready(self) -> tuple[bool, str]:
        """(does it capture, in words)."""

    def readings(self) -> list[tuple[str, dict[str, str], dict[str, int]]]:
        """(role, labels, values by key) of every child and of the supervisor."""

    def unseen(self) -> list[dict[str, Any]]:
        """Processes whose traffic is not seen (loader.entries.unseen)."""


class _Readings:
    """The declared metrics with their current values, in prometheus_client's form."""

    def __init__(self, state: State) -> None:
        self._state = state

    def collect(self) -> Iterable[Metric]:
        """Called at each scrape."""
        families: dict[str, Metric] = {}
        readings = self._state.readings()
        for declared in metrics.METRICS:
            role = "shard" if declared.role == "core" else declared.role
            shard_label = ["shard"] if role == "shard" else []
            names = [*shard_label, *(name for name, _ in declared.labels)]
            family = families.get(declared.name)
            if family is None:
                kind = CounterMetricFamily if declared.kind == metrics.COUNTER else GaugeMetricFamily
                family = families[declared.name] = kind(declared.name, declared.help, labels=names)
            for where, labels, values in readings:
                if where == role and declared.key in values:
                    family.add_metric(  # type: ignore[attr-defined]
                        [*(labels[name] for name in shard_label), *(value for _, value in declared.labels)],
                        values[declared.key])
        families[metrics.UNSEEN_METRIC] = self._unseen()
        return families.values()

    def _unseen(self) -> Metric:
        family = GaugeMetricFamily(metrics.UNSEEN_METRIC, metrics.UNSEEN_HELP, labels=["process", "reason"])
        counts: collections.Counter[tuple[str, str]] = collections.Counter()
        names: set[str] = set()
        for row in self._state.unseen():
            if len(names) < metrics.UNSEEN_NAMES:
                names.add(row["name"])
            name = row["name"] if row["name"] in names else "other"
            counts.update((name, label) for key, (label, _words) in metrics.UNSEEN_REASONS.items() if row[key])
        for labels, value in counts.items():
            family.add_metric(labels, value)
        return family

    def __iter__(self) -> Iterator[Any]:
        return iter(self.collect())


def metrics_text(state: State) -> bytes:
    """The page of /metrics."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Readings(state))
    return generate_latest(registry)


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    state: State


class _Handler(http.server.BaseHTTPRequestHandler):
    server: _Server
    timeout = 5

    def do_GET(self) -> None:  # noqa: N802 - the name is http.server's
        """Answer one of the three pages."""
        answers: dict[str, Callable[[], tuple[bool, str]]] = {
            "/healthz": self.server.state.live, "/readyz": self.server.state.ready}
        path = self.path.partition("?")[0]
        if path == "/metrics":
            self._answer(200, metrics_text(self.server.state), CONTENT_TYPE_LATEST)
        elif path in answers:
            good, words = answers[path]()
            self._answer(200 if good else 503, words.encode() + b"\n", "text/plain; charset=utf-8")
        else:
            self._answer(404, b"/healthz, /readyz, /metrics\n", "text/plain; charset=utf-8")

    do_HEAD = do_GET

    def _answer(self, status: int, body: bytes, content_type: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Probes come every few seconds: no log line for them."""


class HealthServer:
    """Serves in a thread of its own. Raises OSError when the address cannot be had."""

    def __init__(self, address: str, state: State) -> None:
        host, _, port = address.rpartition(":")
        host = host.strip("[]")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET

        class Server(_Server):
            address_family = family

        self._server = Server((host, int(port)), _Handler)
        self._server.state = state
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.5,), name="health", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
