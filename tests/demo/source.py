"""A probe source as one of a TLS library will be, on a library of the tests (demo.c). It is the test of that border."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from elftools.elf.elffile import ELFFile

from collector.loader import elf as elf_files
from collector.loader.probes.probe import Build, Found, Probe, Program, ProgramType, Site, Source, Unsupported, Uprobe

HERE = Path(__file__).resolve().parent
NUMBER = 200  # SOURCE_DEMO
ON_DEMAND = "demo_told"  # for processes that have made a client's object
# program -> the functions that it is attached to, and whether to their return. What parks or opens something comes first
PLACES: dict[str, tuple[tuple[str, ...], bool]] = {
    "demo_made": (("demo_new",), True),
    "demo_freed": (("demo_free",), False),
    "demo_bound": (("demo_bind",), False),
    ON_DEMAND: (("demo_tell",), False),
    "demo_read_return": (("demo_read",), True),
    "demo_write_return": (("demo_write",), True),
    "demo_enter": (("demo_read", "demo_write"), False),
}
ALWAYS = tuple(name for name in PLACES if name != ON_DEMAND)


class Demo(Source):
    """See the module."""

    name = "demo"
    text = (HERE / "demo.bpf.c").read_text()

    def programs(self, build: Build) -> Sequence[Program]:
        """As Source."""
        return [Program(name, ProgramType.UPROBE) for name in PLACES]

    def probes(self, build: Build) -> Sequence[Probe]:
        """As Source."""
        return [
            Probe(name, Uprobe(returns, on_demand=name == ON_DEMAND), "the demo library")
            for name, (_functions, returns) in PLACES.items()
        ]

    def wants(self, path: str) -> bool:
        """As Source."""
        return path.endswith("/libdemo.so")

    def locate(self, elf: ELFFile) -> Found | Unsupported:
        """As Source."""
        found = elf_files.functions(elf, {name for names, _returns in PLACES.values() for name in names})
        if len(found) < 6:
            return Unsupported("not the demo library")
        sites = [Site(program, found[name]) for program, (names, _returns) in PLACES.items() for name in names]
        return Found(tuple(sites), "demo-1.0")


SOURCE = Demo()
