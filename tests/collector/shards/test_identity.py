"""Whose exchange it is: identity, processes and their names, what the shard tells the kernel."""

from __future__ import annotations

import array

import pytest

from collector import abi
from collector.router import partition
from tests.events import GET, OK, Conversation, ident, pipeline, take

SECOND = b"GET /second HTTP/1.1\r\n\r\n"
POST_LONG = b"POST /a HTTP/1.1\r\nContent-Length: 20000\r\n\r\n" + bytes(20000)


def by(c: Conversation, tgid: int) -> Conversation:
    """The same connection, used by another process from now on."""
    c.conn = (c.conn[0], tgid, c.conn[2])
    return c


def test_process_of_each_exchange_is_the_one_that_answered() -> None:
    c = Conversation()
    c.feed(abi.pack_process(200, b"child"))
    c.request(GET)
    by(c, 200).response(OK)
    by(c, 100).request(SECOND).response(OK)
    assert [(r["process_id"], r["process_name"]) for r in c.records()] == [("200", "child"), ("100", "server")]


def test_process_of_a_client_is_the_one_that_asked() -> None:
    c = Conversation(role=abi.CLIENT).request(GET)
    by(c, 200).response(OK)
    assert [r["process_id"] for r in c.records()] == ["100"]


def test_a_new_name_counts_from_the_next_record_on() -> None:
    c = Conversation().request(GET).response(OK)
    assert c.records()[0]["process_name"] == "server"
    c.feed(abi.pack_process(100, b"after exec"))
    assert c.request(GET).response(OK).records()[0]["process_name"] == "after exec"


def test_a_process_that_was_never_told_has_no_name() -> None:
    c = Conversation().request(GET)
    by(c, 300).response(OK)
    assert c.records()[0]["process_name"] == ""


def test_sixty_thousand_processes_keep_the_names_that_fit() -> None:
    pipe = pipeline()
    for tgid in range(1, 60_001):
        pipe.feed(abi.pack_process(tgid, f"p{tgid}".encode()))
    named = 0
    for tgid in range(59_000, 60_001):
        c = Conversation(pipe, conn=ident(tgid, 3), opened=False)
        c.feed(abi.pack_open(c.conn, ts_ns=c.now))
        name = take(c.request(GET).response(OK).pipe)[0]["process_name"]
        assert name in ("", f"p{tgid}")
        named += name != ""
    assert named > 900


def test_exit_ends_the_connections_of_its_ring_only() -> None:
    pipe = pipeline()
    conns = [ident(7, fd) for fd in (1, 2)]
    for ring, conn in enumerate(conns):
        pipe.feed(abi.pack_open(conn, ts_ns=1, ring=ring) + abi.pack_data(conn, abi.IN, 0, GET, ts_ns=2))
    pipe.feed(abi.pack_exit(7, ts_ns=3, ring=1))
    assert [r["socket_id"] for r in take(pipe)] == ["2"]


def test_an_open_tells_what_went_by_before() -> None:
    """What is missing between the opening and the first bytes of a direction is a hole, not the beginning."""
    c = Conversation(opened=False)
    c.feed(
        abi.pack_open(
            c.conn, ts_ns=c.now, start=abi.MID, local=("10.0.0.1", 80), remote=("10.0.0.2", 1), positions=(5000, 7000)
        )
    )
    c.positions = [5000, 7000]
    c.request(GET).response(OK[:20], lose=True).response(OK)
    assert c.counters()["hole_bytes"] == 20
    assert all(r["mark"] for r in c.close().records())


def test_record_id_is_the_place_of_the_request_on_its_connection() -> None:
    whole = Conversation().request(GET + b"\r\n" + SECOND).response(OK + OK).records()
    pieces = Conversation()
    for byte in GET + b"\r\n" + SECOND:
        pieces.request(bytes([byte]))
    split = pieces.response(OK + OK).records()
    ids = [r["recordId"] for r in whole]
    assert ids == [r["recordId"] for r in split] == [f"test-{ident(100, 5)[0]:x}-{at:x}" for at in (0, len(GET) + 2)]


def test_a_connection_given_up_keeps_its_ends_and_role() -> None:
    pipe = pipeline(max_connections=2)
    cs = [
        Conversation(pipe, conn=ident(100, fd), remote=("10.9.9.9", 1000 + fd)).request(GET).response(OK) for fd in range(4)
    ]
    take(pipe)
    r = take(cs[0].request(GET).response(OK).pipe)[-1]
    assert (r["ip"], r["direction"], r["mark"]) == ("10.9.9.9:1000", "1", [])  # nothing was missed
    r = take(cs[1].request(GET, lose=True).request(GET).response(OK).pipe)[-1]
    assert "pairing_uncertain" in r["words"] and r["ip"] == "10.9.9.9:1001"


def test_a_connection_given_up_between_messages_goes_on() -> None:
    pipe = pipeline(max_connections=2)
    cs = [
        Conversation(pipe, conn=ident(100, fd), role=abi.CLIENT).request(GET).request(b"HEAD /h HTTP/1.1\r\nHost: h\r\n\r\n")
        for fd in range(4)
    ]
    assert [r["words"] for r in take(pipe)] == [{"evicted", "no_response", "end_unseen"}] * 4
    cs[0].response(OK).response(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n").request(SECOND).response(OK)
    r = take(pipe)[-1]  # the two answers belong to requests that are recorded already
    assert (r["path"], r["responsePayload"], r["mark"]) == ("/second", "hi", [])


def test_a_connection_given_up_inside_a_message_is_joined_in_the_middle() -> None:
    pipe = pipeline(max_connections=2)
    cs = [
        Conversation(pipe, conn=ident(100, fd), remote=("10.9.9.9", 1000 + fd)).request(GET).response(OK[:-1])
        for fd in range(4)
    ]
    take(pipe)
    r = take(cs[0].request(GET).response(OK).pipe)[-1]
    assert r["ip"] == "10.9.9.9:1000" and {"joined_mid_stream", "pairing_uncertain"} <= r["words"]


def test_a_connection_given_up_and_not_chosen_stays_out() -> None:
    pipe = pipeline(max_connections=1, only_ports=[80])
    out = Conversation(pipe, conn=ident(100, 1), local=("10.0.0.1", 81)).request(GET)
    chosen = Conversation(pipe, conn=ident(100, 2), local=("10.0.0.1", 80)).request(GET).response(OK)
    take(pipe)
    out.request(GET).response(OK)
    assert take(pipe) == []
    chosen.request(GET).response(OK)
    assert [r["destIp"] for r in take(pipe)] == ["10.0.0.1:80"]


@pytest.mark.parametrize("source", [1, 4])
def test_tls_is_said_by_the_source_and_never_drops_what_waits(source: int) -> None:
    c = Conversation(role=abi.UNKNOWN, source=source)
    c.request(GET)
    c.feed(abi.pack_close(c.conn, ts_ns=c.now, final_in=len(GET), source=source))
    (r,) = c.records()
    assert (r["tls"], r["path"], r["words"] >= {"no_response"}) == ("true", "/x", True)


# ---- words for the kernel ----


class Words:
    """The array that the kernel reads."""

    def __init__(self, pipe, count: int = 1 << 15, memory: array.array | None = None) -> None:
        self.words = array.array("Q", [0] * count) if memory is None else memory
        pipe.use_unwanted(memoryview(self.words))

    def until(self, conn_id: int, direction: int) -> int:
        """As bpf/capture.h not_wanted reads it."""
        h = partition.scatter(conn_id)
        word = self.words[((h ^ h >> 32) >> 18 & (len(self.words) // 2 - 1)) * 2 + direction]
        return word & 0xFFFFFFFFFFFF if word >> 48 == h >> 48 else 0


def test_the_kernel_is_told_where_a_body_beyond_its_limit_ends() -> None:
    pipe = pipeline(body_bytes=1000)
    words = Words(pipe)
    c = Conversation(pipe).request(GET)
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"
    c.response(head + b"x" * 900)
    assert words.until(c.conn[0], abi.OUT) == 0  # it might still be kept whole
    c.response(b"x" * 20_000)
    end = len(head) + 1_000_000
    assert words.until(c.conn[0], abi.OUT) == end and words.until(c.conn[0], abi.IN) == 0
    # the kernel counts the rest, and the next exchange is as right as ever
    c.response(b"", true_length=end - c.positions[abi.OUT], flags=abi.F_SIZE_ONLY)
    c.request(SECOND).response(OK)
    first, second = c.records()
    assert (first["responseSize"], first["words"]) == ("1000000", {"response_body_cut"})
    assert (second["path"], second["responsePayload"], second["mark"]) == ("/second", "hi", [])


def test_the_kernel_is_told_of_chunks_and_of_what_is_not_read() -> None:
    pipe = pipeline(body_bytes=1000)
    words = Words(pipe)
    c = Conversation(pipe).request(GET)
    c.response(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n100000\r\n" + b"x" * 17_000)
    position = c.positions[abi.OUT]
    assert words.until(c.conn[0], abi.OUT) == position + 0x100000 - 17_000
    d = Conversation(pipe, conn=ident(100, 6)).request(b"GET /ws HTTP/1.1\r\nUpgrade: websocket\r\n\r\n")
    d.response(b"HTTP/1.1 101 Switching Protocols\r\n\r\n").response(b"y" * 20_000)
    assert words.until(d.conn[0], abi.OUT) == 0xFFFFFFFFFFFF


@pytest.mark.parametrize("other", [0x001, 0x002, 0x03F, 0x7FF, 0x800, 0x801])
def test_a_word_is_of_no_connection_that_was_met_at_the_same_time(other: int) -> None:
    """Numbers are made of the time in units of 4 us, of the CPU, and of whether it is a library's object."""
    pipe = pipeline(body_bytes=1000)
    words = Words(pipe)
    for time in range(0x1234567000, 0x1234567000 + 500 * 0x1000, 0x1000):
        c = Conversation(pipe, conn=(time, 100, 5)).request(GET)
        c.response(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 20_000)
        assert words.until(time, abi.OUT) > 1_000_000
        assert words.until(time | other, abi.OUT) == words.until(time | other, abi.IN) == 0


def test_a_new_shard_takes_back_what_the_one_before_has_said() -> None:
    """It had left the connection out for want of CPU, and the share has grown since."""
    memory = array.array("Q", [0] * (1 << 15))
    first = pipeline()
    words = Words(first, memory=memory)
    c = Conversation(first)
    first.set_share(0)
    c.request(GET).response(OK)
    assert words.until(c.conn[0], abi.OUT) == words.until(c.conn[0], abi.IN) == 0xFFFFFFFFFFFF
    c.pipe = second = pipeline()
    Words(second, memory=memory)
    c.request(GET).response(OK)
    assert words.until(c.conn[0], abi.OUT) == words.until(c.conn[0], abi.IN) == 0
    assert len(take(second)) == 1


def test_a_word_that_another_connection_has_overwritten_is_said_again() -> None:
    pipe = pipeline()
    words = Words(pipe)
    pipe.set_share(0)
    c = Conversation(pipe).request(GET)
    for index in range(len(words.words)):
        words.words[index] = 0
    c.request(GET)
    assert words.until(c.conn[0], abi.IN) == 0xFFFFFFFFFFFF


def test_a_wrong_word_costs_bytes_and_never_framing() -> None:
    """Whatever the kernel leaves out, it says how much: any part of a conversation as a length only."""
    for cut in range(1, len(OK)):
        c = Conversation().request(GET)
        c.response(b"", true_length=cut, flags=abi.F_SIZE_ONLY).response(OK[cut:])
        c.request(SECOND).response(OK).close()
        for r in c.records():
            assert r["mark"] or r["responsePayload"] == "hi"


def test_what_is_held_back_has_a_deadline() -> None:
    c = Conversation(start=abi.UNCONFIRMED).request(GET).response(OK).wait(61)
    assert c.records() == [] and c.counters()["unconfirmed_exchanges"] == 1
    c.feed(abi.pack_open(c.conn, ts_ns=c.now, type=abi.ADDRESS, local=("10.0.0.1", 80), remote=("10.0.0.2", 1)))
    assert c.request(GET).response(OK).records()[0]["destIp"] == "10.0.0.1:80"
    counters = c.counters()
    assert (counters["unconfirmed_exchanges"], counters["timed_out"], counters["unanswered"]) == (1, 0, 0)


def test_a_connection_that_is_chosen_late_is_wanted_again() -> None:
    words = array.array("Q", [0] * 4096)
    pipe = pipeline(only_ports=(80,))
    pipe.use_unwanted(memoryview(words))
    c = Conversation(pipe, local=("", 0), remote=("", 0)).request(POST_LONG).response(OK)
    assert any(word & 0xFFFFFFFFFFFF for word in words)
    c.feed(abi.pack_open(c.conn, ts_ns=c.now, type=abi.ADDRESS, local=("10.0.0.1", 80), remote=("10.0.0.2", 4)))
    assert not any(word & 0xFFFFFFFFFFFF for word in words)


def test_one_that_is_filtered_is_counted_once_however_often_it_is_told() -> None:
    c = Conversation(role=abi.CLIENT, disable_egress=True, only_ports=(80,))
    for _ in range(5):
        c.feed(
            abi.pack_open(
                c.conn, ts_ns=c.now, type=abi.ADDRESS, role=abi.CLIENT, local=("10.0.0.1", 80), remote=("10.0.0.2", 4)
            )
        )
    assert c.counters()["filtered_egress"] == 1


def test_one_that_turns_out_to_be_a_socket_after_it_was_given_up_is_recorded() -> None:
    pipe = pipeline(max_connections=1)
    c = Conversation(pipe, start=abi.UNCONFIRMED).request(GET).response(OK)
    Conversation(pipe, conn=ident(7, 7)).request(GET).response(OK)
    c.feed(abi.pack_open(c.conn, ts_ns=c.now, type=abi.ADDRESS, local=("10.0.0.1", 80), remote=("10.0.0.2", 1)))
    take(pipe)
    c.request(GET).response(OK)
    assert len(take(pipe)) == 1
