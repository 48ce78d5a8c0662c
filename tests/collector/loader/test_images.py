"""The form in which compiled programs are kept: what goes in comes out, and what is damaged is never an image."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.loader import images
from collector.loader.images import Image, MapImage, ProgramImage, Tool

KEY = "a" * 64
HASH, ARRAY, ARRAY_OF_MAPS, RINGBUF = 1, 2, 12, 27
LOAD_MAP = struct.pack("<BBhi", 0x18, 0x11, 0, 0) + bytes(8)  # r1 = a map, in two places
EXIT = struct.pack("<BBhi", 0xB7, 0, 0, 0) + struct.pack("<BBhi", 0x95, 0, 0, 0)  # return 0

IMAGE = Image(
    (
        MapImage("outer", ARRAY_OF_MAPS, 4, 4, 8, 0, "ring"),
        MapImage("ring", RINGBUF, 0, 0, 4096, 0),
        MapImage("entries", HASH, 8, 16, 100, 1),
    ),
    (
        ProgramImage("first", 5, LOAD_MAP + EXIT, ((0, "entries"),)),
        ProgramImage("second", 2, EXIT + LOAD_MAP + EXIT, ((2, "outer"),)),
    ),
    "GPL",
    (Tool("/usr/lib/libbcc.so.0", 1000, 1_700_000_000_123_456_789),),
)
DATA = images.to_bytes(KEY, IMAGE)


def rewritten(change: Any) -> bytes:
    """The image with another head, and a digest that is right."""
    rest = DATA[len(images.MAGIC) + 32 :]
    (length,) = struct.unpack_from("<I", rest)
    head = json.loads(rest[4 : 4 + length])
    head = change(head) or head
    text = json.dumps(head).encode()
    rest = struct.pack("<I", len(text)) + text + rest[4 + length :]
    return images.MAGIC + hashlib.sha256(rest).digest() + rest


names = st.from_regex(r"[a-z_][a-z0-9_]{0,20}", fullmatch=True)
numbers = st.integers(0, 2**32 - 1)


@st.composite
def any_image(draw: st.DrawFn) -> Image:
    maps: list[MapImage] = []
    for name in draw(st.lists(names, min_size=1, max_size=5, unique=True)):
        inner = draw(st.sampled_from(["", *(one.name for one in maps)]))
        kind, key_bytes, value_bytes, entries, flags = (draw(numbers) for _ in range(5))
        maps.append(MapImage(name, kind, key_bytes, value_bytes, entries, flags, inner))
    programs = []
    for name in draw(st.lists(names, max_size=5, unique=True)):
        code, references = b"", []
        for used in draw(st.lists(st.sampled_from([None, *maps]), max_size=6)):
            if used is not None:
                references.append((len(code) // 8, used.name))
            code += EXIT if used is None else LOAD_MAP
        programs.append(ProgramImage(name, draw(numbers), code or EXIT, tuple(references)))
    tools = draw(st.lists(st.builds(Tool, st.text(max_size=20), numbers, st.integers(0, 2**63)), max_size=3))
    return Image(tuple(maps), tuple(programs), draw(st.text(max_size=8)), tuple(tools), draw(st.booleans()))


@given(any_image())
def test_what_goes_in_comes_out(image: Image) -> None:
    assert images.from_bytes(KEY, images.to_bytes(KEY, image)) == image


@given(st.data())
def test_a_changed_byte_anywhere_is_no_image(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(DATA) - 1))
    changed = bytearray(DATA)
    changed[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(ValueError, match=r"it is damaged|it is no image"):
        images.from_bytes(KEY, bytes(changed))


def test_every_byte_is_covered() -> None:
    for at in range(len(DATA)):
        changed = bytearray(DATA)
        changed[at] ^= 1
        with pytest.raises(ValueError, match=r"it is damaged|it is no image"):
            images.from_bytes(KEY, bytes(changed))


def test_a_part_of_a_file_is_no_image_nor_is_one_with_more_behind_it() -> None:
    for length in range(len(DATA)):
        with pytest.raises(ValueError, match="it is"):
            images.from_bytes(KEY, DATA[:length])
    with pytest.raises(ValueError, match="it is damaged"):
        images.from_bytes(KEY, DATA + b"\0")


@given(st.binary(max_size=200))
def test_any_bytes_with_a_digest_that_is_right_are_read_strictly(rest: bytes) -> None:
    data = images.MAGIC + hashlib.sha256(rest).digest() + rest
    with pytest.raises(ValueError, match="head|line|codec|Extra data"):
        images.from_bytes(KEY, data)


def test_an_image_is_for_its_key() -> None:
    with pytest.raises(ValueError, match="made for something else"):
        images.from_bytes("b" * 64, DATA)


def set_in(*path: Any, value: Any) -> Any:
    def change(head: Any) -> None:
        for step in path[:-1]:
            head = head[step]
        head[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (set_in("maps", 0, "inner", value="nobody"), "map that it does not have"),
        (set_in("maps", 0, "name", value="../x"), "no name"),
        (set_in("maps", 0, "name", value=7), "no name"),
        (set_in("maps", 0, "entries", value=-1), "no number"),
        (set_in("maps", 0, "entries", value=2**32), "no number"),
        (set_in("maps", 0, "entries", value=1.0), "no number"),
        (set_in("maps", 0, "entries", value=True), "no number"),
        (set_in("maps", 1, "name", value="outer"), "do not agree"),
        (set_in("maps", value=5), "head is none"),
        (set_in("maps", value=[]), "map that it does not have"),
        (set_in("programs", 0, "bytes", value=0), "do not agree"),
        (set_in("programs", 0, "bytes", value=12), "do not agree"),
        (set_in("programs", 0, "bytes", value=8), "do not agree|does not have"),
        (set_in("programs", 1, "bytes", value=1 << 20), "do not agree"),
        (set_in("programs", 1, "name", value="first"), "do not agree"),
        (set_in("programs", 0, "references", value=[[1, "entries"]]), "map that it does not have"),
        (set_in("programs", 0, "references", value=[[2, "entries"]]), "map that it does not have"),
        (set_in("programs", 0, "references", value=[[1000, "entries"]]), "map that it does not have"),
        (set_in("programs", 0, "references", value=[[0, "nobody"]]), "map that it does not have"),
        (set_in("programs", 0, "references", value=[[0]]), "values to unpack"),
        (set_in("programs", 0, "references", value=7), "head is none"),
        (set_in("tools", value=[["x"]]), "values to unpack"),
        (lambda _head: [1], "head is none"),
        (lambda _head: 5, "head is none"),
        (lambda head: {name: value for name, value in head.items() if name != "license"}, "license"),
    ],
)
def test_a_head_that_says_something_else_is_refused(change: Any, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        images.from_bytes(KEY, rewritten(change))
    assert images.from_bytes(KEY, rewritten(lambda _head: None)) == IMAGE


def compiled(fd: int) -> bytes:
    return EXIT + struct.pack("<BBhi", 0x18, 0x11, 0, fd) + bytes(8) + EXIT


def test_references_are_found_and_put_back() -> None:
    program = ProgramImage.of("p", 5, compiled(11), {11: "entries"})
    assert program == ProgramImage("p", 5, compiled(0), ((2, "entries"),))
    assert program.with_maps({"entries": 12, "other": 13}) == compiled(12)


def test_a_constant_of_64_bits_is_no_reference_whatever_its_halves_look_like() -> None:
    constant = struct.pack("<BBhi", 0x18, 0x01, 0, 11) + struct.pack("<BBhi", 0x18, 0x11, 0, 11) + EXIT
    assert ProgramImage.of("p", 5, constant, {11: "entries"}) == ProgramImage("p", 5, constant)


@pytest.mark.parametrize(
    ("code", "why"),
    [
        (compiled(10), "no map"),
        (struct.pack("<BBhi", 0x18, 0x21, 0, 11) + bytes(8) + EXIT, "no map"),  # BPF_PSEUDO_MAP_VALUE
        (struct.pack("<BBhi", 0x85, 0x10, 0, 1) + EXIT, "calls another function"),
    ],
)
def test_what_cannot_be_kept_is_said(code: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        ProgramImage.of("p", 5, code, {11: "entries"})


def test_an_image_that_was_refused_says_so() -> None:
    refused = dataclasses.replace(IMAGE, refused=True)
    assert images.from_bytes(KEY, images.to_bytes(KEY, refused)).refused
