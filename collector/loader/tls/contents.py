"""What is written in an executable or a library about TLS; read by a child without privileges (as locate.py).

    python -m collector.loader.tls.contents UID FD...

It prints one line of JSON for each descriptor, in their order. Files are read once from beginning to end, in pieces: no
structure of theirs is followed but two, the note with the build id and the version in a Go program, which are small.
"""

from __future__ import annotations

import json
import os
import re
import struct
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from collector.loader import locate
from collector.loader.tls import implementations
from collector.loader.tls.implementations import GO, LIBRESSL, OPENSSL, Mark

MODULE = "collector.loader.tls.contents"
PIECE_BYTES = 1 << 20
OVERLAP_BYTES = 512  # a mark, and what its pattern looks at around it, is shorter
MOST_BYTES = 512 << 20  # of one file; what is behind is not read
TRIES = 5000  # matches of a needle that are looked at, of one file
NAME_BYTES = 64  # of what a file says of itself
_BUILD_INFO = b"\xff Go buildinf:"
_NOTE = re.compile(rb"\x04\0\0\0([\x08-\x40])\0\0\0\x03\0\0\0GNU\0", re.DOTALL)  # NT_GNU_BUILD_ID
_PRINTABLE = re.compile("[!-~]{1,64}")


@dataclass(frozen=True, slots=True)
class Contents:
    """``built_in``: the implementations that a file has in it, the likeliest first, with the version or "". ``versions``:
    what it says of versions, by implementation. ``build_id``: hexadecimal, or "". ``read``: False when nobody could.
    """

    built_in: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    build_id: str = ""
    read: bool = True


UNREADABLE = Contents(read=False)


class _Search:
    """One mark in one file."""

    def __init__(self, mark: Mark) -> None:
        self.mark = mark
        self.found: str | None = None  # the version, "" when there is none
        self._tries = 0

    def look(self, piece: bytes) -> None:
        at = -1
        while self.found is None and self._tries < TRIES and (at := piece.find(self.mark.needle, at + 1)) >= 0:
            self._tries += 1
            around = piece[max(0, at - OVERLAP_BYTES // 2) : at + OVERLAP_BYTES // 2]
            match = self.mark.pattern.search(around)
            if match:
                version = match[1] if match.re.groups else None
                self.found = (version or b"").decode("ascii", "replace")[:NAME_BYTES]


def scan(file: int) -> Contents:
    """Read the file behind a descriptor. Raises OSError."""
    marks = [_Search(mark) for mark in implementations.MARKS]
    versions = [_Search(mark) for mark in implementations.VERSIONS]
    build_id, go = "", ""
    position, piece = 0, b""
    while position < MOST_BYTES:
        more = os.pread(file, PIECE_BYTES, position)
        if not more:
            break
        start = position - len(piece)
        piece += more
        position += len(more)
        for search in (*marks, *versions):
            search.look(piece)
        if not build_id and start < PIECE_BYTES:  # notes are among the first things in a file
            build_id = _build_id(piece)
        if not go and (at := piece.find(_BUILD_INFO)) >= 0:
            go = go_version(file, start + at)
        piece = piece[-OVERLAP_BYTES:]
    said = {search.mark.name: search.found for search in versions if search.found}
    built_in = {search.mark.name: search.found for search in marks if search.found is not None}
    if go:
        said[GO] = go
    if OPENSSL in built_in and LIBRESSL in said and OPENSSL not in said:
        built_in = {LIBRESSL if name == OPENSSL else name: version for name, version in built_in.items()}
    return Contents({name: version or said.get(name, "") for name, version in built_in.items()}, said, build_id)


def _build_id(piece: bytes) -> str:
    note = _NOTE.search(piece)
    return piece[note.end() : note.end() + note[1][0]].hex() if note else ""


def go_version(file: int, at: int) -> str:
    """The version of Go that made a program, whose build information begins at this offset: debug/buildinfo of Go. "" when
    it does not say. Raises OSError.
    """
    head = os.pread(file, 64 + NAME_BYTES, at)
    if len(head) < 33:
        return ""
    if head[15] & 2:  # since 1.18: the text itself behind the head, its length in one byte when it is short
        size = head[32]
        return _text(head[33 : 33 + size]) if size < 128 else ""
    if head[14] != 8 or head[15] & 1:  # pointers of 8 bytes, little-endian
        return ""
    place = _offset(file, struct.unpack_from("<Q", head, 16)[0])  # of a string: address, length
    string = os.pread(file, 16, place) if place is not None else b""
    if len(string) < 16:
        return ""
    address, size = struct.unpack("<QQ", string)
    place = _offset(file, address)
    return _text(os.pread(file, min(size, NAME_BYTES), place)) if place is not None else ""


def _offset(file: int, address: int) -> int | None:
    """Where the byte at a virtual address is in a 64-bit little-endian ELF file."""
    head = os.pread(file, 64, 0)
    if len(head) < 64 or head[:6] != b"\x7fELF\x02\x01":
        return None
    first = struct.unpack_from("<Q", head, 32)[0]
    size, count = struct.unpack_from("<HH", head, 54)
    if first >= 1 << 40 or size != 56:
        return None
    table = os.pread(file, min(count, 64) * 56, first)
    for at in range(0, len(table) - 55, 56):
        kind, _flags, offset, start, _physical, in_file = struct.unpack_from("<IIQQQQ", table, at)
        if kind == 1 and start <= address < start + in_file:  # PT_LOAD
            place: int = offset + address - start
            return place if place < 1 << 62 else None
    return None


def _text(data: bytes) -> str:
    return data.decode("ascii", "replace") if re.fullmatch(rb"[!-~]+( [ -~]*)?", data) else ""


def to_message(contents: Contents) -> dict[str, Any]:
    """What the child prints."""
    return {"built_in": contents.built_in, "versions": contents.versions, "build_id": contents.build_id}


_NAMES = {mark.name for mark in (*implementations.MARKS, *implementations.VERSIONS)}


def from_message(line: bytes) -> Contents:
    """What the parent believes of a line: known names, short printable versions. Else UNREADABLE."""
    try:
        message = json.loads(line)
        built_in, versions = (
            {str(name): str(version) for name, version in message[key].items()} for key in ("built_in", "versions")
        )
        build_id = str(message["build_id"])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return UNREADABLE
    for part in (built_in, versions):
        for name, version in part.items():
            if name not in _NAMES or version and not _PRINTABLE.fullmatch(version):
                return UNREADABLE
    if not re.fullmatch("(?:[0-9a-f]{16,128})?", build_id):
        return UNREADABLE
    return Contents(built_in, versions, build_id)


class Job:
    """A child that reads these files, as its parent sees it. The caller keeps the descriptors. Raises OSError."""

    def __init__(self, files: Sequence[int], uid: int | None) -> None:
        self._deadline = time.monotonic() + locate.WAIT_SECONDS
        self._files = len(files)
        self._data = b""
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", MODULE, str(-1 if uid is None else uid), *map(str, files)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=files,
        )
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)

    def contents(self) -> list[Contents] | None:
        """Of each file, once the child has ended: UNREADABLE of those that it did not come to. None before. Never blocks."""
        assert self._process.stdout is not None
        ended = self._process.poll() is not None
        while len(self._data) <= locate.ANSWER_BYTES:
            try:
                piece = os.read(self._process.stdout.fileno(), 65536)
            except BlockingIOError:
                break
            if not piece:
                break
            self._data += piece
        if not ended:
            if len(self._data) > locate.ANSWER_BYTES or time.monotonic() > self._deadline:
                self._process.kill()
            return None
        self._process.stdout.close()
        lines = self._data[: locate.ANSWER_BYTES].split(b"\n")[:-1][: self._files]
        return [from_message(line) for line in lines] + [UNREADABLE] * (self._files - len(lines))

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()


def main() -> int:
    """Entry of the child process."""
    files = [int(argument) for argument in sys.argv[2:]]
    uid = int(sys.argv[1])
    locate.confine(None if uid < 0 else uid)
    for file in files:
        try:
            line = json.dumps(to_message(scan(file)))
        except OSError:
            line = ""  # nothing that is believed
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
