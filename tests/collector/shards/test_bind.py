"""Plaintext of a TLS library: an object that is a socket, positions of each source, two names of one connection."""

from __future__ import annotations

import dataclasses

import pytest

from collector import abi
from collector.loader.entries import Entry
from collector.shards.pipeline import Pipeline
from tests.events import GET, OK, Conversation, ident, pipeline, take

OBJECT, SOCKET = ident(100, 5, 1), ident(100, 5, 2)
LOCAL, REMOTE = ("10.0.0.1", 443), ("10.0.0.2", 40000)
PREAMBLE = b"PROXY TCP4 192.0.2.10 198.51.100.20 51000 443\r\n"
TLS = 1


def tls_object(pipe: Pipeline | None = None, conn: tuple[int, int, int] = OBJECT) -> Conversation:
    """A server's TLS object of which nothing is known but its bytes."""
    c = Conversation(pipe, conn=conn, opened=False, source=TLS)
    c.feed(abi.pack_open(conn, ts_ns=c.now, role=abi.UNKNOWN, source=TLS))
    return c


def bind(
    c: Conversation,
    socket: tuple[int, int, int] = SOCKET,
    role: int = abi.UNKNOWN,
    local: tuple[str, int] = ("", 0),
    remote: tuple[str, int] = ("", 0),
) -> Conversation:
    c.feed(abi.pack_bind(c.conn, socket[0], ts_ns=c.now, role=role, local=local, remote=remote))
    return c


@pytest.mark.parametrize("when", [0, 1, 2])
def test_its_ends_are_those_of_the_socket_from_then_on(when: int) -> None:
    c = tls_object()
    for step in range(3):
        if step == when:
            bind(c, role=abi.SERVER, local=LOCAL, remote=REMOTE)
        c.request(GET).response(OK)
    rs = c.records()
    assert [r["ip"] for r in rs] == ["0.0.0.0:0"] * when + ["10.0.0.2:40000"] * (3 - when)
    assert all(r["tls"] == "true" and r["direction"] == "1" and r["responsePayload"] == "hi" for r in rs)
    assert [r["mark"] for r in rs[when:]] == [[]] * (3 - when)
    assert c.counters()["connections"] == 1 and len({r["recordId"] for r in rs}) == 3


def test_the_sockets_positions_count_ciphertext_and_say_nothing() -> None:
    c = bind(tls_object(), role=abi.SERVER, local=LOCAL, remote=REMOTE)
    c.request(GET).response(b"HTTP/1.1 200 OK\r\n\r\nuntil the end")
    c.feed(abi.pack_data(SOCKET, abi.IN, 5_000, b"\x17\x03\x03", ts_ns=c.now))
    c.feed(abi.pack_eof(SOCKET, abi.IN, 100_000, ts_ns=c.now))
    assert c.records() == [] and c.counters()["other_source_bytes"] == 3
    c.feed(abi.pack_close(SOCKET, ts_ns=c.now, final_in=100_000, final_out=200_000))
    (r,) = c.records()
    assert (r["responsePayload"], r["mark"]) == ("until the end", [])
    counters = c.counters()
    assert (counters["connections"], counters["holes"]) == (0, 0)


def test_its_own_positions_do() -> None:
    c = bind(tls_object(), role=abi.SERVER).request(GET).response(b"HTTP/1.1 200 OK\r\n\r\nuntil")
    c.feed(abi.pack_close(OBJECT, ts_ns=c.now, final_in=len(GET), final_out=c.positions[1] + 7, source=TLS))
    assert c.counters()["hole_bytes"] == 7 and "response_bytes_lost:7" in c.records()[0]["mark"]
    c.feed(abi.pack_close(SOCKET, ts_ns=c.now))  # the socket follows: it is known already
    assert c.counters()["connections_opened"] == c.counters()["connections_closed"] == 1


@pytest.mark.parametrize("preamble", [b"", PREAMBLE])
def test_a_socket_that_was_there_becomes_one_with_the_object(preamble: bytes) -> None:
    pipe = pipeline()
    s = Conversation(pipe, conn=SOCKET, local=LOCAL, remote=REMOTE)
    if preamble:
        s.request(preamble)
    c = bind(tls_object(pipe)).request(GET).response(OK)
    (r,) = c.records()
    assert (r["ip"], r["direction"], r["tls"], r.get("clientIp")) == (
        "10.0.0.2:40000",
        "1",
        "true",
        "192.0.2.10:51000" if preamble else None,
    )
    assert c.counters()["connections"] == 1 and c.counters()["evicted_connection_bytes"] == 0
    s.close()
    assert c.counters()["connections"] == 0


@pytest.mark.parametrize("opened", [True, False])
def test_an_object_whose_socket_is_known_has_the_sockets_name(opened: bool) -> None:
    pipe = pipeline()
    s = Conversation(pipe, conn=SOCKET).request(PREAMBLE).request(b"\x16\x03\x01")
    c = Conversation(pipe, conn=SOCKET, opened=opened, source=TLS).request(GET).response(OK)
    (r,) = c.records()
    assert (r["tls"], r["clientIp"], "joined_mid_stream" in r["words"]) == ("true", "192.0.2.10:51000", not opened)
    s.request(b"\x17\x03\x03more").close()
    assert c.counters()["connections"] == 0 and c.counters()["other_source_bytes"] == 7 and c.counters()["holes"] == 0


def test_one_socket_after_another_and_one_object_after_another() -> None:
    c = bind(tls_object(), role=abi.SERVER, local=LOCAL, remote=REMOTE)
    other = ident(100, 6, 3)
    bind(c, socket=other, role=abi.SERVER, local=("10.0.0.1", 443), remote=("10.0.0.3", 1))
    c.request(GET).response(OK)
    assert c.records()[0]["ip"] == "10.0.0.3:1"
    c.feed(abi.pack_close(SOCKET, ts_ns=c.now))  # not its name any more
    assert c.counters()["connections"] == 1
    d = bind(tls_object(c.pipe, conn=ident(100, 5, 9)), socket=other)  # SSL_set_fd of a used descriptor: the newer has it
    d.request(GET).response(OK)
    assert [r["ip"] for r in take(c.pipe)] == ["10.0.0.3:1"]
    c.feed(abi.pack_close(other, ts_ns=c.now))
    assert c.counters()["connections"] == 1  # d is gone, c lives on without a socket
    c.request(GET).response(OK)
    assert len(c.records()) == 1


def test_a_new_shard_that_is_told_of_it_knows_both_names() -> None:
    entry = Entry(
        *OBJECT,
        0,
        0,
        (abi.address16("10.0.0.1"), 443),
        (abi.address16("10.0.0.2"), 40000),
        abi.SERVER,
        0,
        True,
        TLS,
        SOCKET[0],
    )
    c = Conversation(pipeline(), conn=OBJECT, opened=False, source=TLS)
    c.feed(entry.introduction(c.now))
    c.request(GET).response(b"HTTP/1.1 200 OK\r\n\r\nuntil the end")
    c.feed(abi.pack_close(SOCKET, ts_ns=c.now, final_in=1 << 20, final_out=1 << 20))
    (r,) = c.records()
    assert (r["ip"], r["tls"], r["responsePayload"]) == ("10.0.0.2:40000", "true", "until the end")
    assert c.counters()["connections"] == c.counters()["holes"] == 0
    for socket in (0, OBJECT[0]):
        known = dataclasses.replace(entry, socket=socket).introduction(c.now)
        assert [event["type"] for event in abi.walk(known)] == [abi.OPEN]


@pytest.mark.parametrize("socket", [0, OBJECT[0]])
def test_a_bind_to_nothing_changes_nothing(socket: int) -> None:
    c = tls_object()
    c.feed(abi.pack_bind(OBJECT, socket, ts_ns=c.now, role=abi.SERVER))
    c.feed(abi.pack_bind(OBJECT, SOCKET[0], ts_ns=c.now, role=abi.SERVER, local=LOCAL, remote=REMOTE))
    c.feed(abi.pack_bind(OBJECT, SOCKET[0], ts_ns=c.now, role=abi.SERVER))
    assert c.request(GET).response(OK).records()[0]["ip"] == "10.0.0.2:40000"


def test_many_with_two_names_are_found_by_both_until_they_end() -> None:
    pipe = pipeline()
    cs = [bind(tls_object(pipe, conn=ident(100, n, 1)), socket=ident(100, n, 2), role=abi.SERVER) for n in range(3000)]
    for n, c in enumerate(cs):
        c.request(GET).response(OK)
        c.feed(abi.pack_close(ident(100, n, 2) if n % 2 else c.conn, ts_ns=c.now))
    assert len(take(pipe)) == 3000 and pipe.statistics()["connections"] == 0


def test_the_process_ends_and_the_shard_gives_up() -> None:
    pipe = pipeline(max_connections=1)
    c = bind(tls_object(pipe), role=abi.SERVER, local=LOCAL, remote=REMOTE).request(GET).response(OK)
    Conversation(pipe, conn=ident(7, 7)).request(GET).response(OK)
    take(pipe)
    c.request(GET).response(OK)  # given up between messages, it goes on: positions, ends, source
    (r,) = take(pipe)
    assert (r["ip"], r["tls"], r["mark"]) == ("10.0.0.2:40000", "true", [])
    c.feed(abi.pack_exit(100, ts_ns=c.now))
    assert pipe.statistics()["connections"] == 0


def test_what_was_seen_of_it_first_is_joined_where_nobody_says_that_it_begins() -> None:
    c = bind(Conversation(conn=OBJECT, opened=False, source=TLS), role=abi.SERVER, local=LOCAL, remote=REMOTE)
    c.positions = [500, 900]
    (r,) = c.request(GET).response(OK).records()
    assert "joined_mid_stream" in r["words"]
    d = Conversation(conn=SOCKET)
    d.feed(abi.pack_open(d.conn, ts_ns=d.now, role=abi.SERVER, start=abi.REJOIN, source=TLS))
    d.source, d.positions = TLS, [500, 900]
    (r,) = d.request(GET).response(OK).records()
    assert "joined_mid_stream" in r["words"]


def test_a_bind_mends_a_direction_that_was_guessed() -> None:
    c = Conversation(conn=OBJECT, opened=False, source=TLS)
    c.feed(abi.pack_open(OBJECT, ts_ns=c.now, role=abi.UNKNOWN, start=abi.MID, source=TLS))
    c.send(abi.OUT, b"GET /part-of-a-body HTTP/1.1\r\nHost: h\r\n\r\n")
    bind(c, role=abi.SERVER, local=LOCAL, remote=REMOTE)
    for _ in range(3):
        c.send(abi.IN, GET).send(abi.OUT, OK)
    paths = [(r["path"], r["direction"]) for r in c.records()]
    assert paths[-3:] == [("/x", "1")] * 3


def test_a_claim_does_not_pass_from_one_socket_to_another_nor_come_out_of_the_plaintext() -> None:
    pipe = pipeline()
    Conversation(pipe, conn=SOCKET).request(PREAMBLE)
    c = bind(tls_object(pipe), role=abi.SERVER).request(GET).response(OK)
    assert [r.get("clientIp") for r in take(pipe)] == ["192.0.2.10:51000"]
    bind(c, socket=ident(100, 6, 3), role=abi.SERVER, local=LOCAL, remote=("10.7.7.7", 7)).request(GET).response(OK)
    assert [r.get("clientIp") for r in take(pipe)] == [None]
    d = tls_object(pipe, conn=ident(100, 8)).request(b"PROXY TCP4 6.6.6.6 5.6.7.8 1 2\r\n").request(GET).response(OK)
    assert all("clientIp" not in r for r in d.records())


def test_a_bound_connection_that_was_given_up_keeps_its_second_name() -> None:
    pipe = pipeline(max_connections=1)
    c = bind(tls_object(pipe), role=abi.SERVER, local=LOCAL, remote=REMOTE).request(GET).response(OK)
    Conversation(pipe, conn=ident(7, 7)).request(GET).response(OK)
    c.request(GET).response(OK)
    c.feed(abi.pack_close(SOCKET, ts_ns=c.now))
    assert pipe.statistics()["connections"] == 0 and len(take(pipe)) == 3


def test_what_the_sockets_old_ring_still_has_to_say_is_not_about_the_object() -> None:
    c = bind(tls_object(), role=abi.SERVER, local=LOCAL, remote=REMOTE).request(GET)
    late = bytearray(abi.pack_close(SOCKET, ts_ns=c.now, reason=abi.REPLACED))
    late[8 + abi.layout()["event_header"]["ring"]] = 7
    c.feed(bytes(late))
    c.feed(abi.pack_close(SOCKET, ts_ns=c.now, reason=abi.NOT_HTTP))
    (r,) = c.response(OK).records()
    assert (r["mark"], r["tls"], c.counters()["connections"]) == ([], "true", 1)


def test_plaintext_and_what_stood_in_clear_before_it_have_different_ids() -> None:
    c = Conversation(conn=SOCKET, role=abi.CLIENT).request(b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n")
    c.response(b"HTTP/1.1 200 OK\r\n\r\n")
    c.feed(abi.pack_open(SOCKET, ts_ns=c.now, role=abi.CLIENT, source=TLS))
    c.source, c.positions = TLS, [0, 0]
    rs = c.request(GET).response(OK).records()
    assert [r["method"] for r in rs] == ["CONNECT", "GET"] and len({r["recordId"] for r in rs}) == 2


def test_plaintext_whose_open_was_lost_is_said_to_be_tls() -> None:
    c = Conversation(conn=OBJECT, opened=False, source=TLS).request(GET).response(OK)
    assert [r["tls"] for r in c.records()] == ["true"]


def test_a_bind_of_what_is_no_object_means_nothing() -> None:
    c = bind(Conversation(conn=OBJECT), role=abi.CLIENT).request(GET).response(OK)
    (r,) = c.records()
    assert (r["tls"], r["direction"]) == ("false", "1")
