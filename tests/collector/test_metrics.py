"""The names of counters, and the numbers behind them."""

from __future__ import annotations

from collector import counter_names, metrics
from collector.counters import BLOCK, CORE
from collector.shards.pipeline import COUNTER_NAMES


def test_the_names_of_the_core_stand_in_the_compiled_order() -> None:
    assert counter_names.CORE_NAMES == COUNTER_NAMES
    assert len(counter_names.CORE_NAMES) <= CORE


def test_every_process_has_room_for_its_numbers() -> None:
    for names in (
        counter_names.LOADER_NAMES,
        counter_names.SHARD_NAMES,
        counter_names.SINK_NAMES,
        counter_names.SUPERVISOR_NAMES,
        counter_names.HEALTH_NAMES,
    ):
        assert len(set(names)) == len(names) <= BLOCK - CORE


def test_every_metric_is_a_number_that_its_process_has() -> None:
    names = {
        "core": counter_names.CORE_NAMES,
        "shard": counter_names.SHARD_NAMES,
        "loader": counter_names.LOADER_NAMES,
        "sink": counter_names.SINK_NAMES,
        "supervisor": counter_names.SUPERVISOR_NAMES,
        "health": counter_names.HEALTH_NAMES,
    }
    assert [metric for metric in metrics.METRICS if metric.key not in names[metric.role]] == []
