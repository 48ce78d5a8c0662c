"""Include and exclude rules: what they ask for, when they decide, and what is kept of an exchange that is left out."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector import abi
from collector.policy import reading
from collector.policy.model import Policy
from collector.shards import globs
from collector.shards.http import written
from tests import http2
from tests.events import Conversation, ident, one_line, pipeline

OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: 2\r\n\r\nhi"
BODY = b"x" * 5000


def policy(*rules: str) -> Policy:
    """Of rules as YAML."""
    text = "version: 1\nrules:" + ("".join(f"\n- {rule}" for rule in rules) if rules else " []")
    return reading.read(text.encode(), "test.yaml")


def conversation(*rules: str, **how: Any) -> Conversation:
    c = Conversation(**how)
    c.pipe.use_policy(policy(*rules))
    return c


def get(path: str = "/x", host: str = "a.example", method: str = "GET") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()


def answer(status: int = 200, media: str = "text/html", body: bytes = b"hi") -> bytes:
    return (
        f"HTTP/1.1 {status} X\r\nContent-Type: {media}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
        if media
        else f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    )


def recorded(c: Conversation, request: bytes | None = None, response: bytes = OK) -> bool:
    c.request(get() if request is None else request).response(response)
    return len(c.records()) == 1


@pytest.mark.parametrize(
    ("match", "request_", "response", "fits"),
    [
        ("{hosts: [a.example]}", get(), OK, True),
        ("{hosts: [A.Example.]}", get(host="a.EXAMPLE:8080"), OK, True),
        ("{hosts: [b.example, '*.example']}", get(), OK, True),
        ("{hosts: ['*.example']}", get(host="example"), OK, False),
        ("{hosts: [b.example]}", get(), OK, False),
        ("{hosts: ['::1']}", get(host="[::1]:80"), OK, True),
        ("{hosts: [a.example]}", b"GET http://a.example:80/x HTTP/1.1\r\n\r\n", OK, True),
        ("{hosts: [a.example]}", b"GET /x HTTP/1.0\r\n\r\n", OK, False),
        ("{paths: [/x]}", get(), OK, True),
        ("{paths: [/x]}", get("/x?y=/z"), OK, True),
        ("{paths: [/x]}", get("/x/"), OK, False),
        ("{paths: [/x]}", b"GET http://a.example/x HTTP/1.1\r\nHost: a.example\r\n\r\n", OK, True),
        ("{paths: [/]}", b"GET http://a.example?q HTTP/1.1\r\nHost: a.example\r\n\r\n", OK, True),
        ("{paths: ['/v1/*/orders']}", get("/v1/a/b/orders"), OK, True),
        ("{paths: ['/admin*']}", get("/%61dmin/x"), OK, True),  # the same to the server
        ("{paths: ['/a%2fb']}", get("/a%2Fb"), OK, True),
        ("{paths: ['/a/b']}", get("/a%2Fb"), OK, False),  # not the same
        ("{paths: [/café]}", get("/caf%c3%a9"), OK, True),
        ("{paths: ['*.css', '*.js']}", get("/static/a.css"), OK, True),
        ("{methods: [GET, HEAD]}", get(), OK, True),
        ("{methods: [GET]}", get(method="GETS"), OK, False),
        ("{statuses: [2xx]}", get(), OK, True),
        ("{statuses: [404, 500-503]}", get(), answer(503), True),
        ("{statuses: [404, 500-503]}", get(), answer(504), False),
        ("{contentTypes: [text/html]}", get(), OK, True),
        ("{contentTypes: ['image/*']}", get(), answer(media="Image/PNG"), True),
        ("{contentTypes: ['image/*']}", get(), answer(media=""), False),
        ("{contentTypes: ['*']}", get(), answer(media=""), True),
        ("{processes: [server]}", get(), OK, True),
        ("{processes: ['serv*']}", get(), OK, True),
        ("{processes: [client]}", get(), OK, False),
        ("{addresses: [10.0.0.2]}", get(), OK, True),
        ("{addresses: [192.168.0.0/16, 10.0.0.0/30]}", get(), OK, True),
        ("{addresses: ['::/0']}", get(), OK, False),
        ("{directions: [inbound]}", get(), OK, True),
        ("{directions: [outbound]}", get(), OK, False),
        ("{hosts: [a.example], paths: [/x], methods: [GET], statuses: [200], contentTypes: [text/html]}", get(), OK, True),
        ("{hosts: [a.example], paths: [/y]}", get(), OK, False),
        ("{hosts: [a.example], statuses: [500]}", get(), OK, False),
    ],
)
def test_what_a_rule_asks_for(match: str, request_: bytes, response: bytes, fits: bool) -> None:
    excluded = conversation(f"exclude: {match}")
    assert recorded(excluded, request_, response) is not fits
    assert excluded.counters()["filtered_policy"] == fits and excluded.counters()["filtered_policy_doubt"] == 0
    assert recorded(conversation(f"include: {match}", "exclude: {paths: ['*']}"), request_, response) is fits


def test_the_direction_of_a_client() -> None:
    assert not recorded(conversation("exclude: {directions: [outbound]}", role=abi.CLIENT))


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ((), True),
        (("include: {paths: [/y]}",), True),  # without a rule that fits it is recorded
        (("include: {paths: [/x]}", "exclude: {hosts: ['*']}"), True),
        (("exclude: {hosts: ['*']}", "include: {paths: [/x]}"), False),
        (("exclude: {statuses: [500]}", "include: {paths: [/x]}", "exclude: {hosts: ['*']}"), True),
        (("exclude: {statuses: [200]}", "include: {paths: [/x]}"), False),
        (("include: {statuses: [200]}", "exclude: {paths: [/x]}"), True),
        (("include: {statuses: [500]}", "exclude: {paths: [/x]}"), False),
        (("include: {statuses: [500]}", "exclude: {contentTypes: [text/html]}"), False),
        (("include: {addresses: [10.0.0.2]}", "exclude: {statuses: [2xx]}"), True),
    ],
)
def test_the_first_that_fits_decides(rules: tuple[str, ...], expected: bool) -> None:
    assert recorded(conversation(*rules)) is expected


def held(c: Conversation) -> int:
    return c.counters()["buffer_bytes"]


def test_decided_at_the_head_of_the_request_no_body_is_kept() -> None:
    post = b"POST /x HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5000\r\n\r\n"
    plain = conversation().request(post + BODY)
    excluded = conversation("exclude: {paths: [/x]}", "include: {statuses: [200]}").request(post + BODY)
    assert held(plain) - held(excluded) > 5000
    assert excluded.counters()["filtered_policy"] == 1  # before there is an answer
    excluded.response(OK).request(get("/y")).response(OK)
    assert [record["path"] for record in excluded.records()] == ["/y"]


def test_decided_at_the_head_of_the_answer_no_body_is_kept_from_then_on() -> None:
    post = b"POST /x HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5000\r\n\r\n"
    c = conversation("exclude: {statuses: [200]}")
    before = held(c)
    c.request(post + BODY)
    assert held(c) - before > 5000  # it may be recorded
    c.response(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" + BODY[:4000])
    assert c.counters()["filtered_policy"] == 1 and held(c) - before < 3000
    c.response(BODY[4000:])
    assert c.records() == [] and recorded(c, get("/y"), answer(404))


def test_several_requests_on_one_connection_each_by_its_own() -> None:
    c = conversation("exclude: {paths: [/a]}", "exclude: {statuses: [404]}")
    c.request(get("/a") + get("/b") + get("/c") + get("/a") + get("/d"))
    c.response(answer(200) + answer(404) + answer(200) + answer(500) + answer(200))
    assert [record["path"] for record in c.records()] == ["/c", "/d"]
    assert c.counters()["filtered_policy"] == 3


# ---- what is not known lets nothing through


def test_no_answer() -> None:
    c = conversation("exclude: {statuses: [2xx]}")
    c.request(get()).close()
    assert c.records() == [] and c.counters()["filtered_policy_doubt"] == 1
    c = conversation("include: {statuses: [0]}", "exclude: {statuses: [2xx]}")
    c.request(get()).close()
    assert len(c.records()) == 1
    c = conversation("include: {statuses: [2xx]}", "exclude: {paths: ['*']}")
    c.request(get()).close()
    assert c.records() == [] and c.counters()["filtered_policy"] == 1
    c = conversation("include: {statuses: [2xx]}")
    c.request(get()).close()
    assert len(c.records()) == 1  # nothing holds it back


@pytest.mark.parametrize("asks", ["paths: [/x]", "hosts: [a.example]", "methods: [GET]"])
def test_the_request_of_an_orphan_answer(asks: str) -> None:
    for rule, count in ((f"exclude: {{{asks}}}", 0), (f"include: {{{asks}}}", 1), ("exclude: {statuses: [404]}", 1)):
        c = conversation(rule, orphan_responses=True, opened=False)
        c.request(get(), lose=True).response(OK)
        c.close()
        assert len(c.records()) == count
        assert c.counters()["filtered_policy_doubt"] == 1 - count
    c = conversation("exclude: {statuses: [200]}", orphan_responses=True, opened=False)
    c.request(get(), lose=True).response(OK)
    c.close()
    assert c.records() == [] and c.counters()["filtered_policy"] == 1


def test_fields_beyond_a_head_that_was_cut() -> None:
    head = b"GET /x HTTP/1.1\r\nX: " + b"y" * 2000 + b"\r\nHost: a.example\r\n\r\n"
    c = conversation("exclude: {hosts: [a.example]}", header_bytes=1024)
    c.request(head).response(OK)
    assert c.records() == [] and c.counters()["filtered_policy_doubt"] == 1


def test_the_name_of_a_process_that_was_never_told() -> None:
    c = conversation("exclude: {processes: [sshd]}", opened=False)
    assert not recorded(c) and c.counters()["filtered_policy_doubt"] == 1


def test_who_answers_is_the_process_of_the_record() -> None:
    c = conversation("include: {processes: [server]}", "exclude: {paths: ['*']}")
    c.feed(abi.pack_process(101, b"worker", ts_ns=c.now))
    c.request(get())
    c.feed(abi.pack_data((c.conn[0], 101, c.conn[2]), abi.OUT, 0, OK, ts_ns=c.now + 1, len_true=len(OK), flags=0, source=0))
    assert c.records() == []


@pytest.mark.parametrize("known", [True, False])
def test_addresses_that_are_awaited(known: bool) -> None:
    c = Conversation(conn=(ident(100, 0)[0], 100, -1), opened=False, source=1)
    c.feed(abi.pack_open(c.conn, ts_ns=c.now, role=abi.SERVER, source=1))
    c.pipe.use_policy(policy("exclude: {addresses: [192.168.0.0/16]}"))
    c.request(get()).response(OK)
    assert c.records() == []
    if known:
        socket = ident(100, 9)[0]
        local, remote = ("10.0.0.1", 443), ("10.0.0.2", 40000)
        c.feed(abi.pack_bind(c.conn, socket, ts_ns=c.now, role=abi.SERVER, local=local, remote=remote))
    c.wait(5)
    assert len(c.records()) == known and c.counters()["filtered_policy_doubt"] == (not known)


# ---- HTTP/2, parts, WebSockets


def test_http2_streams_each_by_its_own() -> None:
    c = conversation("exclude: {paths: [/a]}", "exclude: {contentTypes: ['image/*']}")
    talk = http2.Talk()
    streams = [talk.ask(http2.request(path), end=True) for path in ("/a", "/b", "/c")]
    for stream, media in zip(streams, ("text/plain", "image/png", "text/plain"), strict=True):
        talk.answer(stream, http2.response(200, ("content-type", media)))
        talk.body(stream, http2.RESPONSE, b"hi", end=True)
    talk.flush()
    for side, data in talk.events:
        c.send(c.requests if side == http2.REQUEST else 1 - c.requests, data)
    assert [record["path"] for record in c.records()] == ["/c"] and c.counters()["filtered_policy"] == 2


def test_http2_that_is_joined_holds_back_what_a_rule_might() -> None:
    talk = http2.Talk()
    for _ in range(2):  # the second one refers to fields of the first
        stream = talk.ask(http2.request("/long/enough/to/be/indexed"), end=True)
        talk.answer(stream, http2.response(200), end=True)
        talk.flush()
    for rule, count in (("exclude: {hosts: [other.example]}", 0), ("include: {hosts: [api.example]}", 1)):
        c = conversation(rule, opened=False)
        for number, (side, data) in enumerate(talk.events):
            c.send(c.requests if side == http2.REQUEST else 1 - c.requests, data, lose=number < len(talk.events) - 2)
        c.close()
        assert len(c.records()) == count and c.counters()["filtered_policy_doubt"] == 1 - count


def test_parts_wait_until_it_is_decided() -> None:
    head = b"POST /x HTTP/1.1\r\nHost: a.example\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
    for status, count in ((200, 0), (500, 1)):
        c = conversation("exclude: {statuses: [200]}")
        c.request(head + b'8\r\n{"a":1}\n\r\n').wait(3)
        assert c.records() == []
        c.response(
            f"HTTP/1.1 {status} X\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        )
        c.response(b'8\r\n{"b":2}\n\r\n').wait(3)
        records = c.records()
        assert len(records) == count
        if count:
            assert records[0]["requestPayload"] == '{"a":1}\n' and records[0]["responsePayload"] == '{"b":2}\n'


def test_parts_of_an_excluded_stream_are_left_out() -> None:
    c = conversation("exclude: {contentTypes: [text/event-stream]}")
    c.request(get()).response(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
    c.response(b"data: 1\n\n").wait(3).response(b"data: 2\n\n").close()
    assert c.records() == [] and c.counters()["filtered_policy"] == 1


UPGRADE = (
    b"GET /chat HTTP/1.1\r\nHost: a.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
SWITCHED = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)


@pytest.mark.parametrize(
    ("rule", "some"),
    [
        ("exclude: {paths: [/chat]}", False),
        ("exclude: {statuses: [101]}", False),
        ("exclude: {statuses: [200]}", True),
        ("exclude: {contentTypes: [text/html]}", True),
    ],
)
def test_a_websocket_by_its_handshake(rule: str, some: bool) -> None:
    c = conversation(rule)
    c.request(UPGRADE).response(SWITCHED).response(b"\x81\x02hi").wait(3).response(b"\x81\x02ho").close()
    assert bool(c.records()) is some
    assert c.counters()["filtered_policy"] == (not some)


def test_the_answer_of_an_upgrade_to_http2_is_the_one_that_counts() -> None:
    c = conversation("exclude: {statuses: [101]}")
    asks = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: \r\n"
    request = b"GET /x HTTP/1.1\r\nHost: a.example\r\n" + asks + b"\r\n"
    c.request(request).response(b"HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
    assert c.counters()["filtered_policy"] == 0


# ---- another policy


def test_another_policy_decides_of_every_record_that_is_made_from_then_on() -> None:
    c = conversation("exclude: {statuses: [404]}", "exclude: {paths: [/left]}")
    c.request(get("/left") + get("/a"))
    c.pipe.use_policy(policy("exclude: {statuses: [200]}"))
    c.request(get("/b"))
    c.response(answer(500) + answer(404) + OK)
    assert [record["path"] for record in c.records()] == ["/a"]  # what was left out stays so
    c.request(get("/c") + get("/d"))
    c.pipe.use_policy(Policy())
    c.response(OK).request(get("/e"))
    c.pipe.use_policy(policy("exclude: {hosts: [a.example], paths: ['/d*']}", "exclude: {contentTypes: [text/html]}"))
    c.response(answer(media="a/b") + OK).request(get("/f")).response(answer(media="a/b"))
    assert [record["path"] for record in c.records()] == ["/c", "/f"]
    assert c.counters()["filtered_policy"] == 4 and c.counters()["filtered_policy_doubt"] == 0


@pytest.mark.parametrize(
    ("match", "excluded"),
    [
        ("{hosts: [a.example], paths: [/x], methods: [GET], directions: [inbound]}", True),
        ("{hosts: [b.example]}", False),
        ("{paths: [/y]}", False),
        ("{methods: [POST]}", False),
        ("{statuses: [200], contentTypes: [text/html], processes: [server], addresses: [10.0.0.2]}", True),
        ("{statuses: [404]}", False),
        ("{contentTypes: [a/b]}", False),
    ],
)
def test_what_is_written_is_asked_anew(match: str, excluded: bool) -> None:
    c = Conversation()
    c.request(get("/x?q")).response(OK[:-1])
    c.pipe.use_policy(policy(f"exclude: {match}"))
    c.response(OK[-1:])
    assert len(c.records()) == (not excluded)
    assert c.counters()["filtered_policy"] == excluded and c.counters()["filtered_policy_doubt"] == 0


def test_what_is_not_written_as_it_was_is_in_doubt() -> None:
    c = Conversation()
    c.request(b'GET /"x HTTP/1.1\r\nHost: a.example\r\n\r\n').response(OK[:-1])
    c.pipe.use_policy(policy("exclude: {paths: [/y]}"))
    c.response(OK[-1:])
    assert c.records() == [] and c.counters()["filtered_policy_doubt"] == 1


def test_a_long_stream_ends_with_the_policy_that_excludes_it() -> None:
    c = conversation()
    c.request(get("/events")).response(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
    c.response(b"data: 1\n\n").wait(3)
    assert len(c.records()) == 1
    c.pipe.use_policy(policy("exclude: {paths: [/other]}"))
    c.response(b"data: 2\n\n").wait(3)
    assert len(c.records()) == 1
    c.pipe.use_policy(policy("exclude: {paths: [/events]}"))
    c.response(b"data: 3\n\n").wait(3).response(b"data: 4\n\n").wait(3).close()
    assert c.records() == [] and c.counters()["filtered_policy"] == 1


def test_one_event_that_fills_a_part_of_a_stream_that_is_excluded_meanwhile() -> None:
    c = conversation(body_bytes=1024)
    c.request(get("/events")).response(b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n\r\n")
    c.response(b'{"a":1}\n')
    c.pipe.use_policy(policy("exclude: {paths: [/events]}"))
    before = held(c)
    c.response(b'{"a":1}\n' * 1000)
    assert held(c) <= before
    c.close()
    assert c.records() == []


def test_a_websocket_ends_with_the_policy_that_excludes_it() -> None:
    c = conversation()
    c.request(UPGRADE).response(SWITCHED).response(b"\x81\x02hi").wait(3)
    assert c.records()
    c.pipe.use_policy(policy("exclude: {paths: [/chat]}"))
    c.response(b"\x81\x02ho").wait(3).response(b"\x81\x02hu").close()
    assert c.records() == [] and c.counters()["filtered_policy"] == 1


# ---- heads as they are written


@pytest.mark.parametrize(
    ("fields", "name", "value"),
    [
        (b"Host: a\r\nX: y", b"x", b"y"),
        (b"X: y\r\nHost: a", b"host", b"a"),
        (b"Host: a", b"x", b""),
        (b"X: \r\nHost: a", b"x", b""),
        (b'X: {"host":"b"}\r\nHost: a', b"host", b"a"),
        (b'X: \\","host":"b\r\nHost: a', b"host", b"a"),
        (b"X: \\\r\nHost: a", b"host", b"a"),
        (b"X: \\\\\r\nHost: a", b"host", b"a"),
        (b'X: "\r\nHost: a', b"x", None),
        (b"X: \xe9\r\nHost: a", b"x", None),
    ],
)
def test_a_field_of_a_head_that_is_written(fields: bytes, name: bytes, value: bytes | None) -> None:
    c = Conversation()
    c.request(b"GET /x HTTP/1.1\r\n" + fields + b"\r\n\r\n").response(OK)
    head = one_line(c)
    assert written.field_of(head, name) == value
    assert written.text_of(head, b'"method":"') == b"GET" and written.text_of(head, b'","path":"') == b"/x"


@given(
    st.lists(st.tuples(st.sampled_from(["host", "x", "y"]), st.text(st.sampled_from('a\\",:{} '), max_size=8)), max_size=4)
)
def test_whatever_the_fields_hold(fields: list[tuple[str, str]]) -> None:
    """Either the value as it was, or nothing."""
    values = dict(fields)
    inner = json.dumps(values, separators=(",", ":"))
    head = ('{"method":"GET","requestHeaders":' + json.dumps(inner)).encode()
    for name in ("host", "x", "y", "z"):
        wanted = values.get(name, "")
        found = written.field_of(head, name.encode())
        assert found == (None if "\\" in wanted or '"' in wanted else wanted.encode())


def test_undecided_exchanges_are_freed_with_their_pipeline() -> None:
    pipe = pipeline()
    pipe.use_policy(policy("exclude: {statuses: [404]}"))
    for number in range(100):
        Conversation(pipe, conn=ident(100 + number, 5)).request(get())
    assert pipe.statistics()["queued_exchanges"] == 100
    pipe.use_policy(Policy())
    del pipe


def test_a_body_with_a_coding_is_decided_by_its_head() -> None:
    packed = gzip.compress(b"hello")
    c = conversation("exclude: {contentTypes: [text/plain]}")
    c.request(get()).response(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
        + packed
    )
    assert c.records() == []


# ---- globs


@pytest.mark.parametrize(
    ("pattern", "text", "fits"),
    [
        ("", "", True),
        ("", "a", False),
        ("*", "", True),
        ("*", "abc", True),
        ("**", "abc", True),
        ("a*", "a", True),
        ("*a", "ba", True),
        ("a*a", "a", False),
        ("a*a", "aa", True),
        ("a*b*c", "abc", True),
        ("a*b*c", "aXbXbXc", True),
        ("a*b*c", "acb", False),
        ("*b*b*", "ab", False),
        ("*ab*ba*", "xaba", False),
        ("*ab*ba*", "xabba", True),
        ("a?c", "abc", False),
        ("[ab]", "a", False),
    ],
)
def test_globs(pattern: str, text: str, fits: bool) -> None:
    assert globs.matches(pattern.encode(), text.encode()) is fits
