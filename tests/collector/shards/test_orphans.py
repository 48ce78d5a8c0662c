"""Answers without a request: records on request, and nothing else is read differently for it."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector import abi
from tests.events import GET, OK, Conversation
from tests.http2 import REQUEST, RESPONSE, Talk, play, random_talk, request, response

ORPHAN = {"orphan_response", "method_unknown", "path_unknown"}
CREATED = b'HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: 7\r\n\r\n{"a":1}'


def wanted(**how: Any) -> Conversation:
    return Conversation(orphan_responses=True, **how)


def one(c: Conversation) -> dict[str, Any]:
    (record,) = c.records()
    return record


# ---- HTTP/1 ----


def test_it_says_all_that_is_known() -> None:
    c = wanted(start=abi.MID).response(CREATED)
    r = one(c)
    assert (r["method"], r["path"], r["type"], r["request"], r["requestPayload"]) == ("", "", "", {"host": ""}, "")
    assert (r["status"], r["responsePayload"], r["response"]["Content-Type"]) == (
        "201 Created",
        '{"a":1}',
        "application/json",
    )
    assert (r["direction"], r["ip"], r["destIp"], r["process_name"]) == ("1", "10.0.0.2:40000", "10.0.0.1:80", "server")
    assert r["words"] == ORPHAN | {"response_framing_uncertain"}
    assert r["firstByteMs"] == "0.000"
    counters = c.counters()
    assert (counters["orphan_responses"], counters["records"], counters["queued_exchanges"]) == (1, 1, 0)


def test_it_is_recorded_when_it_is_complete_and_what_follows_is_read() -> None:
    c = wanted().response(CREATED[:-3])
    assert c.records() == []
    r = one(c.response(CREATED[-3:], step_ms=4))
    assert (r["words"], r["durationMs"], r["responseSize"]) == (ORPHAN, "4.000", "7")
    assert one(c.request(GET).response(OK))["path"] == "/x"


def test_each_has_a_number_of_its_own() -> None:
    c = wanted(start=abi.MID).response(OK + CREATED + OK)
    c.request(GET).response(OK).close()
    ids = [r["recordId"] for r in c.records()]
    assert len(ids) == len(set(ids)) == 4
    again = wanted(start=abi.MID).response(OK).response(CREATED + OK).request(GET).response(OK).close()
    assert [r["recordId"] for r in again.records()] == ids


def test_one_without_an_end_is_recorded_at_the_close_or_after_the_silence() -> None:
    until_close = b"HTTP/1.0 200 OK\r\n\r\nso far"
    r = one(wanted().response(until_close).close())
    assert (r["responsePayload"], r["words"]) == ("so far", ORPHAN | {"response_framing_uncertain"})
    r = one(wanted().response(CREATED[:-3]).close())
    assert (r["responsePayload"], r["words"]) == ('{"a"', ORPHAN | {"response_incomplete"})
    c = wanted().response(CREATED[:-3]).wait(61)
    assert one(c)["words"] == ORPHAN | {"response_incomplete"}


def test_caps_and_losses_are_those_of_any_answer() -> None:
    r = one(wanted(body_bytes=2).response(CREATED))
    assert (r["responsePayload"], r["responseSize"]) == ('{"', "7") and "response_body_cut:5" in r["mark"]
    c = wanted().response(CREATED[:-3]).response(CREATED[-3:], lose=True).close()
    assert "response_bytes_lost:3" in one(c)["mark"]
    r = one(wanted().response(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx"))
    assert "ambiguous_framing:content_length_repeated" in r["mark"]


def test_filters_that_want_to_know_the_request_leave_it_out() -> None:
    rule = '[{"key": {"eq": "x-a", "ifAbsent": "accept"}, "value": {"regex": "."}}]'
    for how in ({"rules": rule}, {"ignore_ip_hosts": True}, {"ignore_metadata": True}):
        c = wanted(**how).response(CREATED).request(GET).response(OK)
        assert all(r["path"] for r in c.records()) and c.counters()["orphan_responses"] == 1
        assert c.counters()["queued_exchanges"] == 0


def test_interim_answers_are_none() -> None:
    assert wanted().response(b"HTTP/1.1 100 Continue\r\n\r\n").close().records() == []


def test_without_the_setting_nothing_is_recorded() -> None:
    c = Conversation(start=abi.MID).response(CREATED).close()
    assert c.records() == [] and c.counters()["orphan_responses"] == 1


# ---- HTTP/2 ----


def stream_of(record: dict[str, Any]) -> int:
    return int(record["recordId"].rpartition("-h")[2], 16) & ~(1 << 63)


def joined(talk: Talk, first: int, **how: Any) -> Conversation:
    """The events of a talk from the ``first`` on, of a connection that is older than the collector."""
    c = Conversation(start=abi.MID, **how)
    for side, data in talk.events[first:]:
        (c.request if side == REQUEST else c.response)(data)
    return c


def late_start() -> tuple[Talk, int]:
    """Three requests are on their way when capture begins; a fourth comes before any of their answers."""
    talk = Talk()
    early = [talk.ask(request(f"/early/{n}"), end=True) for n in range(3)]
    talk.flush()
    start = len(talk.events)
    late = talk.ask(request("/late"), end=True)
    talk.flush()
    for stream in (late, *reversed(early)):
        talk.answer(stream, response(200 + stream, ("x-a", "b")))
        talk.flush()
    for stream in (*early, late):
        talk.body(stream, RESPONSE, b"body of %d" % stream, end=True)
        talk.flush()
    return talk, start


def test_answers_to_requests_from_before_the_collector() -> None:
    talk, start = late_start()
    c = joined(talk, start, orphan_responses=True)
    found = {stream_of(r): r for r in c.records()}
    assert set(found) == set(talk.said) == {1, 3, 5, 7}
    assert found[7]["path"] == "/late"
    for stream in (1, 3, 5):
        r = found[stream]
        assert (r["method"], r["path"], r["type"], r["protocol"]) == ("", "", "HTTP/2.0", "http2")
        assert (r["statusCode"], r["responsePayload"], r["words"]) == (str(200 + stream), f"body of {stream}", ORPHAN)
    assert c.counters()["orphan_responses"] == 3
    off = joined(talk, start)
    assert [r["path"] for r in off.records()] == ["/late"] and off.counters()["orphan_responses"] == 3


def test_an_answer_that_is_not_over_when_its_request_is_known_to_be_gone_is_recorded_whole() -> None:
    talk = Talk()
    early = talk.ask(request("/early"), end=True)
    talk.flush()
    start = len(talk.events)
    talk.answer(early, response(200))
    talk.flush()
    late = talk.ask(request("/late"), end=True)
    talk.flush()
    talk.body(early, RESPONSE, b"the whole body", end=True)
    talk.flush()
    talk.answer(late, response(204), end=True)
    talk.flush()
    orphan, other = joined(talk, start, orphan_responses=True).records()
    assert (orphan["responsePayload"], orphan["words"]) == ("the whole body", ORPHAN)
    assert other["path"] == "/late"


@pytest.mark.parametrize("ends", [False, True])
def test_the_body_of_a_request_whose_head_was_not_seen_is_none_of_the_record(ends: bool) -> None:
    """Where it stood in the body is not known; nor is it what a stream has behind its end (`ambiguous_framing:frame`)."""
    talk = Talk()
    early = talk.ask(request("/early", "POST"))
    talk.flush()
    start = len(talk.events)
    talk.body(early, REQUEST, b"the first half")
    talk.answer(early, response(200))
    talk.flush()
    talk.ask(request("/other"), end=True)
    talk.flush()
    talk.body(early, REQUEST, b"the second half")
    talk.flush()
    if ends:
        talk.trailers(early, REQUEST, [(b"x-checksum", b"1")])
        talk.flush()
    talk.body(early, RESPONSE, b"answered", end=True)
    talk.flush()
    (orphan,) = joined(talk, start, orphan_responses=True).records()
    assert (orphan["responsePayload"], orphan["requestPayload"], orphan["requestSize"]) == ("answered", "", "0")
    assert orphan["words"] == ORPHAN


def test_a_late_answer_to_a_request_that_was_recorded_is_no_record() -> None:
    talk = Talk()
    slow = talk.ask(request("/slow"), end=True)
    talk.flush()
    c = play(talk, Conversation(orphan_responses=True)).wait(61)
    assert one(c)["words"] == {"no_response"}
    talk.answer(slow, response(200), end=True)
    talk.flush()
    c.response(talk.events[-1][1])
    assert c.close().records() == [] and c.counters()["orphan_responses"] == 1


def orphans_and_others(records: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    return (
        [r for r in records if "orphan_response" in r["words"]],
        [r for r in records if "orphan_response" not in r["words"]],
    )


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 1 << 30), st.floats(0.0, 0.4), st.booleans())
def test_other_records_are_the_same_and_answers_are_what_was_said(seed: int, rate: float, mid: bool) -> None:
    talk = random_talk(seed)
    outcome = []
    for on in (False, True):
        rng = random.Random(seed)
        c = Conversation(orphan_responses=on, start=abi.MID if mid else abi.SEEN)
        first = rng.randrange(len(talk.events)) if mid else 0
        for side, data in talk.events[first:]:
            (c.request if side == REQUEST else c.response)(data, lose=rng.random() < rate)
        orphans, others = orphans_and_others(c.close().records())
        outcome.append(sorted(others, key=lambda r: r["recordId"]))
        assert c.counters()["queued_exchanges"] == 0
        assert on or not orphans
    assert outcome[0] == outcome[1]
    assert len(orphans) <= c.counters()["orphan_responses"]
    streams = [stream_of(r) for r in orphans]
    assert len(streams) == len(set(streams))
    for r in orphans:
        said = talk.said[stream_of(r)].response
        assert said is not None
        assert r["statusCode"] == said.pseudo(b":status") or "status_unknown" in r["words"]
        if "response_bytes_lost" not in r["words"] and not r.get("responsePayloadEncoding"):
            assert said.body.startswith(r["responsePayload"].encode())


# ---- HTTP/1, anything lost ----

ANSWERS = [
    OK,
    CREATED,
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    b"HTTP/1.1 200OK\r\nContent-Length : 2\r\n\r\nhi",
    b"HTTP/1.0 200 OK\r\n\r\n",
]
ASKED = [
    GET,
    GET.replace(b"GET", b"HEAD"),
    b"POST /p HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc",
    b"CONNECT a:1 HTTP/1.1\r\n\r\n",
]


@settings(max_examples=400, deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 7), st.sampled_from([0, 0, 0, 1, 2])), max_size=14),
    st.sampled_from([abi.SEEN, abi.MID]),
    st.sampled_from([abi.SERVER, abi.CLIENT]),
)
def test_other_records_of_http1_are_the_same(steps: list[tuple[bool, int, int]], start: int, role: int) -> None:
    outcome = []
    for on in (False, True):
        c = Conversation(orphan_responses=on, start=start, role=role)
        for asks, what, how in steps:
            data = ASKED[what % 4] if asks else ANSWERS[what]
            say = c.request if asks else c.response
            if how == 2:  # in two events, the second one lost
                say(data[: len(data) // 2])
                say(data[len(data) // 2 :], lose=True)
            else:
                say(data, lose=how == 1)
        orphans, others = orphans_and_others(c.close().records())
        outcome.append(others)
        assert c.counters()["queued_exchanges"] == 0
        assert len(orphans) == (c.counters()["orphan_responses"] if on else 0)
        ids = [r["recordId"] for r in orphans + others]
        assert len(ids) == len(set(ids))
    assert outcome[0] == outcome[1]


@pytest.mark.parametrize("size", [1, 3, 20])
def test_cuts_change_nothing(size: int) -> None:
    def ids(step: int) -> list[tuple[str, str, list[str]]]:
        c = wanted()
        data = OK + CREATED + ANSWERS[3]
        for at in range(0, len(data), step):
            c.response(data[at : at + step])
        return [(r["recordId"], r["responsePayload"], r["mark"]) for r in c.close().records()]

    assert ids(size) == ids(1 << 20) and len(ids(size)) == 3
