"""What this container may use."""

from __future__ import annotations

from collector import cgroups


def test_cpu_limit_is_at_least_one() -> None:
    assert cgroups.cpu_limit() >= 1


def test_memory_limit_is_a_number_or_none() -> None:
    limit = cgroups.memory_limit()
    assert limit is None or limit > 0
