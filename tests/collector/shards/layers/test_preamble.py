"""The PROXY protocol's preamble: the vectors with every cut, the grammar by its own words, and no byte read too many."""

from __future__ import annotations

import ctypes
import ipaddress
import json
import mmap
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import crc32c
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from collector.shards.layers.proxy.preamble import preamble

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
LOCAL, PROXY = 0x20, 0x21
REQUEST = b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n"
ENDS4 = bytes([192, 0, 2, 10, 198, 51, 100, 20]) + struct.pack("!HH", 51000, 443)


class Guarded:
    """Memory that ends where the next page cannot be read: whoever reads too far ends the process."""

    def __init__(self, room: int) -> None:
        pages = -(-room // mmap.PAGESIZE)
        self._memory = mmap.mmap(-1, (pages + 1) * mmap.PAGESIZE)
        self._end = pages * mmap.PAGESIZE
        address = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.mprotect(ctypes.c_void_p(address + self._end), ctypes.c_size_t(mmap.PAGESIZE), 0):
            raise OSError(ctypes.get_errno(), "mprotect")

    def put(self, data: bytes) -> memoryview:
        """``data`` right before the page that cannot be read."""
        view = memoryview(self._memory)[self._end - len(data) : self._end]
        view[:] = data
        return view


GUARDED = Guarded(16 + 65535 + 64)


def ask(data: bytes) -> dict[str, Any] | int:
    return preamble(GUARDED.put(data))


def end(family: int, address: bytes, port: int) -> str:
    """An end of the claim as the vectors write it; IPv4-mapped addresses of an IPv6 preamble stay IPv6."""
    text = ipaddress.IPv6Address(address)
    if family == 4:
        assert text.ipv4_mapped is not None
        return f"{text.ipv4_mapped}:{port}"
    return f"[::ffff:{text.ipv4_mapped}]:{port}" if text.ipv4_mapped else f"[{text}]:{port}"


def crc_of(header: bytes) -> bytes:
    return struct.pack("!I", crc32c.crc32c(header))


def block(command: int, family: int, rest: bytes) -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, family, len(rest)) + rest


def tlv(kind: int, value: bytes) -> bytes:
    return struct.pack("!BH", kind, len(value)) + value


def checked(rest: bytes, more: bytes = b"") -> bytes:
    """A TCP4 preamble with a checksum between two pieces of TLVs."""
    header = block(PROXY, 0x11, ENDS4 + rest + tlv(3, bytes(4)) + more)
    place = 16 + 12 + len(rest) + 3
    return header[:place] + crc_of(header) + header[place + 4 :]


# ---- vectors ----


@pytest.fixture(scope="module")
def vectors(corpora: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((corpora / "proxy-protocol" / "vectors.json").read_text())["vectors"]
    assert len(found) == 123
    return found


def seen(answer: dict[str, Any] | int, expect: dict[str, Any]) -> dict[str, Any]:
    """Our answer in the words of the vectors, as far as those have an answer to compare with."""
    if isinstance(answer, int):
        return {"result": {0: "incomplete", -1: "none"}[answer]}
    out = {"version": answer["version"], "header_len": answer["length"]}
    if answer["invalid"]:
        assert not answer["family"]
        return {"result": "invalid", "header_len": answer["length"]}
    if not answer["family"]:
        # what makes no claim is one thing here: the vectors say whether it was LOCAL, UNKNOWN or AF_UNIX
        return {**out, "result": expect["result"] if expect.get("family", "unix") == "unix" else "no claim"}
    family = answer["family"]
    return {
        **out,
        "result": "proxied",
        "family": {4: "inet", 6: "inet6"}[family],
        "src": end(family, answer["src"], answer["src_port"]),
        "dst": end(family, answer["dst"], answer["dst_port"]),
    }


def wanted(expect: dict[str, Any]) -> dict[str, Any]:
    """The vector's expectation of what this parser tells. Malformed without a known length is as good as none."""
    if expect["result"] == "invalid":
        return {"result": "invalid", "header_len": expect["header_len"]} if "header_len" in expect else {"result": "none"}
    names = ["result", "version", "header_len"]
    if expect.get("family") in ("inet", "inet6"):
        names += ["family", "src", "dst"]
    return {name: expect[name] for name in names if name in expect}


def test_the_vectors(vectors: list[dict[str, Any]]) -> None:
    for vector in vectors:
        answer = ask(bytes.fromhex(vector["bytes_hex"]))
        assert seen(answer, vector["expect"]) == wanted(vector["expect"]), vector["name"]


def test_the_vectors_cut_anywhere(vectors: list[dict[str, Any]]) -> None:
    """A preamble is known with its last byte and not before; what is none waits until that is certain, and then stays."""
    for vector in vectors:
        data = bytes.fromhex(vector["bytes_hex"])
        whole = ask(data)
        answers = [ask(data[:cut]) for cut in range(len(data) + 1)]
        settled = next((cut for cut, answer in enumerate(answers) if answer != 0), len(data) + 1)
        assert set(vector.get("splits", ())) <= set(range(len(data) + 1))
        assert all(answer == whole for answer in answers[settled:]), vector["name"]
        if isinstance(whole, dict):
            assert settled == whole["length"], vector["name"]


# ---- version 1 ----

PORT = "(0|[1-9][0-9]{0,4})"
LINE = re.compile(
    rf"PROXY (?:(TCP4) ([0-9.]+) ([0-9.]+) {PORT} {PORT}"
    rf"|(TCP6) ([0-9A-Fa-f:.]+) ([0-9A-Fa-f:.]+) {PORT} {PORT}|UNKNOWN.*?)\r\n",
    re.DOTALL,
)


def reads_as(text: str, kind: type) -> bytes | None:
    """16 bytes of an address, by Python's own reading of it."""
    try:
        address = kind(text)
    except ValueError:
        return None
    return bytes(10) + b"\xff\xff" + address.packed if kind is ipaddress.IPv4Address else bytes(address.packed)


def line_by_the_book(data: bytes) -> dict[str, Any] | int:
    """Section 2.1 for a line that is whole, in the order of its words; -1 else."""
    found = LINE.match(data[:107].decode("latin-1"))
    if found is None:
        return -1
    out = {
        "length": found.end(),
        "version": 1,
        "family": 0,
        "invalid": 0,
        "src": bytes(16),
        "dst": bytes(16),
        "src_port": 0,
        "dst_port": 0,
    }
    words = [word for word in found.groups() if word is not None]
    if not words:
        return out
    kind = ipaddress.IPv4Address if words[0] == "TCP4" else ipaddress.IPv6Address
    src, dst = (reads_as(word, kind) for word in words[1:3])
    ports = [int(word) for word in words[3:]]
    if src is None or dst is None or max(ports) > 65535:
        return -1
    return {
        **out,
        "family": 4 if words[0] == "TCP4" else 6,
        "src": src,
        "dst": dst,
        "src_port": ports[0],
        "dst_port": ports[1],
    }


addresses4 = st.ip_addresses(v=4).map(str)
addresses6 = st.ip_addresses(v=6).flatmap(
    lambda a: st.sampled_from([str(a), a.exploded, str(a).upper(), f"::ffff:{ipaddress.ip_address(a.packed[-4:])}"])
)
ports = st.integers(0, 65535).map(str)
good_lines = st.one_of(
    st.tuples(st.just("PROXY TCP4"), addresses4, addresses4, ports, ports).map(" ".join),
    st.tuples(st.just("PROXY TCP6"), addresses6, addresses6, ports, ports).map(" ".join),
    st.text("abc 01:.\n\r\0\xff", max_size=92).map(lambda rest: "PROXY UNKNOWN" + rest),
).map(lambda line: (line + "\r\n").encode("latin-1"))
words = st.sampled_from(
    [
        b"PROXY",
        b"proxy",
        b"TCP4",
        b"TCP6",
        b"UNKNOWN",
        b"1.2.3.4",
        b"1.2.3.04",
        b"1.2.3",
        b"1.2.3.256",
        b"::1",
        b"1::2::3",
        b"::ffff:1.2.3.4",
        b"fe80::1%eth0",
        b"[::1]",
        b"0",
        b"00",
        b"80",
        b"65535",
        b"65536",
        b"-1",
        b"+1",
        b"1e3",
        b"0x10",
        b"",
        b"\0",
        b"\r",
        b"\n",
        b"\r\n",
        b"\t",
        b"x" * 50,
    ]
)
near_lines = st.tuples(
    st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", b"PROXY TCP6 ", b"PROXY TCP6 ::1 ::1 1 "]),
    st.lists(words, min_size=1, max_size=9).map(b" ".join),
).map(b"".join)


@given(good_lines, st.binary(max_size=20))
def test_a_good_line_is_read_as_it_says(line: bytes, more: bytes) -> None:
    answer = ask(line + more)
    assert isinstance(answer, dict) and answer == line_by_the_book(line + more)


@given(
    st.one_of(
        near_lines,
        near_lines.map(lambda line: line + b"\r\n"),
        good_lines.flatmap(
            lambda line: st.tuples(st.integers(0, len(line) - 1), st.binary(max_size=3)).map(
                lambda edit: line[: edit[0]] + edit[1] + line[edit[0] + 1 :]
            )
        ),
    ),
    st.binary(max_size=20),
)
@example(b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r", b"")
@example(b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n", b"\r\n")
@example(b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\r\n", b"")
@example(b"PROXY UNKNOWN \r \n \r", b"\r\n")
@example(b"PROXY UNKNOWN" + b"x" * 92, b"\r\n")  # 107 bytes
@example(b"PROXY UNKNOWN" + b"x" * 93, b"\r\n")
@example(b"PROXY ", b"\r\n")
def test_what_is_nearly_a_line_is_one_or_none(line: bytes, more: bytes) -> None:
    """As the grammar says, when enough is there to say it; and waiting never hides that more could not help."""
    data = line + more
    answer, book = ask(data), line_by_the_book(data)
    if answer != 0:
        assert answer == book
    else:
        assert book == -1 and (SIGNATURE.startswith(data) or b"\r\n" not in data[:107]) and len(data) < 107


@pytest.mark.parametrize(
    "line",
    [
        b"PROXX",
        b"PROXY TCP5",
        b"PROXY TCP4\t",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r ",
        b"PROXY TCP4 \r\n",
        b"PROXY UNKNOWN" + b"x" * 94,
    ],
)
def test_what_cannot_become_a_line_does_not_wait(line: bytes) -> None:
    assert ask(line[:-1]) == 0 and ask(line) == -1


# ---- version 2 ----


@pytest.mark.parametrize(
    ("header", "family", "invalid"),
    [
        (block(PROXY, 0x11, ENDS4), 4, 0),
        (block(PROXY, 0x12, ENDS4), 4, 0),
        (block(PROXY, 0x21, bytes(36)), 6, 0),
        (block(PROXY, 0x31, bytes(216)), 0, 0),
        (block(PROXY, 0x31, bytes(215)), 0, 1),
        (block(PROXY, 0x21, bytes(35)), 0, 1),
        (block(PROXY, 0x11, ENDS4[:11]), 0, 1),
        (block(PROXY, 0x01, b"\xff"), 0, 0),
        (block(PROXY, 0x20, b"\xff"), 0, 0),
        (block(LOCAL, 0xFF, b"\xff"), 0, 0),
        (block(LOCAL, 0x11, ENDS4 + tlv(3, b"nono")), 0, 0),
        (checked(b""), 4, 0),
        (checked(tlv(4, b"x" * 9), tlv(0xE0, b"y" * 300)), 4, 0),
        (checked(b"")[:-1] + b"\xaa", 0, 1),
        (block(PROXY, 0x11, ENDS4 + tlv(3, b"")), 0, 1),
        (block(PROXY, 0x11, ENDS4 + tlv(3, bytes(5))), 0, 1),
        (checked(tlv(3, bytes(4))), 0, 1),
        (block(PROXY, 0x31, bytes(216) + tlv(3, bytes(4))), 0, 1),
        (block(PROXY, 0x11, ENDS4 + b"\x04\x00"), 0, 1),
        (block(PROXY, 0x11, ENDS4 + b"\x04\x00\x01"), 0, 1),
    ],
)
def test_a_block_claims_or_not(header: bytes, family: int, invalid: int) -> None:
    answer = ask(header + REQUEST)
    assert isinstance(answer, dict)
    assert (answer["length"], answer["version"], answer["family"], answer["invalid"]) == (len(header), 2, family, invalid)
    if not family:
        assert answer["src"] == answer["dst"] == bytes(16) and answer["src_port"] == answer["dst_port"] == 0


@pytest.mark.parametrize(
    "header",
    [
        SIGNATURE + b"\x11\x11\0\0",
        SIGNATURE + b"\x22\x11\0\0",
        SIGNATURE + b"\x21\x41",
        SIGNATURE + b"\x21\x13",
        SIGNATURE[:-1] + b"\x0b",
        b"\r\n\r\nG",
        b"\r\n\n",
        b"\r\r",
        b"\n",
    ],
)
def test_what_is_no_block_is_known_at_once(header: bytes) -> None:
    assert ask(header) == -1


tlvs = st.lists(
    st.tuples(st.integers(0, 255).filter(lambda kind: kind != 3), st.binary(max_size=40)).map(lambda t: tlv(*t)), max_size=8
).map(b"".join)


@given(tlvs, tlvs, st.data())
def test_a_checksum_is_over_the_whole_preamble(before: bytes, after: bytes, data: st.DataObject) -> None:
    header = checked(before, after)
    good = ask(header + REQUEST)
    assert isinstance(good, dict) and (good["family"], good["invalid"], good["length"]) == (4, 0, len(header))
    assert good["src"][12:] + good["dst"][12:] + struct.pack("!HH", good["src_port"], good["dst_port"]) == ENDS4
    at = data.draw(st.integers(16, len(header) - 1))
    flipped = header[:at] + bytes([header[at] ^ 1 << data.draw(st.integers(0, 7))]) + header[at + 1 :]
    bad = ask(flipped + REQUEST)
    assert isinstance(bad, dict) and bad["length"] == len(header)
    in_front = at < 28 or 28 + len(before) + 3 <= at < 28 + len(before) + 7
    if in_front:  # else a type or a length may have changed, and the checksum with it be none any more
        assert (bad["family"], bad["invalid"]) == (0, 1)


@given(st.binary(max_size=80), st.sampled_from([0x11, 0x12, 0x21, 0x22, 0x31, 0x32]))
def test_tlvs_fill_their_place_or_are_invalid(rest: bytes, family: int) -> None:
    room = {1: 12, 2: 36, 3: 216}[family >> 4]
    answer = ask(block(PROXY, family, bytes(room) + rest))
    assert isinstance(answer, dict)
    at, sums = 0, 0
    while len(rest) - at >= 3:
        sums += rest[at] == 3
        at += 3 + int.from_bytes(rest[at + 1 : at + 3], "big")
    if not sums:
        assert answer["invalid"] == (at != len(rest))
    assert answer["length"] == 16 + room + len(rest)


def longest() -> bytes:
    """65,551 bytes, and a checksum over all of them."""
    return checked(tlv(0xE0, b"a" * 30000), tlv(0xE1, b"b" * (65535 - 12 - 30003 - 7 - 3)))


def test_the_longest_preamble() -> None:
    header = longest()
    assert len(header) == 65551
    answer = ask(header)
    assert isinstance(answer, dict) and (answer["length"], answer["family"], answer["invalid"]) == (65551, 4, 0)
    assert ask(header + REQUEST) == answer
    for n in (16, 28, 40000, 65550):
        assert ask(header[:n]) == 0


# ---- any bytes ----


def pieces() -> Iterator[st.SearchStrategy[bytes]]:
    yield st.binary(max_size=300)
    yield good_lines
    yield near_lines
    yield st.builds(block, st.sampled_from([LOCAL, PROXY, 0x22, 0x31]), st.integers(0, 255), st.binary(max_size=260))
    yield st.builds(checked, tlvs, tlvs)
    yield st.sampled_from([b"", b"P", b"PROXY ", SIGNATURE, SIGNATURE + b"\x21\x11\xff\xff", REQUEST, b"\r\n" * 3 + REQUEST])


@given(st.one_of(list(pieces())), st.binary(max_size=30))
def test_any_split_gives_the_same_answer_as_the_whole(start: bytes, more: bytes) -> None:
    data = start + more
    answers = [ask(data[:cut]) for cut in range(len(data) + 1)]
    final = answers[-1]
    settled = [answer for answer in answers if answer != 0]
    assert settled == [final] * len(settled)
    if isinstance(final, dict):
        assert answers.index(final) == final["length"]
        assert final["family"] in (0, 4, 6) and final["version"] in (1, 2)
        assert not (final["invalid"] and final["family"])
        assert final["length"] <= (107 if final["version"] == 1 else 65551)
    assert preamble(data) == preamble(bytearray(data)) == final
