"""GnuTLS 3: gnutls_record_recv and gnutls_record_send with all that is built on them.

gnutls_record_send is a jump to gnutls_record_send2 since 3.6.3, so probes in both would give each write twice.
gnutls_record_recv ends in one function that gnutls_record_recv_seq calls too, (session, type, buf, n, ...), and which
reads other records as well: the kernel side looks at the type.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from collector.loader import decode
from collector.loader import elf as elf_files
from collector.loader.elf import Function
from collector.loader.probes.probe import Build, Found, Probe, Program, ProgramType, Site, Source, Unsupported, Uprobe

if TYPE_CHECKING:
    from elftools.elf.elffile import ELFFile

_LIBRARY = re.compile(r"/libgnutls(?!xx|-dane|-openssl)[^/]*\.so[^/]*$")  # those are built on it
_VERSION = re.compile(rb"\x00(3\.[0-9]+\.[0-9]+)\x00")
_VERSION_BYTES = 16
_NAMES = frozenset(
    {
        "gnutls_deinit",
        "gnutls_handshake",
        "gnutls_record_recv",
        "gnutls_record_recv_seq",
        "gnutls_record_send",
        "gnutls_record_send2",
    }
)
# In the order of attaching; does the program run when the function returns?
PROGRAMS: Mapping[str, bool] = {
    "gnutls_handshake": False,
    "library_free": False,
    "library_return": True,
    "gnutls_recv": False,
    "gnutls_recv_inner": False,
    "gnutls_send": False,
}


class GnuTLS(Source):
    """See the module."""

    name = "gnutls"

    def programs(self, build: Build) -> Sequence[Program]:
        """As Source."""
        return [Program(name, ProgramType.UPROBE) for name in PROGRAMS]

    def probes(self, build: Build) -> Sequence[Probe]:
        """As Source."""
        return [Probe(name, Uprobe(returns), "plaintext of GnuTLS") for name, returns in PROGRAMS.items()]

    def wants(self, path: str) -> bool:
        """As Source."""
        return _LIBRARY.search(path) is not None

    def locate(self, elf: ELFFile) -> Found | Unsupported:
        """As Source."""
        if elf["e_machine"] != "EM_X86_64":
            return Unsupported("only for x86-64")
        found = elf_files.find(elf, _NAMES)
        send = found.get("gnutls_record_send2") or found.get("gnutls_record_send")
        if send is None or "gnutls_record_recv" not in found:
            return Unsupported("no GnuTLS")
        sites = [Site("gnutls_send", send.offset), Site("library_return", send.offset)]
        inner = _inner(elf, found)
        if inner is None:
            receive = found["gnutls_record_recv"].offset
            sites += [Site("gnutls_recv", receive), Site("library_return", receive)]
        else:
            sites += [Site("gnutls_recv_inner", inner), Site("library_return", inner)]
        for name, program in (("gnutls_handshake", "gnutls_handshake"), ("gnutls_deinit", "library_free")):
            if name in found:
                function = found[name]
                address, _emulated = decode.cheapest_entry(elf_files.code(elf, function), function.address, ("rdi",))
                sites.append(Site(program, function.offset + address - function.address))
        version = elf_files.search(elf, _VERSION, _VERSION_BYTES)
        return Found(tuple(sites), "gnutls-" + version[1].decode() if version else "gnutls")


def _inner(elf: ELFFile, found: Mapping[str, Function]) -> int | None:
    """The offset of the function that both ways of receiving end in, when it is certain and cheap to probe."""
    if "gnutls_record_recv_seq" not in found:
        return None
    code, address = elf_files.code(elf, found["gnutls_record_recv_seq"]), found["gnutls_record_recv_seq"].address
    jumps = [
        decode.target(instruction) for instruction in decode.instructions(code, address) if instruction.mnemonic == "jmp"
    ]
    receive = found["gnutls_record_recv"]
    both = {jump for jump in jumps if jump} & decode.targets(elf_files.code(elf, receive), receive.address)
    if len(both) != 1:
        return None
    (inner,) = both
    offset = elf_files.file_offset(elf, inner)
    if offset is None:
        return None
    first = next(decode.instructions(elf_files.code(elf, Function(inner, 16, offset)), inner), None)
    return offset if first is not None and decode.emulated(first) else None
