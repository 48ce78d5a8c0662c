"""OpenSSL 1.1 and 3, and BoringSSL: shared libraries of any name, and executables that they are linked into.

Where the probes are decides what they cost (docs/decisions/0017-tls-probes.md). In the shared libraries of OpenSSL the
exported functions are thin: SSL_read and SSL_read_ex both call one function, which begins with a push; it is found without
a symbol, as what SSL_read_ex passes its arguments on to and SSL_read calls too. Likewise for writing. Where the compiler
has merged them, the exported functions themselves are probed; each then is one of its own, and none calls another.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from collector.loader import decode
from collector.loader import elf as elf_files
from collector.loader.elf import Function
from collector.loader.probes.probe import Build, Found, Probe, Program, ProgramType, Site, Source, Unsupported, Uprobe

if TYPE_CHECKING:
    import capstone
    from elftools.elf.elffile import ELFFile

# libssl3.so is that of NSS; Java's libraries with BoringSSL inside are unpacked into files that are deleted at once
_LIBRARY = re.compile(r"/lib(ssl(?!3\.so$)|crypto|netty_tcnative|conscrypt)[^/]*\.so[^/]*$")
_VERSION = re.compile(rb"OpenSSL ([0-9]+\.[0-9]+\.[0-9]+[a-z]*)( \(compatible; BoringSSL\))?")
_BORING = re.compile(rb"[Bb]oringSSL|boringssl")
_VERSION_BYTES = 64
_EXACT = ("SSL_read", "SSL_read_ex", "SSL_write", "SSL_write_ex", "SSL_write_ex2", "SSL_sendfile")
_NAMES = frozenset(
    {*_EXACT, "SSL_new", "SSL_clear", "SSL_free", "SSL_do_handshake", "SSL_version", "SSL_get0_alpn_selected", "BIO_write"}
)
_OFFSETS = range(1 << 16)  # of what is believed to be in an SSL object


class _Place(NamedTuple):
    """Of a program: does it run when the function returns, and only where it is asked for?"""

    returns: bool
    on_demand: bool = False


# What makes and ends objects first: in the order of attaching. The return comes before the entries: one whose entry was
# not seen is nothing.
PROGRAMS: Mapping[str, _Place] = {
    "openssl_new": _Place(True),
    "openssl_clear": _Place(False),
    "library_free": _Place(False),
    "library_return": _Place(True),
    "openssl_read": _Place(False),
    "openssl_write": _Place(False),
    "openssl_read_ex": _Place(False),
    "openssl_write_ex": _Place(False),
    "openssl_write_ex2": _Place(False),
    "openssl_sendfile": _Place(False),
    "openssl_handshake_return": _Place(True, True),
    "openssl_handshake": _Place(False, True),
    "openssl_bio_write": _Place(False, True),
}


class OpenSSL(Source):
    """See the module."""

    name = "openssl"
    executables = True

    def programs(self, build: Build) -> Sequence[Program]:
        """As Source."""
        return [Program(name, ProgramType.UPROBE) for name in PROGRAMS]

    def probes(self, build: Build) -> Sequence[Probe]:
        """As Source."""
        return [
            Probe(name, Uprobe(place.returns, place.on_demand), "plaintext of OpenSSL") for name, place in PROGRAMS.items()
        ]

    def wants(self, path: str) -> bool:
        """As Source."""
        return _LIBRARY.search(path) is not None

    def locate(self, elf: ELFFile) -> Found | Unsupported:
        """As Source."""
        if elf["e_machine"] != "EM_X86_64":
            return Unsupported("only for x86-64")
        found = elf_files.find(elf, _NAMES)
        codes = {name: elf_files.code(elf, function) for name, function in found.items()}
        sites = []
        if "SSL_read" in found and "SSL_write" in found:
            sites += _data(elf, found, codes)
            if "SSL_new" in found:
                sites.append(Site("openssl_new", found["SSL_new"].offset))
            if "SSL_clear" in found:
                sites.append(_entry("openssl_clear", found["SSL_clear"], codes["SSL_clear"], 1))
            if "SSL_free" in found:
                sites.append(_entry("library_free", found["SSL_free"], codes["SSL_free"], 1))
            if "SSL_do_handshake" in found:
                sites.append(Site("openssl_handshake", found["SSL_do_handshake"].offset))
                sites.append(Site("openssl_handshake_return", found["SSL_do_handshake"].offset))
        if "BIO_write" in found:
            sites.append(_entry("openssl_bio_write", found["BIO_write"], codes["BIO_write"], 3))
        if not sites:
            return Unsupported("no OpenSSL")
        return Found(tuple(sites), _library(elf), _values(codes))


def _entry(program: str, function: Function, code: bytes, arguments: int) -> Site:
    address, _emulated = decode.cheapest_entry(code, function.address, decode.ARGUMENTS[:arguments])
    return Site(program, function.offset + address - function.address)


def _data(elf: ELFFile, found: Mapping[str, Function], codes: Mapping[str, bytes]) -> list[Site]:
    """Of reading and writing."""
    entries: list[tuple[str, int]] = []
    for plain in ("SSL_read", "SSL_write"):
        # SSL_write_ex of 3.3 and later is a jump to SSL_write_ex2(ssl, buf, n, flags, *done)
        ex, arguments = f"{plain}_ex", 4
        if f"{ex}2" in found:
            ex, arguments = f"{ex}2", 5
        inner = _shared(elf, found, codes, plain, ex, arguments)
        if inner is not None:
            entries.append((ex, inner))
        else:
            entries += [(name, found[name].offset) for name in (plain, ex) if name in found]
    if "SSL_sendfile" in found:
        entries.append(("SSL_sendfile", found["SSL_sendfile"].offset))
    sites = [Site(f"open{name.lower()}", offset) for name, offset in entries]
    return [*sites, *(Site("library_return", offset) for _name, offset in entries)]


def _shared(
    elf: ELFFile, found: Mapping[str, Function], codes: Mapping[str, bytes], plain: str, ex: str, arguments: int
) -> int | None:
    """The offset of the function that both call, when it is certain and cheap to probe."""
    if ex not in found:
        return None
    inner = decode.passed_on_to(codes[ex], found[ex].address, decode.ARGUMENTS[:arguments])
    if inner is None or inner not in decode.targets(codes[plain], found[plain].address):
        return None
    offset = elf_files.file_offset(elf, inner)
    if offset is None:
        return None
    first = next(decode.instructions(elf_files.code(elf, Function(inner, 16, offset)), inner), None)
    return offset if first is not None and decode.emulated(first) else None


def _library(elf: ELFFile) -> str:
    version = elf_files.search(elf, _VERSION, _VERSION_BYTES)
    if version:
        return "boringssl" if version[2] else "openssl-" + version[1].decode()
    if elf_files.search(elf, _BORING, _VERSION_BYTES):
        return "boringssl"
    names = [name for name in _needed_versions(elf) if name.startswith("OPENSSL_")]
    newest = max((tuple(int(n) for n in re.findall(r"\d+", name)) for name in names), default=())
    return "openssl-" + ".".join(map(str, newest[:2])) if newest else "openssl"


def _needed_versions(elf: ELFFile) -> list[str]:
    """The version nodes that a shared library defines: its own version is none of them, but not older than the newest."""
    section = elf.get_section_by_name(".gnu.version_d")
    if section is None or not hasattr(section, "iter_versions"):
        return []
    return [aux.name for _definition, auxiliaries in section.iter_versions() for aux in auxiliaries][:64]


def _values(codes: Mapping[str, bytes]) -> tuple[int, ...]:
    """Enum library_value of bpf/tls.h: where in an SSL object things are, as the accessors of this very build say."""
    alpn, length = _alpn(codes.get("SSL_get0_alpn_selected", b""))
    values = [_version(codes.get("SSL_version", b"")), alpn, length, _references(codes.get("SSL_free", b""))]
    return tuple(value + 1 if value in _OFFSETS else 0 for value in values)


def _load(instruction: capstone.CsInsn, bases: tuple[str, ...] = ("rdi",)) -> tuple[int, int]:
    """(displacement, bytes) of what is loaded from an object in one of these registers; (-1, 0) if it does no such thing."""
    from capstone import x86

    if instruction.mnemonic != "mov" or len(instruction.operands) != 2:
        return -1, 0
    to, source = instruction.operands
    if to.type != x86.X86_OP_REG or source.type != x86.X86_OP_MEM or source.mem.index or source.mem.segment:
        return -1, 0
    if instruction.reg_name(source.mem.base) not in bases:
        return -1, 0
    return source.mem.disp, to.size


def _version(code: bytes) -> int:
    """SSL_version returns a word of the object."""
    candidate = -1
    for instruction in decode.instructions(code, 0):
        if instruction.mnemonic == "ret" and candidate >= 0:
            return candidate
        offset, size = _load(instruction)
        if size == 4 and instruction.reg_name(instruction.operands[0].reg) == "eax":
            candidate = offset
        elif instruction.mnemonic != "xor":
            candidate = -1
    return -1


def _alpn(code: bytes) -> tuple[int, int]:
    """SSL_get0_alpn_selected returns a pointer and a length, which stand side by side in the object."""
    loads = [_load(instruction) for instruction in decode.instructions(code, 0)]
    for offset, size in loads:
        if size == 8 and offset > 64 and ((offset + 8, 4) in loads or (offset + 8, 8) in loads):
            return offset, offset + 8
    return -1, -1


def _references(code: bytes) -> int:
    """SSL_free counts a word of the object down, at once for all processors."""
    from capstone import x86

    for instruction in decode.instructions(code, 0):
        if instruction.mnemonic in ("lock xadd", "xadd", "lock dec", "lock sub") and instruction.operands:
            where = instruction.operands[0]
            if where.type == x86.X86_OP_MEM and instruction.reg_name(where.mem.base) == "rdi":
                return int(where.mem.disp)
    return -1
