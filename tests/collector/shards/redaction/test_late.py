"""The policy changes while exchanges are under way: what was read before does not get by it."""

from __future__ import annotations

import json

import pytest

from collector.policy.model import BUILTIN, Mode, Policy, Redaction
from collector.shards.pipeline import Pipeline
from tests.events import Conversation
from tests.secrets.running import answered, asked, drained, head, policed

SECRET = "q7Zr2KpX9wLm4"
FIELDS = (f"Authorization: Bearer {SECRET}", f"Cookie: a={SECRET}; b=2", f"X-Api-Key: {SECRET}", "X-Plain: kept")
ASKED = asked(b"{}", "application/json", *FIELDS, target=f"/v1/x?api_key={SECRET}&page=2")
ANSWERED = answered(b"{}", "application/json", f"Set-Cookie: sid={SECRET}; Path=/")


def begun(pipe: Pipeline) -> Conversation:
    return Conversation(pipe).request(ASKED)


def test_heads_that_were_read_under_off_are_redacted() -> None:
    pipe = policed("off")
    c = begun(pipe)
    pipe.use_policy(BUILTIN["secrets"], b"")
    c.response(ANSWERED).close()
    output, (record,) = drained(pipe)
    assert SECRET.encode() not in output
    fields = json.loads(record["requestHeaders"])
    assert fields["X-Plain"] == "kept" and fields["X-Api-Key"].startswith("[redacted:")
    assert record["path"].endswith("&page=2") and record["method"] == "POST" and int(record["redacted"]) >= 4


def test_later_parts_of_a_stream_are_redacted() -> None:
    pipe = policed("off")
    c = begun(pipe).response(head("HTTP/1.1 200 OK", "Content-Type: text/event-stream", f"X-Auth-Token: {SECRET}"))
    c.response(b"data: 1\n\n").wait(1.5).response(b"data: 2\n\n")
    pipe.use_policy(BUILTIN["secrets"], b"")
    c.wait(1.5).response(b"data: 3\n\n").wait(1.5)
    c.close()
    _output, records = drained(pipe)
    assert SECRET in json.dumps(records[0]) and len(records) > 1
    assert all(SECRET not in json.dumps(record) for record in records[1:] if "data: 1" not in record["responsePayload"])


@pytest.mark.parametrize("policy", [BUILTIN["strict"], Policy(redaction=Redaction(mode=Mode.STRICT))])
def test_strict_is_as_strict_with_them(policy: Policy) -> None:
    pipe = policed("off")
    c = begun(pipe)
    pipe.use_policy(policy, b"")
    c.response(ANSWERED).close()
    output, (record,) = drained(pipe)
    assert SECRET.encode() not in output
    assert json.loads(record["requestHeaders"])["X-Plain"] == "[string:4]"


def test_messages_of_a_websocket_that_wait_are_left_out() -> None:
    pipe = policed("off")
    c = Conversation(pipe)
    upgrade = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
    c.request(head("GET /chat HTTP/1.1", "Host: a", "Sec-WebSocket-Version: 13", *upgrade))
    c.response(head("HTTP/1.1 101 Switching Protocols", *upgrade[:2], "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="))
    c.response(b"\x81\x0d" + SECRET.encode())
    pipe.use_policy(BUILTIN["secrets"], b"")
    c.wait(2).response(b"\x81\x05later").wait(2).response(b"\x81\x04last").wait(2).close()
    output, records = drained(pipe)
    assert SECRET.encode() not in output
    events = [(record["events"], "response_body_omitted" in record["marks"]) for record in records[1:]]
    assert events[0] == ("[]", True) and "later" in events[1][0] and "last" in events[2][0] and not events[1][1]


def test_a_policy_that_redacts_the_same_is_no_other_one() -> None:
    pipe = policed("strict")
    c = begun(pipe)
    pipe.use_policy(BUILTIN["strict"], b"")
    c.response(ANSWERED).close()
    assert len(drained(pipe)[1]) == 1
