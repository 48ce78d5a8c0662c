"""What each child is told, from one plan."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from collector import config
from collector.settings import (
    Adoption,
    KernelState,
    LoaderSettings,
    LoaderStart,
    ReplaySettings,
    ReplayStart,
    Rings,
    ShardSettings,
    ShardStart,
    SinkStart,
    SupervisorSettings,
)
from collector.sink import destinations
from collector.supervisor import starting
from collector.supervisor.starting import Messages, Plan

LOADED = config.load({"COLLECTOR_SHARDS": "3"})
RINGS = Rings(ring_bytes=4096, memfd=False)


def plan(loader: LoaderSettings | ReplaySettings | None = None, **changes: Any) -> Plan:
    output = destinations.chosen(LOADED, "null")
    return dataclasses.replace(
        Plan(
            supervisor=SupervisorSettings.of(LOADED),
            shard=ShardSettings.of(LOADED, shards=3, record_prefix="p-"),
            loader=loader or LoaderSettings.of(LOADED, rings=4),
            sink=output.settings(LOADED),
            directory="d",
        ),
        **changes,
    )


def test_blocks_are_those_of_the_counters() -> None:
    messages = Messages(plan(), 6, 65000)
    starts = [
        messages.shard(2, 0, buffer_bytes=1, suspects=(), rings=None),
        messages.first_stage(ours=(), known=()),
        messages.sink([]),
    ]
    assert [(start.block, start.blocks, start.uid, start.shards) for start in starts] == [
        (2, 6, 65000, 3),
        (3, 6, 65000, 3),
        (4, 6, 65000, 3),
    ]
    assert len({start.token for start in starts}) == 1 and len(bytes.fromhex(starts[0].token)) == 8
    assert Messages(plan(), 6, None).sink([]).token != starts[0].token


def test_a_shard_has_its_budget_and_what_it_must_skip() -> None:
    start = Messages(plan(), 6, None).shard(1, 4, buffer_bytes=777, suspects=[5, 6], rings=RINGS)
    assert (start.number, start.life, start.settings.buffer_bytes, start.suspects, start.rings) == (1, 4, 777, (5, 6), RINGS)
    assert start.live and start.settings.record_prefix == "p-"
    assert ShardStart.from_message(json.loads(json.dumps(start.to_message()))) == start


def test_the_first_stage_is_the_loader_or_a_replay() -> None:
    messages = Messages(plan(loader_fds=(8, 9)), 6, None)
    adopt = Adoption(state=KernelState(variant="raw", identity="socket", uprobes="perf"), descriptors=250)
    loader = messages.first_stage(ours=[1, 2], known=[1, 2, 3], adopt=adopt, reader_uid=65002)
    assert isinstance(loader, LoaderStart) and (loader.ours, loader.known, loader.reader_uid) == ((1, 2), (1, 2, 3), 65002)
    assert loader.adopt == adopt
    assert LoaderStart.from_message(json.loads(json.dumps(loader.to_message()))) == loader
    files = ReplaySettings(files=("/a", "/b"))
    replay = Messages(plan(files), 6, None).first_stage(ours=(), known=())
    assert isinstance(replay, ReplayStart) and replay.settings == files
    assert [starting.FIRST_STAGE[type(one.loader)] for one in (plan(), plan(files))] == [
        "collector.loader.process",
        "collector.loader.replay",
    ]
    assert plan().rings is not None and plan(files).rings is None


@pytest.mark.parametrize("fd", [None, 7])
def test_the_sink_knows_whether_an_output_comes_along(fd: int | None) -> None:
    start = Messages(plan(output_fd=fd), 6, None).sink([(0, 1), (1, 3)])
    assert start.output == (fd is not None) and start.slots == ((0, 1), (1, 3))
    assert SinkStart.from_message(json.loads(json.dumps(start.to_message()))) == start
