"""What the container may use and uses, as its cgroups say: version 2, or 1."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from dataclasses import dataclass

_OURS, _ROOT = "/proc/self/cgroup", "/sys/fs/cgroup"
_LIMITS = ("/memory.max", "/memory.limit_in_bytes")
# usage, and of memory.stat: page cache that was not used lately, that was, what processes have mapped, memory files in that
_USES = (
    ("/memory.current", ("inactive_file", "active_file", "file_mapped", "shmem")),
    ("/memory.usage_in_bytes", ("total_inactive_file", "total_active_file", "total_mapped_file", "total_shmem")),
)


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """Bytes that a cgroup uses, without the page cache that the kernel takes back first, and those that it may use."""

    used: int
    limit: int


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def _cgroup_dirs(controller: str) -> Iterable[str]:
    """Our own cgroup directories for a controller, innermost first: version 2, then version 1."""
    for line in _read(_OURS).splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        roots: tuple[str, ...]
        if number == "0" and not controllers:
            roots = (_ROOT, f"{_ROOT}/unified")
        elif controller in controllers.split(","):
            roots = (f"{_ROOT}/{controller}",)
        else:
            continue
        for root in roots:
            here = path
            while True:
                yield root + here.rstrip("/")
                if here in ("", "/"):
                    break
                here = os.path.dirname(here)


def cpu_limit() -> int:
    """CPUs that the container may use, rounded up, at least 1 (cgroup v2 cpu.max, v1 cpu.cfs_quota_us)."""
    cpus = float(len(os.sched_getaffinity(0)))
    return max(1, math.ceil(min(cpus, cpu_quota() or cpus)))


def cpu_quota() -> float | None:
    """CPU time per time that the container may use, in cores: the least of its cgroup's and those above it; None for no
    limit.
    """
    least: float | None = None
    for directory in _cgroup_dirs("cpu"):
        quota, _, period = _read(directory + "/cpu.max").partition(" ")
        if not quota:
            quota, period = _read(directory + "/cpu.cfs_quota_us"), _read(directory + "/cpu.cfs_period_us")
        if quota.isdigit() and period.isdigit() and int(period):
            cores = int(quota) / int(period)
            least = cores if least is None else min(least, cores)
    return least


def _limit_of(directory: str) -> int | None:
    """Bytes that a cgroup may use, None for no limit (v2 memory.max, v1 memory.limit_in_bytes)."""
    for name in _LIMITS:
        text = _read(directory + name)
        if text.isdigit() and int(text) < 1 << 60:
            return int(text)
    return None


def memory_limit() -> int | None:
    """Bytes that the container may use, None for no limit: the least of its cgroup's and those above it."""
    return min((limit for directory in _cgroup_dirs("memory") if (limit := _limit_of(directory)) is not None), default=None)


def memory_use() -> MemoryUse | None:
    """Of all cgroups that bind us, the one that is nearest to its limit; None when none has a limit.

    Used: v2 memory.current, v1 memory.usage_in_bytes, less the page cache that the kernel takes back before it kills:
    inactive_file, and what of active_file no process has mapped. That is what a compiler that has ended leaves behind, for
    one: some kernels (multi-generational LRU) take all that was just read for active.
    """
    uses = []
    for directory in _cgroup_dirs("memory"):
        limit = _limit_of(directory)
        used = _use_of(directory) if limit is not None else None
        if limit and used is not None:
            uses.append(MemoryUse(used, limit))
    return max(uses, key=lambda use: use.used / use.limit, default=None)


def _use_of(directory: str) -> int | None:
    for name, (inactive, active, mapped, shared) in _USES:
        text = _read(directory + name)
        if text.isdigit():
            lines = (line.partition(" ") for line in _read(directory + "/memory.stat").splitlines())
            stat = {key: int(value) for key, _, value in lines if value.isdigit()}
            in_use = max(0, stat.get(mapped, 0) - stat.get(shared, 0))  # our memory files are mapped, and are no page cache
            idle = stat.get(inactive, 0) + max(0, stat.get(active, 0) - in_use)
            return max(0, int(text) - idle)
    return None
