"""Which ring a connection goes to, and which shard owns a ring: the same rule as in bpf/capture.h.

The hash is of (tgid, fd) alone, without the generation: when a descriptor is reused, the new connection lands in the
shard that still holds the old one, so that a lost CLOSE is noticed (docs/decisions/0003).
"""

from __future__ import annotations

_MULTIPLIER = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


def ring_of(tgid: int, fd: int, rings: int) -> int:
    """The ring (0 <= ring < rings) of a connection; ``rings`` is at most 65536."""
    key = (tgid << 32 | (fd & 0xFFFFFFFF)) * _MULTIPLIER & _MASK
    return (key >> 48) % rings


def shard_of_ring(ring: int, shards: int) -> int:
    """Ring r belongs to shard r modulo N."""
    return ring % shards


def ring_count(shards: int, cpus: int) -> int:
    """R = max(N, min(CPUs, 64)): enough rings that many CPUs do not meet on one ring's lock."""
    return max(shards, min(cpus, 64))
