"""The client that a header claims, against Python's ipaddress and a plain reading of RFC 7239."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from collector.shards.http.clients import claim, is_trusted

TRUSTED = ["10.0.0.0/8", "192.0.2.7", "2001:db8:1::/48", "::1"]


def packed(text: str) -> bytes:
    """16 bytes, IPv4 as ::ffff:a.b.c.d."""
    address = ipaddress.ip_address(text)
    return bytes(10) + b"\xff\xff" + address.packed if address.version == 4 else address.packed


def shown(found: tuple[bytes, int] | None) -> str:
    if found is None:
        return ""
    address = ipaddress.IPv6Address(found[0])
    return f"{address.ipv4_mapped or address} {found[1]}"


# ---- trusted networks ----


@pytest.mark.parametrize(
    ("address", "yes"),
    [
        ("10.255.0.1", True),
        ("11.0.0.0", False),
        ("9.255.255.255", False),
        ("192.0.2.7", True),
        ("192.0.2.6", False),
        ("2001:db8:1:ffff::1", True),
        ("2001:db8:2::1", False),
        ("::1", True),
        ("::", False),
        ("::ffff:10.1.2.3", True),
    ],
)
def test_trusted_addresses(address: str, yes: bool) -> None:
    assert is_trusted(TRUSTED, packed(address)) is yes


def test_all_of_ipv6_is_none_of_ipv4() -> None:
    for network in ("::/0", "::/1", "::/80", "::/95"):
        assert is_trusted([network], packed("::2")) and not is_trusted([network], packed("10.0.0.1"))
    assert is_trusted(["0.0.0.0/0"], packed("10.0.0.1")) and not is_trusted(["0.0.0.0/0"], packed("::2"))
    assert is_trusted(["::ffff:10.0.0.0/104"], packed("10.0.0.1"))
    assert not is_trusted([], packed("10.0.0.1"))


networks = st.one_of(
    st.tuples(st.ip_addresses(v=4), st.integers(0, 32)),
    st.tuples(st.ip_addresses(v=6), st.integers(0, 128)),
).map(lambda pair: ipaddress.ip_network(pair, strict=False))


@given(
    st.lists(networks, max_size=4),
    st.one_of(
        st.ip_addresses(),
        st.tuples(networks, st.integers(0, (1 << 128) - 1)).map(lambda pair: pair[0][pair[1] % pair[0].num_addresses]),
    ),
)
def test_networks_are_those_of_ipaddress(nets, address) -> None:
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped  # one address, in either spelling: connections know only one of them
    nets = [net for net in nets if net.version == 4 or net.network_address.ipv4_mapped is None]
    assert is_trusted([str(net) for net in nets], packed(str(address))) == any(address in net for net in nets)


# ---- one address ----


@pytest.mark.parametrize(
    ("value", "result"),
    [
        (b"192.0.2.1", "192.0.2.1 0"),
        (b" \t192.0.2.1\t ", "192.0.2.1 0"),
        (b"192.0.2.1:8080", "192.0.2.1 8080"),
        (b"2001:DB8::1", "2001:db8::1 0"),
        (b"[2001:db8::1]", "2001:db8::1 0"),
        (b"[2001:db8::1]:443", "2001:db8::1 443"),
        (b"::ffff:192.0.2.1", "192.0.2.1 0"),
        (b"192.0.2.1:00080", "192.0.2.1 80"),
        (b"10.0.0.1", "10.0.0.1 0"),
        (b"", ""),
        (b"-", ""),
        (b"unknown", ""),
        (b"192.0.2.1:", ""),
        (b"192.0.2.1:65536", ""),
        (b"192.0.2.1:000080", ""),
        (b"192.0.2.1:8o", ""),
        (b"192.0.2", ""),
        (b"192.0.2.01", ""),
        (b"192.0.2.256", ""),
        (b"[192.0.2.1]", ""),
        (b"[::1", ""),
        (b"::1]", ""),
        (b"[::1]80", ""),
        (b"[::1]:", ""),
        (b"fe80::1%eth0", ""),
        (b"192.0.2.1\0", ""),
        (b"192.0.2.1,", ""),
        (b"192.0.2.1, 192.0.2.2", ""),
        (b'"192.0.2.1"', ""),
        (b"1" * 1000, ""),
        (b":" * 1000, ""),
    ],
)
@pytest.mark.parametrize("header", ["X-Real-IP", "CF-Connecting-IP"])
def test_one_address(header: str, value: bytes, result: str) -> None:
    assert shown(claim(header, [value], TRUSTED)) == result


def test_two_fields_are_a_list_and_no_address() -> None:
    assert claim("X-Real-IP", [], TRUSTED) is None
    assert claim("X-Real-IP", [b"192.0.2.1", b"192.0.2.1"], TRUSTED) is None
    assert claim("X-Real-IP", [b"", b"192.0.2.1"], TRUSTED) is None
    assert claim("X-Real-IP", [b"192.0.2.1"] * 300, TRUSTED) is None


# ---- X-Forwarded-For ----


@pytest.mark.parametrize(
    ("values", "result"),
    [
        ([b"192.0.2.1"], "192.0.2.1 0"),
        ([b"198.51.100.1, 192.0.2.1"], "192.0.2.1 0"),
        ([b"192.0.2.1, 10.0.0.1,10.0.0.2"], "192.0.2.1 0"),
        ([b"192.0.2.1", b"10.0.0.1"], "192.0.2.1 0"),
        ([b"10.0.0.1", b"192.0.2.1:5000 , [::1]:6000"], "192.0.2.1 5000"),
        ([b"192.0.2.1,,\t,10.0.0.1,"], "192.0.2.1 0"),
        ([b"garbage, 192.0.2.1"], "192.0.2.1 0"),
        ([b"garbage", b"192.0.2.1"], "192.0.2.1 0"),
        ([b"192.0.2.1, unknown"], ""),
        ([b"192.0.2.1, garbage, 10.0.0.1"], ""),
        ([b"192.0.2.1", b"garbage"], ""),
        ([b"192.0.2.1", b""], "192.0.2.1 0"),
        ([b"10.0.0.1, 192.0.2.7"], ""),
        ([b"192.0.2.1;10.0.0.1"], ""),
        ([b""], ""),
        ([b","], ""),
        ([], ""),
    ],
)
def test_the_nearest_hop_that_is_not_trusted(values: list[bytes], result: str) -> None:
    assert shown(claim("x-FORWARDED-for", values, TRUSTED)) == result


HOP = re.compile(r"\[([0-9A-Fa-f:.]*)\](?::([0-9]{1,5}))?|([0-9.]*)(?::([0-9]{1,5}))?|([0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*)")


def hop(text: str) -> tuple[bytes, int] | None:
    """a.b.c.d, a.b.c.d:port, v6, [v6], [v6]:port."""
    found = HOP.fullmatch(text)
    if found is None or (found[1] is not None and ":" not in found[1]):
        return None
    try:
        address = packed(found[1] or found[3] or found[5] or "")
    except ValueError:
        return None
    port = int(found[2] or found[4] or 0)
    return (address, port) if port <= 65535 else None


def nearest(hops: Sequence[tuple[bytes, int] | None]) -> tuple[bytes, int] | None:
    """The last one that is not trusted; None stands for one that cannot be read."""
    return next((one for one in reversed(hops) if one is None or not is_trusted(TRUSTED, one[0])), None)


texts = st.one_of(
    st.ip_addresses().map(str),
    st.sampled_from(["10.0.0.1", "10.9.9.9:80", "::1", "[2001:db8:1::5]:9", "192.0.2.7"]),
    st.tuples(st.ip_addresses(v=4), st.integers(0, 99999)).map(lambda t: f"{t[0]}:{t[1]}"),
    st.tuples(st.ip_addresses(v=6), st.integers(0, 99999)).map(lambda t: f"[{t[0]}]:{t[1]}"),
    st.text("0123456789abcdefF.:[]%_ -", max_size=20),
)
hop_lists = st.lists(st.lists(texts, max_size=5).map(lambda hops: ", ".join(hops)), max_size=3)


@given(hop_lists)
def test_hops_are_read_as_ipaddress_reads_them(values: list[str]) -> None:
    elements = [element.strip(" \t") for element in ",".join(values).split(",")]
    expected = nearest([hop(element) for element in elements if element])
    assert claim("X-Forwarded-For", [value.encode() for value in values], TRUSTED) == expected


# ---- Forwarded (RFC 7239) ----


@pytest.mark.parametrize(
    ("values", "result"),
    [
        ([b"for=192.0.2.60;proto=http;by=203.0.113.43"], "192.0.2.60 0"),  # the examples of sections 4, 6.3 and 7.1
        ([b'For="[2001:db8:cafe::17]:4711"'], "2001:db8:cafe::17 4711"),
        ([b'for=192.0.2.43, for="[2001:db8:cafe::17]"'], "2001:db8:cafe::17 0"),
        ([b'for="_gazonk"'], ""),
        ([b"for=_hidden, for=_SEVKISEK"], ""),
        ([b"for=192.0.2.43", b"for=198.51.100.17;by=203.0.113.60;proto=http;host=example.com"], "198.51.100.17 0"),
        ([b"for=192.0.2.43, for=10.0.0.1"], "192.0.2.43 0"),
        ([b'for=192.0.2.43,for="[::1]:80"', b"for=10.0.0.1"], "192.0.2.43 0"),
        ([b"proto=https;FOR=192.0.2.43"], "192.0.2.43 0"),
        ([b'for="192.0.2.43:5000"'], "192.0.2.43 5000"),
        ([b'for="192.0.2.43:_port"'], "192.0.2.43 0"),
        ([b'for="\\1\\92.0.2.43"'], "192.0.2.43 0"),
        ([b"for=192.0.2.43 ; proto=http"], "192.0.2.43 0"),
        ([b", for=192.0.2.43,,"], "192.0.2.43 0"),
        ([b"for=192.0.2.43;"], "192.0.2.43 0"),
        ([b'for=192.0.2.43;x="a, for=198.51.100.1"'], "192.0.2.43 0"),
        ([b"for=192.0.2.43, for=unknown"], ""),
        ([b'for=192.0.2.43, for="2001:db8::1"'], ""),  # without brackets
        ([b'for=192.0.2.43, for="192.0.2.1:65536"'], ""),
        ([b"for=192.0.2.43, proto=https"], ""),  # a hop that tells nobody's address
        ([b"for=192.0.2.43, ;"], ""),
        ([b"for=192.0.2.43;for=192.0.2.44"], ""),
        ([b"for=192.0.2.43;for=192.0.2.44, for=192.0.2.45"], "192.0.2.45 0"),
        ([b'for="x', b"for=192.0.2.45"], "192.0.2.45 0"),  # not readable, and not needed
        ([b'for="x, for=192.0.2.45'], ""),
        ([b"for=192.0.2.43", b'for="'], ""),
        ([b"for =192.0.2.43"], ""),
        ([b"for= 192.0.2.43"], ""),
        ([b"for=192.0.2.43:80"], ""),
        ([b"for=[::1]"], ""),
        ([b"for=192.0.2.43 for=192.0.2.44"], ""),
        ([b"for"], ""),
        ([b"for="], ""),
        ([b"=192.0.2.43"], ""),
        ([b'for="192.0.2.43\\'], ""),
        ([b'for="192.0.2.43\0"'], ""),
        ([b'for="192.0.2.43\\\0"'], ""),
        ([b'for=192.0.2.43;x="\0"'], ""),
        ([b'for=192.0.2.43;x="\\\x1f"'], ""),
        ([b'for=192.0.2.43;x="\x7f"'], ""),
        ([b'for=192.0.2.43;x="\t\\\t\xff"'], "192.0.2.43 0"),
        ([b'for=192.0.2.43, for="' + b"1" * 1000 + b'"'], ""),
        ([b""], ""),
        ([], ""),
    ],
)
def test_forwarded(values: list[bytes], result: str) -> None:
    assert shown(claim("forwarded", values, TRUSTED)) == result


TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
QUOTED = r'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*"'
PAIR = re.compile(rf"({TOKEN})=({TOKEN}|{QUOTED})")
BLANKS = re.compile(r"[ \t]*")
NODE = re.compile(r"(?:([0-9.]+)|\[([0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*)\])(?::(?:([0-9]{1,5})|_[A-Za-z0-9._-]+))?")


def node(text: str) -> tuple[bytes, int] | None:
    """Section 6; `unknown` and identifiers are no address."""
    found = NODE.fullmatch(text)
    if found is None:
        return None
    try:
        address = packed(found[1] or found[2])
    except ValueError:
        return None
    port = int(found[3] or 0)
    return (address, port) if port <= 65535 else None


def forwarded_hops(value: str) -> list[tuple[bytes, int] | None]:
    """Section 4: the hops of one field, empty elements aside. One that breaks the grammar has a single unreadable hop."""
    hops: list[tuple[bytes, int] | None] = []
    at = 0
    while True:
        pairs: list[tuple[str, str]] = []
        empty = True
        while True:
            at = BLANKS.match(value, at).end()  # type: ignore[union-attr]
            if found := PAIR.match(value, at):
                text = found[2]
                if text[0] == '"':
                    text = re.sub(r"\\(.)", r"\1", text[1:-1], flags=re.DOTALL)
                pairs.append((found[1].lower(), text))
                empty = False
                at = BLANKS.match(value, found.end()).end()  # type: ignore[union-attr]
            if value[at : at + 1] != ";":
                break
            empty = False
            at += 1
        if at < len(value) and value[at] != ",":
            return [None]
        if not empty:
            nodes = [text for name, text in pairs if name == "for"]
            hops.append(node(nodes[0]) if len(nodes) == 1 else None)
        if at == len(value):
            return hops
        at += 1


nodes = st.one_of(
    texts, texts.map(lambda t: f"[{t}]"), st.sampled_from(["unknown", "_hidden", "192.0.2.1:_p", "_", "[::1]:_a-b"])
)
quoted = nodes.map(lambda t: '"' + t + '"')
escaped = nodes.map(lambda t: '"' + "".join("\\" + c for c in t) + '"')
parameters = st.one_of(
    st.tuples(st.sampled_from(["for", "For", "by", "proto", "fo", "forx"]), st.one_of(nodes, quoted, escaped)).map("=".join),
    st.sampled_from(['x="a,b;c=d"', 'x="\\""', 'x="\x80\t"', "host=h", "x=", '"', "\\", "", "=", " "]),
)


def joined(parts: st.SearchStrategy[str], count: int, marks: list[str]) -> st.SearchStrategy[str]:
    return st.tuples(st.lists(parts, min_size=1, max_size=count), st.sampled_from(marks)).map(lambda t: t[1].join(t[0]))


elements = joined(parameters, 3, [";", "; ", " ;"])
forwarded_values = st.one_of(
    joined(elements, 4, [",", ", ", "\t,"]), st.text('for=;,"\\ \t1.0:[]_ab\0\x7f\xff', max_size=40)
)


@given(st.lists(forwarded_values, max_size=3))
@example(['for=6.6.6.6;by="', 'for=9.9.9.9;by="p"'])
@example(["for=6.6.6.6\0"])
def test_forwarded_is_read_as_the_rfc_says(values: list[str]) -> None:
    expected = nearest([one for value in values for one in forwarded_hops(value)])
    assert claim("Forwarded", [value.encode("latin-1") for value in values], TRUSTED) == expected


@given(st.sampled_from(["X-Real-IP", "X-Forwarded-For", "Forwarded"]), st.lists(st.binary(max_size=60), max_size=4))
def test_any_bytes_make_a_claim_or_none(header: str, values: list[bytes]) -> None:
    found = claim(header, values, TRUSTED)
    assert found is None or (len(found[0]) == 16 and 0 <= found[1] <= 65535)
    if found and header != "X-Real-IP":
        assert not is_trusted(TRUSTED, found[0])
