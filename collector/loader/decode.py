"""Machine code of x86-64 as probe sources read it: where a probe is cheap, and what a function calls. For `Source.locate`.

The kernel runs the instruction under a probe elsewhere, under single step, unless it can emulate it: one trap instead of
two, which is some twenty times cheaper in virtual machines (docs/decisions/0017-tls-probes.md). What it emulates is in
branch_setup_xol_ops and push_setup_xol_ops of arch/x86/kernel/uprobes.c.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import capstone


# In the order of the arguments, System V AMD64 ABI section 3.2.3.
ARGUMENTS = ("rdi", "rsi", "rdx", "rcx", "r8", "r9")
_LEGACY = {"rdi": "di", "rsi": "si", "rdx": "dx", "rcx": "cx"}
_ENDS = frozenset({"ret", "hlt", "ud2", "int3"})


@functools.cache
def decoder() -> capstone.Cs:
    """One for x86-64, with details. Whoever decodes asks for it once before it confines itself: capstone takes 8 MiB, which
    the loader, who only names the sources, need not hold, and to make one looks for a module that may be missing, in files.
    """
    import capstone

    found = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    found.detail = True
    return found


def instructions(code: bytes, address: int) -> Iterator[capstone.CsInsn]:
    """Those of a piece of code, up to the first bytes that are none."""
    yield from decoder().disasm(code, address)


def emulated(instruction: capstone.CsInsn) -> bool:
    """Does the kernel emulate it?"""
    code = bytes(instruction.bytes)
    if code[:1] == b"\x41":  # REX.B, of push r8 to r15
        code = code[1:]
        return 0x50 <= code[0] <= 0x57
    return (
        0x50 <= code[0] <= 0x57  # push
        or code[0] in (0x90, 0xE8, 0xE9, 0xEB)  # nop, call, jmp
        or 0x70 <= code[0] <= 0x7F  # jcc
        or (code[0] == 0x0F and 0x80 <= code[1] <= 0x8F)
        or code == b"\x0f\x1f\x44\x00\x00"  # the five-byte nop
    )


def family(register: str) -> str:
    """The 64-bit register that a register is part of."""
    if register.startswith("r") and register[1:2].isdigit():
        return register.rstrip("bwd")
    base = register.removeprefix("r").removeprefix("e")
    if base.endswith("l") and len(base) in (2, 3):
        base = base[:-1]
        base = base if base.endswith(("i", "p")) else base + "x"
    return "r" + base


def written(instruction: capstone.CsInsn) -> set[str]:
    """The registers that it changes, as their 64-bit names."""
    _read, changed = instruction.regs_access()
    return {family(instruction.reg_name(register)) for register in changed}


def target(instruction: capstone.CsInsn) -> int | None:
    """Where a direct call or jump goes; None for any other instruction."""
    import capstone
    from capstone import x86

    if not (instruction.group(capstone.CS_GRP_CALL) or instruction.group(capstone.CS_GRP_JUMP)):
        return None
    operand = instruction.operands[0]
    return int(operand.imm) if operand.type == x86.X86_OP_IMM else None


def cheapest_entry(code: bytes, address: int, arguments: Collection[str]) -> tuple[int, bool]:
    """(address, emulated): where the entry of a function is probed at least cost while ``arguments`` are still in their
    registers: the first emulated instruction of the straight line that it begins with, or its first one.
    """
    kept = set(arguments)
    for instruction in instructions(code, address):
        if emulated(instruction):
            return instruction.address, True
        if instruction.mnemonic in _ENDS or written(instruction) & kept:
            break
    return address, False


def targets(code: bytes, address: int) -> set[int]:
    """What a function calls or jumps to outside of itself, directly."""
    out: set[int] = set()
    for instruction in instructions(code, address):
        to = target(instruction)
        if to is not None and not address <= to < address + len(code):
            out.add(to)
    return out


def passed_on_to(code: bytes, address: int, arguments: Collection[str]) -> int | None:
    """The function that this one calls, or jumps to, with all its ``arguments`` as they came; None if that is not what it
    does first.
    """
    kept = set(arguments)
    for instruction in instructions(code, address):
        to = target(instruction)
        if to is not None:
            return to if instruction.mnemonic in ("call", "jmp") else None
        if instruction.mnemonic in _ENDS or written(instruction) & kept:
            return None
    return None
