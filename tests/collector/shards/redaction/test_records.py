"""Whole records under a policy: each place that can hold a secret, and what is said of it."""

from __future__ import annotations

import base64
import gzip
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector import abi
from collector.policy.model import BUILTIN, Mode, Part, Policy, Redaction, RedactionRule, Scope
from tests.events import Conversation, one_line

SECRETS, STRICT = BUILTIN["secrets"], BUILTIN["strict"]
CARD = b"4111 1111 1111 1111"


def exchange(request: bytes, response: bytes = b"HTTP/1.1 204 No Content\r\n\r\n", **how: Any) -> dict[str, Any]:
    """The record of one exchange, under `secrets` unless something else is asked for."""
    how.setdefault("policy", SECRETS)
    c = Conversation(**how)
    c.request(request).response(response)
    (record,) = c.records()
    return record


def post(body: bytes, media: str = "application/json", *further: str) -> bytes:
    lines = ["POST /login HTTP/1.1", "Host: h", f"Content-Type: {media}", f"Content-Length: {len(body)}", *further]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def test_off_changes_nothing() -> None:
    request = post(b'{"password": "hunter2"}', "application/json", "Authorization: Basic dTpw", "Cookie: a=b")
    plain, off = (exchange(request, policy=policy) for policy in (BUILTIN["off"], BUILTIN["off"]))
    assert plain == off and "redacted" not in off and off["requestPayload"] == '{"password": "hunter2"}'


def test_head() -> None:
    record = exchange(
        b"GET /a/4111111111111111?password=x&page=2 HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer abc\r\n"
        b"Proxy-Authorization: Digest username=u, response=abc\r\nCookie: sid=abc; theme=dark\r\nX-Api-Key: k123\r\n"
        b"X-Note: card 4111-1111-1111-1111\r\nReferer: https://u:pw12@h/?token=abc\r\nAccept: */*\r\n\r\n",
        b"HTTP/1.1 302 Found token=abc123\r\nSet-Cookie: sid=abc; Path=/; HttpOnly\r\nSet-Cookie: b=c\r\n"
        b"Location: /cb?code=1#access_token=abc\r\nContent-Length: 0\r\n\r\n",
    )
    assert record["path"] == "/a/[redacted:card]?password=[redacted:password]&page=2"
    assert record["request"] == {
        "host": "h",
        "Authorization": "Bearer [redacted:authorization]",
        "Proxy-Authorization": "Digest [redacted:authorization]",
        "Cookie": "sid=[redacted:cookie]; theme=[redacted:cookie]",
        "X-Api-Key": "[redacted:api_key]",
        "X-Note": "card [redacted:card]",
        "Referer": "https://u:[redacted:password]@h/?token=[redacted:token]",
        "Accept": "*/*",
    }
    assert record["response"] == {
        "Set-Cookie": "sid=[redacted:cookie]; Path=/; HttpOnly\nb=[redacted:cookie]",
        "Location": "/cb?code=1#access_token=[redacted:token]",
        "Content-Length": "0",
    }
    assert record["status"] == "302 Found token=[redacted:token]" and record["redacted"] == "14"


@pytest.mark.parametrize("coding", ["identity", "gzip"])
def test_bodies(coding: str) -> None:
    body = json.dumps({"user": {"password": "hunter2"}, "cards": [{"n": CARD.decode()}], "page": 1}).encode()
    sent = gzip.compress(body) if coding == "gzip" else body
    record = exchange(post(sent, "application/json", f"Content-Encoding: {coding}"))
    assert json.loads(record["requestPayload"]) == {
        "user": {"password": "[redacted:password]"},
        "cards": [{"n": "[redacted:card]"}],
        "page": 1,
    }
    assert record["redacted"] == "2" and record["requestSize"] == str(len(sent)) and record["mark"] == []


def test_form_and_multipart() -> None:
    record = exchange(
        post(b"user=u&pass%77ord=a;b&x=4111+1111+1111+1111", "application/x-www-form-urlencoded; charset=utf-8")
    )
    assert record["requestPayload"] == "user=u&pass%77ord=[redacted:password]&x=[redacted:card]"
    body = b'--B\r\nContent-Disposition: form-data; name="pin"\r\n\r\n12\r\n--B--\r\n'
    record = exchange(post(body, "multipart/form-data; boundary=B"))
    assert record["requestPayload"] == body.decode().replace("\r\n12\r\n", "\r\n[redacted:pin]\r\n")


@pytest.mark.parametrize(
    ("media", "codec"), [("application/json; charset=utf-16", "utf-16"), ("application/json", "utf-16-le")]
)
def test_utf16(media: str, codec: str) -> None:
    record = exchange(post('{"password": "hunter2", "a": "b"}'.encode(codec), media))
    assert "hunter2" not in record["requestPayload"].replace("\0", "") and record["redacted"] == "1"


def test_bytes_that_are_no_text() -> None:
    body = b"\xff\xfe\x00\x81" + b"AKIAIOSFODNN7EXAMPLE" + b"\xff"
    record = exchange(post(body, "application/x-thing"))
    assert base64.b64decode(record["requestPayload"]) == body.replace(b"AKIAIOSFODNN7EXAMPLE", b"[redacted:aws_access_key]")


def test_every_cut_of_a_body() -> None:
    body = b'{"a": "some text", "password": "hunter2hunter2", "n": "4111 1111 1111 1111"}'
    for limit in range(1, len(body) + 1):
        record = exchange(post(body), body_bytes=limit)
        text = record["requestPayload"]
        json.loads(text or "null")
        assert "hunter" not in text and "4111 1" not in text, text


def test_strict() -> None:
    record = exchange(
        post(
            b'{"a": "xyz", "n": -12.5, "t": true, "z": null, "l": ["q", 7], "o": {}}',
            "application/json",
            "X-Who: me",
            "Cookie: a=b",
        ),
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello",
        policy=STRICT,
    )
    assert json.loads(record["requestPayload"]) == {
        "a": "[string:3]", "n": "[number:5]", "t": "[boolean:4]", "z": None, "l": ["[string:1]", "[number:1]"], "o": {},
    }  # fmt: skip
    assert record["request"]["X-Who"] == "[string:2]" and record["request"]["Cookie"] == "a=[string:1]"
    assert record["request"]["Content-Type"] == "application/json" and record["request"]["host"] == "h"
    assert record["responsePayload"] == "" and "response_body_omitted" in record["mark"]
    record = exchange(b"GET /v1/users/12/a%20b?q=x&y HTTP/1.1\r\nHost: h\r\n\r\n", policy=STRICT)
    assert record["path"] == "/v1/users/[string:2]/[string:5]?q=[string:1]&[string:1]"


def test_details_of_the_message() -> None:
    c = Conversation(policy=SECRETS, want_details=True)
    c.request(b"GET /x?password=hunter2 HTTP/1.1\r\nHost: h\r\n\r\n").response(b"HTTP/1.1 204 N\r\n\r\n")
    batch = c.pipe.take()
    assert batch is not None and batch[2] == b"h|GET|/x?password=[redacted:password]"


def test_the_key() -> None:
    one = exchange(post(b'{"password": "a"}'), key=b"k" * 16)["requestPayload"]
    two = exchange(post(b'{"x": 1, "password": "a"}'), key=b"k" * 16)["requestPayload"]
    assert json.loads(one)["password"] == json.loads(two)["password"] != "[redacted:password]"


def test_a_policy_holds_from_the_next_head_on() -> None:
    c = Conversation()
    c.request(post(b'{"password": "a"}')).response(b"HTTP/1.1 204 N\r\n\r\n")
    c.pipe.use_policy(SECRETS)
    c.request(post(b'{"password": "b"}')).response(b"HTTP/1.1 204 N\r\n\r\n")
    c.pipe.use_policy(BUILTIN["off"])
    c.request(post(b'{"password": "c"}')).response(b"HTTP/1.1 204 N\r\n\r\n")
    assert [json.loads(r["requestPayload"])["password"] for r in c.records()] == ["a", "[redacted:password]", "c"]
    assert c.counters()["redacted_values"] == 1


HEADS = (
    b"POST /a/4111111111111111?password=x&p=2 HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer abc\r\nCookie: sid=abc; b=c\r\n"
    b'Cookie: d=e\r\nX-Note: "card" \\ 4111-1111-1111-1111\r\nX-Name: \xc3\xb6 \x01\r\nContent-Length: 0\r\n\r\n',
    b"HTTP/1.1 200 Yes token=abc123\r\nSet-Cookie: sid=abc; Path=/\r\nSet-Cookie: b=c\r\nContent-Length: 2\r\n\r\n",
)


@pytest.mark.parametrize("name", ["secrets", "strict"])
@pytest.mark.parametrize("before_answer", [True, False])
def test_heads_of_before_a_change_are_shown_by_the_policy_of_the_record(name: str, before_answer: bool) -> None:
    expected = exchange(HEADS[0], HEADS[1] + b"hi", policy=BUILTIN[name])
    c = Conversation()
    c.request(HEADS[0])
    if not before_answer:
        c.response(HEADS[1])
    c.pipe.use_policy(BUILTIN[name])
    c.response((HEADS[1] if before_answer else b"") + b"hi")
    (record,) = c.records()
    assert "password=x" not in str(record) and "sid=abc" not in str(record)
    shown = ("method", "path", "type", "requestHeaders", "status", "statusCode", "responseHeaders", "responsePayload")
    assert [record[key] for key in shown] == [expected[key] for key in shown]
    assert int(record["redacted"]) >= int(expected["redacted"])


def test_details_of_a_message_from_before_a_change() -> None:
    c = Conversation(want_details=True)
    c.request(b"GET /x?password=hunter2 HTTP/1.1\r\nHost: h\r\n\r\n")
    c.pipe.use_policy(SECRETS)
    c.response(b"HTTP/1.1 204 N\r\n\r\n")
    batch = c.pipe.take()
    assert batch is not None and batch[2] == b"h|GET|/x?password=[redacted:password]"


def test_every_part_of_a_stream_is_shown_by_the_policy_in_force() -> None:
    c = Conversation()
    c.request(b"GET /x?api_key=k123 HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer abc\r\n\r\n")
    c.response(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nSet-Cookie: sid=s12\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    c.pipe.use_policy(SECRETS)
    c.response(b"9\r\ndata: 1\n\n\r\n0\r\n\r\n")
    records = c.records()
    assert records
    for record in records:
        assert record["path"] == "/x?api_key=[redacted:api_key]"
        assert record["request"]["Authorization"] == "Bearer [redacted:authorization]"
        assert record["response"]["Set-Cookie"] == "sid=[redacted:cookie]"


def test_rules_of_the_new_policy_hold_by_host_and_path() -> None:
    def ruled(path: str) -> Policy:
        rule = RedactionRule("note", Part.HEADER, "X-Note", Scope(("h",), (path,)))
        return Policy(redaction=Redaction(Mode.OFF, (rule,)))

    for path, shown in (("/a/*", "[redacted:note]"), ("/b/*", "n1")):
        c = Conversation(policy=ruled("/c"))
        c.request(b"GET /a/1 HTTP/1.1\r\nHost: h\r\nX-Note: n1\r\n\r\n")
        c.pipe.use_policy(ruled(path))
        c.response(b"HTTP/1.1 204 N\r\n\r\n")
        (record,) = c.records()
        assert record["request"]["X-Note"] == shown


NAMES = st.sampled_from(["X-A", "x-a", "Cookie", "Set-Cookie", "Via", "X B", "Host"])
VALUES = st.binary(max_size=40).map(lambda value: value.translate(None, b"\r\n\0").strip())


@given(st.lists(st.tuples(NAMES, VALUES), max_size=8), st.binary(max_size=30))
def test_a_head_that_is_read_again_is_the_same(fields: list[tuple[str, bytes]], target: bytes) -> None:
    target = b"/" + target.translate(None, bytes(range(33)) + b"\x7f")
    lines = b"".join(name.encode() + b": " + value + b"\r\n" for name, value in fields)
    nothing = Policy(redaction=Redaction(Mode.OFF, (RedactionRule("k", Part.HEADER, "X-Never"),)))
    shown = []
    for policy in (None, nothing):
        c = Conversation()
        c.request(b"GET " + target + b" HTTP/1.1\r\n" + lines + b"\r\n")
        c.response(b"HTTP/1.1 200 OK\r\n" + lines + b"Content-Length: 1\r\n\r\n")
        if policy is not None:
            c.pipe.use_policy(policy)
        c.response(b"x")
        shown.append([(r["path"], r["requestHeaders"], r["status"], r["responseHeaders"]) for r in c.records()])
    assert shown[0] == shown[1]


def test_every_event_boundary() -> None:
    request = post(b'{"password": "hunter2", "n": "4111111111111111"}', "application/json", "Authorization: Basic dTpw")
    answer = b"HTTP/1.1 204 N\r\n\r\n"
    expected = exchange(request, answer)
    for at in range(1, len(request)):
        c = Conversation(policy=SECRETS)
        c.request(request[:at]).request(request[at:]).response(answer)
        assert c.records()[0]["requestPayload"] == expected["requestPayload"]


def test_joined_in_the_middle() -> None:
    c = Conversation(policy=SECRETS, start=abi.MID)
    c.request(post(b'{"password": "hunter2"}')).response(b"HTTP/1.1 204 N\r\n\r\n").close()
    assert all("hunter2" not in str(record) for record in c.records())


def test_a_costly_body_does_not_spend_what_heads_need() -> None:
    head = b"GET /x?next=%2Fhome%2Fpage%2Fone HTTP/1.1\r\nHost: h\r\n\r\n"
    c = Conversation(policy=SECRETS)
    for _ in range(300):
        c.send(c.requests, post(b"%7B" * 20_000, "application/x-www-form-urlencoded"), step_ms=0.01)
        c.response(b"HTTP/1.1 204 N\r\n\r\n")
    spent = any("[redacted:unread]" in record["requestPayload"] for record in c.records())
    c.request(head).response(b"HTTP/1.1 204 N\r\n\r\n")
    (record,) = c.records()
    assert spent and record["path"] == "/x?next=%2Fhome%2Fpage%2Fone"


def test_one_line_is_json() -> None:
    c = Conversation(policy=SECRETS)
    c.request(post(b'{"password": "\\u0000"}')).response(b"HTTP/1.1 204 N\r\n\r\n")
    assert b"[redacted:password]" in one_line(c)


def test_a_value_that_was_seen_elsewhere_is_secret_behind_a_secrets_name() -> None:
    c = Conversation(policy=SECRETS)
    for name in ("X-Note", "X-Api-Key", "X-Note"):
        c.request(f"GET / HTTP/1.1\r\nHost: h\r\n{name}: plain-but-long-value\r\n\r\n".encode())
        c.response(b"HTTP/1.1 204 No Content\r\n\r\n")
    shown = [record["request"] for record in c.records()]
    assert [one.get("X-Note") for one in shown] == ["plain-but-long-value", None, "plain-but-long-value"]
    assert shown[1]["X-Api-Key"] == "[redacted:api_key]"


@pytest.mark.parametrize("name", ["client_secret", "api_key", "user_password", "private_key"])
def test_all_that_is_in_an_object_below_a_secrets_name(name: str) -> None:
    body = json.dumps({name: {"a": "x1y2z3", "b": ["x4", {"c": "x5"}]}, "next": "kept"}).encode()
    record = exchange(post(body))
    shown = json.loads(record["requestPayload"])
    assert "x" not in json.dumps(shown[name]).replace("[redacted:", "").replace("next", "") and shown["next"] == "kept"


def test_an_object_of_a_session_is_no_secret() -> None:
    record = exchange(post(b'{"session": {"theme": "dark"}, "token": {"type": "bearer", "value": "abc"}}'))
    shown = json.loads(record["requestPayload"])
    assert shown["session"] == {"theme": "dark"}
    assert shown["token"] == {"type": "bearer", "value": "[redacted:token]"}
