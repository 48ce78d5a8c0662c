"""How memory is shared out: small limits make everything smaller, and what cannot be is an error."""

from __future__ import annotations

import pytest

from collector import config, memory_plan
from collector.errors import ConfigError
from collector.memory_plan import MemoryPlan

MIB = 1 << 20


def plan(limit_mib: int | None = None, cpus: int = 2, **settings: str) -> MemoryPlan:
    loaded = config.load({"COLLECTOR_SHARDS": "2", **settings})
    return memory_plan.of(loaded, limit=None if limit_mib is None else limit_mib * MIB, cpus=cpus)


def parts(one: MemoryPlan) -> int:
    """Everything that is planned to be held at once, but for connection state."""
    processes = memory_plan.PROCESSES_BYTES + one.shards * memory_plan.SHARD_BYTES
    return one.kernel + processes + one.rings * one.ring_bytes + one.queue_bytes


def test_without_a_limit_nothing_is_smaller() -> None:
    one = plan()
    assert not one.smaller and (one.soft, one.hard) == (400 * MIB, 500 * MIB)
    assert (one.rings, one.ring_bytes, one.connections) == (2, 8 * MIB, 65536)
    assert plan(1 << 20) == MemoryPlan(**{**{name: getattr(one, name) for name in one.__slots__}, "limit": MIB << 20})


@pytest.mark.parametrize("limit", [256, 320, 384, 512, 768, 1024, 2048])
@pytest.mark.parametrize("shards", ["0", "1"])
@pytest.mark.parametrize("cpus", [2, 16])
def test_everything_fits_below_the_lower_threshold(limit: int, shards: str, cpus: int) -> None:
    one = plan(limit, cpus, COLLECTOR_SHARDS=shards)
    whole = min(400 * MIB + one.kernel, limit * MIB * 70 // 100)
    assert parts(one) + memory_plan.LEAST_STATE_BYTES <= whole, one
    assert one.soft <= limit * MIB * 70 // 100 and one.hard <= limit * MIB * 85 // 100
    assert one.ring_bytes & (one.ring_bytes - 1) == 0 and one.ring_bytes >= memory_plan.LEAST_RING_BYTES


def test_a_small_cgroup_makes_rings_queue_and_tables_smaller() -> None:
    small, large = plan(256, COLLECTOR_SHARDS="1"), plan(1024, COLLECTOR_SHARDS="1")
    assert small.smaller
    assert (small.soft, small.hard) == (256 * MIB * 70 // 100, 256 * MIB * 85 // 100)
    assert (large.soft, large.hard) == (400 * MIB, 500 * MIB)
    for name in ("ring_bytes", "queue_bytes", "connections"):
        assert getattr(small, name) < getattr(large, name), name
    assert "limit 256 MiB" in str(small) and f"{small.connections} connections" in str(small)


def test_many_cpus_share_what_two_have(monkeypatch: pytest.MonkeyPatch) -> None:
    """One ring for each CPU: they are smaller; shards by default are fewer than CPUs where memory is short."""
    monkeypatch.setattr("collector.cgroups.cpu_limit", lambda: 64)
    one = plan(cpus=64, COLLECTOR_SHARDS="0")
    assert one.rings == 64 and 1 < one.shards < 64 and one.rings * one.ring_bytes <= one.room // 4
    assert plan(256, cpus=64, COLLECTOR_SHARDS="0").shards < one.shards
    assert plan(cpus=64, COLLECTOR_SHARDS="0", TRAFFIC_BUFFER_THRESHOLD="4000", AKTO_MEM_THRESH_RESTART="5000").shards == 64


def test_the_compiler_comes_first_where_it_does_not_fit_beside_the_others() -> None:
    assert plan(256, COLLECTOR_SHARDS="0").compiler_first
    assert not plan(1024).compiler_first and not plan().compiler_first


def test_what_was_set_is_kept_or_an_error() -> None:
    assert plan(1024, COLLECTOR_RING_BYTES=str(32 * MIB)).ring_bytes == 32 * MIB
    with pytest.raises(ConfigError, match="COLLECTOR_RING_BYTES=67108864: 2 rings .* 256 MiB"):
        plan(256, COLLECTOR_SHARDS="1", COLLECTOR_RING_BYTES=str(64 * MIB))
    with pytest.raises(ConfigError, match="COLLECTOR_SHARDS=32: .* 256 MiB"):
        plan(256, COLLECTOR_SHARDS="32")


def test_thresholds_that_contradict_each_other_are_an_error_and_one_alone_moves_the_other() -> None:
    with pytest.raises(ConfigError, match="TRAFFIC_BUFFER_THRESHOLD=600 is above AKTO_MEM_HARD_LIMIT=500"):
        plan(TRAFFIC_BUFFER_THRESHOLD="600", AKTO_MEM_HARD_LIMIT="500")
    lower = plan(AKTO_MEM_HARD_LIMIT="300")
    assert (lower.soft, lower.hard) == (240 * MIB, 300 * MIB)
    higher = plan(AKTO_MEM_SOFT_LIMIT="800")
    assert (higher.soft, higher.hard) == (800 * MIB, 1000 * MIB)
    assert plan(TRAFFIC_BUFFER_THRESHOLD="500", AKTO_MEM_THRESH_RESTART="500").soft == 500 * MIB
