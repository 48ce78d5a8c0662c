"""Where the running kernel keeps the members of its structs, read from the description that it carries of itself.

Documentation/bpf/btf.rst and include/uapi/linux/btf.h: a header, a section of types (each 12 bytes, and for some kinds
more) numbered from 1 in the order in which they lie there, and a section of strings that end in NUL. Byte offsets in
messages count from the start of the data.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final

_MAGIC, _OTHER_ORDER, _VERSION = 0xEB9F, 0x9FEB, 1
_HEADER = struct.Struct("=HBBIIIII")  # magic, version, flags, its own length, then offset and length of types and strings
_INT, _STRUCT, _UNION = 1, 4, 5
_MODIFIERS = frozenset((8, 9, 10, 11, 18))  # typedef, volatile, const, restrict, type tag
# words (of 4 bytes) that follow the three of each type: always, and for each of its `vlen` parts
_EXTRA: Final = {
    1: (1, 0),  # INT: encoding
    2: (0, 0),  # PTR
    3: (3, 0),  # ARRAY: element, index, count
    4: (0, 3),  # STRUCT: name, type, offset
    5: (0, 3),  # UNION
    6: (0, 2),  # ENUM: name, value
    7: (0, 0),  # FWD
    8: (0, 0),  # TYPEDEF
    9: (0, 0),  # VOLATILE
    10: (0, 0),  # CONST
    11: (0, 0),  # RESTRICT
    12: (0, 0),  # FUNC
    13: (0, 2),  # FUNC_PROTO: name, type
    14: (1, 0),  # VAR: linkage
    15: (0, 3),  # DATASEC: type, offset, size
    16: (0, 0),  # FLOAT
    17: (1, 0),  # DECL_TAG: component
    18: (0, 0),  # TYPE_TAG
    19: (0, 3),  # ENUM64: name, low and high half of the value
}
_UNUSED_BITS = 0x60FF0000  # of a type's second word
_DEEPEST = 32  # the kernel's own limit for what it verifies (MAX_RESOLVE_DEPTH)


class BtfError(ValueError):
    """The data is no BTF, or none that this module understands; says what is wrong and at which byte."""


def read_kernel(path: str = "/sys/kernel/btf/vmlinux") -> bytes:
    """The running kernel's BTF, some megabytes. Raises OSError (FileNotFoundError: built without CONFIG_DEBUG_INFO_BTF)."""
    with open(path, "rb") as file:
        return file.read()


def offsets(data: bytes, wanted: Iterable[str]) -> dict[str, int]:
    """Byte offsets of members, by the wanted entries; what ``data`` does not have is absent.

    An entry is the name of a struct or union, then a member, then members of that member: "sock.__sk_common.skc_daddr".
    Its offset counts from the start of the first struct. Members of anonymous structs and unions are found as in C. A
    name alone asks for the size in bytes. Absent are also bit fields, and what lies behind a pointer or in an array.
    Of several structs of one name the first that has all that is wanted of it counts, otherwise the first.

    Raises BtfError for malformed data, for another version or byte order, and for kinds of type later than ENUM64.
    """
    by_struct: dict[str, dict[str, list[bytes]]] = {}
    for entry in wanted:
        words = entry.split(".")
        if all(words):
            by_struct.setdefault(words[0], {})[entry] = [word.encode() for word in words[1:]]
    types = _Types(data, by_struct)
    result: dict[str, int] = {}
    for name, entries in by_struct.items():
        best: dict[str, int] | None = None
        for type_id in types.named[name]:
            found = {
                entry: offset for entry, members in entries.items() if (offset := types.offset(type_id, members)) is not None
            }
            if best is None or len(found) == len(entries):
                best = found
            if len(found) == len(entries):
                break
        result.update(best or {})
    return result


class _Types:
    """The types of ``data`` by number, and the numbers of the structs and unions with the given names."""

    def __init__(self, data: bytes, names: Iterable[str]) -> None:
        self._base, self._words, self._strings = _sections(data)
        self._starts: list[int] = [0]  # where each type begins, as an index of words; number 0 is void
        self._found: dict[tuple[int, bytes], tuple[int, int] | None] = {}
        self.named: dict[str, list[int]] = {name: [] for name in names}
        self._scan()

    def _scan(self) -> None:
        """One pass over all types, more than a hundred thousand: the loop does no more than it must."""
        words, names = self._words, self._places()
        begin, lengths = self._starts.append, dict[int, int]()
        hits: list[tuple[int, int, str]] = []
        at, end = 0, len(words)
        last = end - 3
        while at <= last:
            begin(at)
            if words[at] in names:
                hits.append((len(self._starts) - 1, at, names[words[at]]))
            info = words[at + 1]
            try:
                at += lengths[info]
            except KeyError:
                lengths[info] = self._length(info, at)
                at += lengths[info]
        if at != end:
            raise BtfError(
                f"half a type at byte {self._byte(at)}"
                if at < end
                else f"the last type, at byte {self._byte(self._starts[-1])}, goes beyond the types' end at byte "
                f"{self._byte(end)}"
            )
        for type_id, at, name in hits:
            if words[at + 1] >> 24 & 31 in (_STRUCT, _UNION):
                self.named[name].append(type_id)

    def _places(self) -> dict[int, str]:
        """Each place in the strings where one of the names can be read; it may be the end of a longer string."""
        places: dict[int, str] = {}
        for name in self.named:
            text = name.encode() + b"\0"
            at = self._strings.find(text)
            while at >= 0:
                places[at] = name
                at = self._strings.find(text, at + 1)
        return places

    def _length(self, info: int, at: int) -> int:
        """The length in words of a type whose second word is ``info``."""
        kind = info >> 24 & 31
        if kind not in _EXTRA or info & _UNUSED_BITS:
            raise BtfError(f"a type of unknown form {info:#010x} (kind {kind}) at byte {self._byte(at)}")
        always, each = _EXTRA[kind]
        return 3 + always + each * (info & 0xFFFF)

    def _byte(self, at: int) -> int:
        return self._base + 4 * at

    def _resolve(self, at: int) -> tuple[int, int]:
        """The type whose number is the word at ``at``, behind its typedefs, const and the like: (number, kind)."""
        words, starts, place = self._words, self._starts, at
        for _ in range(_DEEPEST):
            type_id = words[place]
            if type_id >= len(starts):
                raise BtfError(f"no type has the number {type_id} at byte {self._byte(place)}")
            if type_id == 0:
                return 0, 0
            place = starts[type_id] + 2
            kind = words[place - 1] >> 24 & 31
            if kind not in _MODIFIERS:
                return type_id, kind
        raise BtfError(f"the type at byte {self._byte(at)} stands behind more than {_DEEPEST} others, or in a circle")

    def offset(self, type_id: int, members: list[bytes]) -> int | None:
        """The byte offset of the last of ``members``, each in the one before; without members the size in bytes."""
        if not members:
            return self._words[self._starts[type_id] + 2]
        kind, total = _STRUCT, 0
        for name in members:
            if kind not in (_STRUCT, _UNION):
                return None
            found = self._member(type_id, name, 0)
            if found is None:
                return None
            offset, place = found
            total += offset
            type_id, kind = self._resolve(place)
        return total

    def _member(self, type_id: int, name: bytes, depth: int) -> tuple[int, int] | None:
        """A member by name, of the struct or of an anonymous one within: its byte offset, and where its type's number is.

        Each struct is searched once for a name: what malformed data can cost is bounded by its length.
        """
        key = type_id, name
        if key in self._found:
            return self._found[key]
        words, strings, start = self._words, self._strings, self._starts[type_id]
        if depth > _DEEPEST:
            raise BtfError(f"the struct at byte {self._byte(start)} lies in more than {_DEEPEST} others, or in itself")
        text = name + b"\0"
        found: tuple[int, int] | None = None
        for at in range(start + 3, start + 3 + 3 * (words[start + 1] & 0xFFFF), 3):
            place = words[at]
            if place >= len(strings):
                raise BtfError(f"no string is at {place}, which is a member's name at byte {self._byte(at)}")
            if strings.startswith(text, place):
                offset = self._whole_bytes(start, at)
                found = None if offset is None else (offset, at + 1)
                break
            if strings[place] == 0:
                inner, kind = self._resolve(at + 1)
                if kind not in (_STRUCT, _UNION):
                    continue
                offset, within = self._whole_bytes(start, at), self._member(inner, name, depth + 1)
                if offset is not None and within is not None:
                    found = offset + within[0], within[1]
                    break
        self._found[key] = found
        return found

    def _whole_bytes(self, start: int, at: int) -> int | None:
        """The byte offset of the member at ``at`` in the struct at ``start``; None for a bit field."""
        words, bits = self._words, self._words[at + 2]
        if words[start + 1] >> 31:  # kind_flag: the upper 8 bits are a bit field's length
            if bits >> 24:
                return None
        else:  # a bit field is an integer type with fewer bits than its size has
            type_id, kind = self._resolve(at + 1)
            if kind == _INT:
                size, encoding = words[self._starts[type_id] + 2], words[self._starts[type_id] + 3]
                if encoding & 0xFF != 8 * size or encoding >> 16 & 0xFF:
                    return None
        if bits % 8:
            return None
        if bits > 8 * words[start + 2]:
            raise BtfError(
                f"a member's offset of {bits // 8} bytes at byte {self._byte(at + 2)} is more than its struct's "
                f"size of {words[start + 2]}"
            )
        return bits // 8


def _sections(data: bytes) -> tuple[int, memoryview, bytes]:
    """Where the types begin in ``data``, the types as words of 4 bytes, the strings."""
    if len(data) < _HEADER.size:
        raise BtfError(f"the data ends at byte {len(data)}, within the header of {_HEADER.size} bytes")
    magic, version, flags, length, types_at, types_length, strings_at, strings_length = _HEADER.unpack_from(data)
    if magic == _OTHER_ORDER:
        raise BtfError("the magic number at byte 0 is in the byte order of another machine")
    if magic != _MAGIC:
        raise BtfError(f"{magic:#06x} at byte 0 is not the magic number {_MAGIC:#06x}")
    if version != _VERSION or flags:
        raise BtfError(f"unknown version {version} or flags {flags:#04x} at byte 2")
    if length < _HEADER.size:
        raise BtfError(f"a header of {length} bytes, says byte 4: it has {_HEADER.size} at least")
    types_at, strings_at = length + types_at, length + strings_at
    for what, at, size, said in (("types", types_at, types_length, 8), ("strings", strings_at, strings_length, 16)):
        if at + size > len(data):
            raise BtfError(f"the {what} (see byte {said}) end at byte {at + size}, the data at byte {len(data)}")
    if types_length % 4:
        raise BtfError(f"the types' length of {types_length} bytes at byte 12 is no multiple of 4")
    strings = data[strings_at : strings_at + strings_length]
    if strings[:1] != b"\0" or strings[-1:] != b"\0":
        raise BtfError(f"the strings from byte {strings_at} to {strings_at + strings_length} do not begin and end with NUL")
    return types_at, memoryview(data)[types_at : types_at + types_length].cast("I"), strings
