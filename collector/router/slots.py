"""Memory that a shard writes its batches into and the sink reads them from: the records never pass through a socket.

    supervisor    create()                       one sealed memfd for each life of a shard, passed to shard and sink
    shard         writable(fd)                   encodes records into a free slot, sends (slot, bytes), gets it back
                                                 when the batch is acknowledged
    sink          Reader.add / Reader.records    the batch, in place; read-only

A slot that is announced is not written again before its acknowledgement, so a batch survives kill -9 of the sink. A new
life of a shard gets new memory: what the old one announced stays readable. Where no slot is free - the destination is
slow, or away - or a record does not fit, the batch goes through the socket (collector/shards/pipeline.pyx).

Only touched pages take memory: some 1 MiB a slot (a batch), for at most 32 slots of all shards together. Slots are reused
last in, first out, and the shard gives the pages of those back that it has not needed for a while (docs/decisions/0008).
"""

from __future__ import annotations

import mmap
import os
import struct
import time

from collector import cores, memfd
from collector.errors import ProtocolError

ALL_SLOTS, LEAST_SLOTS = 32, 4
SLOT_BYTES = 2 << 20
BATCH_BYTES = 1 << 20  # a batch is complete with so many: a wake-up of the sink is shared by many records
OLD_SECONDS = 60.0

# shard, life, slot, bytes
_DESCRIPTOR = struct.Struct("=IIII")


def count_for(shards: int) -> int:
    """Slots of each of so many shards."""
    return max(LEAST_SLOTS, ALL_SLOTS // shards)


def create(count: int) -> int:
    """A descriptor of fresh memory with so many slots, for one life of a shard; its size is sealed. The caller closes
    it. Raises OSError.
    """
    return memfd.create("batches", count * SLOT_BYTES)


class Writer:
    """The shard's mapping; closes the descriptor. ``used`` and ``give_back`` keep account of touched pages."""

    def __init__(self, fd: int) -> None:
        try:
            self.count = os.fstat(fd).st_size // SLOT_BYTES
            self.memory = mmap.mmap(fd, self.count * SLOT_BYTES, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
            cores.leave_out(self.memory)
        finally:
            os.close(fd)
        self._touched: set[int] = set()
        self._most = 0

    def used(self, slot: int, free: int) -> None:
        """A batch was put into the slot; so many are free now."""
        self._touched.add(slot)
        self._most = max(self._most, self.count - free)

    def give_back(self, free: list[int]) -> None:
        """Give the pages of free slots back that were not needed since the last call; ``free``: the one used longest ago
        first.
        """
        cold, self._most = free[: self.count - self._most], 0
        self.give_back_all(cold)

    def give_back_all(self, free: list[int]) -> None:
        """Give the pages of these back, needed or not: memory is short."""
        for slot in free:
            if slot in self._touched:
                self._touched.remove(slot)
                self.memory.madvise(mmap.MADV_REMOVE, slot * SLOT_BYTES, SLOT_BYTES)


def pack(shard: int, life: int, slot: int, length: int) -> bytes:
    """The frame that stands for a batch's records."""
    return _DESCRIPTOR.pack(shard, life, slot, length)


class Reader:
    """The sink's mappings: of the present life of every shard, and for OLD_SECONDS of the one before."""

    def __init__(self) -> None:
        self._memory: dict[tuple[int, int], memoryview] = {}
        self._replaced: dict[tuple[int, int], float] = {}  # an old life -> since when

    def add(self, shard: int, life: int, fd: int) -> None:
        """Map the memory of a shard's life; closes the descriptor."""
        try:
            size = os.fstat(fd).st_size
            mapped = mmap.mmap(fd, size, mmap.MAP_SHARED, mmap.PROT_READ)
            cores.leave_out(mapped)
            memory = memoryview(mapped)
        finally:
            os.close(fd)
        for known in [k for k in self._memory if k[0] == shard]:
            if known in self._replaced:
                del self._memory[known], self._replaced[known]  # batches that are still held keep their mapping
            else:
                self._replaced[known] = time.monotonic()
        self._memory[shard, life] = memory

    def forget_old(self) -> None:
        """Unmap the lives that were replaced long ago: what they had announced has come."""
        if self._replaced:
            for known, since in list(self._replaced.items()):
                if time.monotonic() - since > OLD_SECONDS:
                    del self._memory[known], self._replaced[known]

    def knows(self, frame: bytes | memoryview) -> bool:
        """Is the memory that the frame speaks of mapped?"""
        return len(frame) == _DESCRIPTOR.size and _DESCRIPTOR.unpack(frame)[:2] in self._memory

    def records(self, frame: bytes | memoryview) -> memoryview:
        """The records of an announced batch, in place. Raises ProtocolError."""
        if not self.knows(frame):
            raise ProtocolError("a batch in memory that is not known")
        shard, life, slot, length = _DESCRIPTOR.unpack(frame)
        memory = self._memory[shard, life]
        if (slot + 1) * SLOT_BYTES > len(memory) or length > SLOT_BYTES:
            raise ProtocolError(f"a batch of {length} bytes in slot {slot}")
        return memory[slot * SLOT_BYTES : slot * SLOT_BYTES + length]
