"""Connections whose messages cannot be captured, by process, and by library or role: metrics with labels that are known only
when such a connection is seen. docs/metrics.md names them (collector/metrics.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

PAIRS = 64  # of the two labels that are exported of one metric; further ones as "other"
NAME_LETTERS = 40
OTHER = "other"
ROLES = ("client", "server")


@dataclass(frozen=True)
class Metric:
    """One of them: a counter with these two labels."""

    name: str
    help: str
    labels: tuple[str, str] = ("library", "process")


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
QUIC = Metric(
    "collector_quic_unsupported_connections",
    "QUIC connections that a process began as a client, or others with it as a server. QUIC is not captured: if they are "
    "HTTP/3, their exchanges are missing. With both ends on this node a connection is counted at each. Less than "
    '`collector_kernel_ignored{reason="quic"}` says: more than 1,024 processes had such connections at a time.',
    ("role", "process"),
)
METRICS = (TLS, UNBOUND, QUIC)

Sample = tuple[str, str, str, int]  # name of the metric, its two labels, connections


class Totals:
    """What the loaders say of processes (collector/loader/blindspots.py), added up. It outlives them: a new loader reads the
    same numbers of the kernel programs again, and nothing is counted twice.
    """

    def __init__(self) -> None:
        self._last: dict[int, dict[str, int]] = {}  # of each process that lives: TLS; as a client, as a server of QUIC
        self._sums: dict[tuple[str, str, str], int] = {}
        self._pairs: dict[str, int] = {}

    def heard(self, rows: Iterable[dict[str, Any]]) -> None:
        """Rows of {pid, gone}, of {pid, process, library, probed, tls}, or of {pid, process, quic: as ROLES}."""
        for row in rows:
            pid = row["pid"]
            if row.get("gone"):
                self._last.pop(pid, None)
            elif "quic" in row:
                for role, number in zip(ROLES, row["quic"], strict=True):
                    self._add(QUIC, role, row["process"], self._new(pid, role, number))
            else:
                library = "".join(letter if letter.isascii() else "?" for letter in row["library"])
                metric = UNBOUND if row["probed"] else TLS
                self._add(metric, library, row["process"], self._new(pid, TLS.name, row["tls"]))

    def _new(self, pid: int, what: str, number: int) -> int:
        """How many there are more than there were."""
        known = self._last.setdefault(pid, {})
        last = known.get(what, 0)
        known[what] = max(number, last)
        return number - last

    def _add(self, metric: Metric, first: str, process: str, number: int) -> None:
        if number <= 0:
            return
        labels = metric.name, clean(first), clean(process)
        if labels not in self._sums:
            if self._pairs.get(metric.name, 0) >= PAIRS:
                labels = metric.name, first if metric is QUIC else OTHER, OTHER
            else:
                self._pairs[metric.name] = self._pairs.get(metric.name, 0) + 1
        self._sums[labels] = self._sums.get(labels, 0) + number

    def samples(self) -> list[Sample]:
        """Every sum."""
        return [(*labels, number) for labels, number in self._sums.items()]


def clean(text: str) -> str:
    """A name as it may stand in JSON, in a label and on a terminal: processes call themselves what they like."""
    text = text.encode("utf-8", "replace").decode()
    return "".join(letter if letter.isprintable() else "?" for letter in text)[:NAME_LETTERS]
