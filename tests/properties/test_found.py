"""Sequences that once went wrong, smallest form first seen in a review; each would crash, leak or mislead again."""

from __future__ import annotations

import pytest

from collector import abi
from tests.events import GET, OK, Conversation, ident, pipeline, take


def test_a_kept_piece_does_not_outlive_lost_framing() -> None:
    c = Conversation(role=abi.UNKNOWN, opened=False, header_bytes=262144)
    c.send(abi.OUT, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX: " + b"a" * 60000)
    for _ in range(3):
        c.send(abi.OUT, b"a" * 60000)
    c.send(abi.OUT, b"\r\n\r\n").send(abi.OUT, b"1a").send(abi.IN, b"GET / HTT").send(abi.IN, b"\n")
    c.send(abi.OUT, b"lost", lose=True).send(abi.OUT, b"GET / HTTP/1.1\r\n\r\n")
    c.send(abi.OUT, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    c.close()
    c.records()


@pytest.mark.parametrize("piece", [b"1a", b""])
def test_a_thousand_waiting_requests_forget_the_piece_of_an_answer(piece: bytes) -> None:
    c = Conversation()
    c.request(GET)
    c.response(b"HTTP/1.1 200 OK\r\nTransfer-Enc")
    c.response(b"oding: chunked\r\n\r\n" + piece)
    c.request(GET * 1100)
    c.response(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    c.close()
    records = c.records()
    assert len(records) == 1101 and all(r["mark"] for r in records)


@pytest.mark.parametrize("end", ["not_http", "close", "stop"])
def test_no_record_of_what_was_no_socket(end: str) -> None:
    c = Conversation(role=abi.UNKNOWN, start=abi.UNCONFIRMED)
    c.request(b"GET /secret HTTP/1.1\r\nHost: a\r\n")
    if end == "not_http":
        c.feed(abi.pack_close(c.conn, ts_ns=c.now, reason=abi.NOT_HTTP))
    elif end == "close":
        c.close()
    c.pipe.close_all()
    assert c.records() == []


def test_no_record_of_a_file_with_many_requests() -> None:
    c = Conversation(role=abi.UNKNOWN, start=abi.UNCONFIRMED)
    c.request(GET * 1100)
    c.close()
    assert c.records() == [] and c.counters()["unconfirmed_exchanges"] == 1100


def test_a_filtered_connection_gives_no_record_of_a_head_that_was_cut() -> None:
    for how in ({"disable_egress": True}, {"ignore_ports": [80]}):
        pipe = pipeline(**how)
        c = Conversation(pipe, role=abi.UNKNOWN, start=abi.MID, local=("10.0.0.1", 50000), remote=("10.0.0.2", 81))
        c.send(abi.OUT, b"GET /called HTTP/1.1\r\nHost: a\r\n")
        c.feed(
            abi.pack_open(
                c.conn, ts_ns=c.now, role=abi.CLIENT, local=("10.0.0.1", 50000), remote=("10.0.0.2", 80), type=abi.ADDRESS
            )
        )
        c.close()
        assert take(pipe) == []


def test_bodies_that_end_together_do_not_make_a_batch_without_bounds() -> None:
    pipe = pipeline(buffer_bytes=1 << 28)
    post = b"POST / HTTP/1.1\r\nContent-Length: 65536\r\n\r\n" + b'"' * 65536  # each becomes two
    count = 400
    for fd in range(count):
        Conversation(pipe, conn=ident(1, fd, 1)).request(post)
    pipe.tick(200 * 10**9)
    assert pipe.pending() < 40 << 20
    records = take(pipe)
    assert len(records) == count  # all of them, the last ones without their bodies
    assert records[0]["requestPayload"] and not records[-1]["requestPayload"]
    assert "request_body_cut" in records[-1]["words"]


@pytest.mark.parametrize("step", [1 << 20, 1000])
def test_a_long_trailer_line_is_judged_by_its_beginning(step: int) -> None:
    c = Conversation()
    data = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 5" + b" " * 5000 + b"\r\n\r\n"
    for at in range(0, len(data), step):
        c.request(data[at : at + step])
    c.response(OK)
    (record,) = c.records()
    assert "ambiguous_framing:bad_header_line" in record["mark"]


@pytest.mark.parametrize("name", [b"X_Y", b"XY"])
def test_blank_lines_before_a_request_are_not_judged(name: bytes) -> None:
    data = b"\rGET / HTTP/1.1\r\nHost: a\r\n" + name + b": 1\r\n\r\n"
    for cut in (0, 1, 10):
        c = Conversation()
        if cut:
            c.request(data[:cut])
        c.request(data[cut:])
        c.response(OK)
        (record,) = c.records()
        assert not record["mark"]


def test_one_event_from_the_far_future_does_not_stop_the_minutes() -> None:
    c = Conversation(input_bytes_per_minute=1000)
    c.feed(abi.pack_data(ident(9, 9, 9), 0, 0, GET, ts_ns=2**63 - 1))
    for _ in range(30):
        c.request(GET, step_ms=60_000)
        c.response(OK)
    c.close()
    assert len(c.records()) == 30 and c.counters()["sampled_out_exchanges"] == 0
