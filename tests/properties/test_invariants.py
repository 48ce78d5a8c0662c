"""Any split of the bytes gives the same records; any lost event gives a subset of them plus marks; connections do not
mix; any bytes at all never raise and never break the memory budget."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from collector import abi
from tests.events import Conversation, ident, pipeline, take

VOLATILE = ("recordId", "startTimeMs", "firstByteMs", "durationMs", "time", "marks", "mark", "words", "socket_id")


@dataclass(frozen=True)
class Step:
    """Whole bytes of one message in one direction."""

    request: bool
    data: bytes


def body(draw: Any, number: int) -> tuple[bytes, bytes]:
    text = b"%d:" % number + draw(
        st.sampled_from([b"", b"x", b"GET /forged HTTP/1.1\r\n\r\n", b'{"a":1}', b"y" * 300, b"HTTP/1.1 200 OK\r\n\r\n"])
    )
    if draw(st.booleans()):
        return b"Content-Length: %d\r\n" % len(text), text
    half = draw(st.integers(0, len(text)))
    pieces = b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in (text[:half], text[half:]) if p)
    return b"Transfer-Encoding: chunked\r\n", pieces + b"0\r\n\r\n"


@st.composite
def conversations(draw: Any) -> list[Step]:
    """Up to six exchanges, pipelined here and there."""
    steps: list[Step] = []
    waiting: list[tuple[int, str]] = []
    for number in range(draw(st.integers(1, 6))):
        method = draw(st.sampled_from(["GET", "POST", "HEAD", "PROPFIND"]))
        head = b"%s /%d HTTP/1.1\r\nHost: h%d\r\n" % (method.encode(), number, number)
        if method == "POST":
            extra, data = body(draw, number)
            steps.append(Step(True, head + extra + b"\r\n" + data))
        else:
            steps.append(Step(True, head + b"\r\n"))
        waiting.append((number, method))
        while waiting and draw(st.integers(0, 3)):
            steps.append(answer(draw, *waiting.pop(0)))
    steps.extend(answer(draw, *w) for w in waiting)
    return steps


def answer(draw: Any, number: int, method: str) -> Step:
    interim = draw(st.sampled_from([b"", b"", b"HTTP/1.1 100 Continue\r\n\r\n"]))
    if draw(st.integers(0, 5)) == 0:
        return Step(False, interim + b"HTTP/1.1 204 No Content\r\nX-N: %d\r\n\r\n" % number)
    extra, data = body(draw, number)
    return Step(
        False, interim + b"HTTP/1.1 200 OK\r\nX-N: %d\r\n" % number + extra + b"\r\n" + (b"" if method == "HEAD" else data)
    )


def run(steps: list[Step], *, lose: int | None = None, role: int = abi.SERVER) -> list[dict]:
    c = Conversation(role=role)
    for number, step in enumerate(steps):
        (c.request if step.request else c.response)(step.data, lose=number == lose)
    c.close()
    return c.records()


def essence(record: dict) -> dict:
    return {k: v for k, v in record.items() if k not in VOLATILE}


@settings(max_examples=150, deadline=None)
@given(conversations(), st.data(), st.sampled_from([abi.SERVER, abi.CLIENT]))
def test_any_split_gives_the_same_records(steps: list[Step], data: st.DataObject, role: int) -> None:
    expected = run(steps, role=role)
    assert len(expected) == sum(step.request for step in steps)
    assert all(not r["mark"] for r in expected), expected
    pieces = []
    for step in steps:
        rest = step.data
        while rest:
            n = data.draw(st.integers(1, len(rest)))
            pieces.append(Step(step.request, rest[:n]))
            rest = rest[n:]
    again = run(pieces, role=role)
    assert [essence(r) for r in again] == [essence(r) for r in expected]
    assert all(not r["mark"] for r in again)


@settings(max_examples=300, deadline=None)
@given(conversations(), st.data(), st.sampled_from([abi.SERVER, abi.CLIENT]))
def test_any_lost_event_gives_a_subset_and_marks(steps: list[Step], data: st.DataObject, role: int) -> None:
    pieces = []
    for step in steps:
        n = data.draw(st.integers(1, len(step.data)))
        pieces += [Step(step.request, step.data[:n])] + ([Step(step.request, step.data[n:])] if step.data[n:] else [])
    whole = [essence(r) for r in run(pieces, role=role)]
    lost = data.draw(st.integers(0, len(pieces) - 1))
    damaged = run(pieces, lose=lost, role=role)
    for record in damaged:
        if not record["mark"]:
            assert essence(record) in whole, (pieces[lost], record)
    side = (
        {"request_bytes_lost", "pairing_uncertain", "request_incomplete"}
        if pieces[lost].request
        else {"response_bytes_lost", "pairing_uncertain", "response_incomplete"}
    )
    touched = [r for r in damaged if r["mark"]]
    missing = len(whole) - len(damaged)
    assert missing > 0 or any(r["words"] & (side | {"no_response"}) for r in touched)


@settings(max_examples=60, deadline=None)
@given(conversations(), conversations(), st.integers(0, 2**32))
def test_interleaved_connections_give_the_union(a: list[Step], b: list[Step], seed: int) -> None:
    choose = random.Random(seed)
    expected = [essence(r) for r in run(a)] + [essence(r) for r in run(b)]
    pipe = pipeline()
    first, second = Conversation(pipe, conn=ident(100, 5, 1)), Conversation(pipe, conn=ident(100, 6, 2))
    queues = [(first, list(a)), (second, list(b))]
    while any(q for _, q in queues):
        c, q = choose.choice(queues)
        if q:
            step = q.pop(0)
            (c.request if step.request else c.response)(step.data)
    first.close()
    second.close()
    got = [essence(r) for r in take(pipe)]
    assert sorted(map(str, got)) == sorted(map(str, expected))


FRAGMENTS = st.sampled_from(
    [
        b"GET / HTTP/1.1\r\n",
        b"HTTP/1.1 200 OK\r\n",
        b"\r\n",
        b"\n",
        b"Content-Length: 5\r\n",
        b"Content-Length: -1\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: x, chunked\r\n",
        b"5\r\nabcde\r\n",
        b"0\r\n\r\n",
        b"ffffffffffffffff\r\n",
        b"HEAD /h HTTP/1.0\r\n",
        b"CONNECT a:1 HTTP/1.1\r\n",
        b"HTTP/1.1 101 Up\r\n",
        b"Expect: 100-continue\r\n",
        b"Host: a\r\n",
        b"Content-Encoding: gzip\r\n",
        b"Content-Encoding: br\r\n",
        b"Content-Type: text/x; charset=utf-16\r\n",
        b" folded\r\n",
        b"HTTP/1.1 100 C\r\n",
        b"Content-Length: 99999999999999999999\r\n",
        b"X" * 3000,
        b":\r\n",
        b"\x00",
        b"\xff\xfe",
    ]
)


@settings(max_examples=400, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 9), st.one_of(FRAGMENTS, st.binary(min_size=1, max_size=40))), max_size=60),
    st.sampled_from([abi.SERVER, abi.CLIENT, abi.UNKNOWN]),
    st.booleans(),
)
def test_any_bytes_never_raise_and_always_give_valid_records(
    events: list[tuple[int, bytes]], role: int, opened: bool
) -> None:
    budget = 200_000
    c = Conversation(role=role, opened=opened, buffer_bytes=budget, header_bytes=2048, body_bytes=2048)
    for what, data in events:
        if what < 8:
            c.send(what & 1, data, lose=what >= 6)
        elif what == 8:
            c.send(0, b"", true_length=len(data), flags=abi.F_SIZE_ONLY)
        else:
            c.wait(4)
        assert c.counters()["buffer_bytes"] <= budget + 20_000
    c.close()
    c.pipe.close_all()
    c.records()  # validates each one
    counters = c.counters()
    assert counters["queued_exchanges"] == 0 and counters["connections"] == 0 and counters["callback_errors"] == 0


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_any_span_never_raises(span: bytes) -> None:
    pipe = pipeline()
    pipe.feed(span, 0)
    pipe.close_all()
    take(pipe)
