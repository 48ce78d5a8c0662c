"""What probe sources ask of ELF files, on top of pyelftools. For `Source.locate` alone: a damaged file, or one made to harm,
may make it raise anything.
"""

from __future__ import annotations

from collections.abc import Collection

from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

_TABLES = (".dynsym", ".symtab")  # what a file exports; what a file that was not stripped has too


def file_offset(elf: ELFFile, address: int) -> int | None:
    """Where in the file the byte at a virtual address of a loaded segment is; None when it is in none."""
    for segment in elf.iter_segments("PT_LOAD"):
        at = address - segment["p_vaddr"]
        if 0 <= at < segment["p_filesz"]:
            return int(segment["p_offset"] + at)
    return None


def functions(elf: ELFFile, names: Collection[str]) -> dict[str, int]:
    """File offsets of the functions of these names that the file defines."""
    out: dict[str, int] = {}
    for table in _TABLES:
        section = elf.get_section_by_name(table)
        if not isinstance(section, SymbolTableSection):
            continue
        for symbol in section.iter_symbols():
            if symbol.name not in names or symbol.name in out:
                continue
            if symbol["st_info"]["type"] != "STT_FUNC" or symbol["st_shndx"] == "SHN_UNDEF":
                continue
            offset = file_offset(elf, symbol["st_value"])
            if offset is not None:
                out[symbol.name] = offset
    return out
