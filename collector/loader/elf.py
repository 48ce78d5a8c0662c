"""What probe sources ask of ELF files, on top of pyelftools. For `Source.locate` alone: a damaged file, or one made to harm,
may make it raise anything.
"""

from __future__ import annotations

import array
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from elftools.elf.elffile import ELFFile
    from elftools.elf.sections import SymbolTableSection


_TABLES = (".dynsym", ".symtab")  # what a file exports; what a file that was not stripped has too
_SYMBOL_BYTES = 24  # of Elf64_Sym: name (4), info, other, section (2), value (8), size (8)
_TABLE_BYTES = 256 << 20
_FUNCTION = 2  # STT_FUNC
CODE_BYTES = 1 << 16  # of one function: what is read of it at most
_PIECE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Function:
    """A function that a file defines: its virtual ``address`` and ``size`` in bytes, and its ``offset`` in the file."""

    address: int
    size: int
    offset: int


def file_offset(elf: ELFFile, address: int) -> int | None:
    """Where in the file the byte at a virtual address of a loaded segment is; None when it is in none."""
    for segment in elf.iter_segments("PT_LOAD"):
        at = address - segment["p_vaddr"]
        if 0 <= at < segment["p_filesz"]:
            return int(segment["p_offset"] + at)
    return None


def code(elf: ELFFile, function: Function) -> bytes:
    """Its instructions, at most CODE_BYTES of them."""
    elf.stream.seek(function.offset)
    return bytes(elf.stream.read(min(function.size, CODE_BYTES)))


def find(elf: ELFFile, names: Collection[str]) -> dict[str, Function]:
    """The functions of these names that the file defines. Only for 64-bit little-endian files: else there are none."""
    from elftools.elf.sections import SymbolTableSection

    out: dict[str, Function] = {}
    if elf.elfclass != 64 or not elf.little_endian:
        return out
    for table in _TABLES:
        section = elf.get_section_by_name(table)
        if isinstance(section, SymbolTableSection) and section["sh_size"] <= _TABLE_BYTES:
            for name, address, size in _defined(section, [name for name in names if name not in out]):
                offset = file_offset(elf, address)
                if offset is not None:
                    out.setdefault(name, Function(address, size, offset))
    return out


def _defined(section: SymbolTableSection, names: Collection[str]) -> Iterator[tuple[str, int, int]]:
    """(name, address, size) of the functions that a table of symbols defines. Some have a hundred thousand, so they are not
    looked at one by one: first where the names stand among the strings, then who refers to there.
    """
    strings = section.stringtable
    if not names or strings["sh_size"] > _TABLE_BYTES:
        return
    text, table = strings.data(), section.data()
    words = array.array("I", table[: len(table) // _SYMBOL_BYTES * _SYMBOL_BYTES])
    places = words[:: _SYMBOL_BYTES // 4]
    for name in names:
        wanted = name.encode() + b"\0"
        at = text.find(wanted)
        while at >= 0:
            index = -1
            while True:
                try:
                    index = places.index(at, index + 1)
                except ValueError:
                    break
                symbol = table[index * _SYMBOL_BYTES : (index + 1) * _SYMBOL_BYTES]
                if symbol[4] & 15 == _FUNCTION and symbol[6:8] != b"\0\0":
                    yield name, int.from_bytes(symbol[8:16], "little"), int.from_bytes(symbol[16:24], "little")
                    break
            at = text.find(wanted, at + 1)


def functions(elf: ELFFile, names: Collection[str]) -> dict[str, int]:
    """File offsets of the functions of these names that the file defines."""
    return {name: function.offset for name, function in find(elf, names).items()}


def search(elf: ELFFile, pattern: re.Pattern[bytes], most: int) -> re.Match[bytes] | None:
    """The first match of a pattern in the read-only data of the file; a match has ``most`` bytes at most."""
    section = elf.get_section_by_name(".rodata")
    if section is None:
        return None
    at, end = section["sh_offset"], section["sh_offset"] + min(section["sh_size"], _TABLE_BYTES)
    while at < end:
        elf.stream.seek(at)
        found = pattern.search(elf.stream.read(min(_PIECE_BYTES + most, end - at)))
        if found:
            return found
        at += _PIECE_BYTES
    return None
