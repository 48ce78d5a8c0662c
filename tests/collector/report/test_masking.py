"""No address and no name of a host is left; what is none stays readable."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.report.masking import Mask


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("from 10.1.2.3:4711 to 10.1.2.4", "from <address-1>:4711 to <address-2>"),
        ("10.1.2.3, 10.1.2.3", "<address-1>, <address-1>"),
        ("[2001:db8::1]:443 and 2001:db8:0::1", "[<address-1>]:443 and <address-1>"),
        ("fe80::1%eth0 is there", "<address-1>%eth0 is there"),
        ("::ffff:10.0.0.1", "<address-1>"),
        ("'10.0.0.1'/24", "'<address-1>'/24"),
        ("kafka-1.prod.example.com:9092: refused", "<host-1>:9092: refused"),
        ("broker kafka:9092", "broker <host-1>:9092"),
        ("cannot resolve db.internal.", "cannot resolve <host-1>."),
        ("node-7 and NODE-7", "<host-1> and <host-1>"),
        ("https://user@api.example.org/v1?x=1", "https://user@<host-1>/v1?x=1"),
        ("*.example.org", "*.<host-1>"),
    ],
)
def test_addresses_and_names_are_masked(text: str, masked: str) -> None:
    assert Mask(["node-7"])(text) == masked


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-27T18:00:01.123Z INFO    shard-0: started",
        "Python 3.11.2, kernel 6.18.44-x86_64, libssl.so.3, libssl.so.1.1",
        'File "/opt/collector/shards/process.py", line 12 in run',
        "File collector/shards/process.py:12",
        "collector.shards.process and collector.router.slots",
        "/run/collector/ebpf-api-collector/status.sock: No such file or directory",
        "http://127.0.0.1:11226 and localhost:9092 and [::1]:80 and 0.0.0.0:80",
        'collector_shard_events_total{shard="0"} 1.5e+06',
        "topic akto.api.logs",
        "12:34:56 and 1:2 and std::x",
        "memory.limit_in_bytes: 17",
        "0.25 us, 99.9 %",
    ],
)
def test_what_is_no_address_stays(text: str) -> None:
    assert Mask()(text) == text


_AROUND = st.sampled_from(["", " ", "'", '"', "(", ")", "=", ",", "/", "->", "<", ">", "@", "\t", ";", "|", "//"])


@given(st.integers(0, 2**32 - 1).map(IPv4Address), _AROUND, _AROUND, st.booleans())
def test_no_ipv4_address_is_left(address: IPv4Address, before: str, behind: str, port: bool) -> None:
    if not (address.is_loopback or address.is_unspecified):
        text = f"x{before}{address}{':8080' if port else ''}{behind}y" if before and behind else f"{address}"
        assert str(address) not in Mask()(text)


@given(st.integers(0, 2**128 - 1).map(IPv6Address), _AROUND, _AROUND, st.booleans())
def test_no_ipv6_address_is_left(address: IPv6Address, before: str, behind: str, port: bool) -> None:
    if not (address.is_loopback or address.is_unspecified):
        shown = f"[{address}]:8080" if port else str(address)
        text = f"x{before}{shown}{behind}y" if before and behind else shown
        assert str(address) not in Mask()(text)


@given(st.lists(st.from_regex(r"[a-z][a-z0-9-]{0,8}[a-z0-9]", fullmatch=True), min_size=2, max_size=4), _AROUND)
def test_no_name_with_a_known_end_is_left(labels: list[str], around: str) -> None:
    name = ".".join([*labels, "example"])
    around = around or " "
    if not {"so", "py"} & set(labels) and around != "/":  # a part of a path
        assert name not in Mask()(f"a{around}{name}{around}b")


@given(st.text(max_size=200))
def test_any_text_is_taken(text: str) -> None:
    mask = Mask(["a.b", "node"])
    once = mask(text)
    assert mask(once) == once
