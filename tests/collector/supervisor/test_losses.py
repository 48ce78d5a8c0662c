"""What is lost with a shard: by what it wrote down, and what the sink says it has."""

from __future__ import annotations

from typing import Any

import pytest

from collector.counter_names import CORE_NAMES, SHARD_NAMES, SINK_NAMES, SUPERVISOR_NAMES
from collector.counters import CounterMemory, Counters
from collector.supervisor.losses import Losses

EPOCH = (1 << 62) + 1


class Scene:
    """A shard that made 100 records, of which 60 were acknowledged, 50 of them before its session with the sink."""

    def __init__(self) -> None:
        memory = CounterMemory(3)
        self.core = Counters(memory.block(0), CORE_NAMES, 0)
        self.shard = Counters(memory.block(0), SHARD_NAMES)
        self.sink = Counters(memory.block(1), SINK_NAMES)
        self.own = Counters(memory.block(2), SUPERVISOR_NAMES)
        self.asked: list[dict[str, Any]] = []
        self.there = True
        self.losses = Losses(self.own, [self.core], self._ask)
        self.core["records"], self.core["queued_exchanges"], self.core["buffer_bytes"] = 100, 4, 4000
        self.shard["epoch"], self.shard["records_acknowledged"], self.shard["records_before_session"] = EPOCH, 60, 50

    def _ask(self, message: dict[str, Any]) -> bool:
        self.asked.append(message)
        return self.there

    def dies(self) -> None:
        self.losses.ended("shard", 0, self.shard)

    def lost(self) -> tuple[int, int, int]:
        return self.own["lost_records"], self.own["lost_exchanges"], self.own["lost_state_bytes"]


@pytest.fixture
def scene() -> Scene:
    return Scene()


@pytest.mark.parametrize(("taken", "lost"), [(10, 40), (30, 20), (50, 0)])
def test_what_the_sink_has_is_not_lost_acknowledged_or_not(scene: Scene, taken: int, lost: int) -> None:
    scene.dies()
    assert scene.asked == [{"kind": "ended", "epoch": EPOCH}] and scene.lost() == (0, 4, 4000)
    scene.losses.sink_said(EPOCH, taken)
    assert scene.lost() == (lost, 4, 4000)
    scene.losses.sink_said(EPOCH, 0)  # once
    scene.losses.sink_said(EPOCH + 2, 0)
    assert scene.lost() == (lost, 4, 4000)
    assert scene.shard["records_acknowledged"] == 100  # the next life goes on from here


def test_a_sink_that_was_started_since_makes_nothing_lost_that_was_acknowledged(scene: Scene) -> None:
    scene.dies()
    scene.losses.sink_said(EPOCH, 0)  # it knows of no session
    assert scene.lost() == (40, 4, 4000)


@pytest.mark.parametrize(("taken", "lost"), [(30, 10), (40, 0), (45, 0)])
def test_what_is_read_again_is_made_again(scene: Scene, taken: int, lost: int) -> None:
    """It had made 90 when it began to read its last span."""
    scene.shard["reading"], scene.shard["span_records"] = 1, 90
    scene.shard["span_exchanges"], scene.shard["span_state_bytes"] = 2, 2000
    scene.dies()
    scene.losses.sink_said(EPOCH, taken)
    assert scene.lost() == (lost, 2, 2000) and scene.own["records_made_again"] == 10


def test_a_shard_that_never_began_has_lost_nothing(scene: Scene) -> None:
    scene.dies()
    scene.losses.sink_said(EPOCH, 50)
    scene.dies()  # its next life, before it wrote anything
    assert len(scene.asked) == 1 and scene.lost() == (0, 4, 4000)


def test_without_a_sink_all_that_was_not_acknowledged_is_lost(scene: Scene) -> None:
    scene.there = False
    scene.dies()
    assert scene.lost()[0] == 40


def test_a_sink_that_dies_with_its_answer_and_with_what_it_held(scene: Scene) -> None:
    scene.dies()
    scene.sink["orphaned_records"] = 7
    for _ in range(2):
        scene.losses.ended("sink", 1, scene.sink)
        assert scene.lost()[0] == 40 + 7
    scene.losses.sink_said(EPOCH, 0)
    assert scene.lost()[0] == 40 + 7
