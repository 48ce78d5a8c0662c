"""WebSockets with another implementation at both ends: cut anywhere, with events lost, with any bytes at all."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.collector.shards.layers.websocket.test_websocket import ASK, accept
from tests.events import Conversation
from tests.websocket import CLIENT, SERVER, Chat, events_of, payload, play, random_chat


def judge(chat: Chat, records: list[dict[str, Any]], *, complete: bool) -> None:
    """Every event is a message that was sent, or the beginning of one, in the order of its side."""
    for side, name in ((CLIENT, "client"), (SERVER, "server")):
        sent = [message for message in chat.sent if message.side == side]
        events = [event for event in events_of(records) if event["from"] == name]
        if complete:
            assert len(sent) == len(events)
            assert all(message.shown_in(event) for message, event in zip(sent, events, strict=True))
        at = 0
        for event in events:
            if event.get("undecoded"):
                assert event["payload"] == ""
                continue
            whole = not event.get("truncated")
            while at < len(sent) and not (
                sent[at].data == payload(event) if whole else sent[at].data.startswith(payload(event))
            ):
                at += 1
            assert at < len(sent), event
            at += 1


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 1 << 30))
def test_events_are_what_was_said(seed: int) -> None:
    chat = random_chat(seed)
    c = play(chat)
    records = c.close().records()
    judge(chat, records, complete=True)
    assert {record["marks"] for record in records} == {"[]"}
    assert c.counters()["queued_exchanges"] == 0 and not c.counters()["skipped_bytes"]


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 1 << 30))
def test_any_cut_gives_the_same_messages(seed: int) -> None:
    chat = random_chat(seed, 8)
    rng = random.Random(seed)
    c = Conversation()
    for side, data in chat.calls:
        while data:
            size = rng.choice([1, 2, 3, 8, 30, 100, len(data)])
            (c.request if side == CLIENT else c.response)(data[:size], step_ms=rng.choice([0, 0.1, 500]))
            data = data[size:]
    judge(chat, c.close().records(), complete=True)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 1 << 30))
def test_with_events_lost_nothing_is_wrong_and_it_says_so(seed: int) -> None:
    chat = random_chat(seed, 20)
    rng = random.Random(seed)
    calls = chat.calls[2:]
    lost = {n for n in range(len(calls)) if rng.random() < 0.15}
    c = Conversation()
    c.request(chat.calls[0][1]).response(chat.calls[1][1])
    for n, (side, data) in enumerate(calls):
        (c.request if side == CLIENT else c.response)(data, lose=n in lost)
    records = c.close().records()
    judge(chat, records, complete=not lost)
    sent, shown = len(chat.sent), len(events_of(records))
    assert not lost or shown == sent or any(record["mark"] for record in records) or shown == 0


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 1 << 30))
def test_any_bytes_behind_a_handshake(seed: int) -> None:
    rng = random.Random(seed)
    c = Conversation(body_bytes=4096)
    c.request(ASK).response(accept(rng.choice([b"", b"permessage-deflate", b"x-unknown"])))
    for _ in range(rng.randrange(40)):
        data = bytearray(rng.randbytes(rng.choice([1, 2, 10, 100, 5000])))
        if rng.random() < 0.8:
            data[0] = rng.choice([0x81, 0x82, 0x01, 0x80, 0xC1, 0x88, 0x89, 0x00])
        if len(data) > 1 and rng.random() < 0.8:
            data[1] = rng.choice([0, 5, 125, 126, 127, 0x80, 0x85, 0xFE, 0xFF])
        (c.request if rng.random() < 0.5 else c.response)(bytes(data), lose=rng.random() < 0.1)
        if rng.random() < 0.1:
            c.wait(rng.random() * 2)
    c.close().records()
    assert c.counters()["queued_exchanges"] == 0 and c.counters()["callback_errors"] == 0
    assert c.counters()["buffer_peak_bytes"] < 1 << 20
