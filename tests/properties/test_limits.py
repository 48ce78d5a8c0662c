"""Limits under hostile load: what is held stays within the budget, what is given up is recorded and marked, and whatever
is left out is counted. Nothing here is fast or slow by the clock; time is the events'."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from kafka.record.memory_records import MemoryRecords

from collector import abi
from tests.events import GET, OK, Conversation, ident, pipeline, take

HEADER, BODY = 4096, 4096
# The most that one event can add: a head as JSON text is at most seven times as long as on the wire, and buffers grow
# by half; and the connection with an exchange
ONE_MESSAGE = HEADER * 7 * 3 // 2 + BODY * 3 + 8192


def small(**changes: Any) -> Any:
    return pipeline(**{"header_bytes": HEADER, "body_bytes": BODY, **changes})


def hold(pipe: Any, budget: int) -> None:
    counters = pipe.statistics()
    assert counters["buffer_peak_bytes"] <= budget + ONE_MESSAGE
    assert counters["buffer_bytes"] <= budget


def drain(pipe: Any) -> list[dict[str, Any]]:
    out = take(pipe)
    while not pipe.close_all():
        out += take(pipe)
    return out + take(pipe)


def balance(pipe: Any) -> None:
    counters = pipe.statistics()
    assert counters["connections"] == counters["queued_exchanges"] == 0
    assert counters["connections_opened"] == counters["connections_closed"]
    assert counters["callback_errors"] == counters["bad_events"] == 0


@pytest.mark.slow
def test_two_hundred_thousand_half_open_connections() -> None:
    budget, most, count = 16 << 20, 20_000, 200_000
    pipe = small(buffer_bytes=budget, max_connections=most)
    half = b"POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\nX: " + b"x" * 400 + b"\r\n\r\nhalf"
    cut = b"GET /g HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 400
    marked: dict[frozenset[str], int] = {}
    seen = 0

    def look(batch: Any) -> int:
        lines = batch[0].splitlines()
        for line in lines:
            words = frozenset(json.loads(json.loads(line)["marks"]))
            marked[words] = marked.get(words, 0) + 1
        return len(lines)

    for number in range(0, count, 100):
        pipe.feed(
            b"".join(
                abi.pack_open(ident(1000 + n % 500, n // 500), ts_ns=10**9 + n)
                + abi.pack_data(ident(1000 + n % 500, n // 500), 0, 0, half if n % 2 else cut, ts_ns=10**9 + n)
                for n in range(number, number + 100)
            ),
            0,
        )
        assert pipe.statistics()["connections"] <= most
        hold(pipe, budget)
        seen += look(pipe.take() or (b"", b"", b""))
    done = False
    while not done:
        done = pipe.close_all()
        seen += look(pipe.take() or (b"", b"", b""))
    assert seen == count == pipe.statistics()["records"]  # every start line that came is a record
    for words in marked:
        assert {"request_incomplete", "no_response", "end_unseen"} <= words or {"headers_cut", "no_response"} <= words
    evicted = sum(n for words, n in marked.items() if "evicted" in words)
    counters = pipe.statistics()
    assert evicted == counters["evicted_connections"] + counters["evicted_budget"] > count - most
    balance(pipe)


def test_the_number_of_connections_is_a_limit_at_every_event() -> None:
    pipe = small(max_connections=10)
    conns = [ident(1, fd) for fd in range(500)]
    span = b"".join(abi.pack_open(conn, ts_ns=1) + abi.pack_data(conn, 0, 0, GET, ts_ns=1) for conn in conns)
    pipe.feed(span, 0)
    assert pipe.statistics()["evicted_connections"] == 490
    records = take(pipe)
    assert len(records) == 490 and all({"evicted", "no_response"} <= r["words"] for r in records)
    assert len(drain(pipe)) == 10
    balance(pipe)


def test_slow_senders_within_one_span() -> None:
    # one byte an event, on many connections by turns: buffers grow for all of them at once
    budget = 200_000
    pipe = small(buffer_bytes=budget)
    data = b"POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 4000\r\n\r\n" + b"y" * 600
    count = 300
    for at in range(0, len(data), 40):
        span = b"".join(
            (abi.pack_open(ident(7, fd), ts_ns=at + 1) if at == 0 else b"")
            + b"".join(
                abi.pack_data(ident(7, fd), 0, at + i, data[at + i : at + i + 1], ts_ns=at + i + 2)
                for i in range(min(40, len(data) - at))
            )
            for fd in range(count)
        )
        pipe.feed(span, 0)
        hold(pipe, budget)
    records = drain(pipe)
    assert records and all(r["mark"] for r in records)
    assert {"evicted"} <= set().union(*(r["words"] for r in records))
    # a connection that came back after it was given up begins in the middle: its bytes are counted, not guessed at
    assert pipe.statistics()["skipped_bytes"] > 0
    balance(pipe)


@pytest.mark.parametrize("server", [True, False])
def test_endless_headers(server: bool) -> None:
    c = Conversation(small())
    send = c.request if server else c.response
    if not server:
        c.request(GET)
    send(b"GET /endless HTTP/1.1\r\n" if server else b"HTTP/1.1 200 OK\r\n")
    for number in range(3000):
        send(b"X-%d: %s\r\n" % (number, b"h" * 100))
        hold(c.pipe, HEADER * 8)
    c.close()
    (record,) = c.records()
    assert {"headers_cut"} <= record["words"]
    assert len(record["request" if server else "response"]) < 60
    balance(c.pipe)


def test_endless_chunks_and_a_chunk_line_without_end() -> None:
    c = Conversation(small())
    c.request(b"POST /chunks HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(5000):
        c.request(b"1\r\nz\r\n")
    hold(c.pipe, BODY * 4 + 8192)
    for _ in range(5000):
        c.request(b"0" * 40)
    hold(c.pipe, BODY * 4 + 8192)
    c.close()
    (record,) = c.records()
    assert record["requestPayload"] == "z" * BODY and int(record["requestSize"]) == 5000
    assert "ambiguous_framing:bad_chunk" in record["mark"] and "request_body_cut:904" in record["mark"]
    balance(c.pipe)


def test_an_endless_body_until_close() -> None:
    c = Conversation(small())
    c.request(GET)
    c.response(b"HTTP/1.0 200 OK\r\n\r\n")
    for _ in range(1000):
        c.response(b"b" * 16000)
    hold(c.pipe, BODY * 4 + 8192)
    c.close()
    (record,) = c.records()
    assert len(record["responsePayload"]) == BODY and int(record["responseSize"]) == 16_000_000
    assert f"response_body_cut:{16_000_000 - BODY}" in record["mark"]


def test_requests_without_answers_on_one_connection() -> None:
    c = Conversation(small(connection_bytes=60_000))
    post = b"POST /%d HTTP/1.1\r\nHost: a\r\nContent-Length: 3000\r\n\r\n" + b"q" * 3000
    for number in range(200):
        c.request(post % number)
        assert c.counters()["buffer_bytes"] <= 60_000 + ONE_MESSAGE + 64 * 20_000
    evictions = c.counters()["evicted_connection_bytes"]
    assert evictions > 5
    c.close()
    records = c.records()
    assert [r["path"] for r in records] == [f"/{n}" for n in range(200)]  # nothing is left out
    assert all("no_response" in r["words"] for r in records)
    assert sum("evicted" in r["words"] for r in records) > 150
    balance(c.pipe)


def test_a_connection_goes_on_after_it_held_too_much() -> None:
    c = Conversation(small(connection_bytes=20_000))
    for _ in range(30):
        c.request(b"POST / HTTP/1.1\r\nContent-Length: 1000\r\n\r\n" + b"q" * 1000)
    assert c.counters()["evicted_connection_bytes"] >= 1
    c.records()
    for _ in range(20):
        c.request(GET)
        c.response(OK)
    c.wait(60)
    c.request(GET)
    c.response(OK)
    records = c.records()
    assert not records[-1]["mark"] and records[-1]["ip"] == "10.0.0.2:40000"  # the addresses are still known
    assert all(r["mark"] for r in records[:16])


def test_idle_connections_are_the_first_to_go() -> None:
    pipe = small(max_connections=2)
    busy = Conversation(pipe, conn=ident(1, 1, 1))
    for number in itertools.count(1):
        idle = Conversation(pipe, conn=ident(2, number, 1))
        idle.now = busy.now = busy.now + 2_000_000_000
        idle.request(b"GET /idle HTTP/1.1\r\n\r\n")
        busy.request(GET)
        busy.response(OK)
        if number == 20:
            break
    records = take(pipe)
    assert sum(r["path"] == "/x" and not r["mark"] for r in records) == 20
    assert sum("evicted" in r["words"] for r in records) == 19


def test_payload_per_minute() -> None:
    c = Conversation(small(input_bytes_per_minute=10_000))
    post = b"POST /%d HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n" + b"q" * 1000
    for number in range(30):
        c.request(post % number)
        c.response(OK)
    first = c.records()
    assert [r["path"] for r in first] == [f"/{n}" for n in range(len(first))] and 8 <= len(first) <= 10
    assert c.counters()["sampled_out_exchanges"] == 30 - len(first)
    c.wait(60)
    c.request(post % 99)
    c.response(OK)
    (late,) = c.records()
    assert late["path"] == "/99" and not late["mark"]  # what was left out was followed: nothing is in doubt


def test_records_per_minute() -> None:
    c = Conversation(small(output_bytes_per_minute=10_000))
    for _ in range(30):
        c.request(GET)
        c.response(OK)
    records = c.records()
    size = c.counters()["record_bytes"]
    assert 10_000 <= size < 10_000 + size / len(records) + 1
    assert c.counters()["records_dropped_bandwidth"] == 30 - len(records) > 0
    c.wait(60)
    c.request(GET)
    c.response(OK)
    assert len(c.records()) == 1


def test_shedding_gives_state_up_until_the_new_budget_is_met() -> None:
    pipe = small()
    for fd in range(100):
        Conversation(pipe, conn=ident(1, fd, 1)).request(b"POST / HTTP/1.1\r\nContent-Length: 9000\r\n\r\n" + b"q" * 3000)
    before = pipe.statistics()["buffer_bytes"]
    pipe.set_budget(before // 4)
    assert pipe.statistics()["buffer_bytes"] <= before // 4 or pipe.statistics()["connections"] == 0
    records = take(pipe)
    assert len(records) == pipe.statistics()["evicted_budget"] >= 70
    assert all({"evicted", "request_incomplete"} <= r["words"] for r in records)


def test_an_idle_connection_takes_a_kilobyte_at_most() -> None:
    count = 4000
    pipe = small(max_connections=count)
    for fd in range(count):
        c = Conversation(pipe, conn=ident(1, fd, 1))
        c.request(GET)
        c.response(OK)
    assert pipe.statistics()["connections"] == count
    assert pipe.statistics()["buffer_bytes"] <= 1024 * count  # with what is kept for reuse


def test_a_new_minute_begins_without_traffic_too() -> None:
    c = Conversation(small(output_bytes_per_minute=1))
    c.request(GET)
    c.response(OK)
    assert len(c.records()) == 1
    c.request(GET)
    c.wait(130)  # the timer's record comes two minutes later
    assert len(c.records()) == 1 and c.counters()["records_dropped_bandwidth"] == 0


def test_ignored_connections_do_not_use_the_minute_up() -> None:
    pipe = small(input_bytes_per_minute=10_000, ignore_ports=[9092])
    busy = Conversation(pipe, conn=ident(1, 1, 1), local=("10.0.0.1", 9092))
    for _ in range(20):
        busy.request(b"POST / HTTP/1.1\r\nContent-Length: 1000\r\n\r\n" + b"q" * 1000)
    other = Conversation(pipe, conn=ident(1, 2, 1))
    other.request(GET)
    other.response(OK)
    assert len(take(pipe)) == 1 and pipe.statistics()["sampled_out_exchanges"] == 0


@pytest.mark.parametrize("largest", [20_000, 100_000, 1_000_000])
def test_no_batch_and_no_record_is_larger_than_the_destination_takes(largest: int) -> None:
    pipe = pipeline(want_details=True)
    pipe.use_record_batches(0, bytes, 1792 << 10, 960 << 10)
    pipe.set_largest(largest)
    c = Conversation(pipe)
    sizes = [0, 1, 100, 5000, 50_000, 65_536] * 4
    for size in sizes:
        c.request(b"POST /%s HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (b"p" * 3000, size) + b"q" * size)
        c.response(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"\x01" * size)
    values = []
    while (taken := pipe.take()) is not None:
        assert len(taken[0]) <= largest
        values += [json.loads(record.value) for batch in MemoryRecords(taken[0]) for record in batch]
    assert len(values) == len(sizes) and pipe.statistics()["records_dropped_size"] == 0
    assert [int(value["requestSize"]) for value in values] == sizes
    assert all(
        "body_cut" in value["marks"] for value in values if len(value["responsePayload"]) < int(value["responseSize"])
    )
    pipe.set_largest(0)
    assert pipe.complete() == pipeline().complete()
