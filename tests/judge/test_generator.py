"""The generator's truth, read by another parser; and that it makes what it says that it makes."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.judge import generator, play
from tests.judge.truth import CLIENT_BYTES, SERVER_BYTES, Conversation, Message


class Reader:
    """One message as llhttp reads it."""

    def __init__(self, request: bool) -> None:
        self.parser: Any = httptools.HttpRequestParser(self) if request else httptools.HttpResponseParser(self)
        self.url = self.status = self.body = b""
        self.complete = 0

    def on_url(self, part: bytes) -> None:
        self.url += part

    def on_status(self, part: bytes) -> None:
        self.status += part

    def on_body(self, part: bytes) -> None:
        self.body += part

    def on_message_complete(self) -> None:
        self.complete += 1


def wire(c: Conversation, sender: int, start: int, end: int) -> bytes:
    return b"".join(e.data for e in sorted((e for e in c.events if e.sender == sender), key=lambda e: e.pos))[start:end]


def read(message: Message, data: bytes) -> Reader:
    reader = Reader(message.request)
    try:
        reader.parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        assert message.method == "CONNECT" or "Upgrade" in message.fields
    return reader


def made(seed: int, number: int, **wanted: Any) -> Conversation:
    rng = Random(f"{seed}/{number}")
    return generator.conversation(rng, number, generator.draw_plan(rng, **wanted))


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_another_parser_reads_what_was_meant(seed: int, number: int) -> None:
    c = made(seed, number)
    asked = 0
    for ex in c.exchanges:
        m = ex.request
        assert m.start == asked
        asked = m.end
        reader = read(m, wire(c, CLIENT_BYTES, m.start, m.end))
        assert (reader.parser.get_method().decode(), reader.url.decode()) == (m.method, m.target)
        if not m.unsent and "Upgrade" not in m.fields:
            assert (reader.complete, reader.body) == (1, m.coded)
        if ex.response is None:
            continue
        a = ex.response
        reader = read(a, wire(c, SERVER_BYTES, a.start, a.end))
        assert f"{reader.parser.get_status_code()} {reader.status.decode()}" == a.status
        if m.method == "HEAD" or (m.method == "CONNECT" and a.status.startswith("200")):
            assert not a.coded and a.end == a.head_end
        else:
            assert reader.body == a.coded
            assert reader.complete == (0 if a.until_close else 1) or a.status.startswith("101")


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_events_are_as_a_kernel_reports_them(seed: int, number: int) -> None:
    c = made(seed, number)
    at = [0, 0]
    for e in c.events:
        assert e.pos == at[e.sender] and e.size == len(e.data) and (e.size or e.eof)
        at[e.sender] += e.size
    assert tuple(at) == c.sent
    times = [e.ns for e in c.fed] + [c.close_ns]
    assert times == sorted(times)
    # nobody answers what was not asked
    reached = [0, 0]
    for e in c.events:
        if e.answers >= 0:
            assert reached[CLIENT_BYTES] >= c.exchanges[e.answers].request.head_end
        reached[e.sender] = e.pos + e.size
    for e in c.fed:
        assert len(e.data) <= e.size and wire(c, e.sender, e.pos, e.pos + len(e.data)) == e.data


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_no_more_is_outstanding_than_the_depth_allows(seed: int, number: int) -> None:
    c = made(seed, number, kinds=("whole",))
    reached = [0, 0]
    most = 0
    for e in c.events:
        reached[e.sender] = e.pos + e.size
        asked = sum(ex.request.start < reached[CLIENT_BYTES] for ex in c.exchanges)
        answered = sum(ex.response.end <= reached[SERVER_BYTES] for ex in c.exchanges if ex.response is not None)
        most = max(most, asked - answered)
    assert c.fed == c.events
    assert most <= c.plan.depth + sum(ex.response is None for ex in c.exchanges)


def test_the_same_seed_makes_the_same_batch() -> None:
    one, two = play.make_batch(5, 2, count=20), play.make_batch(5, 2, count=20)
    assert one == two
    assert play.play(one) == play.play(two)


def test_everything_that_was_promised_occurs() -> None:
    batches = [play.make_batch(1, n) for n in range(40)]
    conversations = [c for batch in batches for c in batch.conversations]
    seen: Counter[str] = Counter()
    for c in conversations:
        seen.update(c.damage or ("whole",))
        seen.update(
            {
                f"depth {c.plan.depth}",
                c.plan.flow,
                c.plan.pace,
                c.plan.last,
                f"forged {c.plan.forged}",
                f"open {c.opened}",
                f"close {c.close}",
                f"client {c.plan.client}",
            }
        )
        for ex in c.exchanges:
            seen.update((ex.kind, ex.request.method, f"{len(ex.interims)} interim"))
            for m in (ex.request, ex.response):
                if m is not None:
                    seen.update(
                        name
                        for name, there in (
                            (f"coding {m.coding}", m.coding),
                            ("chunked", "Transfer-Encoding" in m.fields),
                            ("unsent", m.unsent),
                            ("trailers", m.trailers),
                            ("until close", m.until_close),
                            ("omitted", m.omitted),
                            ("closable", m.closable),
                            (f"status {m.status[:3]}", not m.request),
                        )
                        if there
                    )
        starts = {(SERVER_BYTES, ex.response.start) for ex in c.exchanges if ex.response is not None}
        for e in c.fed:
            messages = sum(sender == e.sender and e.pos <= start < e.pos + e.size for sender, start in starts)
            seen.update(
                {
                    "forged at an event's start": e.forged,
                    "several messages in one event": messages > 1,
                    "a message's part": messages == 0,
                    f"flags {e.flags}": True,
                }
            )
    for batch in batches:
        seen.update(batch.limits)
    wanted = [
        *generator.KINDS,
        *(f"depth {d}" for d in generator.DEPTHS),
        "closed",
        "steady",
        "batch",
        "random",
        "tight",
        "ms",
        "pauses",
        "ordinary",
        "until_close",
        "upgrade",
        "connect",
        "unanswered",
        "forged request",
        "forged response",
        "forged both",
        "open mid",
        "open none",
        "close none",
        "close reset",
        "close swept",
        "client True",
        "client False",
        "expect",
        "HEAD",
        "PUT",
        "1 interim",
        "2 interim",
        "coding gzip",
        "coding deflate",
        "coding br",
        "coding zstd",
        "chunked",
        "unsent",
        "trailers",
        "until close",
        "omitted",
        "closable",
        "status 101",
        "status 204",
        "status 304",
        "status 417",
        "forged at an event's start",
        "several messages in one event",
        "a message's part",
        "flags 0",
        "flags 1",
        "flags 2",
        "flags 4",
        "max_connections",
        "buffer_bytes",
        "connection_bytes",
        "header_bytes",
        "body_bytes",
    ]
    assert not [name for name in wanted if seen[name] < 3]
    # a good part of them is undamaged, and not many are evicted
    assert 0.25 < seen["whole"] / len(conversations) < 0.5
    assert seen["evict"] / len(conversations) < 0.25


@pytest.mark.parametrize("kind", generator.KINDS)
def test_kinds_can_be_chosen(kind: str) -> None:
    batch = play.make_batch(1, 0, (kind,), count=60)
    assert {k for c in batch.conversations for k in c.damage} == ({kind} if kind != "whole" else set())
