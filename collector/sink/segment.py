"""One segment of the spool: a file of batches with checksums, appended to at its end and read from anywhere.

    segment   16 bytes  "eBPF-API-BATCHES"
              u32 version, u32 CRC-32C of the 28 other bytes of these 32, u64 number
              a mark: how far batches were released
              a mark: where the segment ends, when nothing more is appended; flag 1: something in it is damaged
              entries
    mark      u64 offset in the file, u64 records before it, u32 flags, u32 CRC-32C of these, of the segment's number and of
              which mark it is; all zero: not set
    entry     4 bytes "BTCH", u32 CRC-32C of the next 40 bytes, u32 CRC-32C of the batch, u32 records,
              u32 bytes of records, of index, of details, 20 bytes format, filled up with zeros; then the batch

Little endian. The checksum of an entry's head begins with the segment's number and the offset: an entry that is elsewhere
than it was written does not pass. It vouches for the length, so behind a batch that does not match its own checksum the next
one is found. Behind a damaged head nothing is: the rest of its segment is lost.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import struct
from dataclasses import dataclass, field
from typing import NamedTuple

import crc32c

log = logging.getLogger("sink")

MAGIC, VERSION = b"eBPF-API-BATCHES", 1
_HEADER = struct.Struct("<16sIIQ")
_MARK, _MARK_DATA = struct.Struct("<QQII"), struct.Struct("<QQI")
_ENTRY, _ENTRY_DATA = struct.Struct("<4sIIIIII20s"), struct.Struct("<IIIII20s")
_PLACE = struct.Struct("<QQ")
_ENTRY_MAGIC = b"BTCH"
_RELEASED_AT = _HEADER.size
_END_AT = _RELEASED_AT + _MARK.size
FIRST_ENTRY = _END_AT + _MARK.size  # offset
ENTRY_HEAD = _ENTRY.size
FORMAT_BYTES = 20
_FLAG_DAMAGED = 1

OPEN_FLAGS = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

Buffer = bytes | memoryview


class OtherVersionError(Exception):
    """A segment in another version's format: the argument."""


class UnreadableError(Exception):
    """Nothing of a segment can be read: why."""


class Entry(NamedTuple):
    """The head of an entry; ``batch`` is its number of records."""

    checksum: int
    batch: int
    records_bytes: int
    index_bytes: int
    details_bytes: int
    format: str

    @property
    def size(self) -> int:
        """Bytes, the head included."""
        return ENTRY_HEAD + self.records_bytes + self.index_bytes + self.details_bytes


def pack_entry(number: int, at: int, parts: tuple[Buffer, ...], name: bytes, count: int) -> bytes:
    """The head of an entry at that offset of that segment."""
    checksum = 0
    for part in parts:
        checksum = crc32c.crc32c(part, checksum)
    data = _ENTRY_DATA.pack(checksum, count, *map(len, parts), name)
    return _ENTRY_MAGIC + crc32c.crc32c(data, crc32c.crc32c(_PLACE.pack(number, at))).to_bytes(4, "little") + data


def parse_entry(number: int, at: int, head: bytes) -> Entry | None:
    """None when this is no head that was written there."""
    if len(head) != ENTRY_HEAD or head[:4] != _ENTRY_MAGIC:
        return None
    _magic, own, checksum, count, records, index, details, name = _ENTRY.unpack(head)
    if own != crc32c.crc32c(head[8:], crc32c.crc32c(_PLACE.pack(number, at))):
        return None
    return Entry(checksum, count, records, index, details, name.rstrip(b"\0").decode("ascii", "replace"))


def pack_header(number: int) -> bytes:
    """What a new segment begins with."""
    return _HEADER.pack(MAGIC, VERSION, _header_checksum(number), number) + bytes(2 * _MARK.size)


def _header_checksum(number: int) -> int:
    return crc32c.crc32c(struct.pack("<16sIQ", MAGIC, VERSION, number))


def _mark_checksum(number: int, which: int, data: bytes) -> int:
    return crc32c.crc32c(data, crc32c.crc32c(_PLACE.pack(number, which)))


def write(fd: int, parts: list[Buffer], at: int) -> None:
    """All of it. Raises OSError; then a part may have been written."""
    total = sum(map(len, parts))
    done = os.pwritev(fd, parts, at)
    if done < total:  # the disk is nearly full, or a signal came: the next call says which
        rest = memoryview(b"".join(parts))
        while done < total:
            done += os.pwrite(fd, rest[done:], at + done)


@dataclass(slots=True, eq=False)
class Segment:
    """One file. ``size`` is its length; entries that can be read end at ``end``, with ``records`` up to there. ``left`` is
    what was not released and is not damaged, ``handed`` what the caller has of it.
    """

    directory: int
    number: int
    size: int = 0
    end: int = FIRST_ENTRY
    records: int = 0
    released: int = FIRST_ENTRY
    released_records: int = 0
    left_bytes: int = 0
    left_records: int = 0
    handed_to: int = FIRST_ENTRY
    handed_bytes: int = 0
    handed_records: int = 0
    ended: bool = False  # the mark of the end is written
    appendable: bool = True
    damaged: bool = False
    dirty: bool = False  # since the last sync
    fd: int = -1
    skipped: dict[int, Entry] = field(default_factory=dict)  # damaged batches in the middle, by offset

    @property
    def name(self) -> str:
        """Its file's."""
        return f"{self.number:016x}.segment"

    def open(self) -> int:
        """Raises OSError. Where nothing may be written it is opened for reading."""
        if self.fd < 0:
            try:
                fd = os.open(self.name, os.O_RDWR | OPEN_FLAGS, dir_fd=self.directory)
            except OSError as error:
                if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
                    raise
                fd = os.open(self.name, os.O_RDONLY | OPEN_FLAGS, dir_fd=self.directory)
                self.appendable = False
            self.fd = fd
        return self.fd

    def close(self) -> None:
        """The descriptor; it is opened again when it is needed."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def read(self, length: int, at: int) -> bytes:
        """As much as there is of it; what the disk cannot read is not there. Raises OSError when there is no descriptor."""
        fd = self.open()
        try:
            return os.pread(fd, length, at)
        except OSError as error:
            log.error("spool: %s, offset %d: %s", self.name, at, error.strerror)
            return b""

    # -- marks

    def _get_mark(self, head: bytes, which: int) -> tuple[int, int, int] | None:
        """(offset, records, flags), None when it is not set, or damaged."""
        if len(head) < FIRST_ENTRY:
            return None
        at, records, flags, checksum = _MARK.unpack_from(head, which)
        right = checksum == _mark_checksum(self.number, which, head[which : which + _MARK_DATA.size])
        return (at, records, flags) if right and at >= FIRST_ENTRY else None

    def _set_mark(self, which: int, at: int, records: int, flags: int = 0) -> None:
        data = _MARK_DATA.pack(at, records, flags)
        os.pwrite(self.open(), data + _mark_checksum(self.number, which, data).to_bytes(4, "little"), which)
        self.dirty = True

    def mark_released(self) -> None:
        """Remember how far it was released. Where that cannot be written, the next process delivers again."""
        try:
            self._set_mark(_RELEASED_AT, self.released, self.released_records)
        except OSError as error:
            log.warning("spool: cannot note what was delivered: %s", error.strerror)

    def mark_end(self) -> None:
        """Nothing more is appended. Only a help: without it the heads of the entries tell the same."""
        with contextlib.suppress(OSError):
            self._set_mark(_END_AT, self.end, self.records, _FLAG_DAMAGED if self.damaged else 0)
            self.ended = True

    def unmark_end(self) -> None:
        """Before something is appended after all. Raises OSError."""
        os.pwrite(self.open(), bytes(_MARK.size), _END_AT)
        self.ended = False

    # -- what an earlier process left

    def load(self, *, newest: bool) -> tuple[int, int] | None:
        """Find out what is in it, from the marks or else the heads of its entries. (bytes, records) that are lost, as far
        as known; None when nothing is damaged, or when an earlier process has seen it. Raises OtherVersionError,
        UnreadableError (then ``left`` is what is lost), OSError.
        """
        fd = self.open()
        self.size = os.fstat(fd).st_size
        head = self.read(FIRST_ENTRY, 0)
        released, end = self._get_mark(head, _RELEASED_AT), self._get_mark(head, _END_AT)
        if released is not None:
            self.released, self.released_records, _flags = released
            self.handed_to = self.released
        if end is not None:
            self.records = max(self.released_records, end[1])
        self.left_bytes, self.left_records = max(0, self.size - self.released), max(0, self.records - self.released_records)
        self._check_header(head)
        if (released is None and any(head[_RELEASED_AT:_END_AT])) or (end is None and any(head[_END_AT:])):
            log.warning("spool: a mark of %s is damaged: what it holds may be delivered again", self.name)
        lost = None
        if end is not None and self.released <= end[0] <= self.size:
            self.end, self.records, flags = end
            self.ended, self.damaged = True, bool(flags & _FLAG_DAMAGED)
        else:
            lost = self._scan(end, newest=newest)
        self.left_bytes, self.left_records = self.end - self.released, max(0, self.records - self.released_records)
        return lost

    def _check_header(self, head: bytes) -> None:
        if len(head) < FIRST_ENTRY:
            raise UnreadableError("it ends in its header")
        magic, version, checksum, number = _HEADER.unpack_from(head)
        if magic != MAGIC:
            raise UnreadableError("it does not begin like a segment")
        right = checksum == _header_checksum(number)
        if version != VERSION and not right:  # what follows the version is that version's business
            raise OtherVersionError(version)
        if version != VERSION or not right or number != self.number:
            raise UnreadableError("its header is damaged, or of another segment")

    def _scan(self, end: tuple[int, int, int] | None, *, newest: bool) -> tuple[int, int] | None:
        """From what was released on, by the heads."""
        at, records = self.released, self.released_records
        wrong = "" if at <= self.size else "is shorter than what was delivered of it"
        unfinished = False
        while at < self.size and not wrong:
            head = self.read(ENTRY_HEAD, at)
            entry = parse_entry(self.number, at, head)
            if entry is not None and at + entry.size <= self.size:
                at, records = at + entry.size, records + entry.batch
            elif entry is not None or len(head) == self.size - at < ENTRY_HEAD:
                wrong, unfinished = "ends in the middle of a batch", newest and end is None
            else:
                wrong = "is damaged"
        self.end, self.records = at, records
        if end is not None and end[0] > at:
            wrong = wrong or "is cut short"
        if not wrong:
            return None
        if unfinished:  # nobody was told that it is in the spool
            log.warning("spool: the process before was killed while it wrote: %d bytes are cut off", self.size - at)
            self.cut()
            return None
        log.error("spool: %s %s: offset %d; the rest of it is lost", self.name, wrong, at)
        self.damaged, self.appendable = True, False
        self.mark_end()
        if end is None:
            return max(0, self.size - at), 0
        return max(0, end[0] - at), max(0, end[1] - records)

    def cut(self) -> None:
        """Take what follows the last whole entry off the file; where that fails, nothing is appended any more."""
        try:
            os.ftruncate(self.open(), self.end)
        except OSError as error:
            log.warning("spool: cannot cut off the end of %s: %s", self.name, error.strerror)
            self.appendable = False
        with contextlib.suppress(OSError):
            self.size = os.fstat(self.open()).st_size

    def takes(self, length: int, segment_bytes: int) -> bool:
        """Can so much be appended, and is the file still there as we left it?"""
        if self.damaged or self.size + length > segment_bytes:
            return False
        try:
            info = os.fstat(self.open())
            if not self.appendable or info.st_nlink != 1 or info.st_size != self.end:
                return False
            if self.ended:
                self.unmark_end()
        except OSError:
            return False
        return True
