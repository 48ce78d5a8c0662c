"""What compiling the kernel programs gives, and the form in which it is kept between starts (program_cache.py).

An image says which maps there are and holds the instructions of every program, in which each reference to a map is by name.
`loading.py` brings it into the kernel; nothing of it is of this process or this boot.

As bytes, all numbers little-endian:

    16   MAGIC, which ends with the number of the format
    32   SHA-256 of everything behind it
     4   length of the head in bytes
     n   the head: JSON, {key, tools, refused, license, maps, programs}
     m   the instructions of the programs, in the order of the head

``maps``: [{name, type, key_bytes, value_bytes, entries, flags, inner}] as bpf(2) takes them, ``inner`` the name of the map
that those inside are like ("" for none). ``programs``: [{name, type, bytes, references}], ``references`` being [place, map]
for each load of a map's address, the place counted in instructions of 8 bytes. How uprobes are attached is no part of it:
that is found out when it is loaded.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MAGIC = b"ebpf programs\n\0\x01"
INSTRUCTION_BYTES = 8
MOST_BYTES = 16 << 20  # of an image; the programs of today take 0.4 MiB

_LENGTH = struct.Struct("<I")
_DIGEST_BYTES = 32
_HEAD_AT = len(MAGIC) + _DIGEST_BYTES + _LENGTH.size

# include/uapi/linux/bpf.h
_LOAD_64, _CALL = 0x18, 0x85  # BPF_LD | BPF_IMM | BPF_DW, which takes two places; BPF_JMP | BPF_CALL
_PSEUDO_MAP_FD, _PSEUDO_CALL = 1, 1


@dataclass(frozen=True, slots=True)
class MapImage:
    """A map as bpf(2) makes it; ``inner``: the name of the map that those inside are like, "" for none."""

    name: str
    type: int
    key_bytes: int
    value_bytes: int
    entries: int
    flags: int
    inner: str = ""


@dataclass(frozen=True, slots=True)
class ProgramImage:
    """A program of a type (enum bpf_prog_type); ``references``: (place in instructions, name of the map whose address is
    loaded there).
    """

    name: str
    type: int
    instructions: bytes
    references: tuple[tuple[int, str], ...] = ()

    @classmethod
    def of(cls, name: str, kind: int, instructions: bytes, maps: Mapping[int, str]) -> ProgramImage:
        """From instructions that refer to maps by descriptor; ``maps``: what those are. Raises ValueError for references of
        any other kind.
        """
        out, found = bytearray(instructions), []
        at = 0
        while at < len(out):
            code, source = out[at], out[at + 1] >> 4
            if code == _CALL and source == _PSEUDO_CALL:
                raise ValueError(f"program {name} calls another function")
            if code == _LOAD_64 and source:
                (fd,) = struct.unpack_from("<i", out, at + 4)
                if source != _PSEUDO_MAP_FD or fd not in maps:
                    raise ValueError(f"program {name} refers to something that is no map")
                found.append((at // INSTRUCTION_BYTES, maps[fd]))
                struct.pack_into("<i", out, at + 4, 0)
            at += 2 * INSTRUCTION_BYTES if code == _LOAD_64 else INSTRUCTION_BYTES
        return cls(name, kind, bytes(out), tuple(found))

    def with_maps(self, maps: Mapping[str, int]) -> bytes:
        """The instructions for the kernel; ``maps``: descriptors by name."""
        out = bytearray(self.instructions)
        for place, name in self.references:
            struct.pack_into("<i", out, place * INSTRUCTION_BYTES + 4, maps[name])
        return bytes(out)


@dataclass(frozen=True, slots=True)
class Tool:
    """A file of the compiler, as it was: another one may compile otherwise."""

    path: str
    size: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Image:
    """``tools``: what compiled it; ``refused``: the kernel did not take it when it had just been compiled."""

    maps: tuple[MapImage, ...]
    programs: tuple[ProgramImage, ...]
    license: str
    tools: tuple[Tool, ...] = ()
    refused: bool = False


def to_bytes(key: str, image: Image) -> bytes:
    """The image, kept for ``key``."""
    head = {
        "key": key,
        "tools": [[tool.path, tool.size, tool.mtime_ns] for tool in image.tools],
        "refused": image.refused,
        "license": image.license,
        "maps": [
            {
                "name": one.name,
                "type": one.type,
                "key_bytes": one.key_bytes,
                "value_bytes": one.value_bytes,
                "entries": one.entries,
                "flags": one.flags,
                "inner": one.inner,
            }
            for one in image.maps
        ],
        "programs": [
            {"name": one.name, "type": one.type, "bytes": len(one.instructions), "references": list(one.references)}
            for one in image.programs
        ],
    }
    text = json.dumps(head, separators=(",", ":")).encode()
    rest = b"".join([_LENGTH.pack(len(text)), text, *(one.instructions for one in image.programs)])
    return MAGIC + hashlib.sha256(rest).digest() + rest


def from_bytes(key: str, data: bytes) -> Image:
    """The reverse. Raises ValueError, which says why, for what is damaged, of another format or for another key."""
    if data[: len(MAGIC)] != MAGIC:
        raise ValueError("it is no image, or of another format")
    if hashlib.sha256(data[len(MAGIC) + _DIGEST_BYTES :]).digest() != data[len(MAGIC) : len(MAGIC) + _DIGEST_BYTES]:
        raise ValueError("it is damaged")
    try:
        (length,) = _LENGTH.unpack_from(data, _HEAD_AT - _LENGTH.size)
        head = json.loads(data[_HEAD_AT : _HEAD_AT + length])
        if head["key"] != key:
            raise ValueError("it was made for something else")
        return _image(head, data[_HEAD_AT + length :])
    except (KeyError, TypeError, struct.error, RecursionError) as error:
        raise ValueError(f"its head is none: {error!r:.100}") from None


def _image(head: Mapping[str, Any], code: bytes) -> Image:
    maps = tuple(_map(one) for one in head["maps"])
    names = {one.name for one in maps}
    programs, at = [], 0
    for one in head["programs"]:
        size = _number(one["bytes"])
        part = code[at : at + size]
        if not size or size % INSTRUCTION_BYTES or len(part) != size:
            raise ValueError("programs and instructions do not agree")
        programs.append(
            ProgramImage(_name(one["name"]), _number(one["type"]), part, _references(one["references"], part, names))
        )
        at += size
    if at != len(code) or len(names) != len(maps) or len({one.name for one in programs}) != len(programs):
        raise ValueError("programs and instructions do not agree")
    if not {one.inner for one in maps} <= names | {""}:
        raise ValueError("it refers to a map that it does not have")
    tools = tuple(Tool(str(path), int(size), int(mtime)) for path, size, mtime in head["tools"])
    return Image(maps, tuple(programs), str(head["license"]), tools, bool(head["refused"]))


def _map(head: Mapping[str, Any]) -> MapImage:
    kind, key_bytes, value_bytes, entries, flags = (
        _number(head[field]) for field in ("type", "key_bytes", "value_bytes", "entries", "flags")
    )
    return MapImage(_name(head["name"]), kind, key_bytes, value_bytes, entries, flags, str(head["inner"]))


def _references(found: Sequence[Sequence[Any]], code: bytes, maps: set[str]) -> tuple[tuple[int, str], ...]:
    out = []
    for place, name in found:
        at = _number(place) * INSTRUCTION_BYTES
        if name not in maps or code[at : at + 2] == b"" or code[at] != _LOAD_64 or code[at + 1] >> 4 != _PSEUDO_MAP_FD:
            raise ValueError("it refers to a map that it does not have")
        out.append((int(place), str(name)))
    return tuple(out)


def _name(value: Any) -> str:
    if not isinstance(value, str) or not value.isidentifier() or not value.isascii():
        raise ValueError(f"{value!r:.50} is no name")
    return value


def _number(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 32:
        raise ValueError(f"{value!r:.50} is no number of 32 bits")
    return value
