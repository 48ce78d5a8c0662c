"""How memory is shared out before the start: by rule, from the settings and the cgroup's limit.

    limit x 70 %, or TRAFFIC_BUFFER_THRESHOLD     what is planned with, whichever is less
    - the kernel's maps                           charged to the cgroup when they are made; no process's
    - the processes themselves                    so many shards that three quarters are enough for this
    = room   a quarter for the rings, half for batches, the rest for the state of connections

Where that is less than the defaults, number of shards, rings, the kernel's table of connections and the queue of batches
become smaller. A value that was set is kept, and an error where it cannot be kept. The compiler takes most of all: where it
does not fit beside the others it has to be over before they start. Figures: docs/architecture.md, "Memory".
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from collector.config import Config
from collector.errors import ConfigError
from collector.router import partition
from collector.settings import CONNECTIONS, QUEUE_BYTES, ring_size

MIB = 1 << 20

SOFT_PERCENT, HARD_PERCENT = 70, 85  # of the cgroup's limit
PROCESSES_BYTES, SHARD_BYTES = 115 * MIB, 17 * MIB  # proportional set size at rest; of each shard besides
PROTOBUF_BYTES, DESCRIPTOR_SETS = 6 * MIB, 2  # of a shard with descriptor sets: the library, and so many times their size
COMPILER_BYTES = 100 * MIB  # for some seconds, at the start
KERNEL_BYTES = 11 * MIB  # of the programs, and of the maps that do not grow with the number of connections
CONNECTION_BYTES = 700  # in the maps conns, names and objects, with what the kernel adds
LEAST_CONNECTIONS = 8192
LEAST_RING_BYTES = 256 << 10
LEAST_QUEUE_BYTES = 6 * MIB
LEAST_STATE_BYTES = 8 * MIB
LEAST_FULL_QUEUE_BYTES = 80 * MIB  # less than this is worth a word
LEAST_LIMIT_BYTES = 256 * MIB  # with less, what is planned is not what is needed
_SOFT_OF_HARD = 80  # percent, where only one of the two was set


def clamped(soft: int, hard: int, limit: int | None) -> tuple[int, int]:
    """(soft, hard) in bytes, clamped to their parts of the cgroup's limit."""
    if limit is not None:
        soft = min(soft, limit * SOFT_PERCENT // 100)
        hard = min(hard, limit * HARD_PERCENT // 100)
    return soft, hard


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPlan:
    """Bytes, but for ``shards``, ``rings`` and ``connections`` (entries of the kernel's table). ``soft`` and ``hard`` are
    for the proportional set size; ``limit`` is the cgroup's, None for none; ``kernel`` what the kernel holds for us,
    ``shard_bytes`` what each shard takes at rest; ``room`` what is left for rings, batches and state. ``compiler_first``:
    shards and sink start when it has ended.
    ``smaller``: is anything less than it is by default?
    """

    soft: int
    hard: int
    limit: int | None
    shards: int
    rings: int
    ring_bytes: int
    connections: int
    kernel: int
    room: int
    queue_bytes: int
    shard_bytes: int
    compiler_first: bool
    smaller: bool

    @property
    def at_rest(self) -> int:
        """Proportional set size of all processes before there is any traffic, about."""
        return PROCESSES_BYTES + self.shards * self.shard_bytes

    def __str__(self) -> str:
        limit = "no limit" if self.limit is None else f"limit {self.limit / MIB:.0f} MiB"
        return (
            f"{limit}; gives way from {self.soft / MIB:.0f} MiB, restarts from {self.hard / MIB:.0f} MiB; "
            f"{self.shards} shards, {self.rings} rings of {self.ring_bytes >> 10} KiB, "
            f"{self.queue_bytes / MIB:.0f} MiB of batches, {self.connections} connections in the kernel"
        )


def _thresholds(config: Config) -> tuple[int, int]:
    """(soft, hard) in bytes as they are set. One that is not set follows the other. Raises ConfigError."""
    soft, hard = config.TRAFFIC_BUFFER_THRESHOLD, config.AKTO_MEM_THRESH_RESTART
    if soft > hard:
        of_soft, of_hard = (config.values[name].source for name in ("TRAFFIC_BUFFER_THRESHOLD", "AKTO_MEM_THRESH_RESTART"))
        if "default" not in (of_soft, of_hard):
            raise ConfigError(
                f"{of_soft}={soft} is above {of_hard}={hard}: the collector would restart before it gives anything up"
            )
        if of_soft == "default":
            soft = max(1, hard * _SOFT_OF_HARD // 100)
        else:
            hard = soft * 100 // _SOFT_OF_HARD
    return soft * MIB, hard * MIB


def _table(limit: int | None) -> int:
    """Entries of the kernel's table: maps and programs together take no more than a twelfth of the limit."""
    entries = CONNECTIONS
    while limit is not None and entries > LEAST_CONNECTIONS and KERNEL_BYTES + entries * CONNECTION_BYTES > limit // 12:
        entries //= 2
    return entries


def of(config: Config, *, limit: int | None = None, cpus: int | None = None, descriptors: int = 0) -> MemoryPlan:
    """The plan for these settings in a cgroup with this limit (bytes), with so many bytes of ``descriptors`` sets. Raises
    ConfigError where they contradict each other, or do not fit.
    """
    shard_bytes = SHARD_BYTES + (PROTOBUF_BYTES + DESCRIPTOR_SETS * descriptors if descriptors else 0)
    wanted_soft, wanted_hard = _thresholds(config)
    soft, hard = clamped(wanted_soft, wanted_hard, limit)
    connections = _table(limit)
    kernel = KERNEL_BYTES + connections * CONNECTION_BYTES
    whole = soft if limit is None else min(soft, limit * SOFT_PERCENT // 100 - kernel)
    wanted_shards = config.shards
    shards = wanted_shards
    if config.COLLECTOR_SHARDS == 0:
        shards = max(1, min(shards, (whole * 3 // 4 - PROCESSES_BYTES) // shard_bytes))
    room = whole - PROCESSES_BYTES - shards * shard_bytes
    what = f"{soft >> 20} MiB of memory" + ("" if limit is None else f" (the cgroup's limit is {limit >> 20} MiB)")
    if config.COLLECTOR_SHARDS and room < LEAST_QUEUE_BYTES + LEAST_STATE_BYTES and shards > 1:
        raise ConfigError(f"COLLECTOR_SHARDS={shards}: so many processes leave no room for traffic in {what}")
    rings = partition.ring_count(shards, cpus or os.cpu_count() or 1)
    ring_bytes = ring_size(config.COLLECTOR_RING_BYTES)
    if config.is_set(Config.COLLECTOR_RING_BYTES):
        if rings * ring_bytes > max(0, room) - LEAST_QUEUE_BYTES - LEAST_STATE_BYTES and rings * ring_bytes > room // 4:
            raise ConfigError(f"COLLECTOR_RING_BYTES={ring_bytes}: {rings} rings of that size do not fit in {what}")
    else:
        while ring_bytes > LEAST_RING_BYTES and rings * ring_bytes > room // 4:
            ring_bytes //= 2
    queue = max(LEAST_QUEUE_BYTES, min(QUEUE_BYTES, room // 2))
    return MemoryPlan(
        soft=soft,
        hard=hard,
        limit=limit,
        shards=shards,
        rings=rings,
        ring_bytes=ring_bytes,
        connections=connections,
        kernel=kernel,
        room=max(0, room),
        queue_bytes=queue,
        shard_bytes=shard_bytes,
        compiler_first=limit is not None
        and kernel + rings * ring_bytes + PROCESSES_BYTES + shards * shard_bytes + COMPILER_BYTES
        > limit * SOFT_PERCENT // 100,
        smaller=(soft, hard, shards, connections) != (wanted_soft, wanted_hard, wanted_shards, CONNECTIONS)
        or ring_bytes < config.COLLECTOR_RING_BYTES
        or queue < LEAST_FULL_QUEUE_BYTES,
    )
