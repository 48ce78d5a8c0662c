"""Capture files: raw events as they came from the rings, for `collector run --record` and `collector replay`.

    header   16 bytes  "eBPF-API-CAPTURE"
             u32 version, u32 event ABI version, u32 rings
             16 bytes  boot id in hexadecimal: with conn_id and position it names a record
             u32 CRC-32 of the 44 bytes before it
    blocks   4 bytes "SPAN", u32 CRC-32, u32 ring, u32 length, i64 wall offset ns, u64 offset of this block in the file;
             then the bytes. The checksum covers the block's header, itself aside, and the bytes.
    end      a block "DONE" of 8 bytes: u64 bytes of spans that were left out (the limit was reached, the disk was full)

Little endian. The end is written when the recording is closed: a file without it was cut, or its collector was killed. A
block says where it stands, so one that is missing, double or of another file does not pass. Bodies and headers are in it:
the file is made with mode 0600.
"""

from __future__ import annotations

import contextlib
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
VERSION = 3
_HEADER = struct.Struct("<16sIII16s")
_CRC = struct.Struct("<I")
_VERSIONS = struct.Struct("<16sII")
_BLOCK = struct.Struct("<4sI")
_PLACE = struct.Struct("<IIqQ")
_LEFT_OUT = struct.Struct("<Q")
_SPAN, _DONE = b"SPAN", b"DONE"
_HEADER_BYTES = _HEADER.size + _CRC.size
_BLOCK_BYTES = _BLOCK.size + _PLACE.size
_END_BYTES = _BLOCK_BYTES + _LEFT_OUT.size
_MAX_SPAN = 64 << 20
DEFAULT_LIMIT_BYTES = 1 << 30


def boot_id() -> str:
    """16 hexadecimal digits that name this boot of this host."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().replace("-", "")[:16]


def _block(magic: bytes, ring: int, data: bytes, wall_offset_ns: int, offset: int) -> bytes:
    place = _PLACE.pack(ring, len(data), wall_offset_ns, offset)
    return _BLOCK.pack(magic, _checksum(magic, place, data)) + place + data


def _checksum(magic: bytes, place: bytes, data: bytes) -> int:
    return zlib.crc32(data, zlib.crc32(place, zlib.crc32(magic)))


class Writer:
    """Writes spans to ``fd`` until ``limit_bytes``; what comes later is only counted (``skipped_bytes``).

    ``written_bytes`` is the length of all that was written whole. Given to another Writer of the same file, whose first
    one was killed, that one goes on there: a block that was not finished goes.
    """

    def __init__(self, fd: int, rings: int, limit_bytes: int = DEFAULT_LIMIT_BYTES, written_bytes: int = 0) -> None:
        self._fd = fd
        self._rings = rings
        self._limit = limit_bytes
        self._boot = boot_id()  # whoever writes may have no files by then
        self.written_bytes = written_bytes
        self.skipped_bytes = 0
        self.full = False
        if written_bytes:
            self._go_back()

    def _go_back(self) -> None:
        """Make the file end with its last whole block; what is no regular file cannot be made shorter."""
        with contextlib.suppress(OSError):
            os.ftruncate(self._fd, self.written_bytes)
            os.lseek(self._fd, self.written_bytes, os.SEEK_SET)

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError:
            self._go_back()
            raise
        self.written_bytes += len(data)

    def _begin(self) -> None:
        if self.written_bytes == 0:
            head = _HEADER.pack(MAGIC, VERSION, abi.VERSION, self._rings, self._boot.encode())
            self._write(head + _CRC.pack(zlib.crc32(head)))

    def write(self, ring: int, span: bytes, wall_offset_ns: int) -> None:
        """Append one span. Raises OSError when the file system refuses: then nothing of it is in the file."""
        self._begin()
        if self.written_bytes + _BLOCK_BYTES + len(span) + _END_BYTES > self._limit:
            self.full = True
            self.skipped_bytes += len(span)
            return
        self._write(_block(_SPAN, ring, span, wall_offset_ns, self.written_bytes))

    def close(self) -> None:
        """Write the end; the descriptor stays the caller's. Raises OSError."""
        self._begin()
        self._write(_block(_DONE, 0, _LEFT_OUT.pack(self.skipped_bytes), 0, self.written_bytes))


@dataclass(frozen=True, slots=True)
class Span:
    """One block of a capture file."""

    ring: int
    data: bytes
    wall_offset_ns: int


def is_capture(path: str) -> bool:
    """Does the file begin like a capture file? One that is cut inside the first word does. Raises OSError."""
    with open(path, "rb") as file:
        head = file.read(len(MAGIC))
    return bool(head) and MAGIC.startswith(head)


def _read_header(path: str, file: BinaryIO) -> str:
    """The boot id. Raises DamagedFileError: for another version too, whose events mean something else."""
    head = file.read(_HEADER_BYTES)
    if not head:
        raise DamagedFileError(f"{path}: offset 0: the file is empty")
    if not MAGIC.startswith(head[: len(MAGIC)]):
        raise DamagedFileError(f"{path}: offset 0: not a capture file")
    if len(head) < _VERSIONS.size:
        raise DamagedFileError(f"{path}: offset {len(head)}: ends inside the header")
    _magic, version, abi_version = _VERSIONS.unpack_from(head)
    if version != VERSION or abi_version != abi.VERSION:
        raise DamagedFileError(
            f"{path}: offset 16: written by another version (file {version}, events {abi_version}; this is {VERSION}, "
            f"{abi.VERSION}): replay it with the collector that recorded it, or record again"
        )
    if len(head) < _HEADER_BYTES:
        raise DamagedFileError(f"{path}: offset {len(head)}: ends inside the header")
    if zlib.crc32(head[: _HEADER.size]) != _CRC.unpack_from(head, _HEADER.size)[0]:
        raise DamagedFileError(f"{path}: offset 0: the header is damaged (CRC)")
    boot = str(_HEADER.unpack_from(head)[4].decode("ascii", "replace"))
    if not re.fullmatch("[0-9a-f]{16}", boot):
        raise DamagedFileError(f"{path}: offset 28: no boot id")
    return boot


class Recording:
    """A capture file that is read. Raises OSError, DamagedFileError."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.left_out_bytes = 0  # said by the end of the file: bytes of spans that were not recorded
        with open(path, "rb") as file:
            self.boot = _read_header(path, file)  # in which the file was made

    def spans(self) -> Iterator[Span]:
        """The spans in order. Raises DamagedFileError with the offset, after everything readable was given; also when the
        end is missing.
        """
        with open(self._path, "rb") as file:
            _read_header(self._path, file)
            offset = _HEADER_BYTES
            while True:
                magic, span, length = self._block(file, offset)
                if magic == _DONE:
                    if length != _LEFT_OUT.size:
                        raise self._damaged(offset, "not an end")
                    self.left_out_bytes = _LEFT_OUT.unpack(span.data)[0]
                    if file.read(1):
                        raise self._damaged(offset + _END_BYTES, "bytes behind the end")
                    return
                yield span
                offset += _BLOCK_BYTES + length

    def _block(self, file: BinaryIO, offset: int) -> tuple[bytes, Span, int]:
        head = file.read(_BLOCK_BYTES)
        if not head:
            raise self._damaged(
                offset,
                "the end is missing: the file was cut here, or the collector that recorded it was "
                "killed, or is still recording",
            )
        if len(head) < _BLOCK_BYTES:
            raise self._damaged(offset, "ends inside a block header")
        magic, crc = _BLOCK.unpack_from(head)
        ring, length, wall, place = _PLACE.unpack_from(head, _BLOCK.size)
        if magic not in (_SPAN, _DONE) or length > _MAX_SPAN:
            raise self._damaged(offset, "not a block")
        data = file.read(length)
        if len(data) < length:
            raise self._damaged(offset, f"ends inside a block of {length} bytes")
        if _checksum(magic, head[_BLOCK.size :], data) != crc:
            raise self._damaged(offset, "the block is damaged (CRC)")
        if place != offset:
            raise self._damaged(
                offset,
                f"a block that was written at offset {place}: others before it are missing, or it comes from elsewhere",
            )
        return magic, Span(ring, data, wall), length

    def _damaged(self, offset: int, what: str) -> DamagedFileError:
        return DamagedFileError(f"{self._path}: offset {offset}: {what}")
