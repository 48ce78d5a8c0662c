"""Where there is not the CPU for all connections: which are left out, when, and how they come back."""

from __future__ import annotations

import array
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector import abi
from tests.events import GET, OK, Conversation, ident, take
from tests.properties.test_limits import small

ALL = 65536
UNTIL = (1 << 48) - 1  # of a word for the kernel: the other bits say whose it is
DOUBT = {"pairing_uncertain", "request_framing_uncertain", "response_framing_uncertain"}  # what was missed may go on


@pytest.mark.parametrize("percent", [0, 5, 50, 95, 100])
def test_a_share_of_the_connections_is_read_and_the_others_are_counted(percent: int) -> None:
    pipe = small(max_connections=5000)
    pipe.set_share(ALL * percent // 100)
    rng = random.Random(percent)
    for number in range(2000):
        c = Conversation(pipe, conn=ident(1, rng.randrange(1 << 20), number))
        for _ in range(2):
            c.request(GET)
            c.response(OK)
    records, counted = take(pipe), pipe.statistics()
    assert len(records) == 2 * (2000 - counted["left_out_connections"])
    assert abs(len(records) / 4000 - percent / 100) < 0.05
    assert not any(record["mark"] for record in records)
    assert counted["left_out_bytes"] == counted["left_out_connections"] * 2 * (len(GET) + len(OK))


def test_the_same_connections_are_read_when_the_share_is_smaller() -> None:
    read: list[set[str]] = []
    for percent in (80, 40, 10):
        pipe = small(max_connections=5000)
        pipe.set_share(ALL * percent // 100)
        for number in range(500):
            c = Conversation(pipe, conn=ident(1, number * 7919, number))
            c.request(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number)
            c.response(OK)
        read.append({record["path"] for record in take(pipe)})
    assert read[0] > read[1] > read[2] != set()


def test_an_exchange_that_has_begun_is_recorded_whole() -> None:
    pipe = small()
    c = Conversation(pipe, conn=ident(1, 1, 1))
    c.request(b"POST /first HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345")
    pipe.set_share(0)
    c.request(b"67890")
    c.response(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")
    c.response(b"cd")
    c.request(GET)
    c.response(OK)
    (record,) = take(pipe)
    assert (record["path"], record["requestPayload"], record["responsePayload"]) == ("/first", "1234567890", "abcd")
    assert not record["mark"] and pipe.statistics()["left_out_connections"] == 1


def test_a_connection_that_has_its_turn_again_is_joined() -> None:
    pipe = small()
    c = Conversation(pipe, conn=ident(1, 1, 1))
    for path in (b"/before", b"/left-out", b"/again", b"/later"):
        pipe.set_share(0 if path == b"/left-out" else ALL)
        c.request(b"GET %s HTTP/1.1\r\nHost: a\r\n\r\n" % path)
        c.response(OK)
    records = take(pipe)
    assert [record["path"] for record in records] == ["/before", "/again", "/later"]
    assert [sorted(record["words"] - DOUBT) for record in records] == [[], ["joined_mid_stream"], []]
    assert records[1]["ip"] == records[0]["ip"]


def test_an_exchange_without_end_is_recorded_as_it_stands() -> None:
    pipe = small()
    c = Conversation(pipe, conn=ident(1, 1, 1))
    c.request(GET)
    c.response(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    pipe.set_share(0)
    for _ in range(30):
        c.now += 1_000_000_000
        c.response(b"x" * 1000)
    (record,) = take(pipe)
    assert "evicted" in record["words"] and pipe.statistics()["left_out_connections"] == 1
    assert pipe.statistics()["buffer_bytes"] < 10_000


def test_records_that_wait_for_their_socket_are_not_lost() -> None:
    pipe = small()
    conn = (0x123400, 1, -1)  # an object of a library, without a socket
    c = Conversation(pipe, conn=conn, opened=False, source=1)
    c.feed(abi.pack_open(conn, ts_ns=c.now, role=abi.UNKNOWN, source=1))
    c.request(GET)
    c.response(OK)
    pipe.set_share(0)
    for _ in range(30):
        c.now += 1_000_000_000
        c.request(GET)
        c.response(OK)
    records = take(pipe)
    assert len(records) >= 1 and pipe.statistics()["left_out_connections"] == 1


@pytest.mark.parametrize("upgrade", [True, False])
def test_what_goes_through_a_tunnel_stays_unread_when_the_share_changes(upgrade: bool) -> None:
    """A message that another protocol carries is not one of the connection's."""
    pipe = small()
    c = Conversation(pipe, conn=ident(1, 1, 1))
    if upgrade:
        c.request(b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\n")
        c.response(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\n")
    else:
        c.request(b"CONNECT b.example:80 HTTP/1.1\r\nHost: b.example:80\r\n\r\n")
        c.response(b"HTTP/1.1 200 OK\r\n\r\n")
    for share in (ALL, 0, ALL, 0, ALL):
        pipe.set_share(share)
        c.request(GET)
        c.response(OK)
    (record,) = take(pipe)
    assert record["path"] in ("/ws", "b.example:80") and pipe.statistics()["left_out_connections"] == 2


def test_a_websocket_that_was_left_out_is_a_tunnel() -> None:
    pipe = small()
    c = Conversation(pipe, conn=ident(1, 1, 1))
    c.request(b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
    c.response(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
    c.response(b"\x81\x02hi")
    pipe.set_share(0)
    c.response(b"\x81\x02hi").response(b"\x81\x02hi", step_ms=4000)
    assert pipe.statistics()["left_out_connections"] == 1
    pipe.set_share(ALL)
    c.request(GET).response(OK).request(GET).response(OK)
    records = take(pipe)
    assert [record.get("lastPart") for record in records] == [None, "false", "true"]
    assert [record["words"] for record in records] == [set(), set(), {"evicted"}]


def test_the_kernel_is_told_at_once_what_is_read_again() -> None:
    """An answer may go out before its request's event is read: the kernel would not copy it, if it is large."""
    words = array.array("Q", [0] * 32768)
    pipe = small()
    pipe.use_unwanted(memoryview(words))
    pipe.set_share(0)
    c = Conversation(pipe, conn=ident(1, 1, 1))
    c.request(GET)
    c.response(OK)
    assert any(word & UNTIL for word in words)
    pipe.set_share(ALL)
    assert not any(word & UNTIL for word in words)
    c.request(GET)
    c.response(OK)
    assert len(take(pipe)) == 1


@pytest.mark.parametrize("how", ["another_shard", "gave_way"])
def test_the_kernel_does_not_go_on_leaving_out_what_is_read_again(how: str) -> None:
    """Who reads a connection takes back what was said of it before, although it was not this reader who said it."""
    words = array.array("Q", [0] * 32768)
    pipe = small(max_connections=4 if how == "gave_way" else 64)
    pipe.use_unwanted(memoryview(words))
    pipe.set_share(0)
    c = Conversation(pipe, conn=ident(1, 1, 1))
    c.request(GET)
    c.response(OK)
    own = [at for at, word in enumerate(words) if word & UNTIL]
    assert len(own) == 2
    if how == "another_shard":
        pipe = small()
        pipe.use_unwanted(memoryview(words))
        c.pipe = pipe
    else:
        for number in range(2, 12):
            Conversation(pipe, conn=ident(1, number, number)).request(GET)
        assert pipe.statistics()["evicted_connections"]
    pipe.set_share(ALL)
    c.request(GET)
    assert [words[at] & UNTIL for at in own] == [0, 0]
    c.response(OK)
    assert len(take(pipe)) == 1


def test_what_a_filter_leaves_out_does_not_come_back_with_the_share() -> None:
    pipe = small(ignore_ports=[9092])
    c = Conversation(pipe, conn=ident(1, 1, 1), local=("10.0.0.1", 9092))
    for share in (0, ALL, 0, ALL):
        pipe.set_share(share)
        c.request(GET)
        c.response(OK)
    assert not take(pipe) and pipe.statistics()["left_out_connections"] == 0


@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.sampled_from(["request", "response", "share"]), st.integers(0, ALL)), max_size=120
    )
)
def test_whatever_the_share_does_nothing_is_wrong(steps: list[tuple[int, str, int]]) -> None:
    """Records of whole exchanges only, each once, and each with its own answer."""
    pipe = small()
    conversations = [Conversation(pipe, conn=ident(1, 17 * n, n + 1)) for n in range(6)]
    asked, answered = [0] * 6, [0] * 6
    for n, what, share in steps:
        c, name = conversations[n], b"/%d/%d" % (n, asked[n])
        if what == "share":
            pipe.set_share(share)
        elif what == "request" and asked[n] == answered[n]:
            c.request(b"POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n" % name)
            c.request(b"body")
            asked[n] += 1
        elif what == "response" and asked[n] > answered[n]:
            name = b"/%d/%d" % (n, answered[n])
            c.response(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(name), name))
            answered[n] += 1
    records = take(pipe)
    paths = [record["path"] for record in records]
    assert len(set(paths)) == len(paths)
    for record in records:
        assert record["responsePayload"] == record["path"] and record["requestPayload"] == "body"
        assert record["words"] <= {"joined_mid_stream", *DOUBT}
