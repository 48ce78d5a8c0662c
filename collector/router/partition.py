"""Which ring a connection goes to, and which shard owns a ring: the same rule as in bpf/capture.h.

A connection is its conn_id, given once at first sight (docs/decisions/0010): so all its events stand in one ring, in order.
"""

from __future__ import annotations

_MULTIPLIER = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


def scatter(conn_id: int) -> int:
    """64 bits that differ in all places for neighbouring identities; their low 12 bits are a CPU's number."""
    return ((conn_id >> 12) ^ (conn_id << 52 & _MASK)) * _MULTIPLIER & _MASK


def ring_of(conn_id: int, rings: int) -> int:
    """The ring (0 <= ring < rings) of a connection; ``rings`` is at most 65536."""
    return (scatter(conn_id) >> 48) % rings


def shard_of_ring(ring: int, shards: int) -> int:
    """Ring r belongs to shard r modulo N."""
    return ring % shards


def ring_count(shards: int, cpus: int) -> int:
    """R = max(N, min(CPUs, 64)): enough rings that many CPUs do not meet on one ring's lock."""
    return max(shards, min(cpus, 64))
