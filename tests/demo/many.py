"""A probe source with 300 places in one library (many.c); its program does nothing."""

from __future__ import annotations

from collections.abc import Sequence

from elftools.elf.elffile import ELFFile

from collector.loader import elf as elf_files
from collector.loader.probes.probe import Build, Found, Probe, Program, ProgramType, Site, Source, Unsupported, Uprobe

COUNT = 300


class Many(Source):
    """See the module."""

    name = "many"
    text = "int many_called(struct pt_regs *ctx)\n{\n    return 0;\n}\n"

    def programs(self, build: Build) -> Sequence[Program]:
        """As Source."""
        return [Program("many_called", ProgramType.UPROBE)]

    def probes(self, build: Build) -> Sequence[Probe]:
        """As Source."""
        return [Probe("many_called", Uprobe(), "nothing")]

    def wants(self, path: str) -> bool:
        """As Source."""
        return path.endswith("/libmany.so")

    def locate(self, elf: ELFFile) -> Found | Unsupported:
        """As Source."""
        found = elf_files.functions(elf, {f"many_{number:03}" for number in range(COUNT)})
        return Found(tuple(Site("many_called", offset) for offset in found.values()), "many")


SOURCE = Many()
