"""Secrets of which only a part was seen: cut by events, by the limits of heads and bodies, by holes, by the beginning of the
capture. What is left of one gives nothing away: no run of eight characters.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from collector import abi
from tests.events import Conversation
from tests.secrets.carriers import CARRIERS
from tests.secrets.documents import DOCUMENTS
from tests.secrets.heads import HEADS
from tests.secrets.kinds import make
from tests.secrets.matrix import Case, body_cases, head_cases
from tests.secrets.running import CLIENT, PLAIN_REQUEST, Calls, drained, head, policed, written
from tests.secrets.search import found
from tests.secrets.test_redaction import ALL, POLICIES

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
KINDS = ("jwt", "card-visa", "iban-gb-blanks", "pem-ec", "token-hex")
BODIES = (
    "json",
    "json-half-escaped-value",
    "json-in-json",
    "form",
    "multipart-field",
    "xml",
    "text",
    "text-base64",
    "json-base64-json",
)
PLACES = (
    *("authorization-Bearer", "authorization-basic", "cookie", "set-cookie-several", "header-by-name", "header-X-Custom"),
    *("query", "query-other-name", "query-json", "path", "target-user", "location-query", "reason-phrase"),
)


def cases(names: tuple[str, ...] = BODIES, carrier: str = "request") -> Iterator[Case]:
    for name in names:
        yield from body_cases(CARRIERS[carrier], DOCUMENTS[name], KINDS, "cut")


def stride(length: int) -> int:
    """Of the places where something of so many bytes is cut."""
    return 1 if ALL else 3 if length < 160 else 13


def around(case: Case, calls: Calls) -> range:
    """Offsets in the message that holds it, from a little before the secret to its end; all of it where it is coded."""
    step = stride(len(case.secret.text))
    message = max(calls, key=lambda call: len(call[1]))[1]
    plain = case.secret.text.encode()[:6]
    at = message.find(plain)
    if at < 0:
        at = max(0, len(message) - len(case.body))
        return range(at, len(message), step)
    return range(max(0, at - 12), min(len(message), at + len(case.secret.text.encode()) + 12), step)


def leaked(case: Case, policy: str, output: bytes, where: object, out: list[str]) -> None:
    if policy in case.due:
        out += [f"{case}, {where}: {hit!r}" for _kind, hit in found(output, case.secret)]


def show(leaks: list[str]) -> str:
    return f"{len(leaks)}:\n" + "\n".join(leaks[:40])


@POLICIES
def test_cut_by_events_of_one_byte(policy: str) -> None:
    out: list[str] = []
    for case in [*cases(), *(one for name in PLACES for one in head_cases(HEADS[name], KINDS, "cut"))]:
        calls = [(asks, data[at : at + 1]) for asks, data in case.calls for at in range(len(data))]
        leaked(case, policy, written(calls, policy)[0], "byte by byte", out)
    assert not out, show(out)


@POLICIES
@pytest.mark.parametrize("name", ["query", "authorization-Bearer", "cookie"])
def test_cut_in_two_events_of_a_head(name: str, policy: str) -> None:
    out: list[str] = []
    for case in head_cases(HEADS[name], KINDS, "cut"):
        (asks, data), *rest = case.calls
        for at in around(case, [case.calls[0]]):
            calls = [(asks, data[:at]), (asks, data[at:]), *rest]
            leaked(case, policy, written(calls, policy)[0], at, out)
    assert not out, show(out)


@POLICIES
@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("carrier", ["request", "response"])
def test_cut_by_the_limit_of_bodies(carrier: str, name: str, policy: str) -> None:
    out: list[str] = []
    for case in cases((name,), carrier):
        for limit in range(1, len(case.body) + 1, stride(len(case.body))):
            leaked(case, policy, written(case.calls, policy, body_bytes=limit)[0], limit, out)
    assert not out, show(out)


@POLICIES
@pytest.mark.parametrize(
    "carrier", ["response-gzip", "response-deflate", "request-br", "utf-16le", "websocket-text", "grpc-request"]
)
def test_cut_by_the_limit_of_bodies_when_coded(carrier: str, policy: str) -> None:
    out: list[str] = []
    for case in cases(("json", "text"), carrier):
        for limit in range(1, 2 * len(case.body), 1 if ALL else 13):
            leaked(case, policy, written(case.calls, policy, body_bytes=limit)[0], limit, out)
    assert not out, show(out)


@POLICIES
@pytest.mark.parametrize("name", PLACES)
def test_cut_by_the_limit_of_heads(name: str, policy: str) -> None:
    out: list[str] = []
    for case in head_cases(HEADS[name], KINDS, "cut"):
        whole = next(call for call in case.calls if case.secret.text.encode()[:4] in call[1] or call is case.calls[0])
        for limit in around(case, [whole]):
            leaked(case, policy, written(case.calls, policy, header_bytes=max(16, limit))[0], limit, out)
    assert not out, show(out)


def with_hole(calls: Calls, which: int, at: int, size: int, policy: str) -> bytes:
    """These calls, and of one of them some bytes that nobody saw."""
    pipe = policed(policy)
    c = Conversation(pipe)
    for number, (asks, data) in enumerate(calls):
        send = c.request if asks == CLIENT else c.response
        if number != which:
            send(data)
            continue
        send(data[:at])
        send(data[at : at + size], lose=True)
        if data[at + size :]:
            send(data[at + size :])
    c.close()
    return drained(pipe)[0]


@POLICIES
@pytest.mark.parametrize("size", [1, 5, 40])
def test_a_hole_in_a_body(size: int, policy: str) -> None:
    out: list[str] = []
    for case in cases(("json", "form", "text", "multipart-field")):
        for at in around(case, [case.calls[0]]):
            leaked(case, policy, with_hole(case.calls, 0, at, size, policy), f"{size} at {at}", out)
    assert not out, show(out)


@POLICIES
@pytest.mark.parametrize("name", PLACES)
def test_a_hole_in_a_head(name: str, policy: str) -> None:
    out: list[str] = []
    for case in head_cases(HEADS[name], KINDS, "cut"):
        which = max(range(len(case.calls)), key=lambda n: (case.secret.text.encode()[:4] in case.calls[n][1], -n))
        for at in around(case, [case.calls[which]]):
            for size in (1, 9):
                leaked(case, policy, with_hole(case.calls, which, at, size, policy), f"{size} at {at}", out)
    assert not out, show(out)


@POLICIES
@pytest.mark.parametrize("name", ["json", "form", "text", "json-in-json"])
def test_joined_in_the_middle_of_a_body(name: str, policy: str) -> None:
    out: list[str] = []
    for case in cases((name,)):
        (asks, data), *rest = case.calls
        for at in around(case, [case.calls[0]]):
            output, _ = written([(asks, data[at:]), *rest, *case.calls], policy, conversation={"start": abi.MID})
            leaked(case, policy, output, f"from {at}", out)
    assert not out, show(out)


@POLICIES
@pytest.mark.parametrize("name", PLACES)
def test_joined_in_the_middle_of_a_head(name: str, policy: str) -> None:
    """HTTP/1 is found again at the next head; what was left of this one may be taken for a part of it."""
    out: list[str] = []
    for case in head_cases(HEADS[name], KINDS, "cut"):
        (asks, data), *rest = case.calls
        for at in around(case, [case.calls[0]]):
            output, _ = written([(asks, data[at:]), *rest], policy, conversation={"start": abi.MID})
            leaked(case, policy, output, f"from {at}", out)
    assert not out, show(out)


@POLICIES
def test_the_first_and_the_last_of_a_body_are_in_different_parts(policy: str) -> None:
    """Of a stream, cut at any byte by the second after which a part goes out."""
    out: list[str] = []
    for kind in KINDS:
        secret = make(kind, "parts")
        (case,) = body_cases(CARRIERS["response"], DOCUMENTS["event-stream"], (kind,), "parts")
        for at in range(10, len(case.body), 7):
            pipe = policed(policy)
            c = Conversation(pipe)
            c.request(PLAIN_REQUEST)
            c.response(head("HTTP/1.1 200 OK", "Content-Type: text/event-stream"))
            c.response(case.body[:at]).wait(1.5).response(case.body[at:]).wait(1.5)
            c.close()
            out += [f"{kind} at {at}: {hit!r}" for _kind, hit in found(drained(pipe)[0], secret)]
    assert not out, show(out)
