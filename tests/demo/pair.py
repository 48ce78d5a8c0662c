"""A probe source of two libraries (demo.c, many.c), with probes on demand in both, and in programs. For tests that attach
nothing: it has no kernel side.
"""

from __future__ import annotations

from collections.abc import Sequence

from elftools.elf.elffile import ELFFile

from collector.loader import elf as elf_files
from collector.loader.probes.probe import Build, Found, Probe, Program, ProgramType, Site, Source, Unsupported, Uprobe

# program -> its function, and whether it is on demand
PLACES = {
    "pair_first": ("many_000", True),
    "pair_second": ("demo_feed", True),
    "pair_third": ("many_001", True),
    "pair_always": ("demo_read", False),
}


class Pair(Source):
    """See the module."""

    name = "pair"
    executables = True

    def programs(self, build: Build) -> Sequence[Program]:
        """As Source."""
        return [Program(name, ProgramType.UPROBE) for name in PLACES]

    def probes(self, build: Build) -> Sequence[Probe]:
        """As Source."""
        return [Probe(name, Uprobe(on_demand=asked), "nothing") for name, (_function, asked) in PLACES.items()]

    def wants(self, path: str) -> bool:
        """As Source."""
        return path.endswith(("/libdemo.so", "/libmany.so"))

    def locate(self, elf: ELFFile) -> Found | Unsupported:
        """As Source."""
        found = elf_files.functions(elf, {function for function, _asked in PLACES.values()})
        if not found:
            return Unsupported("neither of the two")
        sites = [Site(program, found[name]) for program, (name, _asked) in PLACES.items() if name in found]
        return Found(tuple(sites), "pair-1")


SOURCE = Pair()
