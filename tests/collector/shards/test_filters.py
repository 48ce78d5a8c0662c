"""AKTO_MODULE_DISCOVERY_CONFIG row by row, host filters, egress and ports."""

from __future__ import annotations

import json

import pytest

from collector import abi
from collector.errors import ConfigError
from collector.shards.filters.rules import parse_rules
from tests.events import OK, Conversation


def passes(config: str | None, *headers: str, **changes: object) -> bool:
    c = Conversation(rules=config, **changes)  # type: ignore[arg-type]
    c.request(("GET / HTTP/1.1\r\n" + "".join(h + "\r\n" for h in headers) + "\r\n").encode()).response(OK)
    return bool(c.records())


def rule(eq: str = "x-ns", absent: str = "reject", regex: str = "shop") -> dict:
    return {"key": {"eq": eq, "ifAbsent": absent}, "value": {"regex": regex}}


@pytest.mark.parametrize(
    ("config", "headers", "passed"),
    [
        ([rule()], ["X-Ns: my-shop-1"], True),  # found anywhere, unanchored
        ([rule()], ["X-NS: other"], False),
        ([rule()], ["X-Ns: SHOP"], False),  # case-sensitive value
        ([rule()], [], False),  # absent: reject
        ([rule(absent="REJECT")], [], False),
        ([rule(absent="accept")], [], True),
        ([rule(absent="maybe")], [], True),  # any other text accepts
        ([{"key": {"eq": "x-ns"}, "value": {"regex": "shop"}}], [], True),
        ([rule(regex="")], ["X-Ns: anything"], True),  # empty regex matches all
        ([{"key": {"eq": "x-ns", "ifAbsent": "reject"}}], ["x-ns: v"], True),  # missing regex too
        ([rule(), rule("x-env", "reject", "^prod$")], ["X-Ns: shop", "X-Env: prod"], True),
        ([rule(), rule("x-env", "reject", "^prod$")], ["X-Ns: shop", "X-Env: dev"], False),  # entries AND
        ([{"key": {"regex": "x"}, "value": {"regex": "y"}}], [], True),  # without eq: ignored
        ([{"KEY": {"EQ": "x-ns", "IFABSENT": "reject"}, "Value": {"REGEX": "shop"}}], [], False),
        ([rule("host", "reject", "api")], ["Host: api.example"], True),
        ([rule("host", "reject", "api")], ["Host: www.example"], False),
        ([], ["X: y"], True),  # no filter at all
        (None, ["X: y"], True),
    ],
)
def test_grammar(config: object, headers: list[str], passed: bool) -> None:
    assert passes(json.dumps(config), *headers) is passed


@pytest.mark.parametrize("config", [None, "", " ", "[]", "null"])
def test_nothing_is_left_out_unless_somebody_asks_for_it(config: str | None) -> None:
    assert passes(config) and passes(config, "x-envoy-peer-metadata-id: a")
    assert passes(config, *(f"x-{i}: y" for i in range(600)))


def test_rules_see_folded_fields_beyond_those_that_are_listed() -> None:
    filler = [f"x-{i}: y" for i in range(520)]
    config = json.dumps([rule(regex="^my shop here$")])
    assert passes(config, *filler, "X-Ns: my", " shop", "\there")
    assert not passes(config, *filler, "X-Ns: my", " shop", " elsewhere")


def test_aktos_default_is_one_word_away() -> None:
    assert passes("akto-default", "X-Envoy-Peer-Metadata-Id: sidecar~10.0.0.1~a.b")
    assert not passes("akto-default", "x-envoy-peer-metadata-id: router~10.0.0.1~a.b")
    assert passes("akto-default") and passes(" akto-default\n", "X: y")


@pytest.mark.parametrize(
    "config",
    [
        "{",
        "{}",
        '"text"',
        "5",
        '[{"key":5}]',
        '[{"key":{"eq":5}}]',
        "[1]",
        '[{"key":{"eq":"a"},"value":{"regex":5}}]',
        "[] trailing",
        '[{"key":{"eq":"a"},"value":{"regex":"("}}]',
        '[{"key":{"eq":"a"},"value":{"regex":"(?=x)"}}]',
    ],
)
def test_what_does_not_parse_refuses(config: str) -> None:
    with pytest.raises(ConfigError, match="AKTO_MODULE_DISCOVERY_CONFIG"):
        parse_rules(config)


def test_repeated_header_is_matched_as_recorded() -> None:
    assert passes(json.dumps([rule(regex="a, b")]), "X-Ns: a", "X-Ns: b")


def test_filter_applies_to_bytes_that_are_not_text() -> None:
    c = Conversation(rules=json.dumps([rule()])).request(b"GET / HTTP/1.1\r\nX-Ns: \xff shop\r\n\r\n").response(OK)
    assert len(c.records()) == 1


@pytest.mark.parametrize(
    ("host", "is_ip"),
    [
        ("10.0.0.1", True),
        ("10.0.0.1:8080", True),
        ("[::1]", True),
        ("[fe80::1]:80", True),
        ("::1", True),
        ("", True),
        ("api.example", False),
        ("api.example:80", False),
        ("10.0.0.1.example", False),
        ("999.1.1.1", False),
    ],
)
def test_ip_hosts(host: str, is_ip: bool) -> None:
    assert passes("[]", f"Host: {host}", ignore_ip_hosts=True) is not is_ip
    assert passes("[]", f"Host: {host}")


@pytest.mark.parametrize(
    ("host", "metadata"),
    [
        ("169.254.169.254", True),
        ("169.254.169.254:80", True),
        ("[fd00:ec2::254]", True),
        ("metadata.google.internal", True),
        ("Metadata.Google.Internal.", True),
        ("169.254.169.25", False),
        ("example.org", False),
    ],
)
def test_cloud_metadata(host: str, metadata: bool) -> None:
    assert passes("[]", f"Host: {host}", ignore_metadata=True) is not metadata


def test_cloud_metadata_by_the_called_address() -> None:
    c = Conversation(role=abi.CLIENT, remote=("169.254.169.254", 80), ignore_metadata=True)
    assert c.request(b"GET / HTTP/1.1\r\nHost: alias\r\n\r\n").response(OK).records() == []
    assert c.counters()["filtered_metadata"] == 1


def test_egress_and_ports() -> None:
    assert Conversation(role=abi.CLIENT, disable_egress=True).request(b"GET / HTTP/1.1\r\n\r\n").response(OK).records() == []
    server = Conversation(disable_egress=True).request(b"GET / HTTP/1.1\r\n\r\n").response(OK)
    assert len(server.records()) == 1
    for role, local, remote, recorded in (
        (abi.CLIENT, ("1.1.1.1", 5000), ("2.2.2.2", 9092), 0),
        (abi.SERVER, ("1.1.1.1", 9092), ("2.2.2.2", 5000), 0),
        (abi.SERVER, ("1.1.1.1", 80), ("2.2.2.2", 9092), 1),
    ):
        c = Conversation(role=role, local=local, remote=remote, ignore_ports=[9092])
        assert len(c.request(b"GET / HTTP/1.1\r\n\r\n").response(OK).records()) == recorded


def test_only_ports() -> None:
    for port, recorded in ((80, 1), (81, 0)):
        c = Conversation(local=("1.1.1.1", port), only_ports=[80])
        assert len(c.request(b"GET / HTTP/1.1\r\n\r\n").response(OK).records()) == recorded
