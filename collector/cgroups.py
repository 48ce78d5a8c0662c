"""What the container may use, as its cgroups say: version 2, or 1."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def _cgroup_dirs(controller: str) -> Iterable[str]:
    """Our own cgroup directories for a controller, innermost first: version 2, then version 1."""
    for line in _read("/proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        roots: tuple[str, ...]
        if number == "0" and not controllers:
            roots = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified")
        elif controller in controllers.split(","):
            roots = (f"/sys/fs/cgroup/{controller}",)
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


def memory_limit() -> int | None:
    """Bytes that the container may use, None for no limit (cgroup v2 memory.max, v1 memory.limit_in_bytes)."""
    limit: int | None = None
    for directory in _cgroup_dirs("memory"):
        for name in ("/memory.max", "/memory.limit_in_bytes"):
            text = _read(directory + name)
            if text.isdigit() and int(text) < 1 << 60:
                limit = int(text) if limit is None else min(limit, int(text))
    return limit
