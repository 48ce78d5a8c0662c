"""The descriptor sets of COLLECTOR_GRPC_DESCRIPTORS: read and checked once, at the start, then shared with the shards.

    sets = read(config.COLLECTOR_GRPC_DESCRIPTORS)      # ConfigError when one cannot be used
    fd = share(sets)                                    # memory that nobody can change any more
    received(fd)                                        # in a shard, which can open no file: the same

They can have megabytes, so they do not travel in a message.
"""

from __future__ import annotations

import os
import stat
import struct
from dataclasses import dataclass

from collector import memfd
from collector.errors import ConfigError

VARIABLE = "COLLECTOR_GRPC_DESCRIPTORS"
MOST_BYTES = 64 << 20  # of all of them; the largest public API is 20 MB with its comments
_LENGTH = struct.Struct("=Q")


@dataclass(frozen=True, slots=True)
class DescriptorSet:
    """One file: where it was, what is in it, how many services it describes."""

    path: str
    data: bytes
    services: int


def read(paths: str) -> list[DescriptorSet]:
    """The files at these paths, separated by commas; none for "". Raises ConfigError."""
    found: list[DescriptorSet] = []
    room = MOST_BYTES
    for path in paths.split(",") if paths else ():
        data = _contents(path, room)
        room -= len(data)
        found.append(DescriptorSet(path, data, _services(path, data)))
    return found


def _contents(path: str, room: int) -> bytes:
    """Raises ConfigError."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise _error(path, "is no regular file")
            data = file.read(room + 1)
    except OSError as error:
        raise _error(path, error.strerror or str(error)) from None
    if len(data) > room:
        raise _error(path, f"more than {MOST_BYTES >> 20} MiB of descriptor sets")
    return data


def _services(path: str, data: bytes) -> int:
    """Raises ConfigError when it cannot be used."""
    from collector.shards.records.descriptors import DescriptorError, services

    try:
        return services(data)
    except DescriptorError as error:
        raise _error(path, str(error)) from None


def _error(path: str, why: str) -> ConfigError:
    return ConfigError(f"{VARIABLE}: {path}: {why}")


def size(sets: list[DescriptorSet]) -> int:
    """Bytes of all of them."""
    return sum(len(one.data) for one in sets)


def summary(sets: list[DescriptorSet]) -> str:
    """How many services each has, in one line."""
    return ", ".join(f"{one.path}: {one.services} service{'s' * (one.services != 1)}" for one in sets)


def share(sets: list[DescriptorSet]) -> int | None:
    """A descriptor of sealed memory with all of them, closed on exec, None for none. The caller closes it. Raises
    OSError.
    """
    if not sets:
        return None
    return memfd.holding("collector-descriptors", b"".join(_LENGTH.pack(len(one.data)) + one.data for one in sets))


def received(fd: int) -> list[bytes]:
    """What is in the memory of `share`, whose descriptor is closed."""
    with open(fd, "rb", buffering=0) as file:
        data = os.pread(fd, os.fstat(fd).st_size, 0)
        assert len(data) == os.fstat(file.fileno()).st_size  # it is memory, and sealed
    out: list[bytes] = []
    at = 0
    while at < len(data):
        begin = at + _LENGTH.size
        at = begin + _LENGTH.unpack_from(data, at)[0]
        out.append(data[begin:at])
    return out
