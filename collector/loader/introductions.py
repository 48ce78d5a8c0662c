"""What a new shard is told: the names of libraries; and of the connections that it joins in the middle the names of their
processes, roles, ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from collector import abi
from collector.attribution.owners import Provider
from collector.loader import entries
from collector.router import partition

EVENTS = 4096  # in one message
_Portion = tuple[list[bytes], int]


def library_names(names: Mapping[int, str], *, now_ns: int) -> bytes:
    """The events that tell a shard the names of libraries, by number. They belong to no ring: each shard needs them all."""
    return b"".join(abi.pack_library(number, name.encode(), ts_ns=now_ns) for number, name in names.items())


def introductions(
    maps: Mapping[str, int],
    shard: int,
    shards: int,
    *,
    provider: Provider | None,
    now_ns: int,
    owned: Callable[[int, int], bytes] | None = None,
) -> Iterator[_Portion]:
    """Portions of (events for one message, connections in them) about the open connections of a shard. ``maps``: the
    kernel's, by name; ``provider`` answers for the processes; None when process ids here are not the kernel's: then the
    kernel tells the names, with the next connection of each. ``owned`` makes the event that says whose a process is, for a
    ring; None where nobody says it. Raises OSError.
    """
    named: set[int] = set()  # a shard keeps one name of a process, whatever ring it came by
    events: list[bytes] = []
    told = 0
    for entry in entries.connections(maps):
        if partition.shard_of_ring(entry.ring, shards) != shard:
            continue
        for pid in {entry.tgid, entry.told} - named if provider is not None else ():
            named.add(pid)
            owner = provider.owner(pid) if provider is not None else None
            events += (owned(pid, entry.ring),) if owned is not None else ()
            events += (owner.event(ts_ns=now_ns, ring=entry.ring),) if owner is not None else ()
        events.append(entry.introduction(now_ns))
        told += 1
        if len(events) >= EVENTS:
            yield events, told
            events, told = [], 0
    if events:
        yield events, told
