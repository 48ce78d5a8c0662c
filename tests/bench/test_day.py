"""Hours of event time in seconds: connections of all kinds begin, live and end, and the memory stays the same.

DAY_HOURS=24 for the day of docs/reliability.md, in some three minutes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

HOURS = float(os.environ.get("DAY_HOURS", "4"))
FLAT_FROM, TOLERANCE = 2, 0.05
RATE = 10


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_day_of_connections_leaves_the_memory_as_it_was() -> None:
    run = [sys.executable, "-m", "tests.bench", "day", "--hours", str(HOURS), "--rate", str(RATE)]
    figures = json.loads(subprocess.run(run, capture_output=True, text=True, check=True).stdout)
    print(figures)  # noqa: T201
    assert figures["exchanges"] > HOURS * 3600 * RATE * 0.8 and figures["bad_events"] == 0
    assert figures["delivered"] == figures["records"] > figures["exchanges"] * 0.98
    # and what makes state stay behind, and go, was among it
    for name in ("evicted_connections", "timed_out", "holes", "records_marked"):
        assert figures[name] > HOURS, name
    first, *later = [level for hour, level in figures["pss_mib"].items() if int(hour) >= FLAT_FROM]
    assert len(later) >= HOURS - FLAT_FROM - 1
    assert all(abs(level - first) <= first * TOLERANCE for level in later), figures["pss_mib"]
