"""What the fuzzer once found, and its first inputs, through the ordinary build."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz import seeds
from tests.fuzz.script import HEADER, RAW, TEXT, Runner, steps
from tests.fuzz.target import one

FINDINGS = sorted(path for path in (Path(__file__).parent / "findings").iterdir() if path.suffix != ".md")


@pytest.mark.parametrize("path", FINDINGS, ids=lambda path: path.name)
def test_finding(path: Path) -> None:
    one(path.read_bytes())


def test_own_seeds() -> None:
    reached: set[int] = set()
    for data in seeds.own():
        reached |= one(data)
    assert len(reached) > 150


def test_public_seeds(corpora: Path) -> None:
    inputs = list(seeds.public(corpora))
    for data in inputs:
        one(data)
    assert len(inputs) > 300


def test_every_counter_is_reached() -> None:
    """The seeds get everywhere the pipeline counts: what they miss, the fuzzer would have to guess."""
    total: dict[str, int] = {}
    for data in seeds.own():
        if data[0] not in (RAW, TEXT):
            runner = Runner(data[:HEADER])
            for step in steps(data):
                runner.step(*step)
            if runner.dropped:
                continue
            runner.finish()
            for name, value in runner.pipe.statistics().items():
                total[name] = total.get(name, 0) + value
    # gauges are 0 at the end, and the last three are never the pipeline's to count
    never = {"connections", "queued_exchanges", "buffer_bytes", "input_bytes", "current_connection", "callback_errors"}
    missed = {name for name, value in total.items() if not value}
    assert missed <= never, missed
