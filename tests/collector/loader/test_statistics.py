"""What the kernel programs count."""

from __future__ import annotations

import os
import struct
from types import SimpleNamespace
from typing import Any

import pytest

from collector.counter_names import LOADER_NAMES
from collector.counters import BLOCK, Counters
from collector.loader import compiler, kernel
from collector.loader.entries import Sweep
from collector.loader.statistics import Statistics

pytestmark = pytest.mark.live


def test_at_the_end_nothing_is_swept(live: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rings are drained by then: what a sweep puts into them would be there when the loader ends."""
    cpus = kernel.possible_cpus()
    stats = kernel.create_array(8 * cpus, len(compiler.STATS))
    kernel.map_update(stats, struct.pack("=I", 0), struct.pack(f"={cpus}Q", *range(1, cpus + 1)))
    turns: list[float] = []
    monkeypatch.setattr(Sweep, "turn", lambda _self, now: turns.append(now))
    loaded: Any = SimpleNamespace(maps={"stats": stats}, programs={})
    statistics = Statistics(loaded, Counters(memoryview(bytearray(8 * BLOCK)).cast("Q"), LOADER_NAMES), 100)
    assert statistics.read(1.0, sweep=True)[next(iter(compiler.STATS))] == cpus * (cpus + 1) // 2
    statistics.read(2.0, sweep=False)
    assert turns == [1.0]
    os.close(stats)
