"""Which exchanges are recorded, and what records tell of the others (docs/decisions/0033)."""

from __future__ import annotations

import array
from typing import Any

import pytest

from collector import abi
from collector.policy.model import Policy, Sampling
from collector.shards.pipeline import Pipeline
from tests.collector.shards.layers.websocket.test_websocket import ASK, accept, asked, frame
from tests.events import Conversation, ident, pipeline, take
from tests.http2 import REQUEST, RESPONSE, Talk, play, request, response

MINUTE = 60 * 10**9
Record = dict[str, Any]


def sampled(sampling: Sampling | None, **changes: Any) -> Pipeline:
    pipe = pipeline(**changes)
    pipe.use_policy(Policy(sampling=sampling))
    return pipe


def ask(path: str = "/x", *, method: str = "GET", host: str = "a.example", body: bytes = b"") -> bytes:
    length = f"Content-Length: {len(body)}\r\n" if body else ""
    return f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n{length}\r\n".encode() + body


def answer(status: int = 200, body: bytes = b"hi") -> bytes:
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n" % (status, len(body)) + body


def exchanges(c: Conversation, count: int, path: str = "/x", status: int = 200, **how: Any) -> None:
    for _ in range(count):
        c.request(ask(path, **how)).response(answer(status))


def told(records: list[Record]) -> int:
    return sum(int(r.get("sampledOut", 0)) + int(r.get("sampledOutOthers", 0)) for r in records)


def left_out(pipe: Pipeline) -> dict[str, int]:
    counted = pipe.statistics()
    names = {"plain": "sampling_left_out", "errors": "sampling_left_out_errors", "marked": "sampling_left_out_marked"}
    return {short: counted[name] for short, name in names.items() if counted[name]}


# ---- the first ones, and one in so many


def test_nothing_is_sampled_by_a_policy_that_does_not_say_so() -> None:
    pipe = sampled(None)
    exchanges(Conversation(pipe), 50)
    records = take(pipe)
    assert len(records) == 50 and not any(name.startswith("sampled") for r in records for name in r)


def test_the_first_of_a_minute_are_recorded_and_the_next_record_tells_of_the_others() -> None:
    pipe = sampled(Sampling(first=3))
    c = Conversation(pipe)
    exchanges(c, 10)
    first = take(pipe)
    assert len(first) == 3 and told(first) == 0
    assert (left_out(pipe), pipe.untold()) == ({"plain": 7}, 7)
    c.now += MINUTE
    exchanges(c, 4)
    records = take(pipe)
    assert [r.get("sampledOut") for r in records] == ["7", None, None]
    assert (pipe.untold(), pipe.statistics()["sampling_told"]) == (1, 7)


def test_a_minute_is_one_of_the_clock_of_events() -> None:
    pipe = sampled(Sampling(first=1))
    c = Conversation(pipe)
    for second in (58, 59, 60, 61, 119, 121):
        c.now = second * 10**9
        exchanges(c, 1, f"/x?{second}")
    assert [r["path"] for r in take(pipe)] == ["/x?58", "/x?60", "/x?121"]


def test_each_endpoint_counts_for_itself() -> None:
    pipe = sampled(Sampling(first=1))
    served = Conversation(pipe)
    called = Conversation(pipe, conn=ident(200, 6, 2), role=abi.CLIENT)
    different = [
        ask("/users"), ask("/users", method="PUT"), ask("/users", host="b.example"), ask("/orders"), ask("/users/"),
        ask("/users/7"), ask("/users/7/items"),
    ]  # fmt: skip
    same = [ask("/users?page=2"), ask("/users", host="A.Example"), ask("http://a.example/users"), ask("/users/8")]
    for c in (served, called):
        for one in (*different, *same):
            c.request(one).response(answer())
    records = take(pipe)
    assert len(records) == 2 * len(different) and left_out(pipe) == {"plain": 2 * len(same)}
    assert [r["direction"] for r in records] == ["1"] * len(different) + ["2"] * len(different)


def test_one_in_so_many_of_the_others_is_chosen_by_itself() -> None:
    kept = []
    for order in (1, -1):
        pipe = sampled(Sampling(first=0, one_in=10), max_connections=4096)
        for number in range(1, 401)[::order]:
            exchanges(Conversation(pipe, conn=ident(1, number, number)), 10)
        records = take(pipe)
        kept.append({r["recordId"] for r in records})
        assert told(records) + pipe.untold() + len(records) == 4000
    assert kept[0] == kept[1] and 320 < len(kept[0]) < 480


def test_one_in_one_is_all() -> None:
    pipe = sampled(Sampling(first=0, one_in=1))
    exchanges(Conversation(pipe), 20)
    assert len(take(pipe)) == 20


# ---- errors and marks


@pytest.mark.parametrize(
    ("rate", "status", "kept"), [(1, 404, 20), (1, 503, 20), (1, 200, 0), (1, 302, 0), (0, 404, 0), (10**9, 500, 0)]
)
def test_errors_have_a_rate_of_their_own(rate: int, status: int, kept: int) -> None:
    pipe = sampled(Sampling(first=0, errors_one_in=rate, marked_one_in=0))
    exchanges(Conversation(pipe), 20, status=status)
    assert len(take(pipe)) == kept
    assert left_out(pipe) == ({} if kept else {"errors" if status >= 400 else "plain": 20})


def test_errors_are_not_chosen_by_the_rate_of_the_others() -> None:
    pipe = sampled(Sampling(first=0, one_in=1, errors_one_in=10**9))
    c = Conversation(pipe)
    exchanges(c, 5, status=500)
    exchanges(c, 1, status=200)
    (record,) = take(pipe)
    assert (record["statusCode"], record["sampledOut"], left_out(pipe)) == ("200", "5", {"errors": 5})


def unanswered(pipe: Pipeline, count: int) -> None:
    for number in range(1, count + 1):
        Conversation(pipe, conn=ident(1, number, number)).request(ask()).close()


@pytest.mark.parametrize(("rate", "kept"), [(1, 20), (0, 0), (10**9, 0)])
def test_marked_exchanges_have_a_rate_of_their_own(rate: int, kept: int) -> None:
    pipe = sampled(Sampling(first=0, marked_one_in=rate))
    unanswered(pipe, 20)
    records = take(pipe)
    assert len(records) == kept and all("no_response" in r["words"] for r in records)
    assert left_out(pipe) == ({} if kept else {"marked": 20})


def test_a_long_or_binary_body_is_no_reason_to_record_it() -> None:
    pipe = sampled(Sampling(first=0), body_bytes=100)
    c = Conversation(pipe)
    c.request(ask()).response(answer(body=b"x" * 1000))
    c.request(ask()).response(b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: 2\r\n\r\n\x89P")
    c.request(ask()).response(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\nno")
    assert take(pipe) == [] and left_out(pipe) == {"plain": 3}


def test_a_marked_error_is_recorded_if_either_rate_says_so() -> None:
    for errors, marked in ((1, 10**9), (10**9, 1)):
        pipe = sampled(Sampling(first=0, errors_one_in=errors, marked_one_in=marked))
        Conversation(pipe).request(ask()).response(b"HTTP/1.1 500 X\r\nContent-Length: 9\r\n\r\nhalf").close()
        (record,) = take(pipe)
        assert record["statusCode"] == "500" and "response_incomplete" in record["words"]


# ---- what is given up early


def test_a_body_that_nobody_wants_is_not_kept() -> None:
    pipe = sampled(Sampling(first=0, errors_one_in=0, marked_one_in=0))
    c = Conversation(pipe)
    empty = pipe.statistics()["buffer_bytes"]
    c.request(b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 60000\r\n\r\n" + b"x" * 50_000)
    assert pipe.statistics()["buffer_bytes"] - empty < 4096
    assert left_out(pipe) == {}  # it is no exchange yet
    c.request(b"x" * 10_000).response(answer())
    assert take(pipe) == [] and left_out(pipe) == {"plain": 1}


def test_the_head_of_the_answer_may_settle_it() -> None:
    pipe = sampled(Sampling(first=0, marked_one_in=0))
    c = Conversation(pipe)
    c.request(ask(method="POST", body=b"q" * 50_000))
    held = pipe.statistics()["buffer_bytes"]
    assert held > 50_000  # it may become an error
    c.response(b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n" + b"x" * 50_000)
    assert pipe.statistics()["buffer_bytes"] < held - 40_000
    c.response(b"x" * 10_000)
    c.request(ask(method="POST", body=b"q" * 50)).response(answer(404))
    (record,) = take(pipe)
    assert (record["statusCode"], record["requestPayload"], record["sampledOut"]) == ("404", "q" * 50, "1")


def test_the_kernel_need_not_copy_what_is_left_out() -> None:
    words = array.array("Q", [0] * 32768)
    pipe = sampled(Sampling(first=0, errors_one_in=0, marked_one_in=0))
    pipe.use_unwanted(memoryview(words))
    c = Conversation(pipe)
    c.request(b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\n" + b"x" * 20_000)
    assert any(word & (1 << 48) - 1 for word in words)


def test_what_is_no_exchange_after_all_is_not_counted() -> None:
    pipe = sampled(Sampling(first=0, errors_one_in=0, marked_one_in=0))
    c = Conversation(pipe)
    c.request(ask())
    c.feed(abi.pack_close(c.conn, ts_ns=c.now, reason=abi.NOT_HTTP))
    assert take(pipe) == [] and left_out(pipe) == {} and pipe.untold() == 0


# ---- heads only


@pytest.mark.parametrize("early", [True, False])
def test_heads_without_bodies(early: bool) -> None:
    rates: dict[str, Any] = {"errors_one_in": 0, "marked_one_in": 0} if early else {}
    pipe = sampled(Sampling(first=1, heads_only=True, **rates), body_bytes=100)
    c = Conversation(pipe)
    for _ in range(3):
        c.request(ask(method="POST", body=b"q" * 300)).response(answer(body=b"a" * 400))
    whole, *heads = take(pipe)
    assert (whole["requestPayload"], "sampled" in whole) == ("q" * 100, False)
    for record in heads:
        assert (record["sampled"], record["requestPayload"], record["responsePayload"]) == ("heads", "", "")
        assert (record["requestSize"], record["responseSize"], record["mark"]) == ("300", "400", [])
        assert record["request"]["host"] == "a.example" and record["statusCode"] == "200"
    assert left_out(pipe) == {} and pipe.statistics()["sampling_heads"] == 2


def test_with_heads_only_errors_and_one_in_so_many_are_whole() -> None:
    pipe = sampled(Sampling(first=0, one_in=4, heads_only=True))
    c = Conversation(pipe)
    exchanges(c, 400)
    exchanges(c, 10, status=500)
    records = take(pipe)
    assert len(records) == 410 and all("sampled" not in r and r["responsePayload"] for r in records[400:])
    whole = [r for r in records[:400] if "sampled" not in r]
    assert 60 < len(whole) < 140 and all(r["responsePayload"] == "hi" for r in whole)


def test_lost_bytes_of_a_body_that_is_left_out_are_marked() -> None:
    pipe = sampled(Sampling(first=0, heads_only=True, marked_one_in=0))
    c = Conversation(pipe)
    c.request(ask()).response(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
    c.response(b"defg", lose=True).response(b"hij")
    (record,) = take(pipe)
    assert (record["sampled"], record["responseSize"], record["mark"]) == ("heads", "10", ["response_bytes_lost:4"])


# ---- streams and WebSockets


STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"


def stream(c: Conversation, parts: int = 4) -> None:
    c.request(ask()).response(STREAM)
    for number in range(parts):
        c.response(b"data: %d\n\n" % number).wait(1.5)


@pytest.mark.parametrize("marked", [0, 1])
def test_a_stream_is_recorded_in_all_its_parts_or_in_none(marked: int) -> None:
    pipe = sampled(Sampling(first=1, marked_one_in=marked))
    for number in (1, 2, 3):
        c = Conversation(pipe, conn=ident(1, number, number))
        stream(c)
        c.close()
    records = take(pipe)
    assert [r["part"] for r in records] == ["1", "2", "3", "4", "5"]
    assert [r["responsePayload"] for r in records] == [f"data: {n}\n\n" for n in range(4)] + [""]
    assert left_out(pipe) == {"plain": 2} and pipe.untold() == 2
    assert pipe.statistics()["buffer_bytes"] < 4096 and pipe.statistics()["queued_exchanges"] == 0


def test_a_stream_that_goes_on_over_a_minute_is_not_counted_again() -> None:
    pipe = sampled(Sampling(first=1))
    c = Conversation(pipe)
    stream(c)
    c.now += 3 * MINUTE
    c.response(b"data: x\n\n").wait(1.5)
    other = Conversation(pipe, conn=ident(1, 2, 2))
    other.now = c.now
    exchanges(other, 2)
    c.response(b"data: y\n\n").wait(1.5)
    c.close()
    assert [(r.get("part"), r.get("sampledOut")) for r in take(pipe)] == [
        ("1", None), ("2", None), ("3", None), ("4", None), ("5", None), (None, None), ("6", "1"), ("7", None)
    ]  # fmt: skip


@pytest.mark.parametrize("early", [True, False])
def test_a_stream_by_its_heads(early: bool) -> None:
    rates: dict[str, Any] = {"errors_one_in": 0, "marked_one_in": 0} if early else {}
    pipe = sampled(Sampling(first=0, heads_only=True, **rates))
    c = Conversation(pipe)
    stream(c)
    c.close()
    records = take(pipe)
    assert len(records) >= 2 and records[-1]["lastPart"] == "true"
    assert all((r["sampled"], r["responsePayload"], r["mark"]) == ("heads", "", []) for r in records)
    assert sum(int(r["responseSize"]) for r in records) == 4 * len(b"data: 0\n\n")


def grpc_call(pipe: Pipeline, number: int) -> None:
    talk = Talk()
    message = b"\0\0\0\0\x03abc"
    one = talk.ask(request("/shop.Orders/Get", "POST", ("content-type", "application/grpc"), ("te", "trailers")))
    talk.body(one, REQUEST, message, end=True)
    talk.answer(one, response(200, ("content-type", "application/grpc")))
    talk.body(one, RESPONSE, message * 2)
    talk.trailers(one, RESPONSE, [(b"grpc-status", b"0")])
    talk.flush()
    play(talk, Conversation(pipe, conn=ident(1, number, number))).close()


def test_calls_over_http2() -> None:
    pipe = sampled(Sampling(first=2))
    for number in range(1, 6):
        grpc_call(pipe, number)
    records = take(pipe)
    assert [r["responseMessages"] for r in records] == ["2", "2"] and left_out(pipe) == {"plain": 3}


def test_calls_over_http2_by_their_heads() -> None:
    pipe = sampled(Sampling(first=0, heads_only=True))
    grpc_call(pipe, 1)
    (record,) = take(pipe)
    assert (record["sampled"], record["responsePayload"], record["response"]["grpc-status"]) == ("heads", "", "0")
    assert (record["requestSize"], record["responseSize"], record["mark"]) == ("8", "16", [])


def chat(pipe: Pipeline, number: int) -> None:
    c = Conversation(pipe, conn=ident(1, number, number))
    c.request(ASK).response(accept())
    for text in (b"one", b"two"):
        c.request(asked(text)).response(frame(text)).wait(1.5)
    c.close()


@pytest.mark.parametrize("early", [True, False])
def test_a_websocket_is_one_exchange(early: bool) -> None:
    rates: dict[str, Any] = {"errors_one_in": 0, "marked_one_in": 0} if early else {}
    pipe = sampled(Sampling(first=1, **rates))
    for number in (1, 2, 3):
        chat(pipe, number)
    records = take(pipe)
    assert [r.get("part") for r in records] == [None, "1", "2", "3"] and all(r["socket_id"] == "1" for r in records)
    assert left_out(pipe) == {"plain": 2} and pipe.statistics()["buffer_bytes"] < 4096


def test_a_websocket_by_its_heads() -> None:
    pipe = sampled(Sampling(first=0, heads_only=True))
    chat(pipe, 1)
    records = take(pipe)
    assert [r.get("events") for r in records] == [None, "[]", "[]", "[]"]
    assert all(r["sampled"] == "heads" and r["mark"] == [] for r in records)


# ---- the table


def test_endpoints_beyond_the_table_are_sampled_together() -> None:
    pipe = sampled(Sampling(first=2, endpoints=3))
    c = Conversation(pipe)
    for path in "abcdefgh":
        exchanges(c, 2, "/" + path)
    records = take(pipe)
    assert [r["path"] for r in records] == ["/a", "/a", "/b", "/b", "/c", "/c", "/d", "/d"]
    exchanges(c, 5, "/a")
    c.now += MINUTE
    exchanges(c, 1, "/a")
    (record,) = take(pipe)
    assert (record["sampledOut"], record["sampledOutOthers"]) == ("5", "8") and pipe.untold() == 0
    assert (pipe.statistics()["sampling_shared"], pipe.statistics()["sampling_endpoints"]) == (10, 3)


def test_who_gives_way_leaves_its_count_and_rather_one_without_any() -> None:
    pipe = sampled(Sampling(first=1, endpoints=2))
    c = Conversation(pipe)
    exchanges(c, 4, "/pending")
    exchanges(c, 1, "/done")
    c.now += MINUTE
    exchanges(c, 1, "/next")  # in place of /done, which was used later
    exchanges(c, 2, "/pending")
    c.now += MINUTE
    exchanges(c, 1, "/last")  # in place of /next
    exchanges(c, 1, "/more")  # in place of /pending, which has left one out
    shown = [(r["path"], r.get("sampledOut"), r.get("sampledOutOthers")) for r in take(pipe)]
    assert shown == [
        ("/pending", None, None), ("/done", None, None), ("/next", None, None), ("/pending", "3", None),
        ("/last", None, None), ("/more", None, "1"),
    ]  # fmt: skip
    assert pipe.untold() == 0


def test_connections_of_different_rings_do_not_meet() -> None:
    """So it does not matter which shards have the rings."""
    pipe = sampled(Sampling(first=1))
    for ring in (0, 1, 2):
        conn = ident(1, ring + 1, ring + 1)
        pipe.feed(abi.pack_open(conn, ts_ns=1, ring=ring, local=("10.0.0.1", 80), remote=("10.0.0.2", 1)))
        exchanges(Conversation(pipe, conn=conn, opened=False), 2)
    assert len(take(pipe)) == 3


# ---- policies


def test_another_policy_applies_to_the_next_exchange_and_what_was_left_out_is_told() -> None:
    pipe = sampled(Sampling(first=0))
    c = Conversation(pipe)
    exchanges(c, 5)
    c.request(ask())  # left out by the policy under which it begins
    pipe.use_policy(Policy(sampling=Sampling(first=1)))
    c.response(answer())
    exchanges(c, 3)
    assert [r.get("sampledOut") for r in take(pipe)] == ["6"] and pipe.untold() == 2


def test_without_sampling_what_was_left_out_is_told_and_everything_is_recorded() -> None:
    pipe = sampled(Sampling(first=0))
    c = Conversation(pipe)
    exchanges(c, 5)
    exchanges(c, 2, "/other")
    pipe.use_policy(Policy())
    exchanges(c, 3)
    exchanges(c, 1, "/other")
    assert [r.get("sampledOut") for r in take(pipe)] == ["5", None, None, "2"] and pipe.untold() == 0
    exchanges(c, 3, status=500)
    assert len(take(pipe)) == 3


def test_a_smaller_table_keeps_the_sum() -> None:
    pipe = sampled(Sampling(first=0, endpoints=100))
    c = Conversation(pipe)
    for number in range(80):
        exchanges(c, 1, f"/e{number}x")
    pipe.use_policy(Policy(sampling=Sampling(first=1, endpoints=10)))
    assert pipe.statistics()["sampling_endpoints"] == 0
    exchanges(c, 1, "/e0x")
    (record,) = take(pipe)
    assert record["sampledOutOthers"] == "80" and pipe.untold() == 0


def test_what_was_in_flight_when_sampling_begins_is_recorded() -> None:
    pipe = pipeline()
    c = Conversation(pipe)
    c.request(ask())
    pipe.use_policy(Policy(sampling=Sampling(first=0)))
    c.response(answer())
    assert len(take(pipe)) == 1


@pytest.mark.parametrize("name", ["first", "one_in", "errors_one_in", "marked_one_in", "endpoints"])
def test_numbers_that_are_none_are_refused(name: str) -> None:
    values: dict[str, Any] = {"first": 1, name: -1}
    with pytest.raises(OverflowError):
        pipeline().use_policy(Policy(sampling=Sampling(**values)))


# ---- records that are not made after all


def test_a_record_that_a_limit_drops_tells_nothing() -> None:
    pipe = sampled(Sampling(first=0), output_bytes_per_minute=1)
    c = Conversation(pipe)
    exchanges(c, 1, "/other", status=500)  # uses the minute up
    exchanges(c, 3)
    exchanges(c, 1, status=500)
    assert [r["path"] for r in take(pipe)] == ["/other"] and pipe.statistics()["records_dropped_bandwidth"] == 1
    c.now += MINUTE
    exchanges(c, 1, status=500)
    assert [r.get("sampledOut") for r in take(pipe)] == ["3"]


def test_what_a_filter_leaves_out_is_not_sampled() -> None:
    pipe = sampled(Sampling(first=0), ignore_metadata=True)
    exchanges(Conversation(pipe), 3, host="169.254.169.254")
    assert left_out(pipe) == {} and pipe.statistics()["filtered_metadata"] == 3
    assert pipe.statistics()["sampling_endpoints"] == 0
