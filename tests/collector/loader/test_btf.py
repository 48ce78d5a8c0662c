"""Member offsets out of BTF: small descriptions made here, damaged ones, and the running kernel's."""

from __future__ import annotations

import os
import struct
import sys
from functools import cache

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from collector.loader import btf
from tests.conftest import skip_or_fail

(
    INT,
    PTR,
    ARRAY,
    STRUCT,
    UNION,
    ENUM,
    FWD,
    TYPEDEF,
    VOLATILE,
    CONST,
    RESTRICT,
    FUNC,
    FUNC_PROTO,
    VAR,
    DATASEC,
    FLOAT,
    DECL_TAG,
    TYPE_TAG,
    ENUM64,
) = range(1, 20)
FLAG = 1 << 31
HEADER = struct.Struct("=HBBIIIII")


class Blob:
    """Builds BTF; ``add`` gives the new type's number."""

    def __init__(self) -> None:
        self.count = 0
        self.types = b""
        self.strings = b"\0"
        self.int = self.add(INT, "int", 4, [32])

    def string(self, text: str) -> int:
        if not text:
            return 0
        self.strings += text.encode() + b"\0"
        return len(self.strings) - len(text) - 1

    def add(
        self, kind: int, name: str = "", third: int = 0, words: list[int] | None = None, vlen: int = 0, flag: int = 0
    ) -> int:
        words = words or []
        self.types += struct.pack(f"={3 + len(words)}I", self.string(name), kind << 24 | vlen | flag, third, *words)
        self.count += 1
        return self.count

    def struct(self, name: str, size: int, *members: tuple[str, int, int], kind: int = STRUCT, flag: int = 0) -> int:
        """Members are (name, type, offset word)."""
        words = [word for text, of, offset in members for word in (self.string(text), of, offset)]
        return self.add(kind, name, size, words, len(members), flag)

    def bytes(self, *, extra_header: bytes = b"") -> bytes:
        header = HEADER.pack(
            0xEB9F, 1, 0, HEADER.size + len(extra_header), 0, len(self.types), len(self.types), len(self.strings)
        )
        return header + extra_header + self.types + self.strings


def rich() -> Blob:
    """Some of everything."""
    b = Blob()
    b.add(ENUM, "few", 4, [b.string("no"), 0, b.string("yes"), 1], 2)
    b.add(ENUM64, "many", 8, [b.string("low"), 1, 0, b.string("high"), 0, 1], 2)
    b.add(FWD, "outer")
    pointer = b.add(PTR, third=b.count + 20)
    array = b.add(ARRAY, words=[b.int, b.int, 4])
    proto = b.add(FUNC_PROTO, third=b.int, words=[b.string("a"), b.int, b.string("b"), pointer, 0, 0], vlen=3)
    b.add(FUNC, "outer", proto, vlen=1)
    variable = b.add(VAR, "jiffies", b.int, [1])
    b.add(DATASEC, ".data", 8, [variable, 0, 4, variable, 4, 4], 2)
    b.add(FLOAT, "double", 8)
    b.add(DECL_TAG, "tag", variable, [0xFFFFFFFF])
    embedded = b.struct("", 8, ("counter", b.int, 0), ("second", b.int, 32))
    typedef = b.add(TYPEDEF, "atomic_t", embedded)
    wrapped = b.add(CONST, third=b.add(VOLATILE, third=b.add(TYPE_TAG, "rcu", typedef)))
    inner = b.struct("", 8, ("deep", b.int, 0), ("deeper", b.int, 32))
    union = b.struct("", 8, ("other", b.int, 0), ("", inner, 0), kind=UNION)
    around = b.struct("", 12, ("before", b.int, 0), ("", union, 32))
    b.struct(
        "outer",
        64,
        ("first", b.int, 0),
        ("", around, 32),
        ("ref", wrapped, 128),
        ("next", pointer, 192),
        ("table", array, 256),
        ("flags", b.int, 3 << 24 | 384),
        ("rest", b.int, 5 << 24 | 387),
        ("tail", b.int, 416),
        flag=FLAG,
    )
    return b


RICH = rich().bytes()
WANTED = [
    "outer",
    "outer.first",
    "outer.before",
    "outer.deeper",
    "outer.other",
    "outer.ref.second",
    "outer.next.first",
    "outer.table",
    "outer.flags",
    "outer.tail",
    "twin.x",
]


def test_members_at_any_depth() -> None:
    assert btf.offsets(RICH, WANTED) == {
        "outer": 64,
        "outer.first": 0,
        "outer.before": 4,
        "outer.deeper": 12,
        "outer.other": 8,
        "outer.ref.second": 20,
        "outer.table": 32,
        "outer.tail": 52,
    }
    assert btf.offsets(RICH, ["outer.ref", "outer.next"]) == {"outer.ref": 16, "outer.next": 24}


@pytest.mark.parametrize(
    "entry",
    [
        "",
        ".",
        "outer.",
        ".first",
        "outer..deep",
        "outer.around",
        "nothing",
        "nothing.first",
        "oute.first",
        "outer.firs",
        "outer.first.counter",
        "outer.next.first",
        "outer.table.first",
        "outer.flags",
        "outer.rest",
        "outer.rest.x",
        "int",
        "atomic_t.counter",
        "few.no",
        "many.low",
    ],
)
def test_absent(entry: str) -> None:
    assert btf.offsets(RICH, [entry]) == {}


def test_only_types_of_known_length_are_passed_over() -> None:
    """A wrong length of any kind would shift the struct behind it."""
    lengths = {INT: 1, ARRAY: 3, VAR: 1, DECL_TAG: 1}
    parts = {STRUCT: 3, UNION: 3, ENUM: 2, FUNC_PROTO: 2, DATASEC: 3, ENUM64: 3}
    for kind in range(1, 20):
        for vlen in (0, 1, 7):
            b = Blob()
            b.add(kind, "x", 0, [0] * (lengths.get(kind, 0) + vlen * parts.get(kind, 0)), vlen)
            last = b.struct("s", 8, ("m", b.int, 32))
            assert last == 3
            assert btf.offsets(b.bytes(), ["s", "s.m"]) == {"s": 8, "s.m": 4}, kind


def test_bit_fields_of_both_encodings() -> None:
    b = Blob()
    three, shifted = b.add(INT, "unsigned int", 4, [3]), b.add(INT, "unsigned int", 4, [8 << 16 | 32])
    b.struct(
        "old",
        16,
        ("whole", b.int, 0),
        ("narrow", b.add(TYPEDEF, "u3", three), 32),
        ("shifted", shifted, 64),
        ("odd", b.int, 97),
        ("last", b.int, 96),
    )
    b.struct("new", 16, ("whole", three, 0), ("narrow", b.int, 8 << 24 | 32), ("last", b.int, 96), flag=FLAG)
    names = ("whole", "narrow", "shifted", "odd", "last")
    assert btf.offsets(b.bytes(), [f"{of}.{name}" for of in ("old", "new") for name in names]) == {
        "old.whole": 0,
        "old.last": 12,
        "new.whole": 0,
        "new.last": 12,
    }


def test_unions_and_offsets_beyond_24_bits() -> None:
    b = Blob()
    b.struct("u", 4, ("a", b.int, 0), ("b", b.int, 0), kind=UNION)
    b.struct("large", 1 << 28, ("far", b.int, 0x7FFFFFE0))
    assert btf.offsets(b.bytes(), ["u", "u.b", "large.far"]) == {"u": 4, "u.b": 0, "large.far": 0x0FFFFFFC}


def test_of_structs_with_one_name_the_first_that_has_all_counts() -> None:
    b = Blob()
    b.struct("s", 4, ("a", b.int, 0))
    b.struct("s", 12, ("pad", b.int, 0), ("a", b.int, 32), ("b", b.int, 64))
    b.struct("s", 16, ("pad", b.int, 0), ("a", b.int, 64), ("b", b.int, 96))
    assert btf.offsets(b.bytes(), ["s.a"]) == {"s.a": 0}
    assert btf.offsets(b.bytes(), ["s", "s.a", "s.b"]) == {"s": 12, "s.a": 4, "s.b": 8}
    assert btf.offsets(b.bytes(), ["s.a", "s.b", "s.c"]) == {"s.a": 0}
    assert btf.offsets(b.bytes(), []) == {}


def test_names_may_share_their_ends() -> None:
    b = Blob()
    at = b.string("my_sock") + 3
    b.types += struct.pack("=6I", at, STRUCT << 24 | 1, 4, at, b.int, 0)
    assert btf.offsets(b.bytes(), ["sock", "sock.sock", "my_sock"]) == {"sock": 4, "sock.sock": 0}


def test_a_longer_header_is_passed_over() -> None:
    assert btf.offsets(rich().bytes(extra_header=b"later"), ["outer.tail"]) == {"outer.tail": 52}


def changed(at: int, new: bytes) -> bytes:
    return RICH[:at] + new + RICH[at + len(new) :]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "ends at byte 0, within the header of 24 bytes"),
        (RICH[:23], "ends at byte 23"),
        (changed(0, b"\x7fELF"), "not the magic number"),
        (changed(0, (0xEB9F).to_bytes(2, "big" if sys.byteorder == "little" else "little")), "another machine"),
        (changed(2, b"\2"), "version 2"),
        (changed(3, b"\1"), "flags 0x01"),
        (changed(4, struct.pack("=I", 20)), "says byte 4"),
        (changed(8, struct.pack("=I", 1 << 31)), "the types .see byte 8. end at byte 2147"),
        (changed(16, struct.pack("=I", 0xFFFFFFFF)), "the strings .see byte 16. end at byte"),
        (changed(12, struct.pack("=I", 7)), "no multiple of 4"),
        (changed(20, struct.pack("=I", 0)), "begin and end with NUL"),
        (RICH[:-1] + b"x", "begin and end with NUL"),
        (changed(12, struct.pack("=I", 8)), "half a type at byte 24"),
        (changed(12, struct.pack("=I", 12)), "last type, at byte 24, goes beyond the types' end at byte 36"),
        (changed(28, struct.pack("=I", 0)), "kind 0. at byte 24"),
        (changed(28, struct.pack("=I", 20 << 24)), "kind 20. at byte 24"),
        (changed(28, struct.pack("=I", INT << 24 | 1 << 16)), "unknown form 0x01010000"),
    ],
)
def test_malformed(data: bytes, message: str) -> None:
    with pytest.raises(btf.BtfError, match=message):
        btf.offsets(data, WANTED)


def test_malformed_members() -> None:
    b = Blob()
    b.types += struct.pack("=6I", b.string("s"), STRUCT << 24 | 1, 4, 0xFFFFFF, b.int, 0)
    with pytest.raises(btf.BtfError, match="no string is at 16777215, which is a member's name at byte 52"):
        btf.offsets(b.bytes(), ["s.m"])
    b = Blob()
    b.struct("s", 4, ("m", 99, 0))
    b.struct("short", 4, ("m", b.int, 40))
    with pytest.raises(btf.BtfError, match="number 99 at byte 56"):
        btf.offsets(b.bytes(), ["s.m.n"])
    with pytest.raises(btf.BtfError, match="offset of 5 bytes at byte 84 is more than its struct's size of 4"):
        btf.offsets(b.bytes(), ["short.m"])


def test_circles_end() -> None:
    b = Blob()
    b.add(TYPEDEF, "a", b.count + 2)
    two = b.add(CONST, third=b.count)
    b.struct("s", 4, ("m", two, 0), flag=FLAG)
    b.struct("self", 4, ("", b.count + 1, 0))
    for entry in ("s.m.x", "self.x"):
        with pytest.raises(btf.BtfError, match=r"in a circle|in itself"):
            btf.offsets(b.bytes(), [entry])


def test_many_ways_to_one_struct_are_gone_once() -> None:
    """Two anonymous members at each of 30 levels: a thousand million ways."""
    b = Blob()
    for _ in range(29):
        b.struct("", 4, ("", b.count + 2, 0), ("", b.count + 2, 0), kind=UNION)
    b.struct("", 4, ("end", b.int, 0))
    b.struct("top", 4, ("", 2, 0), ("", 2, 0), kind=UNION)
    assert btf.offsets(b.bytes(), ["top.no", "top.end"]) == {"top.end": 0}


def harmless(data: bytes) -> None:
    """Every other exception fails the test."""
    try:
        found = btf.offsets(data, WANTED)
    except btf.BtfError:
        return
    assert set(found) <= set(WANTED)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.binary(max_size=100), st.booleans())
def test_random_bytes(types: bytes, strings: bytes, framed: bool) -> None:
    if framed:
        strings = b"\0outer\0" + strings + b"\0"
        types = HEADER.pack(0xEB9F, 1, 0, 24, 0, len(types), len(types), len(strings)) + types
    harmless(types + strings)


@st.composite
def mutations(draw):
    """A valid description with a few words, bytes, or its end changed."""
    data = bytearray(RICH)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data) // 4 - 1)) * 4
        word = draw(
            st.one_of(
                st.integers(0, 40),
                st.integers(0, 0xFFFFFFFF),
                st.builds(
                    lambda kind, vlen, flag: flag << 31 | kind << 24 | vlen,
                    st.integers(0, 20),
                    st.integers(0, 5),
                    st.integers(0, 1),
                ),
            )
        )
        if draw(st.booleans()):
            data[at : at + 4] = struct.pack("=I", word)
        else:
            data[draw(st.integers(0, len(data) - 1))] = word & 0xFF
    if draw(st.integers(0, 9)) == 0:
        del data[draw(st.integers(0, len(data))) :]
    return bytes(data)


@settings(max_examples=1500, deadline=None)
@given(mutations())
@example(RICH)
def test_random_mutations(data: bytes) -> None:
    harmless(data)


def test_every_word_with_each_of_some_values() -> None:
    for at in range(0, len(RICH) - 3, 4):
        for word in (0, 1, 3, 17, 18, 0xFFFF, STRUCT << 24 | 2, TYPEDEF << 24, FLAG | UNION << 24 | 3, 0xFFFFFFFF):
            harmless(changed(at, struct.pack("=I", word)))


@cache
def kernel_offsets() -> dict[str, int]:
    return btf.offsets(
        btf.read_kernel(),
        [
            "task_struct",
            "task_struct.pid",
            "task_struct.tgid",
            "task_struct.files",
            "task_struct.comm",
            "files_struct",
            "files_struct.fdt",
            "fdtable",
            "fdtable.fd",
            "fdtable.max_fds",
            "file",
            "file.private_data",
            "file.f_inode",
            "sock",
            "sock.__sk_common",
            "sock.__sk_common.skc_family",
            "sock.__sk_common.skc_state",
            "sock_common",
            "sock.__sk_common.skc_daddr",
            "sock.__sk_common.skc_rcv_saddr",
            "sock.__sk_common.skc_dport",
            "sock.sk_socket",
            "sock.__sk_common.skc_num",
            "inet_sock",
            "inet_sock.sk",
            "inet_sock.inet_sport",
            "tcp_sock.inet_conn",
            "tcp_sock",
            "tcp_sock.copied_seq",
            "tcp_sock.write_seq",
            "list_head",
            "list_head.next",
            "list_head.prev",
            "sock.no_such",
            "no_such_struct.member",
            "task_struct.files.fdt",
            "sock_common.skc_family",
        ],
    )


@pytest.fixture
def kernel() -> dict[str, int]:
    if not os.path.exists("/sys/kernel/btf/vmlinux"):
        skip_or_fail("this kernel has no BTF (/sys/kernel/btf/vmlinux)")
    return kernel_offsets()


def test_running_kernel(kernel: dict[str, int]) -> None:
    """Facts that hold for every 64-bit kernel since 5.8 (built without CONFIG_RANDSTRUCT)."""
    assert kernel["task_struct.tgid"] - kernel["task_struct.pid"] == 4
    assert kernel["list_head"] == 16 and kernel["list_head.next"] == 0 and kernel["list_head.prev"] == 8
    common = "sock.__sk_common"
    assert kernel[common] == kernel["inet_sock.sk"] == kernel["tcp_sock.inet_conn"] == 0
    # include/net/sock.h: skc_daddr and skc_rcv_saddr share 8 bytes with skc_addrpair, the ports 4 with skc_portpair
    assert kernel[f"{common}.skc_daddr"] == 0 and kernel[f"{common}.skc_rcv_saddr"] == 4
    assert kernel[f"{common}.skc_num"] - kernel[f"{common}.skc_dport"] == 2
    assert kernel[f"{common}.skc_dport"] < kernel[f"{common}.skc_family"]
    assert kernel[f"{common}.skc_state"] - kernel[f"{common}.skc_family"] == 2
    assert kernel["sock_common.skc_family"] == kernel[f"{common}.skc_family"]
    assert 0 < kernel["sock_common"] <= kernel["sock"] <= kernel["inet_sock.inet_sport"] < kernel["inet_sock"]
    assert kernel["inet_sock"] < kernel["tcp_sock.copied_seq"] < kernel["tcp_sock"]
    for entry, offset in kernel.items():
        name, dot, _ = entry.partition(".")
        assert 0 <= offset < kernel[name] if dot else 0 < offset < 1 << 20, entry


def test_the_kernel_has_the_rest_and_not_what_is_absent(kernel: dict[str, int]) -> None:
    assert not {"sock.no_such", "no_such_struct.member", "task_struct.files.fdt"} & set(kernel)
    assert {
        "task_struct.files",
        "task_struct.comm",
        "files_struct.fdt",
        "fdtable.fd",
        "file.private_data",
        "file.f_inode",
        "sock.sk_socket",
        "tcp_sock.write_seq",
    } <= set(kernel)


def test_no_kernel_description() -> None:
    with pytest.raises(FileNotFoundError):
        btf.read_kernel("/nonexistent/btf")
