"""Long streams in parts: server-sent events, JSON lines, messages of gRPC."""

from __future__ import annotations

import base64
import gzip
import json
import random
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector import abi
from tests.events import GET, OK, Conversation, pipeline, take
from tests.http2 import REQUEST, RESPONSE, Talk, play, request, response

EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\n\r\n"
OBJECT = (7 << 4, 100, -1)  # of a TLS library, whose socket is not known
ENDS: dict[str, Any] = {"local": ("10.0.0.1", 443), "remote": ("10.0.0.2", 40000)}
LINES = EVENTS.replace(b"text/event-stream", b"application/x-ndjson")


def streaming(head: bytes = EVENTS, **changes: Any) -> Conversation:
    return Conversation(**changes).request(GET).response(head)


def parts(records: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    return [(record.get("part", ""), record.get("lastPart", ""), record["responsePayload"]) for record in records]


def test_what_ends_within_a_second_is_one_record() -> None:
    c = streaming().response(b"data: 1\n\n").response(b"data: 2\n\n")
    assert parts(c.close().records()) == [("", "", "data: 1\n\ndata: 2\n\n")]


def test_events_come_out_as_they_come_in() -> None:
    c = streaming()
    assert c.records() == []
    (first,) = c.wait(1.5).records()
    assert (first["statusCode"], first["responsePayload"], first["mark"]) == ("200", "", [])
    c.response(b"data: 1\n\ndata: 2\n\ndat").response(b"a: 3\n")
    (second,) = c.wait(1.5).records()
    assert c.wait(1000).records() == []
    c.response(b"\ndata: 4\n\n")
    (third,) = c.wait(1.5).records()
    c.response(b"data: 5\n")
    (last,) = c.close().records()
    assert parts([first, second, third, last]) == [
        ("1", "false", ""),
        ("2", "false", "data: 1\n\ndata: 2\n\n"),
        ("3", "false", "data: 3\n\ndata: 4\n\n"),
        ("4", "true", "data: 5\n"),
    ]
    assert len({record["recordId"] for record in (first, second, third, last)}) == 4
    assert {record["time"] for record in (first, second, third, last)} == {first["time"]}
    assert [record["responseSize"] for record in (first, second, third, last)] == ["0", "18", "18", "8"]
    assert float(second["durationMs"]) < float(third["durationMs"])


def test_a_request_body_is_in_the_first_part_only() -> None:
    c = Conversation()
    c.request(b"POST /v1/chat HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 16\r\n\r\n")
    c.request(b'{"stream": true}').response(EVENTS).wait(2).response(b"data: x\n\n")
    first, second = c.close().records()
    assert (first["requestPayload"], first["requestSize"]) == ('{"stream": true}', "16")
    assert (second["requestPayload"], second["requestSize"], second["path"]) == ("", "0", "/v1/chat")


def test_an_ordinary_body_beside_a_stream_is_shown_once_its_end_is_here() -> None:
    c = Conversation(body_bytes=1000)
    c.request(b"POST /v1/chat HTTP/1.1\r\nHost: a\r\nContent-Length: 5000\r\n\r\n" + b"x" * 3000)
    c.response(EVENTS + b"data: 1\n\n").wait(3)
    c.request(b"x" * 2000).response(b"data: 2\n\n").wait(3).response(b"data: 3\n\n")
    records = c.close().records()
    assert [part[2] for part in parts(records)] == ["data: 1\n\n", "data: 2\n\n", "data: 3\n\n"]
    assert [record["requestSize"] for record in records] == ["0", "5000", "0"]
    assert [record["requestPayload"] for record in records] == ["", "x" * 1000, ""]
    assert [record["mark"] for record in records] == [[], ["request_body_cut:4000"], []]


def test_an_ordinary_body_that_does_not_end_is_in_the_last_part() -> None:
    c = Conversation(body_bytes=1000)
    c.request(b"POST /v1/chat HTTP/1.1\r\nHost: a\r\nContent-Length: 5000\r\n\r\n" + b"x" * 3000)
    first, last = c.response(EVENTS + b"data: 1\n\n").wait(3).close().records()
    assert (first["requestSize"], first["mark"]) == ("0", [])
    assert (last["requestSize"], last["requestPayload"]) == ("3000", "x" * 1000)
    assert last["words"] == {"request_body_cut", "request_incomplete"}


def test_what_is_said_of_a_request_is_said_once() -> None:
    body = gzip.compress(b"asked") + b"behind"
    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body)
    c = Conversation().request(head + body)
    first, last = c.response(EVENTS + b"data: 1\n\n").wait(3).close().records()
    assert (first["requestPayload"], first["words"]) == ("asked", {"request_body_trailing"})
    assert (last["requestPayload"], last["mark"]) == ("", [])


@pytest.mark.parametrize("known", [0.2, 5, None])
def test_parts_of_a_connection_whose_peer_is_not_known(known: float | None) -> None:
    c = Conversation(source=1, opened=False, conn=OBJECT)
    c.request(GET).response(EVENTS + b"data: 1\n\n")
    since = 0.0
    if known is not None:
        c.wait(known)
        c.feed(abi.pack_bind(OBJECT, 9 << 4, ts_ns=c.now, role=abi.SERVER, **ENDS))
        since = known
    records = c.wait(10 - since).records()
    assert parts(records) == [("1", "false", "data: 1\n\n")]
    assert records[0]["words"] == ({"peer_unknown"} if known is None or known > 1 else set())
    records = c.response(b"data: 2\n\n").wait(3).records()
    assert parts(records) == [("2", "false", "data: 2\n\n")]


def test_what_a_part_has_given_back_is_not_held_whatever_event_comes_behind_its_deadline() -> None:
    c = Conversation(source=1, connection_bytes=200_000)
    c.request(GET).response(EVENTS)
    for _ in range(20):
        c.response(b"data: " + b"x" * 50_000 + b"\n\n")
        c.now += 2_000_000_000
        c.feed(abi.pack_data(c.conn, abi.OUT, 0, b"ciphertext", ts_ns=c.now))
    assert len(c.close().records()) == 21 and c.counters()["evicted_connection_bytes"] == 0


def test_a_fast_stream_is_not_cut() -> None:
    c = streaming(body_bytes=1000)
    sent = [b"data: %03d %s\n\n" % (n, b"x" * 90) for n in range(100)]
    for event in sent:
        c.response(event, step_ms=0.01)
    records = c.close().records()
    assert len(records) == 12 and {record["marks"] for record in records} == {"[]"}
    assert "".join(record["responsePayload"] for record in records).encode() == b"".join(sent)
    assert sum(int(record["responseSize"]) for record in records) == sum(map(len, sent))


def test_an_event_beyond_the_limit() -> None:
    c = streaming(body_bytes=1000)
    c.response(b"data: small\n\n").response(b"data: %s\n\n" % (b"x" * 5000)).response(b"data: behind\n\n")
    records = c.close().records()
    shown = [record["responsePayload"] for record in records]
    assert shown[0] == "data: small\n\n" and shown[1] == "data: " + "x" * 994 and shown[2] == "data: behind\n\n"
    assert [record["words"] for record in records] == [set(), {"response_body_cut"}, set()]
    assert sum(int(record["responseSize"]) for record in records) == 13 + 5008 + 14


def test_lines() -> None:
    c = streaming(LINES).response(b'{"a":1}\n{"a":').wait(2).response(b"2}\n")
    assert [part[2] for part in parts(c.close().records())] == ['{"a":1}\n', '{"a":2}\n']


@pytest.mark.parametrize("ending", [b"\n\n", b"\r\n\r\n", b"\r\r"])
def test_every_end_of_line(ending: bytes) -> None:
    c = streaming().response(b"data: 1" + ending + b"data: 2" + ending + b"data").wait(2)
    assert c.records()[0]["responsePayload"].encode() == b"data: 1" + ending + b"data: 2" + ending


def test_behind_a_hole_events_are_read_from_the_next_one_on() -> None:
    c = streaming().response(b"data: 1\n\nda").response(b"ta: 2\n\nda", lose=True).response(b"ta: 3\n\ndata: 4\n\n")
    first, second = c.close().records()
    assert (first["responsePayload"], first["words"]) == ("data: 1\n\nda", {"response_bytes_lost", "response_body_cut"})
    assert (second["responsePayload"], second["words"]) == ("data: 4\n\n", set())


def test_chunked_and_kept_alive() -> None:
    c = streaming(EVENTS[:-2] + b"Transfer-Encoding: chunked\r\n\r\n")
    for _ in range(3):
        c.response(b"9\r\ndata: 1\n\n\r\n").wait(2)
    c.response(b"0\r\n\r\n").request(GET).response(OK)
    records = c.records()
    assert parts(records) == [("1", "false", "data: 1\n\n"), ("2", "false", "data: 1\n\n"), ("3", "false", "data: 1\n\n"),
                              ("4", "true", ""), ("", "", "hi")]  # fmt: skip


def test_a_coded_stream_is_recorded_at_its_end() -> None:
    c = streaming(EVENTS[:-2] + b"Content-Encoding: gzip\r\n\r\n").response(b"\x1f\x8b").wait(3)
    assert c.records() == []


def test_filtered_streams_stay_filtered() -> None:
    rules = '[{"key":{"eq":"host","ifAbsent":"reject"},"value":{"regex":"other"}}]'
    c = streaming(rules=rules).response(b"data: 1\n\n").wait(5).response(b"data: 1\n\n", lose=True).response(b"data: 1\n\n")
    assert c.close().records() == []


def test_without_response_bodies() -> None:
    c = streaming(response_bodies=False).response(b"data: 1\n\n").wait(2).response(b"data: 1\n\n")
    records = c.close().records()
    assert [(record["responsePayload"], record["mark"]) for record in records] == [("", []), ("", [])]
    assert sum(int(record["responseSize"]) for record in records) == 18


# ---- gRPC


def framed(*messages: bytes) -> bytes:
    return b"".join(b"\0" + struct.pack(">I", len(message)) + message for message in messages)


def shown(records: list[dict[str, Any]], side: str) -> list[bytes]:
    """The messages that records show, in their order."""
    out = []
    for record in records:
        count = int(record.get(side + "Messages", "0"))
        payload = record[side + "Payload"]
        out += [base64.b64decode(text) for text in (json.loads(payload) if count > 1 else [payload][:count])]
    return out


def begun(**changes: Any) -> tuple[Talk, int, Conversation]:
    talk = Talk()
    head = [("content-type", "application/grpc")]
    stream = talk.ask(request("/chat.Chat/Talk", "POST", ("te", "trailers"), *head))
    talk.flush()
    talk.answer(stream, response(200, *head))
    talk.flush()
    c = play(talk, Conversation(**changes))
    talk.events.clear()
    return talk, stream, c


def go_on(talk: Talk, c: Conversation, lose: bool = False) -> None:
    talk.flush()
    for side, data in talk.events:
        (c.request if side == REQUEST else c.response)(data, lose=lose)
    talk.events.clear()


def test_both_ways() -> None:
    talk, stream, c = begun()
    records = []
    for n in range(5):
        talk.body(stream, REQUEST, framed(b"ask %d" % n))
        talk.body(stream, RESPONSE, framed(b"answer %d" % n, b""))
        go_on(talk, c)
        records += c.wait(200).records()
    talk.body(stream, REQUEST, b"", end=True)
    talk.trailers(stream, RESPONSE, [(b"grpc-status", b"0")])
    go_on(talk, c)
    records += c.records()
    assert [record["part"] for record in records] == ["1", "2", "3", "4", "5", "6"]
    assert [record["lastPart"] for record in records] == ["false"] * 5 + ["true"]
    assert shown(records, "request") == [b"ask %d" % n for n in range(5)]
    assert shown(records, "response") == [b for n in range(5) for b in (b"answer %d" % n, b"")]
    assert [record["response"].get("grpc-status") for record in records] == [None] * 5 + ["0"]
    assert {record["marks"] for record in records} == {"[]"} and {record["protocol"] for record in records} == {"grpc"}
    assert c.close().records() == [] and c.counters()["queued_exchanges"] == 0


@pytest.mark.parametrize("seed", range(40))
def test_the_same_parts_whenever_the_timers_are_looked_at(seed: int) -> None:
    """In one span, in one of each event, and with ticks in between; streams side by side, one of which keeps silent."""
    rng = random.Random(seed)
    talk = Talk()
    head = [("content-type", "application/grpc")]
    streams = [talk.ask(request(f"/a.B/{n}", "POST", *head)) for n in range(4)]
    held = seed % 2
    c = Conversation(opened=False, source=1, conn=OBJECT) if held else Conversation(opened=False)
    told = [] if held else [(c.now, abi.pack_open(c.conn, ts_ns=c.now, **ENDS))]
    c.feed = lambda events: told.append((c.now, events))  # type: ignore[method-assign]
    bound = rng.randrange(40)
    for n in range(40):
        stream = rng.choice(streams)
        if talk.said[stream].response is None and rng.random() < 0.4:
            talk.answer(stream, response(200, *head))
        else:
            side = REQUEST if talk.said[stream].response is None else rng.choice([REQUEST, RESPONSE])
            talk.body(stream, side, framed(b"%d" % n)[: rng.choice([3, 9])])
        go_on(talk, c)
        if n == bound and held:
            told.append((c.now, abi.pack_bind(c.conn, 9 << 4, ts_ns=c.now, **ENDS)))
        c.now += int(rng.choice([0, 0, 0.05, 0.4, 1.1, 3, 70]) * 1e9)
    c.close()
    found = []
    for how in ("span", "events", "ticks"):
        pipe = pipeline()
        if how == "span":
            pipe.feed(b"".join(data for _, data in told))
        for ts, data in told if how != "span" else []:
            for early in range(2_000_000_000, 0, -100_000_000) if how == "ticks" else ():
                pipe.tick(max(ts - early, 0))
            pipe.feed(data)
        found.append(sorted(take(pipe), key=lambda record: str(record["recordId"])))
    assert found[0] and found[0] == found[1] == found[2]


def test_a_client_that_only_sends() -> None:
    talk = Talk()
    stream = talk.ask(request("/a.B/Upload", "POST", ("te", "trailers"), ("content-type", "application/grpc")))
    talk.body(stream, REQUEST, framed(b"one"))
    talk.flush()
    c = play(talk)
    (first,) = c.wait(2).records()
    assert (first["part"], first["statusCode"], first["mark"], shown([first], "request")) == ("1", "0", [], [b"one"])
    talk.events.clear()
    talk.body(stream, REQUEST, framed(b"two"), end=True)
    talk.answer(stream, response(200, ("content-type", "application/grpc"), ("grpc-status", "0")), end=True)
    go_on(talk, c)
    (last,) = c.records()
    assert (last["part"], last["lastPart"], last["statusCode"], shown([last], "request")) == ("2", "true", "200", [b"two"])


def test_a_message_beyond_the_limit_and_one_behind_it() -> None:
    talk, stream, c = begun(body_bytes=1000)
    talk.body(stream, RESPONSE, framed(b"a", b"b" * 3000, b"c"))
    go_on(talk, c)
    records = c.wait(5).records()
    assert shown(records, "response") == [b"a", b"b" * 995, b"c"]
    assert [record["words"] for record in records] == [set(), {"response_body_cut"}, set()]
    assert sum(int(record["responseSize"]) for record in records) == 3002 + 15


def test_a_hole_inside_a_message() -> None:
    talk, stream, c = begun()
    talk.body(stream, RESPONSE, framed(b"a", b"b" * 100)[:50])
    go_on(talk, c)
    talk.body(stream, RESPONSE, b"b" * 61 + framed(b"c"))
    talk.flush()
    ((side, data),) = talk.events
    assert side == RESPONSE
    c.response(data[:29]).response(data[29:59], lose=True).response(data[59:])
    records = c.close().records()
    assert [message[:1] for message in shown(records, "response")] == [b"a", b"b", b"c"]
    assert records[0]["words"] >= {"response_bytes_lost"} and records[-1]["words"] <= {
        "response_incomplete",
        "request_incomplete",
    }


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 1 << 30))
def test_any_cut_any_time_all_messages(seed: int) -> None:
    rng = random.Random(seed)
    talk, stream, c = begun(body_bytes=rng.choice([1000, 4000, 65536]))
    sent: dict[int, list[bytes]] = {REQUEST: [], RESPONSE: []}
    rest = {REQUEST: b"", RESPONSE: b""}
    records = []
    for _ in range(rng.randrange(1, 30)):
        side = rng.choice([REQUEST, RESPONSE])
        message = rng.randbytes(rng.choice([0, 1, 100, 900]))
        sent[side].append(message)
        wire = rest[side] + framed(message)
        at = rng.choice([len(wire), rng.randrange(len(wire) + 1)])
        rest[side] = wire[at:]
        if at:
            talk.body(stream, side, wire[:at])
        go_on(talk, c)
        if rng.random() < 0.3:
            records += c.wait(rng.random() * 3).records()
    for side in (REQUEST, RESPONSE):
        if rest[side]:
            talk.body(stream, side, rest[side])
    talk.body(stream, REQUEST, b"", end=True)
    talk.trailers(stream, RESPONSE, [(b"grpc-status", b"0")])
    go_on(talk, c)
    records += c.records()
    assert shown(records, "request") == sent[REQUEST] and shown(records, "response") == sent[RESPONSE]
    assert {record["marks"] for record in records} == {"[]"}
    assert sum(int(record["responseSize"]) for record in records) == len(framed(*sent[RESPONSE]))
    assert len(records) == 1 or [record["lastPart"] for record in records] == ["false"] * (len(records) - 1) + ["true"]


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 1 << 30))
def test_any_bytes_with_any_losses_are_a_subset_of_the_lines(seed: int) -> None:
    rng = random.Random(seed)
    c = streaming(LINES, body_bytes=rng.choice([1000, 4000]))
    lines = [b'{"n":%d,"x":"%s"}\n' % (n, b"y" * rng.choice([0, 10, 700, 3000])) for n in range(rng.randrange(1, 40))]
    wire = b"".join(lines)
    records = []
    lost = False
    while wire:
        size = rng.choice([1, 5, 50, 500, 5000])
        lose = rng.random() < 0.05
        lost = lost or lose
        c.response(wire[:size], lose=lose)
        wire = wire[size:]
        if rng.random() < 0.1:
            records += c.wait(rng.random() * 3).records()
    records += c.close().records()
    found = [line for record in records for line in record["responsePayload"].encode().splitlines(keepends=True)]
    whole = [line for line in found if line in lines]
    assert whole == [line for line in lines if line in whole]
    assert all(any(line.startswith(piece) for line in lines) for piece in found)
    if not lost:
        assert sum(int(record["responseSize"]) for record in records) == sum(map(len, lines))
        if all(len(line) <= 1000 for line in lines):
            assert found == lines
    else:
        assert any(record["mark"] for record in records)
