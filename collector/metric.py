"""What a metric is; they are declared in metrics.py."""

from __future__ import annotations

from dataclasses import dataclass

COUNTER, GAUGE = "counter", "gauge"


@dataclass(frozen=True)
class Metric:
    """One exported metric. ``labels`` is a tuple of (name, value) pairs fixed for this entry."""

    name: str
    kind: str
    role: str
    key: str
    help: str
    labels: tuple[tuple[str, str], ...] = ()
    scale: float = 1  # what is exported is the number times this
