"""Own rules of a policy: what they find, which of them counts, and where they hold."""

from __future__ import annotations

import json

import pytest

from collector.policy.model import Mode, Part, Policy, Redaction, RedactionRule, Scope
from tests.collector.shards.redaction.test_records import exchange, post

EVERYWHERE = Scope()


def policy(*rules: RedactionRule, mode: Mode = Mode.OFF) -> Policy:
    return Policy("own", redaction=Redaction(mode, rules))


def rule(part: Part, pattern: str, kind: str = "own", *, keep: bool = False, scope: Scope = EVERYWHERE) -> RedactionRule:
    return RedactionRule(kind, part, pattern, scope, keep)


BODY = b'{"a": {"b": [{"c": "x", "d": "y"}, {"c": 5}]}, "e~/f": "z", "note": "ticket AB-1234 and CD-5", "t": true}'


@pytest.mark.parametrize(
    ("one", "changed"),
    [
        (rule(Part.JSON, "/a/b/0/c"), {'"x"': '"[redacted:own]"'}),
        (rule(Part.JSON, "/a/b/*/c"), {'"x"': '"[redacted:own]"', ": 5": ': "[redacted:own]"'}),
        (rule(Part.JSON, "/**/d"), {'"y"': '"[redacted:own]"'}),
        (rule(Part.JSON, "/e~0~1f"), {'"z"': '"[redacted:own]"'}),
        (rule(Part.NAME, "c|d"), {'"x"': '"[redacted:own]"', '"y"': '"[redacted:own]"', ": 5": ': "[redacted:own]"'}),
        (rule(Part.VALUE, "[A-Z]{2}-[0-9]{4}"), {"AB-1234": "[redacted:own]"}),
        (rule(Part.JSON, "/a/x"), {}),
    ],
)
def test_bodies(one: RedactionRule, changed: dict[str, str]) -> None:
    expected = BODY.decode()
    for old, new in changed.items():
        expected = expected.replace(old, new)
    record = exchange(post(BODY), policy=policy(one))
    assert json.loads(record["requestPayload"]) == json.loads(expected)
    assert record.get("redacted", "0") == str(len(changed))


def test_heads_and_queries() -> None:
    record = exchange(
        b"GET /customers/ada/orders/7?trace=1&page=2 HTTP/1.1\r\nHost: h\r\nX-Customer: ada\r\nX-Other: v\r\n\r\n",
        policy=policy(
            rule(Part.PATH, "/customers/{id}/orders/*", "customer"),
            rule(Part.QUERY, "trace"),
            rule(Part.HEADER, "x-customer", "customer"),
        ),
    )
    assert record["path"] == "/customers/[redacted:customer]/orders/7?trace=[redacted:own]&page=2"
    assert record["request"] == {"host": "h", "X-Customer": "[redacted:customer]", "X-Other": "v"}


def test_forms() -> None:
    record = exchange(
        post(b"a=1&tax%20id=2&b=3", "application/x-www-form-urlencoded"), policy=policy(rule(Part.NAME, "tax id"))
    )
    assert record["requestPayload"] == "a=1&tax%20id=[redacted:own]&b=3"


@pytest.mark.parametrize("mode", [Mode.SECRETS, Mode.STRICT])
def test_what_is_kept(mode: Mode) -> None:
    record = exchange(
        post(b'{"token": "public", "password": "x", "n": "4111 1111 1111 1111"}', "application/json", "X-Api-Key: demo"),
        policy=policy(
            rule(Part.JSON, "/token", keep=True),
            rule(Part.HEADER, "X-API-Key", keep=True),
            rule(Part.NAME, "n", "number"),
            mode=mode,
        ),
    )
    body = json.loads(record["requestPayload"])
    assert body["token"] == "public" and body["n"] == "[redacted:number]" and "x" not in body["password"].split("]")
    assert record["request"]["X-Api-Key"] == "demo"


def test_the_first_rule_counts() -> None:
    rules = rule(Part.NAME, "c", "first"), rule(Part.JSON, "/a/b/0/c", "second")
    for order, kind in ((rules, "first"), (rules[::-1], "second")):
        body = json.loads(exchange(post(BODY), policy=policy(*order))["requestPayload"])
        assert body["a"]["b"][0]["c"] == f"[redacted:{kind}]"


def test_scopes() -> None:
    one = rule(Part.NAME, "c", scope=Scope(("*.example",), ("/log*",)))
    for host, path, there in (
        ("a.example", "/login?x=1", True),
        ("A.EXAMPLE:80", "/login", True),
        ("h", "/login", False),
        ("a.example", "/x", False),
    ):
        request = post(BODY).replace(b"Host: h", b"Host: " + host.encode()).replace(b"/login", path.encode())
        assert exchange(request, policy=policy(one)).get("redacted", "0") == ("2" if there else "0")


def test_every_cut() -> None:
    for limit in range(1, len(BODY)):
        record = exchange(post(BODY), policy=policy(rule(Part.NAME, "c|d|note")), body_bytes=limit)
        assert "AB-1" not in record["requestPayload"] and '"x"' not in record["requestPayload"]
