"""The names of counters, and the numbers behind them."""

from __future__ import annotations

from collector import metrics
from collector.counters import BLOCK, CORE
from collector.shards.pipeline import COUNTER_NAMES


def test_the_names_of_the_core_stand_in_the_compiled_order() -> None:
    assert metrics.CORE_NAMES == COUNTER_NAMES
    assert len(metrics.CORE_NAMES) <= CORE


def test_every_process_has_room_for_its_numbers() -> None:
    for names in (
        metrics.LOADER_NAMES,
        metrics.SHARD_NAMES,
        metrics.SINK_NAMES,
        metrics.SUPERVISOR_NAMES,
        metrics.HEALTH_NAMES,
    ):
        assert len(set(names)) == len(names) <= BLOCK - CORE


def test_every_metric_is_a_number_that_its_process_has() -> None:
    names = {
        "core": metrics.CORE_NAMES,
        "shard": metrics.SHARD_NAMES,
        "loader": metrics.LOADER_NAMES,
        "sink": metrics.SINK_NAMES,
        "supervisor": metrics.SUPERVISOR_NAMES,
        "health": metrics.HEALTH_NAMES,
    }
    assert [metric for metric in metrics.METRICS if metric.key not in names[metric.role]] == []
