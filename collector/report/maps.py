"""How full the kernel's maps and rings are. What is in them is not read, but for the positions of rings."""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
import time
from collections.abc import Iterator
from pathlib import Path

from collector.loader import kernel

# enum bpf_map_type
_NAMES = {
    1: "hash", 2: "array", 3: "prog_array", 4: "perf_event_array", 5: "percpu_hash", 6: "percpu_array", 9: "lru_hash",
    10: "lru_percpu_hash", 11: "lpm_trie", 12: "array_of_maps", 13: "hash_of_maps", 22: "queue", 24: "sk_storage",
    27: "ringbuf", 29: "task_storage",
}  # fmt: skip
_COUNTED = (1, 5, 9, 10, 13)
_RING = 27
_SECONDS = 2.0  # for the entries of one map
_POSITION = struct.Struct("=Q")


def ids(pid: int) -> Iterator[int]:
    """Numbers of the maps that a process has open. Raises OSError."""
    seen = set()
    for fd in os.listdir(f"/proc/{pid}/fdinfo"):
        with contextlib.suppress(OSError, ValueError):
            for line in Path(f"/proc/{pid}/fdinfo/{fd}").read_text().splitlines():
                name, _, value = line.partition(":")
                if name == "map_id" and int(value) not in seen:
                    seen.add(int(value))
                    yield int(value)


def table(pid: int) -> str:
    """One line for each map that the process, the supervisor, keeps open. Raises OSError."""
    lines = []
    for number in sorted(ids(pid)):
        try:
            fd = kernel.open_map(number)
        except OSError as error:
            lines.append(f"{number:>6}  {error}")
            continue
        try:
            lines.append(_line(number, fd))
        finally:
            os.close(fd)
    return "\n".join(["    id  type             name             value bytes     entries  used", *lines]) + "\n"


def _line(number: int, fd: int) -> str:
    info = kernel.map_info(fd)
    try:
        used = _ring(fd, info.entries) if info.type == _RING else _entries(fd, info) if info.type in _COUNTED else "-"
    except OSError as error:
        used = f"({error.strerror})"
    kind = _NAMES.get(info.type, str(info.type))
    return f"{number:>6}  {kind:<15}  {info.name:<15}  {info.value_bytes:>11}  {info.entries:>10}  {used}"


def _entries(fd: int, info: kernel.MapInfo) -> str:
    """Their number, while others change it."""
    end, count = time.monotonic() + _SECONDS, 0
    for _key in kernel.map_keys(fd, info.key_bytes):
        count += 1
        if count > info.entries:  # a key that went away begins it again
            break
        if count % 1024 == 0 and time.monotonic() > end:
            return f"more than {count}"
    return f"{count} ({count * 100 // max(1, info.entries)} %)"


def _ring(fd: int, size: int) -> str:
    """Bytes between the positions of the consumer and of the producer (Documentation/bpf/ringbuf.rst)."""
    with (
        mmap.mmap(fd, mmap.PAGESIZE, prot=mmap.PROT_READ) as consumer,
        mmap.mmap(fd, mmap.PAGESIZE, prot=mmap.PROT_READ, offset=mmap.PAGESIZE) as producer,
    ):
        filled = _POSITION.unpack_from(producer)[0] - _POSITION.unpack_from(consumer)[0]
    return f"{filled} bytes ({filled * 100 // size} %)"
