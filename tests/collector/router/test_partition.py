"""Which ring a connection goes to."""

from __future__ import annotations

from collector.router import partition


def test_partition_is_stable_and_even() -> None:
    counts = [0] * 4
    for when in range(1000, 6000):  # identities are the times at which they were given, by two CPUs
        for cpu in (0, 1):
            counts[partition.ring_of(when << 12 | cpu, 4)] += 1
    assert min(counts) > 2200
    assert partition.ring_count(2, 8) == 8 and partition.ring_count(16, 4) == 16 and partition.ring_count(1, 200) == 64
