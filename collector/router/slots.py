"""Memory that a shard writes its batches into and the sink reads them from: the records never pass through a socket.

    supervisor    create()                       one sealed memfd for each life of a shard, passed to shard and sink
    shard         writable(fd)                   encodes records into a free slot, sends (slot, bytes), gets it back
                                                 when the batch is acknowledged
    sink          Reader.add / Reader.records    the batch, in place; read-only

A slot that is announced is not written again before its acknowledgement, so a batch survives kill -9 of the sink. A new
life of a shard gets new memory: what the old one announced stays readable. Where no slot is free - the destination is
away - or a record does not fit, the batch goes through the socket as before (collector/shards/pipeline.pyx).

Only touched pages take memory; slots are reused last in, first out, so few are (docs/decisions/0008).
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct

from collector.errors import ProtocolError

SLOTS = 32
SLOT_BYTES = 2 << 20

# shard, life, slot, bytes
_DESCRIPTOR = struct.Struct("=IIII")


def create() -> int:
    """A descriptor of fresh memory for one life of a shard; its size is sealed. The caller closes it."""
    fd = os.memfd_create("batches", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, SLOTS * SLOT_BYTES)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    return fd


def writable(fd: int) -> memoryview:
    """The shard's mapping. The descriptor may be closed afterwards."""
    return memoryview(mmap.mmap(fd, SLOTS * SLOT_BYTES, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE))


def pack(shard: int, life: int, slot: int, length: int) -> bytes:
    """The frame that stands for a batch's records."""
    return _DESCRIPTOR.pack(shard, life, slot, length)


class Reader:
    """The sink's mappings: of the present life of every shard and of the one before."""

    def __init__(self) -> None:
        self._memory: dict[tuple[int, int], memoryview] = {}

    def add(self, shard: int, life: int, fd: int) -> None:
        """Map the memory of a shard's life; closes the descriptor."""
        try:
            memory = memoryview(mmap.mmap(fd, SLOTS * SLOT_BYTES, mmap.MAP_SHARED, mmap.PROT_READ))
        finally:
            os.close(fd)
        self._memory[shard, life] = memory
        for known in [k for k in self._memory if k[0] == shard and k[1] < life - 1]:
            del self._memory[known]  # batches that are still held keep their mapping

    def knows(self, frame: bytes | memoryview) -> bool:
        """Is the memory that the frame speaks of mapped?"""
        return len(frame) == _DESCRIPTOR.size and _DESCRIPTOR.unpack(frame)[:2] in self._memory

    def records(self, frame: bytes | memoryview) -> memoryview:
        """The records of an announced batch, in place. Raises ProtocolError."""
        if not self.knows(frame):
            raise ProtocolError("a batch in memory that is not known")
        shard, life, slot, length = _DESCRIPTOR.unpack(frame)
        if slot >= SLOTS or length > SLOT_BYTES:
            raise ProtocolError(f"a batch of {length} bytes in slot {slot}")
        return self._memory[shard, life][slot * SLOT_BYTES : slot * SLOT_BYTES + length]
