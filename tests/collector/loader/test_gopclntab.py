"""Functions of Go programs by name: of every way to link them, and of files that somebody has tampered with."""

from __future__ import annotations

import io
import os
import re
import struct

import pytest
from elftools.elf.elffile import ELFFile
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.loader import gopclntab
from tests.live.golang import build

NAMES = ("crypto/tls.(*Conn).Read", "crypto/tls.(*Conn).writeRecordLocked", "runtime.memmove", "internal/poll.(*FD).Read")
PLAIN = ("main.main", "runtime.memmove", "fmt.Fprintln", "no.such.function")


def opened(data: bytes) -> ELFFile:
    return ELFFile(io.BytesIO(data))


def without_sections(data: bytes) -> bytes:
    """The file as some tools leave it: only what is needed to run it."""
    changed = bytearray(data)
    struct.pack_into("<Q", changed, 40, 0)  # e_shoff
    struct.pack_into("<HH", changed, 60, 0, 0)  # e_shnum, e_shstrndx
    return bytes(changed)


@pytest.mark.parametrize("kind", list(build.KINDS))
def test_functions_are_found_however_it_is_linked(kind: str) -> None:
    path = build.program(kind)
    data = path.read_bytes()
    found = gopclntab.functions(opened(data), NAMES)
    assert set(found) == set(NAMES)
    assert gopclntab.functions(opened(without_sections(data)), NAMES) == found
    if "stripped" not in kind and kind in ("plain", "pie"):
        symbols = build.symbols(path)
        assert {name: function.address for name, function in found.items()} == {name: symbols[name] for name in NAMES}
    for function in found.values():  # each begins with a check of the stack or a jump, and ends with padding or a jump
        code = data[function.offset : function.offset + function.size]
        assert len(code) == function.size and function.size % 16 == 0


@pytest.mark.parametrize("toolchain", ["", *os.environ.get("GO_TOOLCHAINS", "").split()])
def test_of_other_versions(toolchain: str) -> None:
    """GO_TOOLCHAINS="go1.18.10 go1.21.13" tries these too, if the go tool can get them."""
    for kind in ("plain", "pie-stripped"):
        data = build.program(kind, toolchain).read_bytes()
        assert set(gopclntab.functions(opened(data), NAMES)) == set(NAMES)
        version = gopclntab.version(opened(data))
        assert re.fullmatch(r"1\.\d+\.\d+", version) and (not toolchain or f"go{version}" == toolchain)


def test_what_is_no_go_program() -> None:
    with open("/bin/ls", "rb") as file:
        elf = ELFFile(file)
        assert not gopclntab.is_go(elf) and gopclntab.version(elf) == ""
        with pytest.raises(ValueError, match=r"no \.gopclntab"):
            gopclntab.functions(elf, NAMES)


def test_minor_versions() -> None:
    assert [gopclntab.minor(text) for text in ("1.20.14", "1.21rc2", "1.26")] == [20, 21, 26]
    assert gopclntab.minor("") > 1000, "as the newest"


@pytest.fixture(scope="module")
def small() -> bytes:
    """A small program."""
    return build.program("stripped", name="plaintext").read_bytes()


def test_names_that_it_has_not(small: bytes) -> None:
    assert set(gopclntab.functions(opened(small), PLAIN)) == set(PLAIN[:3])
    assert gopclntab.functions(opened(small), ()) == {}


def table_of(data: bytes) -> int:
    section = opened(data).get_section_by_name(".gopclntab")
    assert section is not None
    return int(section["sh_offset"])


# what is where in the header: the words that say how much there is and where
WORDS = st.sampled_from([0, 8, 16, 24, 32, 40, 48, 56, 64, 72])
VALUES = st.one_of(
    st.sampled_from([0, 1, 7, 1 << 31, 1 << 32, 1 << 63, (1 << 64) - 1]),
    st.integers(0, (1 << 64) - 1),
    st.integers(0, 1 << 22),
)


def bounded(data: bytes) -> None:
    """Whatever comes, it comes soon; functions that are found are in the file. pytest-timeout watches over it."""
    try:
        found = gopclntab.functions(opened(data), PLAIN)
    except Exception:  # the child may raise anything: it has no answer then
        return
    for function in found.values():
        assert 0 <= function.offset < len(data) and function.size > 0


@given(st.lists(st.tuples(WORDS, VALUES), min_size=1, max_size=3))
@settings(max_examples=60)
def test_headers_that_lie(small: bytes, changes: list[tuple[int, int]]) -> None:
    changed = bytearray(small)
    for offset, value in changes:
        struct.pack_into("<Q", changed, table_of(small) + offset, value)
    bounded(bytes(changed))


@given(st.lists(st.tuples(st.integers(0, 1 << 19), st.binary(min_size=1, max_size=64)), min_size=1, max_size=20))
@settings(max_examples=60)
def test_tables_that_lie(small: bytes, changes: list[tuple[int, bytes]]) -> None:
    changed = bytearray(small)
    start = table_of(small)
    for offset, value in changes:
        changed[start + offset : start + offset + len(value)] = value
    bounded(bytes(changed[: len(small)]))


@given(st.integers(0, 1 << 21))
@settings(max_examples=40)
def test_files_that_end_early(small: bytes, length: int) -> None:
    bounded(small[:length])


def test_functions_out_of_order_are_not_read_again_and_again(small: bytes) -> None:
    """A table whose functions lie anywhere would have a window read for each of them."""
    start = table_of(small)
    count, functab = struct.unpack("<Q48xQ", small[start + 8 : start + 72])
    changed = bytearray(small)
    for number in range(count):
        struct.pack_into("<I", changed, start + functab + 8 * number + 4, (number % 2) * 40_000)
    with pytest.raises(ValueError, match="not in order"):
        gopclntab.functions(opened(bytes(changed)), PLAIN)
