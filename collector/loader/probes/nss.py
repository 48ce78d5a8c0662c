"""NSS: its TLS sockets are NSPR descriptors that SSL_ImportFD has made, read and written by NSPR's functions, which know
other sockets and files too: the kernel side follows those only that it saw SSL_ImportFD return.

NSPR's functions are two instructions, a load and an indirect jump, so there is no cheap place in them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from collector.loader import elf as elf_files
from collector.loader.probes.probe import Build, Found, Probe, Program, ProgramType, Site, Source, Unsupported, Uprobe

if TYPE_CHECKING:
    from elftools.elf.elffile import ELFFile

_LIBRARY = re.compile(r"/(libssl3|libnspr4)\.so$")
# program -> the functions it is attached to, and whether at their return; in the order of attaching
PLACES: Mapping[str, tuple[tuple[str, ...], bool]] = {
    "nss_import": (("SSL_ImportFD",), True),
    "library_free": (("PR_Close",), False),
    "library_return": (("PR_Read", "PR_Recv", "PR_Write", "PR_Send"), True),
    "nss_read": (("PR_Read", "PR_Recv"), False),
    "nss_write": (("PR_Write", "PR_Send"), False),
}


class NSS(Source):
    """See the module."""

    name = "nss"

    def programs(self, build: Build) -> Sequence[Program]:
        """As Source."""
        return [Program(name, ProgramType.UPROBE) for name in PLACES]

    def probes(self, build: Build) -> Sequence[Probe]:
        """As Source."""
        return [Probe(name, Uprobe(returns), "plaintext of NSS") for name, (_functions, returns) in PLACES.items()]

    def wants(self, path: str) -> bool:
        """As Source."""
        return _LIBRARY.search(path) is not None

    def locate(self, elf: ELFFile) -> Found | Unsupported:
        """As Source."""
        if elf["e_machine"] != "EM_X86_64":
            return Unsupported("only for x86-64")
        found = elf_files.functions(elf, {name for names, _returns in PLACES.values() for name in names})
        if "SSL_ImportFD" not in found and "PR_Read" not in found:
            return Unsupported("no NSS")
        sites = [Site(program, found[name]) for program, (names, _) in PLACES.items() for name in names if name in found]
        return Found(tuple(sites), "nss" if "SSL_ImportFD" in found else "nspr")
