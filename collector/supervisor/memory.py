"""How much memory the collector uses, and what to do about it. The only place that knows psutil.

The figure is the proportional set size of the whole process tree: ring buffers are mapped twice, and the resident
set would count them twice.
"""

from __future__ import annotations

from collections.abc import Iterable

import psutil

MIB = 1 << 20
OK, SHED, RESTART = "ok", "shed", "restart"
MIN_BUDGET_BYTES = 4 * MIB


def pss_bytes(pids: Iterable[int]) -> int:
    """Proportional set size of the given processes together; one that is gone counts nothing."""
    total = 0
    for pid in pids:
        try:
            total += psutil.Process(pid).memory_full_info().pss
        except psutil.AccessDenied:
            total += rss_bytes([pid])  # without CAP_SYS_PTRACE: more than it is, but not blind
        except psutil.Error:
            continue
    return total


def rss_bytes(pids: Iterable[int]) -> int:
    """Resident set sizes added up: never less than pss_bytes, and much cheaper to read."""
    total = 0
    for pid in pids:
        try:
            total += psutil.Process(pid).memory_info().rss
        except psutil.Error:
            continue
    return total


def thresholds(soft_mib: int, hard_mib: int, limit_bytes: int | None) -> tuple[int, int]:
    """(soft, hard) in bytes, clamped to 70 and 85 % of a smaller cgroup limit."""
    soft, hard = soft_mib * MIB, hard_mib * MIB
    if limit_bytes is not None:
        soft = min(soft, limit_bytes * 70 // 100)
        hard = min(hard, limit_bytes * 85 // 100)
    return soft, hard


def decide(used: int, soft: int, hard: int) -> str:
    """OK, SHED (shards give state up) or RESTART (drain and exit)."""
    if used > hard:
        return RESTART
    return SHED if used >= soft else OK


def shard_budget(soft: int, base: int, shards: int) -> int:
    """Bytes of connection state that each shard may hold: what the threshold leaves above ``base``."""
    return max(MIN_BUDGET_BYTES, (soft - base) // shards)
