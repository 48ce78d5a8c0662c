"""Capture files: raw events as they came from the rings, for `collector run --record` and `collector replay`.

    header   16 bytes  "eBPF-API-CAPTURE"
             u32 version, u32 event ABI version, u32 rings, u32 zero
             16 bytes boot id in hexadecimal: with conn_id and position it names a record
    blocks   4 bytes "SPAN", u32 ring, u32 length, u32 CRC-32 of the bytes, i64 wall offset ns; then the bytes

Little endian. Bodies and headers are in it: the file is made with mode 0600.
"""

from __future__ import annotations

import os
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from collector import abi
from collector.errors import DamagedFileError

MAGIC = b"eBPF-API-CAPTURE"
VERSION = 2
_HEADER = struct.Struct("<16sIIII16s")
_VERSIONS = struct.Struct("<16sII")
_BLOCK = struct.Struct("<4sIIIq")
_MAX_SPAN = 64 << 20
DEFAULT_LIMIT_BYTES = 1 << 30


def boot_id() -> str:
    """16 hexadecimal digits that name this boot of this host."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().replace("-", "")[:16]


class Writer:
    """Appends spans to a new file until ``limit_bytes``; what comes later is only counted (``skipped_bytes``)."""

    def __init__(self, fd: int, rings: int, limit_bytes: int = DEFAULT_LIMIT_BYTES) -> None:
        self._fd = fd
        self._limit = limit_bytes
        self.written_bytes = os.fstat(fd).st_size
        self.skipped_bytes = 0
        if self.written_bytes == 0:
            self._write(_HEADER.pack(MAGIC, VERSION, abi.VERSION, rings, 0, boot_id().encode()))

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]
        self.written_bytes += len(data)

    def write(self, ring: int, span: bytes, wall_offset_ns: int) -> None:
        """Append one span; raises OSError when the file system refuses."""
        if self.written_bytes + _BLOCK.size + len(span) > self._limit:
            self.skipped_bytes += len(span)
            return
        self._write(_BLOCK.pack(b"SPAN", ring, len(span), zlib.crc32(span), wall_offset_ns) + span)


@dataclass(frozen=True, slots=True)
class Span:
    """One block of a capture file."""

    ring: int
    data: bytes
    wall_offset_ns: int


def is_capture(path: str) -> bool:
    """Does the file begin like a capture file? Raises OSError."""
    with open(path, "rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def _read_header(path: str, file: BinaryIO) -> str:
    """The boot id. Raises DamagedFileError: for another version too, whose events mean something else."""
    head = file.read(_HEADER.size)
    if len(head) < _VERSIONS.size or not head.startswith(MAGIC):
        raise DamagedFileError(f"{path}: offset 0: not a capture file")
    _magic, version, abi_version = _VERSIONS.unpack_from(head)
    if version != VERSION or abi_version != abi.VERSION:
        raise DamagedFileError(
            f"{path}: offset 16: written by another version (file {version}, events {abi_version}; "
            f"this is {VERSION}, {abi.VERSION})")
    if len(head) < _HEADER.size:
        raise DamagedFileError(f"{path}: offset {len(head)}: ends inside the header")
    return str(_HEADER.unpack(head)[5].decode("ascii", "replace"))


def boot_of(path: str) -> str:
    """The boot in which a file was made. Raises OSError, DamagedFileError."""
    with open(path, "rb") as file:
        boot = _read_header(path, file)
    if not re.fullmatch("[0-9a-f]{16}", boot):
        raise DamagedFileError(f"{path}: offset 32: no boot id")
    return boot


def read(path: str) -> Iterator[Span]:
    """The spans in order. Raises DamagedFileError with the offset, after everything readable was given."""
    with open(path, "rb") as file:
        _read_header(path, file)
        while True:
            offset = file.tell()
            block = file.read(_BLOCK.size)
            if not block:
                return
            if len(block) < _BLOCK.size:
                raise DamagedFileError(f"{path}: offset {offset}: ends inside a block header")
            magic, ring, length, crc, wall = _BLOCK.unpack(block)
            if magic != b"SPAN" or length > _MAX_SPAN:
                raise DamagedFileError(f"{path}: offset {offset}: not a block")
            data = file.read(length)
            if len(data) < length:
                raise DamagedFileError(f"{path}: offset {offset}: ends inside a block of {length} bytes")
            if zlib.crc32(data) != crc:
                raise DamagedFileError(f"{path}: offset {offset}: block is damaged (CRC)")
            yield Span(ring, data, wall)
