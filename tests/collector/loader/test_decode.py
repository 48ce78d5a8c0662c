"""Reading machine code: what assemblers make is the truth."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.loader import decode


def assemble(text: str, folder: Path) -> bytes:
    (folder / "code.s").write_text(f".text\n{text}\n")
    subprocess.run(["as", "-o", "code.o", "code.s"], cwd=folder, check=True)
    subprocess.run(["objcopy", "-O", "binary", "-j", ".text", "code.o", "code.bin"], cwd=folder, check=True)
    return (folder / "code.bin").read_bytes()


@pytest.mark.parametrize(
    ("text", "cheap"),
    [
        ("push %rbp", True),
        ("push %r12", True),
        ("nop", True),
        (".byte 0x0f, 0x1f, 0x44, 0, 0", True),
        ("call . + 100", True),
        ("jmp . + 5", True),
        ("jmp . + 1000", True),
        ("je . + 5", True),
        ("jle . + 1000", True),
        ("sub $8,%rsp", False),
        ("mov %rdi,%rax", False),
        ("test %rdi,%rdi", False),
        ("endbr64", False),
        ("ret", False),
        ("pop %rbp", False),
        ("push $1", False),
        ("call *%rax", False),
        ("jmp *16(%rax)", False),
    ],
)
def test_what_the_kernel_emulates(text: str, cheap: bool, tmp_path: Path) -> None:
    (instruction,) = decode.instructions(assemble(text, tmp_path), 0)
    assert decode.emulated(instruction) is cheap


@pytest.mark.parametrize(
    ("text", "at", "cheap"),
    [
        ("push %rbp\nret", 0, True),
        ("test %rdi,%rdi\nje . + 9\npush %rbp\nret", 3, True),
        ("mov %rdi,%rbx\nsub $8,%rsp\npush %rbx\nret", 7, True),
        ("xor %edi,%edi\npush %rbx\nret", 0, False),  # the argument is gone
        ("mov %al,%dil\npush %rbx\nret", 0, False),
        ("xor %esi,%esi\npush %rbx\nret", 2, True),  # not one that is asked for
        ("sub $8,%rsp\nret\npush %rbx", 0, False),
    ],
)
def test_the_cheapest_entry_has_the_arguments(text: str, at: int, cheap: bool, tmp_path: Path) -> None:
    assert decode.cheapest_entry(assemble(text, tmp_path), 0x1000, ("rdi",)) == (0x1000 + at, cheap)


def test_targets_are_outside(tmp_path: Path) -> None:
    code = assemble("call . + 0x100\n1: jne 1b\ncall *%rax\njmp . + 0x200", tmp_path)
    assert decode.targets(code, 0x1000) == {0x1100, 0x1009 + 0x200}


@pytest.mark.parametrize(
    ("text", "to"),
    [
        ("sub $8,%rsp\ncall . + 0x100\nret", 0x1104),
        ("jmp . + 0x100", 0x1100),
        ("mov %rsp,%rcx\ncall . + 0x100", None),  # one argument is another
        ("test %rdi,%rdi\nje . + 0x100\ncall . + 0x100", None),
        ("call *%rax", None),
        ("ret", None),
    ],
)
def test_arguments_that_are_passed_on(text: str, to: int | None, tmp_path: Path) -> None:
    assert decode.passed_on_to(assemble(text, tmp_path), 0x1000, decode.ARGUMENTS[:4]) == to


@given(st.binary(max_size=300))
def test_any_bytes_are_read(code: bytes) -> None:
    decode.targets(code, 0x1000)
    decode.passed_on_to(code, 0x1000, decode.ARGUMENTS)
    address, _cheap = decode.cheapest_entry(code, 0x1000, decode.ARGUMENTS)
    assert 0x1000 <= address <= 0x1000 + len(code)


def test_registers_have_one_name_each() -> None:
    for wide, parts in {
        "rdi": "rdi edi di dil",
        "rax": "rax eax ax al",
        "r8": "r8 r8d r8w r8b",
        "rsp": "rsp esp sp spl",
    }.items():
        assert {decode.family(part) for part in parts.split()} == {wide}
