"""Calls that are longer than what the kernel copies of one."""

from __future__ import annotations

from tests.events import Conversation
from tests.http2 import REQUEST, RESPONSE, Talk, play, request, response


def test_what_was_not_copied_is_not_called_lost() -> None:
    talk = Talk()
    streams = [talk.ask(request(f"/{n}"), end=True) for n in range(2)]
    talk.flush()
    for stream in streams:
        talk.answer(stream, response(200))
    talk.flush()
    c = play(talk)
    talk.events.clear()
    for stream in streams:
        talk.body(stream, RESPONSE, b"x" * 1000)
    talk.flush()
    ((side, data),) = talk.events
    assert side == RESPONSE
    talk.events.clear()
    c.response(data[:300], true_length=len(data))  # one call; its rest was not copied, beyond the end of a frame
    for stream in streams:
        talk.body(stream, RESPONSE, b"y", end=True)
        talk.flush()
    for side, data in talk.events:
        (c.request if side == REQUEST else c.response)(data)
    records = c.close().records()
    assert {record["path"] for record in records} == {"/0", "/1"}
    for record in records:
        assert record["words"] == {"response_body_cut"}


def test_what_was_lost_is() -> None:
    talk = Talk()
    stream = talk.ask(request("/0"), end=True)
    talk.flush()
    talk.answer(stream, response(200))
    for _ in range(3):
        talk.body(stream, RESPONSE, b"x" * 1000)
        talk.flush()
    talk.body(stream, RESPONSE, b"y", end=True)
    talk.flush()
    c = Conversation()
    for n, (side, data) in enumerate(talk.events):
        (c.request if side == REQUEST else c.response)(data, lose=n == len(talk.events) - 3)
    (record,) = c.close().records()
    assert "response_bytes_lost" in record["words"]
