"""The numbers behind the metrics: everybody's counters, read at once."""

from __future__ import annotations

from collections.abc import Iterable

from collector.counter_names import CORE_NAMES, LOADER_NAMES, SHARD_NAMES, SINK_NAMES, SUPERVISOR_NAMES
from collector.counters import CounterMemory, Counters

Reading = tuple[str, dict[str, str], dict[str, int]]  # role, labels, values by key


def readings(memory: CounterMemory) -> list[Reading]:
    """Everybody's numbers. The blocks: the shards, then loader, sink and supervisor."""
    shards = memory.blocks - 3
    out: list[Reading] = []
    for i in range(shards):
        block = memory.block(i)
        out.append(
            (
                "shard",
                {"shard": str(i)},
                {**Counters(block, SHARD_NAMES).snapshot(), **Counters(block, CORE_NAMES, 0).snapshot()},
            )
        )
    for i, (role, names) in enumerate((("loader", LOADER_NAMES), ("sink", SINK_NAMES), ("supervisor", SUPERVISOR_NAMES))):
        out.append((role, {}, Counters(memory.block(shards + i), names).snapshot()))
    return out


def totals(values: Iterable[Reading]) -> dict[str, int]:
    """Sums over the shards, and the others' numbers by `role_key`."""
    out: dict[str, int] = {}
    for role, _labels, numbers in values:
        for key, value in numbers.items():
            name = key if role == "shard" else f"{role}_{key}"
            out[name] = out.get(name, 0) + value
    return out
