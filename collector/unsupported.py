"""Connections whose messages cannot be captured, by library and process: metrics with labels that are known only when such a
connection is seen. docs/metrics.md names them (collector/metrics.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

PAIRS = 64  # of library and process that are exported of one metric; further ones as "other"
NAME_LETTERS = 40
OTHER = "other"
LABELS = ("library", "process")


@dataclass(frozen=True)
class Metric:
    """One of them: a counter with the labels LABELS."""

    name: str
    help: str


TLS = Metric(
    "collector_tls_unsupported_connections",
    "TLS connections of processes without any library that can be probed, by what these use for TLS (or the name of the "
    "program when that is not known). Their exchanges are missing: `collector check --tls` says why.",
)
UNBOUND = Metric(
    "collector_tls_unbound_connections",
    "TLS connections of processes that have a probed library, which were not seen to use it: a handshake that failed, "
    "or another library of the process, which is named if it has one.",
)
METRICS = (TLS, UNBOUND)

Sample = tuple[str, str, str, int]  # name of the metric, library, process, connections


class Totals:
    """What the loaders say of processes (collector/loader/blindspots.py), added up. It outlives them: a new loader reads the
    same numbers of the kernel programs again, and nothing is counted twice.
    """

    def __init__(self) -> None:
        self._last: dict[int, int] = {}  # of each process that lives
        self._sums: dict[tuple[str, str, str], int] = {}
        self._pairs: dict[str, int] = {}

    def heard(self, rows: Iterable[dict[str, Any]]) -> None:
        """Rows of {pid, gone}, or of {pid, process, library, probed, tls}."""
        for row in rows:
            if row.get("gone"):
                self._last.pop(row["pid"], None)
                continue
            last = self._last.get(row["pid"], 0)
            self._add(UNBOUND if row["probed"] else TLS, row["library"], row["process"], row["tls"] - last)
            self._last[row["pid"]] = max(row["tls"], last)

    def _add(self, metric: Metric, library: str, process: str, number: int) -> None:
        if number <= 0:
            return
        library = "".join(letter if letter.isascii() else "?" for letter in library)
        labels = metric.name, _clean(library), _clean(process)
        if labels not in self._sums:
            if self._pairs.get(metric.name, 0) >= PAIRS:
                labels = metric.name, OTHER, OTHER
            else:
                self._pairs[metric.name] = self._pairs.get(metric.name, 0) + 1
        self._sums[labels] = self._sums.get(labels, 0) + number

    def samples(self) -> list[Sample]:
        """Every sum."""
        return [(*labels, number) for labels, number in self._sums.items()]


def _clean(text: str) -> str:
    """A name as it may stand in JSON and in a label: processes call themselves what they like."""
    text = text.encode("utf-8", "replace").decode()
    return "".join(letter if letter.isprintable() else "?" for letter in text)[:NAME_LETTERS]
