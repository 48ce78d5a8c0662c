"""What the kernel programs count, and how full their table of connections is."""

from __future__ import annotations

import collections
import contextlib
import logging
import struct
from collections.abc import Mapping

from collector.counters import Counters
from collector.loader import compiler, entries, kernel
from collector.loader.programs import Loaded

log = logging.getLogger("loader")

WARNING_SECONDS = 60.0
RUNS_SECONDS = 5.0
_OF_RUNS = {"run_cnt": "program_runs", "run_time_ns": "program_ns", "recursion_misses": "program_misses"}


class Statistics:
    """Reads them into the loader's counters; ``loaded`` without maps has none. ``connections``: entries of the table."""

    def __init__(self, loaded: Loaded, counters: Counters, connections: int) -> None:
        self._maps = loaded.maps
        self._connections = connections
        self._counters = counters
        self._cpus = kernel.possible_cpus()
        self._sweep = entries.Sweep(
            loaded.programs.get("raw_sweep", -1), loaded.maps.get("conns", -1), loaded.maps.get("processes", -1)
        )
        self._programs = list(loaded.programs.values())
        self._next_warning = self._next_runs = 0.0
        self._refused = 0

    def read(self, now: float, *, sweep: bool) -> Mapping[str, int]:
        """All of compiler.STATS since the programs were loaded; those that are exported are counters now. ``sweep``: may
        entries be ended, which makes events?
        """
        totals: dict[str, int] = {}
        if not self._maps:
            return totals
        for i, name in enumerate(compiler.STATS):
            value = kernel.map_lookup(self._maps["stats"], struct.pack("=I", i), 8 * self._cpus)
            totals[name] = sum(struct.unpack(f"={self._cpus}Q", value)) if value else 0
            if name != "null_accepts":
                self._counters[name] = totals[name]
        if sweep:
            self._sweep.turn(now)
        self._watch_table(totals, now)
        self._count_runs(now)
        return totals

    def _count_runs(self, now: float) -> None:
        """How often the programs ran, how long, and how often they could not."""
        if now < self._next_runs:
            return
        self._next_runs = now + RUNS_SECONDS
        sums: collections.Counter[str] = collections.Counter()
        for fd in self._programs:
            with contextlib.suppress(OSError), open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as file:
                for line in file:
                    name, _, number = line.partition(":")
                    if name in _OF_RUNS:
                        sums[_OF_RUNS[name]] += int(number)
        for name in _OF_RUNS.values():
            self._counters[name] = sums[name]

    def _watch_table(self, totals: Mapping[str, int], now: float) -> None:
        open_, most = totals["kernel_entries_made"] - totals["kernel_entries_ended"], self._connections
        self._counters["kernel_entries"] = max(0, min(open_, most))
        self._counters["kernel_entries_pushed_out"] = max(self._counters["kernel_entries_pushed_out"], open_ - most)
        refused = totals["kernel_process_full"]
        if (open_ > most * 9 // 10 or refused > self._refused) and now > self._next_warning:
            self._next_warning = now + WARNING_SECONDS
            log.warning(
                "the kernel's table of connections is %d %% full, its least recently used entries give way; "
                "%d calls of processes that have half of it were left out",
                min(100, open_ * 100 // most),
                refused,
            )
        self._refused = refused
