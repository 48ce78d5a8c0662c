"""HTTP/2 with another implementation at both ends: cut anywhere, with events lost, from the middle on."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.events import Conversation
from tests.http2 import REQUEST, judge, play, random_talk, stream_of

TIMES = {"time", "startTimeMs", "firstByteMs", "durationMs"}


def without_times(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in record.items() if name not in TIMES} for record in records]


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 1 << 30))
def test_records_are_what_was_said(seed: int) -> None:
    talk = random_talk(seed)
    c = play(talk)
    records = c.records()
    finished = {n for n, said in talk.said.items() if said.reset or (
        said.request.ended and said.response is not None and said.response.ended)}
    assert {stream_of(record) for record in records} == finished and len(records) == len(finished)
    for record in records:
        said = talk.said[stream_of(record)]
        judge(record, said)
        assert said.reset or record["mark"] == []
    rest = c.close().records()
    assert {stream_of(record) for record in rest} == set(talk.said) - finished
    for record in rest:
        judge(record, talk.said[stream_of(record)])
    assert c.pipe.statistics()["buffer_bytes"] == 0 or not c.pipe.statistics()["connections"]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1 << 30))
def test_any_cut_gives_the_same_records(seed: int) -> None:
    talk = random_talk(seed, 30)
    whole = without_times(play(talk).close().records())
    rng = random.Random(seed)
    c = Conversation()
    for side, data in talk.events:
        while data:
            size = rng.choice([1, 2, 3, 8, 9, 10, 30, 100, len(data)])
            (c.request if side == REQUEST else c.response)(data[:size])
            data = data[size:]
    assert without_times(c.close().records()) == whole


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 1 << 30), st.floats(0.01, 0.3))
def test_lost_events_give_marks_and_nothing_wrong(seed: int, rate: float) -> None:
    talk = random_talk(seed)
    rng = random.Random(seed)
    c = Conversation()
    for side, data in talk.events:
        cut = rng.randrange(len(data)) if rng.random() < 0.3 else 0
        for part in (data[:cut], data[cut:]):
            if part:
                (c.request if side == REQUEST else c.response)(part, lose=rng.random() < rate)
    seen = set()
    for record in c.close().records():
        stream = stream_of(record)
        assert stream not in seen
        seen.add(stream)
        judge(record, talk.said[stream])


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.binary(max_size=200)), max_size=20))
def test_any_bytes_behind_the_preface(events: list[tuple[bool, bytes]]) -> None:
    c = Conversation().request(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    for client, data in events:
        (c.request if client else c.response)(data)
    c.close().records()
    assert c.pipe.statistics()["connections"] == 0 and c.pipe.statistics()["buffer_bytes"] == 0
