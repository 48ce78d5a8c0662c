"""The spool: batches on disk, in the order in which they came, while the destination is away. Bounded; survives kill -9.

A directory of segments (`segment.py`). Batches are appended to the newest; the oldest is deleted when it was released whole.

    0123456789abcdef.segment     number in hexadecimal; numbers rise
    0123456789abcdef.damaged     a segment of which something could not be read, set aside when the rest was released
    0123456789abcdef.version-N   a segment of another version of the format, set aside as it was found
    unfinished                   a segment whose first batch is being written

What `append` has returned from is in the kernel's page cache, whatever becomes of this process; against a power cut there is
`sync`. A batch that was not written to its end is cut off. Nothing here asks for the time. docs/decisions/0021 says why.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import logging
import os
from dataclasses import dataclass
from typing import NamedTuple

import crc32c

from collector.sink.segment import (
    ENTRY_HEAD,
    FIRST_ENTRY,
    FORMAT_BYTES,
    OPEN_FLAGS,
    VERSION,
    Buffer,
    Entry,
    OtherVersionError,
    Segment,
    UnreadableError,
    pack_entry,
    pack_header,
    parse_entry,
    write,
)
from collector.sink.spool_directory import DAMAGED_NAME, SEGMENT_NAME, UNFINISHED, VERSION_NAME, foreign, lock

log = logging.getLogger("sink")

SEGMENT_BYTES = 16 << 20
KEPT_DAMAGED = 8  # files that are set aside, and no more than a part of the limit in bytes
_PARTS = 8  # segments are no longer than this part of the limit: so much gives way at once

_NOTHING = memoryview(b"")
_FOR_NOW = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)  # says nothing of the file that was to be opened


class Lost(NamedTuple):
    """What gave way because the spool was full: bytes on disk, and records."""

    bytes: int
    records: int


class Damaged(NamedTuple):
    """What could not be read: segments with damage, bytes on disk that are lost, records as far as their number is known."""

    segments: int
    bytes: int
    records: int


@dataclass(frozen=True, slots=True, eq=False)
class Stored:
    """A batch that was read. ``start`` and ``end`` are offsets in the segment of that number, ``through`` the number of the
    segment's records up to ``end``.
    """

    records: memoryview
    index: memoryview
    details: memoryview
    format: str
    count: int
    segment: int
    start: int
    end: int
    through: int

    def without_data(self) -> Stored:
        """All that `Spool.release` needs."""
        return dataclasses.replace(self, records=_NOTHING, index=_NOTHING, details=_NOTHING)


class Spool:
    """See the module. Used by one thread.

    ``directory`` is a descriptor and stays the caller's. All segments, and what is set aside as damaged, have together at
    most ``limit_bytes``; a file is no longer than ``segment_bytes`` and an eighth of the limit, unless a single batch is.
    ``bytes`` (on disk) and ``records`` are what waits; ``disk_bytes`` is what counts against the limit; ``lost`` and
    ``damaged`` are totals of this object's life; ``other_versions`` is the number of files that only another version of the
    format can read. Raises LockedError when another process uses the directory, OSError.
    """

    def __init__(self, directory: int, *, limit_bytes: int, segment_bytes: int = SEGMENT_BYTES) -> None:
        self._limit = limit_bytes
        self._segment_bytes = min(segment_bytes, limit_bytes // _PARTS)
        self.bytes = self.records = self.disk_bytes = self.other_versions = 0
        self.lost = Lost(0, 0)
        self.damaged = Damaged(0, 0, 0)
        self._told = Lost(0, 0)  # what `append` has returned of `lost`
        self._segments: list[Segment] = []  # oldest first
        self._aside: list[tuple[str, int]] = []  # damaged files and their lengths, oldest first
        self._left_over: list[tuple[str, int]] = []  # files that are done with and could not be deleted
        self._next = 1
        self._names_changed = False  # since the last sync
        self._directory = lock(directory)
        try:
            self._load()
        except BaseException:
            self._close()
            raise

    # -- in

    def append(self, records: Buffer, index: Buffer, details: Buffer, format: str, count: int) -> Lost:
        """Store a batch; returns what has given way since the last time. A batch above the limit is itself what is lost.

        When this has returned, the batch survives the end of this process. Raises OSError (disk full, read-only, directory
        gone): then nothing of the batch is in the spool, and the same call may work later.
        """
        name = format.encode("ascii")
        parts: tuple[Buffer, ...] = (records, index, details)
        size = ENTRY_HEAD + sum(map(len, parts))
        if not 0 < len(name) <= FORMAT_BYTES:
            raise ValueError(f"a format of {len(name)} characters")
        if FIRST_ENTRY + size > self._limit:
            log.error("spool: a batch of %d bytes is more than the spool may hold", size)
            self._lose(size, count)
            return self._tell()
        if self.disk_bytes > self._limit:
            self._make_room()
        segment = self._segments[-1] if self._segments else None
        if segment is not None and segment.takes(size, self._segment_bytes):
            self._extend(segment, parts, name, count)
        else:
            if segment is not None and not segment.ended:
                segment.mark_end()
            segment = self._begin(parts, name, count)
        segment.end += size
        segment.size = segment.end
        segment.records += count
        segment.left_bytes += size
        segment.left_records += count
        segment.dirty = True
        self.bytes += size
        self.records += count
        self.disk_bytes += size
        if self.disk_bytes > self._limit:
            try:
                self._make_room()
            except OSError as error:
                log.error("spool: cannot make room: %s", error.strerror)  # the next call will not write
        return self._tell()

    def _extend(self, segment: Segment, parts: tuple[Buffer, ...], name: bytes, count: int) -> None:
        try:
            write(segment.open(), [pack_entry(segment.number, segment.end, parts, name, count), *parts], segment.end)
        except OSError:
            before = segment.size
            segment.cut()
            self.disk_bytes += segment.size - before
            raise

    def _begin(self, parts: tuple[Buffer, ...], name: bytes, count: int) -> Segment:
        """A new segment with its first entry: it gets its name when that is whole."""
        segment = Segment(self._directory, self._next)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | OPEN_FLAGS
        with contextlib.suppress(FileNotFoundError):
            os.unlink(UNFINISHED, dir_fd=self._directory)
        segment.fd = os.open(UNFINISHED, flags, 0o600, dir_fd=self._directory)
        try:
            head = pack_entry(segment.number, FIRST_ENTRY, parts, name, count)
            write(segment.fd, [pack_header(segment.number), head, *parts], 0)
            os.rename(UNFINISHED, segment.name, src_dir_fd=self._directory, dst_dir_fd=self._directory)
        except OSError:
            segment.close()
            with contextlib.suppress(OSError):
                os.unlink(UNFINISHED, dir_fd=self._directory)
            raise
        if self._segments:
            self._segments[-1].close()
        self._next += 1
        self._segments.append(segment)
        self.disk_bytes += FIRST_ENTRY
        self._names_changed = True
        return segment

    # -- out

    def peek(self, after: Stored | None = None) -> Stored | None:
        """The oldest batch that is not released, or the next one behind ``after``; None when there is none.

        Batches that were read are the caller's: when their segment gives way they are not counted as lost. What is damaged
        is passed over, logged and counted. Raises OSError when a segment cannot be opened for want of descriptors or memory.
        """
        for segment in list(self._segments):
            if after is not None and segment.number < after.segment:
                continue
            if after is not None and segment.number == after.segment:
                stored = self._read(segment, after.end, after.through)
            else:
                stored = self._read(segment, segment.released, segment.released_records)
            if stored is not None:
                if stored.start >= segment.handed_to:
                    segment.handed_to = stored.end
                    segment.handed_bytes += stored.end - stored.start
                    segment.handed_records += stored.count
                return stored
        return None

    def release(self, stored: Stored) -> None:
        """The oldest batch is delivered. In order: ValueError for another than the oldest; nothing happens for one that was
        released, or gave way.

        A process that is killed leaves this note to the next one; only the batch that was just being released may come
        again. After a power cut all come again that were released since the last `sync` and that the kernel had not written.
        """
        segment = next((one for one in self._segments if one.number == stored.segment), None)
        if segment is None or stored.start < segment.released:
            return
        if segment is not self._segments[0] or stored.start != segment.released:
            raise ValueError("a batch is released before an older one")
        size = stored.end - stored.start
        segment.left_bytes -= size
        segment.left_records -= stored.count
        segment.handed_bytes -= size
        segment.handed_records -= stored.count
        self.bytes -= size
        self.records -= stored.count
        segment.released, segment.released_records = stored.end, stored.through
        if not self._settle(segment):
            segment.mark_released()

    def has(self, stored: Stored) -> bool:
        """Is it still there, and has not given way? For a batch that is not released."""
        return any(segment.number == stored.segment for segment in self._segments)

    def _read(self, segment: Segment, at: int, through: int) -> Stored | None:
        """The first batch from there on that can be read."""
        while at < segment.end:
            entry = segment.skipped.get(at)
            if entry is None:
                try:
                    entry = parse_entry(segment.number, at, segment.read(ENTRY_HEAD, at))
                except OSError as error:
                    if error.errno in _FOR_NOW:
                        raise
                    log.error("spool: cannot open %s: %s", segment.name, error.strerror)
                if entry is None or at + entry.size > segment.end:
                    self._lose_rest(segment, at, through)
                    break
                data = memoryview(segment.read(entry.size - ENTRY_HEAD, at + ENTRY_HEAD))
                if len(data) == entry.size - ENTRY_HEAD and crc32c.crc32c(data) == entry.checksum:
                    a, b = entry.records_bytes, entry.records_bytes + entry.index_bytes
                    end, through = at + entry.size, through + entry.batch
                    return Stored(data[:a], data[a:b], data[b:], entry.format, entry.batch, segment.number, at, end, through)
                self._skip(segment, at, entry)
            at, through = at + entry.size, through + entry.batch
        self._settle(segment)
        return None

    def _settle(self, segment: Segment) -> bool:
        """Pass over what is damaged behind what was released. Is nothing left of the segment? Then it goes."""
        self._pass_over(segment)
        if segment.released < segment.end:
            return False
        self._retire(segment)
        return True

    # -- damage

    def _pass_over(self, segment: Segment) -> bool:
        """Damaged batches that are next to be released are. Were there any?"""
        before = segment.released
        while segment.released in segment.skipped:
            entry = segment.skipped.pop(segment.released)
            segment.released += entry.size
            segment.released_records += entry.batch
        return segment.released != before

    def _note_damage(self, segment: Segment, size: int, count: int) -> None:
        self._add_damage(int(not segment.damaged), size, count)
        segment.damaged = True
        segment.left_bytes -= size
        segment.left_records -= count
        segment.handed_bytes = min(segment.handed_bytes, segment.left_bytes)
        segment.handed_records = min(segment.handed_records, segment.left_records)
        self.bytes -= size
        self.records -= count

    def _add_damage(self, segments: int, size: int, count: int) -> None:
        before = self.damaged
        self.damaged = Damaged(before.segments + segments, before.bytes + size, before.records + count)

    def _skip(self, segment: Segment, at: int, entry: Entry) -> None:
        log.error("spool: %s, offset %d: a batch of %d records is damaged", segment.name, at, entry.batch)
        self._note_damage(segment, entry.size, entry.batch)
        segment.skipped[at] = entry
        segment.mark_end()
        if self._pass_over(segment):
            segment.mark_released()  # the next process does not count it again

    def _lose_rest(self, segment: Segment, at: int, through: int) -> None:
        count = max(0, segment.records - through)
        log.error("spool: %s is damaged from offset %d: %d records are lost", segment.name, at, count)
        skipped = [entry for start, entry in segment.skipped.items() if start >= at]
        self._note_damage(segment, segment.end - at - sum(e.size for e in skipped), count - sum(e.batch for e in skipped))
        segment.end, segment.records = at, through
        segment.mark_end()

    def _set_aside(self, name: str, number: int, size: int) -> None:
        """Keep a damaged file for whoever wants to look at it, while there is room. Raises OSError."""
        aside = f"{number:016x}.damaged"
        os.rename(name, aside, src_dir_fd=self._directory, dst_dir_fd=self._directory)
        self._names_changed = True
        self._aside.append((aside, size))
        with contextlib.suppress(OSError):  # it counts against the limit as long as it is there
            while len(self._aside) > KEPT_DAMAGED or sum(length for _, length in self._aside) > self._limit // _PARTS:
                self._forget_aside()

    def _forget_aside(self) -> None:
        name, size = self._aside[0]
        self._delete(name)
        del self._aside[0]
        self.disk_bytes -= size

    # -- files

    def _retire(self, segment: Segment) -> None:
        """Nothing of a segment is needed any more. One that cannot be deleted is tried again when room is needed."""
        self._segments.remove(segment)
        try:
            if segment.damaged:
                self._set_aside(segment.name, segment.number, segment.size)
            else:
                self._delete(segment.name)
                self.disk_bytes -= segment.size
        except FileNotFoundError:  # somebody was faster
            self.disk_bytes -= segment.size
        except OSError as error:
            log.error("spool: cannot remove %s: %s", segment.name, error.strerror)
            segment.mark_released()  # that the next process does not deliver it again
            self._left_over.append((segment.name, segment.size))
        segment.close()

    def _rename(self, name: str, new: str) -> None:
        """Where that cannot be done, the next process tries again."""
        try:
            os.rename(name, new, src_dir_fd=self._directory, dst_dir_fd=self._directory)
            self._names_changed = True
        except OSError as error:
            log.warning("spool: cannot rename %s to %s: %s", name, new, error.strerror)

    def _delete(self, name: str) -> None:
        """Raises OSError; a file that is gone is what we want."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._directory)
        self._names_changed = True

    def _make_room(self) -> None:
        """Until the limit is kept: what nobody needs goes first, then the oldest segments. Raises OSError."""
        while self._left_over and self.disk_bytes > self._limit:
            name, size = self._left_over[0]
            self._delete(name)
            del self._left_over[0]
            self.disk_bytes -= size
        while self._aside and self.disk_bytes > self._limit:
            self._forget_aside()
        while len(self._segments) > 1 and self.disk_bytes > self._limit:
            oldest = self._segments[0]
            self._delete(oldest.name)
            del self._segments[0]
            oldest.close()
            self.disk_bytes -= oldest.size
            self.bytes -= oldest.left_bytes
            self.records -= oldest.left_records
            self._lose(oldest.left_bytes - oldest.handed_bytes, oldest.left_records - oldest.handed_records)

    def _lose(self, size: int, count: int) -> None:
        self.lost = Lost(self.lost.bytes + size, self.lost.records + count)

    def _tell(self) -> Lost:
        new = Lost(self.lost.bytes - self._told.bytes, self.lost.records - self._told.records)
        self._told = self.lost
        return new

    # -- begin and end

    def _load(self) -> None:
        numbers = {}
        for name in sorted(os.listdir(self._directory)):
            segment, damaged, other = (p.fullmatch(name) for p in (SEGMENT_NAME, DAMAGED_NAME, VERSION_NAME))
            found = segment or damaged or other
            if found is None and name != UNFINISHED:
                log.warning("spool: %r is not ours, and is left alone", name)
                continue
            info = os.stat(name, dir_fd=self._directory, follow_symlinks=False)
            why = foreign(info)
            if why:
                log.warning("spool: %r %s, and is left alone", name, why)
            elif found is None:
                with contextlib.suppress(OSError):  # nobody was told that it is in the spool
                    self._delete(name)
            elif segment is not None:
                numbers[int(found[1], 16)] = info.st_size
            elif damaged is not None:
                self._aside.append((name, info.st_size))
                self.disk_bytes += info.st_size
            elif other is not None and int(other[2]) == VERSION:  # an older version had set aside what is ours
                self._rename(name, f"{found[1]}.segment")
                numbers[int(found[1], 16)] = info.st_size
            else:
                self.other_versions += 1
            if found is not None:
                self._next = max(self._next, int(found[1], 16) + 1)
        for number in sorted(numbers):
            self._load_segment(Segment(self._directory, number, numbers[number]), newest=number == max(numbers))

    def _load_segment(self, segment: Segment, *, newest: bool) -> None:
        try:
            lost = segment.load(newest=newest)
        except OtherVersionError as error:
            version = int(error.args[0])
            log.error("spool: %s has format version %d, ours is %d: set aside", segment.name, version, VERSION)
            self._rename(segment.name, f"{segment.number:016x}.version-{version}")
            self.other_versions += 1
        except UnreadableError as error:
            log.error("spool: %s is lost, %d bytes: %s", segment.name, segment.left_bytes, error)
            self._add_damage(1, segment.left_bytes, segment.left_records)
            self.disk_bytes += segment.size
            segment.damaged, segment.end = True, segment.released
            self._segments.append(segment)
            self._retire(segment)
        except OSError as error:
            if error.errno in _FOR_NOW:
                raise
            log.error("spool: cannot read %s: %s", segment.name, error.strerror)
            self._add_damage(1, segment.size, 0)
            self.disk_bytes += segment.size
        else:
            if lost is not None:
                self._add_damage(1, *lost)
            self.disk_bytes += segment.size
            self.bytes += segment.left_bytes
            self.records += segment.left_records
            self._segments.append(segment)
            self._settle(segment)
        finally:
            segment.close()

    def sync(self) -> None:
        """Have all that was appended and released so far on the disk itself, safe from a power cut. Takes milliseconds to
        seconds. Raises OSError.
        """
        for segment in self._segments:
            if segment.dirty:
                with contextlib.suppress(FileNotFoundError):
                    os.fdatasync(segment.open())
                segment.dirty = False
                if segment is not self._segments[-1] and segment is not self._segments[0]:
                    segment.close()
        if self._names_changed:
            os.fsync(self._directory)
            self._names_changed = False

    def close(self) -> None:
        """Sync, and let go of the directory. Raises OSError when not all is safe from a power cut."""
        if self._directory < 0:
            return
        try:
            if self._segments and not self._segments[-1].ended:
                self._segments[-1].mark_end()
            self.sync()
        finally:
            self._close()

    def _close(self) -> None:
        for segment in self._segments:
            segment.close()
        if self._directory >= 0:
            os.close(self._directory)
            self._directory = -1
