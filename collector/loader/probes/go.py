"""Go's crypto/tls, compiled into each program that uses it (bpf/go.h; why these places: docs/decisions/0017-tls-probes.md).

All that the programs rely on is looked up in the instructions of the file: calls, whose arguments are where the calling
convention has them (ABIInternal: rax, rbx, rcx, rdi, rsi, r8), and functions that keep their arguments in the slots
which that convention gives them in their caller's frame. Functions are found by name without symbols
(loader/gopclntab.py).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from collector.loader import decode, gopclntab
from collector.loader import elf as elf_files
from collector.loader.elf import Function
from collector.loader.probes.probe import Build, Found, Probe, Program, ProgramType, Site, Source, Unsupported, Uprobe

if TYPE_CHECKING:
    import capstone
    from elftools.elf.elffile import ELFFile

_TLS = "crypto/tls.(*Conn)."
READ, WRITE, CLOSE, WRITE_RECORD = _TLS + "Read", _TLS + "Write", _TLS + "Close", _TLS + "writeRecordLocked"
HANDSHAKES = (_TLS + "clientHandshake", _TLS + "serverHandshake")  # a program that only calls, or only serves, has one
STATE = _TLS + "connectionStateLocked"
ENCRYPT, COPY = "crypto/tls.(*halfConn).encrypt", "runtime.memmove"
FD_READ, FD_WRITE = "internal/poll.(*FD).Read", "internal/poll.(*FD).Write"
NEEDED = (READ, WRITE, CLOSE, WRITE_RECORD, ENCRYPT, COPY, FD_READ, FD_WRITE)

READ_RETURNS, WHOLE_WRITES = 1, 2  # of the fallbacks
SPAN_BITS = 40  # of a function's place relative to another one; its size stands above
_ARGUMENTS = ("rax", "rbx", "rcx", "rdi", "r14")  # of the functions whose entries are probed, and the goroutine
_JUMPS = "j"  # what the names of all jumps begin with
_CONN_BYTES = range(1 << 12)  # offsets that are believed to be in a Conn


class Go(Source):
    """See the module."""

    name = "go"
    executables = True

    def programs(self, build: Build) -> Sequence[Program]:
        """As Source."""
        return [Program(probe.program, ProgramType.UPROBE) for probe in self.probes(build)]

    def probes(self, build: Build) -> Sequence[Probe]:
        """As Source."""
        if os.uname().machine != "x86_64":
            return []
        own = "addresses of TLS connections of Go programs over a net.Conn of their own"
        return [
            Probe("go_handshake", Uprobe(), "beginnings of TLS connections of Go programs: each is joined in the middle"),
            Probe("go_close", Uprobe(), "ends of TLS connections of Go programs, until their sockets end"),
            Probe("go_read", Uprobe(), "what Go programs receive by TLS"),
            Probe("go_record", Uprobe(), "what Go programs send by TLS"),
            Probe("go_fd_read", Uprobe(on_demand=True), own),
            Probe("go_fd_write", Uprobe(on_demand=True), own),
        ]

    def locate(self, elf: ELFFile) -> Found | Unsupported:
        """As Source."""
        if not gopclntab.is_go(elf):
            return Unsupported("not made by Go")
        if elf["e_machine"] != "EM_X86_64" or not elf.little_endian:
            return Unsupported("only for x86-64")
        found = gopclntab.functions(elf, (*NEEDED, *HANDSHAKES, STATE))
        if READ not in found and WRITE not in found:
            return Unsupported("Go without crypto/tls")
        missing = [name for name in NEEDED if name not in found]
        if missing or not any(name in found for name in HANDSHAKES):
            return Unsupported("crypto/tls without " + ", ".join(missing or ["its handshakes"]))
        fallbacks, places = _places(elf, found)
        if not all(places.values()):
            return Unsupported("crypto/tls.(*Conn) reads or writes in an unknown way")
        version = gopclntab.version(elf)
        return Found(
            tuple(Site(program, offset) for program, offsets in places.items() for offset in offsets),
            f"go-{version}" if version else "go",
            _values(elf, found, places, fallbacks),
        )


def _places(elf: ELFFile, found: Mapping[str, Function]) -> tuple[int, dict[str, list[int]]]:
    """Bits of FALLBACKS, and file offsets by program: none where a program needs one."""
    read, record = _instructions(elf, found[READ]), _instructions(elf, found[WRITE_RECORD])
    copies, ciphers = _calls(read, found[COPY]), _calls(record, found[ENCRYPT])
    fallbacks = 0
    if len(copies) != 1:  # of several nobody knows which is which; the returns cost an order of magnitude more
        fallbacks |= READ_RETURNS
        copies = [one.address for one in read if one.mnemonic == "ret"]
    if len(ciphers) != 1 or not _keeps(record, ("rax",)):
        fallbacks |= WHOLE_WRITES
        ciphers = _calls(_instructions(elf, found[WRITE]), found[WRITE_RECORD])
    out = {
        "go_read": copies if _keeps(read, ("rax", "rbx")) else [],
        "go_record": ciphers,
        "go_handshake": [_entry(elf, found[name]) for name in HANDSHAKES if name in found],
        "go_close": [_entry(elf, found[CLOSE])],
        "go_fd_read": [_entry(elf, found[FD_READ])],
        "go_fd_write": [_entry(elf, found[FD_WRITE])],
    }
    shift = found[READ].offset - found[READ].address  # all are in one segment
    return fallbacks, {program: [address + shift for address in addresses] for program, addresses in out.items()}


def _values(
    elf: ELFFile, found: Mapping[str, Function], places: Mapping[str, Sequence[int]], fallbacks: int
) -> tuple[int, ...]:
    """Enum library_value of bpf/tls.h, enum go_value of bpf/go.h."""
    first = places["go_fd_read"][0]
    spans = [
        (found[name].offset - first) % (1 << SPAN_BITS) | found[name].size << SPAN_BITS
        for name in (READ, HANDSHAKES[1])
        if name in found and _keeps(_instructions(elf, found[name]), ("rax",))
    ]
    version, alpn, server_name = _state(_instructions(elf, found[STATE])) if STATE in found else (-1, -1, -1)
    if version < 0:
        version = 64 if gopclntab.minor(gopclntab.version(elf)) < 21 else 72
    return (
        version + 1,
        alpn + 1,
        alpn + 9 if alpn >= 0 else 0,  # a string is an address and a length
        fallbacks,
        server_name + 1,
        (places["go_fd_write"][0] - first) % (1 << 64),
        *spans,
    )


def _state(code: Sequence[capstone.CsInsn]) -> tuple[int, int, int]:
    """Where in a Conn the version, the agreed protocol and the server's name are; -1: not known. The accessor copies the
    version, which is the first word that it loads, and then two strings, each an address and a length.
    """
    version = -1
    strings: list[int] = []
    before = -1
    for one in code:
        offset, size = _load(one)
        if size == 2 and version < 0:
            version = offset
        if size == 8 and version >= 0:
            if offset == before + 8:
                strings.append(before)
                before = -1
            else:
                before = offset
        else:
            before = -1
        if len(strings) == 2:
            return version, strings[0], strings[1]
    return version, -1, -1


def _load(one: capstone.CsInsn) -> tuple[int, int]:
    """(offset, bytes) of what is loaded from an object that rax points to; (-1, 0) if it does no such thing."""
    from capstone import x86

    if one.mnemonic not in ("mov", "movzx") or len(one.operands) != 2:
        return -1, 0
    to, source = one.operands
    if to.type != x86.X86_OP_REG or source.type != x86.X86_OP_MEM or source.mem.index:
        return -1, 0
    if source.mem.base != x86.X86_REG_RAX or source.mem.disp not in _CONN_BYTES:
        return -1, 0
    return source.mem.disp, source.size


# ---- instructions


def _instructions(elf: ELFFile, function: Function) -> list[capstone.CsInsn]:
    """All of a function, or none: when it is too long, or something in it is no instruction."""
    code = elf_files.code(elf, function)
    out = list(decode.instructions(code, function.address))
    whole = out and out[-1].address + out[-1].size == function.address + function.size
    return out if whole else []


def _entry(elf: ELFFile, function: Function) -> int:
    """Where its entry is probed. In all versions a cheap place is the jump that checks the stack; it is passed again when
    the stack has grown, which makes no difference here.
    """
    return decode.cheapest_entry(elf_files.code(elf, function), function.address, _ARGUMENTS)[0]


def _calls(code: Sequence[capstone.CsInsn], function: Function) -> list[int]:
    """Where this function is called directly."""
    return [one.address for one in code if one.mnemonic == "call" and decode.target(one) == function.address]


def _straight(code: Sequence[capstone.CsInsn]) -> Iterator[capstone.CsInsn]:
    """The instructions that are executed in this order whenever the function is entered and its stack is large enough: up to
    the second jump, the first being the check of the stack.
    """
    jumps = 0
    for one in code:
        if one.mnemonic.startswith(_JUMPS):
            jumps += 1
        if jumps > 1 or one.mnemonic in ("jmp", "call", "ret", "int3", "ud2"):
            return
        yield one


def _keeps(code: Sequence[capstone.CsInsn], arguments: Sequence[str]) -> bool:
    """Do the slots of the first arguments, from rbp + 16 on, hold these registers from the prologue on, and does nothing
    else ever go there? False when that cannot be seen.
    """
    from capstone import x86

    depth = 0  # rsp at the entry minus rsp
    base = 0  # the same of rbp
    intact = set(arguments)  # that hold what they held at the entry
    stored: dict[int, str] = {}  # slot, relative to rsp at the entry -> which of them is there
    prologue = list(_straight(code))
    for one in prologue:
        slot = _stores(one)
        if slot is not None and slot[0] == "rsp":
            register = one.op_str.rpartition(", ")[2]
            if one.mnemonic == "mov" and register in intact:
                stored.setdefault(slot[1] - depth, register)
        elif one.mnemonic == "push":
            depth += 8
        elif one.mnemonic in ("sub", "add") and _is_register(one, 0, "rsp") and one.operands[1].type == x86.X86_OP_IMM:
            depth += one.operands[1].imm if one.mnemonic == "sub" else -one.operands[1].imm
        elif one.mnemonic == "mov" and _is_register(one, 0, "rbp") and _is_register(one, 1, "rsp"):
            base = depth
        elif one.mnemonic == "lea" and _is_register(one, 0, "rbp") and one.operands[1].mem.base == x86.X86_REG_RSP:
            base = depth - one.operands[1].mem.disp
        elif decode.written(one) & {"rsp", "rbp"}:
            return False
        intact -= decode.written(one)
    slots = {8 * number: register for number, register in enumerate(arguments, 1)}
    if base != 8 or any(stored.get(slot) != register for slot, register in slots.items()):
        return False
    for one in code[len(prologue) :]:
        stores = _stores(one)
        if stores is not None and stores[1] - (depth if stores[0] == "rsp" else base) in slots:
            return False
    return True


def _is_register(one: capstone.CsInsn, operand: int, name: str) -> bool:
    from capstone import x86

    found = one.operands[operand]
    return bool(found.type == x86.X86_OP_REG and one.reg_name(found.reg) == name)


def _stores(one: capstone.CsInsn) -> tuple[str, int] | None:
    """(base register, displacement) of what it writes to on the stack."""
    import capstone
    from capstone import x86

    for operand in one.operands:
        if operand.type == x86.X86_OP_MEM and operand.access & capstone.CS_AC_WRITE:
            base = one.reg_name(operand.mem.base) if operand.mem.base else ""
            if base in ("rsp", "rbp"):
                return base, operand.mem.disp
    return None
