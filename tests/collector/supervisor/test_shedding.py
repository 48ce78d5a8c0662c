"""Who gives way when memory is short: batches first, then connection state, and never more than helps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from collector import cgroups, counter_names
from collector.counters import BLOCK, Counters
from collector.supervisor import memory
from collector.supervisor.memory import Guard
from collector.supervisor.shedding import Shedding

MIB = 1 << 20
QUEUE = 64 * MIB


class Told:
    """A child that only notes what it is told."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.counters = counters(names)
        self.said: list[Mapping[str, Any]] = []

    def tell(self, message: dict[str, Any]) -> bool:
        self.said.append(message)
        return True


def counters(names: tuple[str, ...]) -> Counters:
    return Counters(memoryview(bytearray(8 * BLOCK)).cast("Q"), names)


class Scene:
    """Two shards and a sink, with ``used`` of a soft threshold of 400 MiB and a hard one of 500 MiB."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, live: bool = True) -> None:
        self.used, self.now = 100, 0.0
        monkeypatch.setattr(memory, "rss_bytes", lambda _pids: self.used * MIB)
        monkeypatch.setattr(memory, "pss_bytes", lambda _pids: self.used * MIB)
        monkeypatch.setattr(cgroups, "memory_use", lambda: None)
        self.sink = Told(counter_names.SINK_NAMES)
        self.shards = [Told(counter_names.SHARD_NAMES) for _ in range(2)]
        self.core = [Counters(memoryview(bytearray(8 * BLOCK)).cast("Q"), counter_names.CORE_NAMES, 0) for _ in range(2)]
        self.own = counters(counter_names.SUPERVISOR_NAMES)
        self.shedding = Shedding(
            Guard(400 * MIB, 500 * MIB, 0.5),
            self.sink,  # type: ignore[arg-type]
            self.shards,  # type: ignore[arg-type]
            self.core,
            self.own,
            queue_bytes=QUEUE,
            live=live,
        )
        assert not self.turn(100)  # the base is measured
        self.forget()

    def forget(self) -> None:
        for child in (self.sink, *self.shards):
            child.said.clear()

    def turn(
        self, used: int, *, batches: int = 0, state: tuple[int, int] = (0, 0), after: float = 1.0, **more: bool
    ) -> bool:
        """One look; MiB. Is it to be a restart?"""
        self.used, self.now = used, self.now + after
        self.sink.counters["queue_held_bytes"] = batches * MIB
        for core, held in zip(self.core, state, strict=True):
            core["buffer_bytes"] = held * MIB
        return self.shedding.turn(self.now, list, at_work=more.get("at_work", True), rings_bytes=0)

    def shed(self) -> list[int]:
        """What each shard may keep, MiB."""
        return [message["bytes"] // MIB for child in self.shards for message in child.said if message["kind"] == "shed"]


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    return Scene(monkeypatch)


def test_batches_give_way_and_connections_are_left_alone(scene: Scene) -> None:
    assert not scene.turn(410, batches=60, state=(100, 100))
    assert scene.sink.said == [{"kind": "room", "bytes": (60 - 11) * MIB}]
    assert scene.shed() == [100, 100] and scene.own["shed"] == 1  # told all the same: to give back what is free


def test_what_batches_cannot_give_connections_do_in_proportion(scene: Scene) -> None:
    scene.turn(439, batches=18, state=(34, 64))
    assert scene.sink.said == [{"kind": "room", "bytes": 8 * MIB}]  # a part is left to them
    assert scene.shed() == [34 - 10, 64 - 20]
    assert [child.said[-1]["kind"] for child in scene.shards] == ["budget", "budget"]


def test_connections_that_hold_little_are_never_given_up(scene: Scene) -> None:
    """It would not help, and spoil their records."""
    scene.turn(450, state=(3, 4))
    assert scene.shed() == [3, 4] and not scene.sink.said


def test_what_was_given_up_has_time_to_become_free(scene: Scene) -> None:
    scene.turn(410, batches=60)
    scene.turn(405, batches=49, after=0.6)
    assert scene.own["shed"] == 1
    scene.turn(405, batches=49, after=0.6)
    assert scene.own["shed"] == 2


def test_the_queue_has_its_room_again_when_it_is_calm(scene: Scene) -> None:
    scene.turn(410, batches=60)
    scene.turn(390, batches=49)
    assert len(scene.sink.said) == 1  # not yet
    scene.turn(350, batches=10)
    scene.turn(340, batches=10)
    assert scene.sink.said[1:] == [{"kind": "room", "bytes": QUEUE}]


def test_a_restart_above_the_hard_threshold_and_only_while_all_are_at_work(scene: Scene) -> None:
    assert not scene.turn(501, at_work=False)
    assert not scene.turn(500)
    assert not scene.turn(501, batches=60)  # first the same as above the lower one
    assert scene.sink.said[-1]["kind"] == "room"
    assert not scene.turn(501, after=0.5)
    assert scene.turn(501, after=0.6)


def test_what_is_above_the_hard_threshold_for_a_moment_is_no_reason_for_a_restart(scene: Scene) -> None:
    for _ in range(3):
        assert not scene.turn(520)
        assert not scene.turn(499)


def test_a_replay_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, live=False)
    assert not scene.turn(600, batches=60) and not scene.sink.said and scene.own["memory_pss_bytes"] == 600 * MIB
