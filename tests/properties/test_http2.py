"""HTTP/2 with another implementation at both ends: cut anywhere, with events lost, from the middle on."""

from __future__ import annotations

import random
from typing import Any

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from hypothesis import given, settings
from hypothesis import strategies as st

from collector import abi
from tests.events import Conversation
from tests.http2 import REQUEST, RESPONSE, Talk, judge, play, random_talk, request, response, stream_of

TIMES = {"time", "startTimeMs", "firstByteMs", "durationMs"}


def without_times(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in record.items() if name not in TIMES} for record in records]


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 1 << 30))
def test_records_are_what_was_said(seed: int) -> None:
    talk = random_talk(seed)
    c = play(talk)
    records = c.records()
    finished = {
        n
        for n, said in talk.said.items()
        if said.reset or (said.request.ended and said.response is not None and said.response.ended)
    }
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


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 1 << 30), st.floats(0, 1), st.booleans())
def test_a_connection_that_is_joined_in_the_middle(seed: int, where: float, role_known: bool) -> None:
    talk = random_talk(seed)
    begin = int(where * len(talk.events))
    role = abi.SERVER if role_known else abi.UNKNOWN
    c = Conversation(role=role, start=abi.MID)
    for side, data in talk.events[begin:]:
        (c.request if side == REQUEST else c.response)(data)
    records = c.close().records()
    for record in records:
        judge(record, talk.said[stream_of(record)])
    joined = [record for record in records if "joined_mid_stream" in record["words"]]
    assert len(joined) == bool(records)


@pytest.mark.parametrize("role", [abi.SERVER, abi.UNKNOWN, abi.CLIENT])
def test_the_server_may_speak_first(role: int) -> None:
    talk = random_talk(7)
    first = next(n for n, (side, _data) in enumerate(talk.events) if side == RESPONSE)
    c = Conversation(role=role)
    for side, data in [talk.events[first], *talk.events[:first], *talk.events[first + 1 :]]:
        (c.request if side == REQUEST else c.response)(data)
    records = c.close().records()
    assert len(records) == len(talk.said)
    for record in records:
        judge(record, talk.said[stream_of(record)])


def test_behind_a_preamble_of_the_proxy_protocol() -> None:
    talk = random_talk(3)
    c = Conversation().request(b"PROXY TCP4 192.0.2.1 192.0.2.2 4000 443\r\n")
    records = play(talk, c).close().records()
    assert len(records) == len(talk.said) and {record["clientIp"] for record in records} == {"192.0.2.1:4000"}


def test_the_upgrade_from_http1() -> None:
    """RFC 7540 section 3.2: the request of HTTP/1 is answered on stream 1."""
    client, server = (H2Connection(H2Configuration(client_side=side, header_encoding=None)) for side in (True, False))
    settings = client.initiate_upgrade_connection()
    server.initiate_upgrade_connection(settings)
    c = Conversation()
    c.request(
        b"GET /upgraded HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
        b"HTTP2-Settings: %s\r\n\r\n" % settings
    )
    c.response(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
    server.receive_data(client.data_to_send())
    c.response(server.data_to_send())
    c.request(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")
    server.send_headers(1, response(200, ("content-type", "application/json")))
    server.send_data(1, b'{"by":2}', end_stream=True)
    c.response(server.data_to_send())
    (record,) = c.records()
    assert (record["path"], record["statusCode"], record["responsePayload"]) == ("/upgraded", "200", '{"by":2}')
    assert record["protocol"] == "http2" and not record["mark"] and stream_of(record) == 1
    assert not c.close().records()


def test_a_client_that_closes_when_it_has_all_that_was_announced() -> None:
    talk = Talk()
    stream = talk.ask(request("/whole"), end=True)
    talk.answer(stream, response(200, ("content-length", "3")))
    talk.body(stream, RESPONSE, b"abc")
    talk.flush()
    (record,) = play(talk).close().records()
    assert record["responsePayload"] == "abc" and not record["words"] & {"response_incomplete", "ambiguous_framing"}


@pytest.mark.parametrize("reset", [False, True])
def test_the_same_with_a_body_beyond_the_limit(reset: bool) -> None:
    """What is not kept has gone by all the same: the end is known."""
    talk = Talk()
    stream = talk.ask(request("/whole"), end=True)
    talk.answer(stream, response(200, ("content-length", "30000"), ("content-type", "text/plain")))
    for n in range(3):
        talk.body(stream, RESPONSE, b"%d" % n * 10_000)
        talk.flush()
    if reset:
        talk.reset(stream, REQUEST)
        talk.flush()
    (record,) = play(talk, Conversation(body_bytes=15_000)).close().records()
    assert record["responseSize"] == "30000" and record["responsePayload"] == "0" * 10_000 + "1" * 5_000
    assert record["words"] - {"end_unseen"} == {"response_body_cut"}, record["mark"]


def test_joined_connections_are_found_again() -> None:
    """All of what begins after the join, but for what could not be told."""
    found = begun = 0
    for seed in range(100):
        talk = random_talk(seed)
        half = len(talk.events) // 2
        c = Conversation(start=abi.MID)
        before = {int.from_bytes(data[5:9]) for side, data in talk.events[:half] if side == REQUEST and data[3] == 1}
        for side, data in talk.events[half:]:
            (c.request if side == REQUEST else c.response)(data)
        found += len(c.close().records())
        begun += len(set(talk.said) - before)
    assert found > 0.8 * begun > 0


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.binary(max_size=200)), max_size=20))
def test_any_bytes_behind_the_preface(events: list[tuple[bool, bytes]]) -> None:
    c = Conversation().request(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    for client, data in events:
        (c.request if client else c.response)(data)
    c.close().records()
    assert c.pipe.statistics()["connections"] == 0 and c.pipe.statistics()["buffer_bytes"] == 0


@pytest.mark.parametrize("where", ["rule", "host", "metadata", "claim"])
def test_a_filter_does_not_pass_what_it_cannot_judge(where: str) -> None:
    """After a join the field may be among those that are not known: then it may say anything."""
    talk = Talk()
    for n in range(3):
        fields = [("x-ns", "secret"), ("x-real-ip", "192.0.2.9")]
        stream = talk.ask(request(f"/{n}", "GET", *fields), end=True)
        talk.flush()
        talk.answer(stream, response(200), end=True)
        talk.flush()
    begin = next(n for n, (side, data) in enumerate(talk.events) if side == REQUEST and data[3:4] == b"\1" and n > 4)
    rule = '[{"key":{"eq":"x-ns","ifAbsent":"accept"},"value":{"regex":"public"}}]'
    changes: dict[str, dict[str, Any]] = {
        "rule": {"rules": rule},
        "host": {"ignore_ip_hosts": True},
        "metadata": {"ignore_metadata": True},
        "claim": {"trusted_networks": "0.0.0.0/0"},
    }
    c = Conversation(start=abi.MID, **changes[where])
    for side, data in talk.events[begin:]:
        (c.request if side == REQUEST else c.response)(data)
    records = c.close().records()
    if where == "claim":
        assert records and not any("clientIp" in record for record in records)
    else:
        assert (
            records == []
            and sum(c.counters()[name] for name in ("filtered_rule", "filtered_ip_host", "filtered_metadata")) > 0
        )
