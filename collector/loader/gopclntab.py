"""Functions of a Go program by name, from the table that its runtime unwinds stacks with (.gopclntab). It is there whatever
was stripped. For `Source.locate` alone: a damaged file, or one made to harm, may make it raise anything; every loop is
bounded by the size of the file, and memory by WINDOW_BYTES.

The layouts are those of src/runtime/symtab.go (pcHeader, moduledata, functab, _func) of Go 1.17 to 1.26:

    1.17, magic 0xfffffffa      addresses in the table itself, as the linker gave them
    1.18 to 1.19, 0xfffffff0    offsets from the start of the text, which is in the header (of PIE files only at run time)
    1.20 and later, 0xfffffff1  the same; from 1.26 on the header has it no more

So the start of the text is taken from the runtime's moduledata, which is found by its first word, the address of the table.
In a PIE file its words are the addends of relocations.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from collector.loader.elf import Function, file_offset

if TYPE_CHECKING:
    from elftools.elf.elffile import ELFFile

WINDOW_BYTES = 1 << 20  # read at once
FUNCTIONS = 1 << 22  # of one program at most
CANDIDATES = 64  # words that may be the first one of moduledata
_SECTIONS = (".gopclntab", ".data.rel.ro.gopclntab")
_MAGIC_117, _MAGIC_118, _MAGIC_120 = 0xFFFFFFFA, 0xFFFFFFF0, 0xFFFFFFF1
# magic, two zeros, the smallest instruction (x86), the size of a pointer
_HEADER = re.compile(rb"[\xf0\xf1\xfa]\xff\xff\xff\0\0\x01\x08")
# words of moduledata: minpc, maxpc, text (runtime/symtab.go; the same since 1.18)
_MINPC, _MAXPC, _TEXT = 20, 21, 22
_RELATIVE = 8  # R_X86_64_RELATIVE
_BUILD_INFO = b"\xff Go buildinf:"
_INLINE = 2  # flag: the strings follow, from 1.18 on
_VERSION = re.compile(rb"go1\.\d+(?:\.\d+|rc\d+|beta\d+)?")


def is_go(elf: ELFFile) -> bool:
    """Could it be a Go program? Looks at the names of the sections alone, and is True for a file without sections."""
    if not elf.num_sections():
        return True
    return any(section.name in (*_SECTIONS, ".go.buildinfo") for section in elf.iter_sections())


def functions(elf: ELFFile, names: Collection[str]) -> dict[str, Function]:
    """The functions of these names. Raises ValueError when there is no table, or when it contradicts itself."""
    at, address = _find_table(elf)
    table = _Table(elf, at)
    wanted = _name_offsets(elf, table, names)
    if not wanted:
        return {}
    found, last = _walk(elf, table, wanted)
    text = 0 if table.absolute else _text_start(elf, address, table.first, last)
    out = {}
    for name, (start, size) in found.items():
        offset = file_offset(elf, text + start)
        if offset is None:
            raise ValueError("functions that are not in the file")
        out[name] = Function(text + start, size, offset)
    return out


def version(elf: ELFFile) -> str:
    """The version of Go that made it, as `1.26.8`; empty when it is not known."""
    section = elf.get_section_by_name(".go.buildinfo")
    if section is None:
        return ""
    head = _read(elf, section["sh_offset"], 96)
    if not head.startswith(_BUILD_INFO):
        return ""
    if head[15] & _INLINE:
        text = head[33:]  # behind the length of the string, a byte
    else:  # the address of a string, which is an address and a length
        string = file_offset(elf, int.from_bytes(head[16:24], "little"))
        place = None if string is None else file_offset(elf, int.from_bytes(_read(elf, string, 8), "little"))
        text = b"" if place is None else _read(elf, place, 32)
    found = _VERSION.match(text)
    return found[0].decode().removeprefix("go") if found else ""


def minor(version: str) -> int:
    """The second number of a version; that of the newest one there could be when it is not known."""
    found = re.match(r"1\.(\d+)", version)
    return int(found[1]) if found else 1 << 16


class _Table:
    """The header at an offset of the file, checked: everything that it points to lies in the file, in this order."""

    def __init__(self, elf: ELFFile, at: int) -> None:
        magic, zero, self.quantum, pointer = struct.unpack("<IHBB", _read(elf, at, 8))
        if magic not in (_MAGIC_117, _MAGIC_118, _MAGIC_120) or zero or pointer != 8:
            raise ValueError("a .gopclntab of an unknown layout")
        self.absolute = magic == _MAGIC_117
        words = struct.unpack("<8Q", _read(elf, at + 8, 64))
        self.count = words[0]
        # 1.17 has no start of the text there
        names, units, *_files, functab = words[2:7] if self.absolute else words[3:8]
        size = elf.stream_len - at
        if not 0 < self.count <= FUNCTIONS or not 0 < names < units < functab < size:
            raise ValueError("a .gopclntab that contradicts itself")
        self.names, self.names_end, self.functab = at + names, at + units, at + functab
        # a function's entry here and its offset; the offset of the name in struct _func
        self.entry = struct.Struct("<QQ" if self.absolute else "<II")
        self.name_at = 8 if self.absolute else 4
        if self.functab + self.count * self.entry.size > at + size:
            raise ValueError("a .gopclntab beyond the end of the file")
        self.first = self.entry.unpack(_read(elf, self.functab, self.entry.size))[0]


def _read(elf: ELFFile, offset: int, size: int) -> bytes:
    elf.stream.seek(offset)
    data: bytes = elf.stream.read(size)
    if len(data) != size:
        raise ValueError("the file is too short")
    return data


def _pieces(elf: ELFFile, offset: int, size: int, overlap: int = 0) -> Iterator[tuple[int, bytes]]:
    """(offset, bytes) of a part of the file, each piece with the last ``overlap`` bytes of the one before."""
    end = min(offset + size, elf.stream_len)
    while offset < end:
        length = min(WINDOW_BYTES, end - offset)
        yield offset, _read(elf, offset, length)
        if offset + length >= end:
            return
        offset += length - overlap


def _find_table(elf: ELFFile) -> tuple[int, int]:
    """Offset and address of .gopclntab."""
    for name in _SECTIONS:
        section = elf.get_section_by_name(name)
        if section is not None:
            return section["sh_offset"], section["sh_addr"]
    for segment in elf.iter_segments("PT_LOAD"):
        for offset, data in _pieces(elf, segment["p_offset"], segment["p_filesz"], 8):
            for found in _HEADER.finditer(data):
                at = offset + found.start()
                try:
                    _Table(elf, at)
                except ValueError:
                    continue
                return at, segment["p_vaddr"] + at - segment["p_offset"]
    raise ValueError("no .gopclntab")


def _name_offsets(elf: ELFFile, table: _Table, names: Collection[str]) -> dict[int, str]:
    """The offset of each name in the table of names -> the name."""
    if not names:
        return {}
    pattern = re.compile(rb"(?<![^\0])(" + b"|".join(re.escape(name.encode()) for name in names) + rb")\0")
    longest = max(len(name.encode()) for name in names)
    out: dict[str, int] = {}
    for offset, data in _pieces(elf, table.names, table.names_end - table.names, longest + 2):
        for found in pattern.finditer(data):
            if found.start() or offset == table.names:  # else what stands before it was in the last piece, with it
                out.setdefault(found[1].decode(), offset + found.start() - table.names)
    return {offset: name for name, offset in out.items()}


def _walk(elf: ELFFile, table: _Table, wanted: dict[int, str]) -> tuple[dict[str, tuple[int, int]], int]:
    """(start, size) of the wanted functions by name, and where the last of all functions ends."""
    found: dict[str, tuple[int, int]] = {}
    before = -1  # the offset of the function before: they lie in the order of the table, so that all is read once
    window, window_at = b"", 0
    name, start = "", 0
    entry_bytes = table.entry.size
    per_piece = WINDOW_BYTES // entry_bytes * entry_bytes
    at, end = table.functab, table.functab + table.count * entry_bytes
    while at < end:
        piece = _read(elf, at, min(per_piece, end - at))
        at += len(piece)
        for entry, offset in table.entry.iter_unpack(piece):
            if name:
                found.setdefault(name, (start, entry - start))
                name = ""
            if offset <= before:
                raise ValueError("functions that are not in order")
            before = offset
            place = table.functab + offset + table.name_at - window_at
            if place + 4 > len(window):
                window_at += place
                place = 0
                elf.stream.seek(window_at)
                window = elf.stream.read(WINDOW_BYTES)
                if len(window) < 4:
                    raise ValueError("a function beyond the end of the file")
            got = wanted.get(int.from_bytes(window[place : place + 4], "little"))
            if got is not None:
                name, start = got, entry
    # behind the last function stands where it ends
    last: int = struct.unpack("<Q" if table.absolute else "<I", _read(elf, end, 8 if table.absolute else 4))[0]
    if name:
        found.setdefault(name, (start, last - start))
    if any(size <= 0 or (table.absolute and not start) for start, size in found.values()):
        raise ValueError("functions without a place")  # of a PIE file of 1.17: only the relocations know
    return found, last


def _text_start(elf: ELFFile, table_address: int, first: int, last: int) -> int:
    for words in _module_data(elf, table_address):
        text = words.get(_TEXT, 0)
        if text and words.get(_MINPC) == text + first and words.get(_MAXPC) == text + last:
            return text
    raise ValueError("where the text begins is not known")


def _module_data(elf: ELFFile, table_address: int) -> Iterator[dict[int, int]]:
    """The words of what may be moduledata, by number."""
    word = struct.pack("<Q", table_address)
    left = CANDIDATES
    for segment in elf.iter_segments("PT_LOAD"):
        for offset, data in _pieces(elf, segment["p_offset"], segment["p_filesz"], 8):
            at = data.find(word)
            while at >= 0 and left:
                if (offset + at) % 8 == 0:
                    left -= 1
                    words = _read(elf, offset + at, 8 * (_TEXT + 1))
                    yield dict(enumerate(struct.unpack(f"<{_TEXT + 1}Q", words)))
                at = data.find(word, at + 1)
    bases = [place for place, addend in _relocations(elf) if addend == table_address][:CANDIDATES]
    places = {base + 8 * number: (base, number) for base in bases for number in (_MINPC, _MAXPC, _TEXT)}
    found: dict[int, dict[int, int]] = {base: {} for base in bases}
    for place, addend in _relocations(elf) if bases else ():
        if place in places:
            base, number = places[place]
            found[base][number] = addend
    yield from found.values()


def _relocations(elf: ELFFile) -> Iterator[tuple[int, int]]:
    """(address, addend) of each R_X86_64_RELATIVE."""
    from elftools.elf.dynamic import DynamicSegment

    tags: dict[str, int] = {}
    for segment in elf.iter_segments("PT_DYNAMIC"):
        if isinstance(segment, DynamicSegment):
            tags.update((str(tag.entry.d_tag), tag.entry.d_val) for tag in segment.iter_tags())
    offset = file_offset(elf, tags.get("DT_RELA", -1))
    if offset is None:
        return
    entry = struct.Struct("<QQq")
    per_piece = WINDOW_BYTES // entry.size * entry.size
    end = min(offset + tags.get("DT_RELASZ", 0), elf.stream_len)
    while end - offset >= entry.size:
        piece = _read(elf, offset, min(per_piece, (end - offset) // entry.size * entry.size))
        offset += len(piece)
        for place, info, addend in entry.iter_unpack(piece):
            if info & 0xFFFFFFFF == _RELATIVE:
                yield place, addend
