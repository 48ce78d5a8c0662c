"""Records as events: a replay of the file gives the records that it was made of."""

from __future__ import annotations

import gzip
import json
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import brotli
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from collector import abi, capturefile
from collector.counter_names import SINK_NAMES
from collector.counters import CounterMemory, Counters
from collector.router.batches import JSON_LINES, KAFKA, pack
from collector.shards.codecs import codec
from collector.sink.batch import Batch
from collector.sink.kafka import inside
from collector.sink.recording.events import Libraries, of
from collector.sink.recording.exchange import REASONS, NotTold, read
from collector.sink.recording.recorder import Recorder
from tests.events import GET, OK, Conversation, ident, pipeline
from tests.http2 import REQUEST, RESPONSE, Talk
from tests.recorded import Recorded, comparable, replayed, taken

POST = b"POST /orders?x=1 HTTP/1.1\r\nHost: a.example\r\nContent-Length: 7\r\n\r\n" + b'{"a":1}'
Say = Callable[[Conversation], Any]


def both(
    tmp_path: Path, say: Say, settings: dict[str, Any] | None = None, **how: Any
) -> tuple[Recorded, list[Any], list[Any]]:
    """The file, the records that went into it, and those that came out."""
    c = Conversation(pipeline(**(settings or {})), **how)
    say(c)
    c.pipe.close_all()
    file = Recorded(tmp_path / "capture")
    before = file.take(c.pipe)
    file.close()
    return file, before, replayed(file.path)


def check(tmp_path: Path, say: Say, *otherwise: str, **how: Any) -> list[dict[str, Any]]:
    """The same records; as they came out."""
    file, before, after = both(tmp_path, say, **how)
    assert before and not file.left_out() and len(after) == len(before)
    for one, other in zip(after, before, strict=True):
        assert comparable(one, *otherwise) == comparable(other, *otherwise)
    assert file.counters["redacted_file_exchanges"] == len(before)
    assert file.counters["redacted_file_bytes"] == file.path.stat().st_size
    return after


def exchange(request: bytes, response: bytes) -> Say:
    return lambda c: c.request(request).response(response, step_ms=2.5).close()


def body(data: bytes, *fields: bytes) -> bytes:
    return b"\r\n".join([b"HTTP/1.1 200 OK", *fields, b"Content-Length: %d" % len(data), b"", b""]) + data


TEXT = b'{"name":"J\xc3\xbcrgen","list":[1,2,3]}'


@pytest.mark.parametrize(
    ("request_", "response"),
    [
        (GET, OK),
        (POST, OK),
        (b"GET /old HTTP/1.0\r\n\r\n", b"HTTP/1.0 200 OK\r\n\r\nuntil the end"),
        (b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n"),
        (GET, b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5000\r\nETag: x\r\n\r\n"),
        (GET, b"HTTP/1.1 204 No Content\r\n\r\n"),
        (GET, b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n"),
        (GET, b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b; Path=/\r\nSet-Cookie: c=d\r\nX: 1\r\nX: 2\r\nContent-Length: 0\r\n\r\n"),
        (GET, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n"),
        (GET, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        (GET, body(gzip.compress(TEXT, mtime=0), b"Content-Type: application/json", b"Content-Encoding: gzip")),
        (GET, body(zlib.compress(TEXT), b"Content-Encoding: deflate")),
        (GET, body(brotli.compress(TEXT), b"Content-Encoding: br")),
        (GET, body(zstandard.compress(TEXT), b"Content-Encoding: zstd")),
        (GET, body(brotli.compress(gzip.compress(TEXT, mtime=0)), b"Content-Encoding: gzip, br")),
        (GET, body("Größe".encode("latin-1"), b"Content-Type: text/plain; charset=ISO-8859-1")),
        (GET, body("Größe".encode("utf-16"), b"Content-Type: text/plain; charset=utf-16")),
        (GET, body("漢字".encode("shift-jis"), b'Content-Type: text/plain; charset="Shift_JIS"')),
        (GET, body(b"\xff\xfe\x00binary", b"Content-Type: text/plain")),
        (GET, body(b"broken", b"Content-Encoding: gzip")),
        (b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n"),
        (b"GET http://a.example/x HTTP/1.1\r\nHost: a.example\r\n\r\n", OK),
        (b"GET /\xc3\xa9?q=[x] HTTP/1.1\r\nHost: a\r\nX-Name: J\xfcrgen\r\n\r\n", OK),
        (b"GET /page\r\n", b"<html>old</html>"),
    ],
)
def test_an_exchange_comes_back(tmp_path: Path, request_: bytes, response: bytes) -> None:
    check(tmp_path, exchange(request_, response))


def test_a_body_that_is_left_out_is_left_out_again(tmp_path: Path) -> None:
    (record,) = check(tmp_path, exchange(GET, body(b"12345", b"Content-Type: image/png")), "marks")
    assert record["marks"] == '["response_body_cut:5"]' and record["responseSize"] == "5"


def test_sizes_are_the_same_where_the_body_is(tmp_path: Path) -> None:
    _file, before, after = both(tmp_path, exchange(POST, OK))
    for name in ("requestSize", "responseSize", "requestHeaders", "responseHeaders"):
        assert after[0][name] == before[0][name]


def test_each_of_many_on_one_connection(tmp_path: Path) -> None:
    def say(c: Conversation) -> None:
        c.request(GET + POST + GET)
        c.response(OK * 3)
        for _ in range(3):
            c.request(POST).response(OK)
        c.close()

    assert len(check(tmp_path, say, "durationMs")) == 6


def test_the_client_is_traced(tmp_path: Path) -> None:
    (record,) = check(tmp_path, exchange(POST, OK), role=abi.CLIENT, conn=ident(4711, 9, 77))
    assert (record["direction"], record["process_id"], record["socket_id"]) == ("2", "4711", "9")


def test_inside_tls(tmp_path: Path) -> None:
    def say(c: Conversation) -> None:
        c.feed(abi.pack_library(3, b"openssl-3.0.22", ts_ns=c.now))
        c.feed(abi.pack_tls(c.conn, ts_ns=c.now, version=0x0304, library=3, alpn=b"http/1.1", sni=b"a.example"))
        exchange(POST, OK)(c)

    (record,) = check(tmp_path, say, source=1)
    assert (record["tlsLibrary"], record["tlsVersion"], record["sni"]) == ("openssl-3.0.22", "1.3", "a.example")


def test_what_is_missing_is_missing_again(tmp_path: Path) -> None:
    def lost(c: Conversation) -> None:
        c.request(b"POST /lost HTTP/1.1\r\nHost: h\r\nContent-Length: 20\r\n\r\n12345")
        c.request(b"67890", lose=True).request(b"12345").request(b"67890").response(OK).close()

    (record,) = check(tmp_path, lost, "marks", "durationMs")
    assert "request_bytes_lost" in record["marks"]

    def cut(c: Conversation) -> None:
        c.request(GET).response(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"x" * 1000)
        c.response(b"", true_length=99000, flags=abi.F_SIZE_ONLY).close()

    (record,) = check(tmp_path, cut)
    assert record["marks"] == '["response_body_cut:99000"]' and record["responseSize"] == "100000"

    def short(c: Conversation) -> None:
        c.request(GET).response(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345").close()

    (record,) = check(tmp_path, short)
    assert "response_incomplete" in record["marks"]

    def chunks(c: Conversation) -> None:
        c.request(GET).response(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n5\r\n123").close()

    check(tmp_path, chunks)
    check(tmp_path, lambda c: c.request(POST).close())
    check(tmp_path, lambda c: c.request(GET).wait(100))
    (record,) = check(tmp_path, lambda c: c.request(GET).response(OK[:-1]))
    assert "end_unseen" in record["marks"]
    check(tmp_path, exchange(GET, OK), start=abi.MID)


def test_a_long_body_that_nobody_wanted(tmp_path: Path) -> None:
    def cut(c: Conversation) -> None:
        c.request(GET).response(b"HTTP/1.1 200 OK\r\nContent-Length: 5000000000\r\n\r\n" + b"x" * 1000)
        for _ in range(5):
            c.response(b"", true_length=1_000_000_000 - 200, flags=abi.F_SIZE_ONLY)
        c.close()

    (record,) = check(tmp_path, cut)
    assert record["responseSize"] == "5000000000"
    record |= {"type": "HTTP/2.0", "recordId": "0123456789abcdef-1000-h1", "responseHeaders": "{}"}
    assert 1000 < len(of(read(json.dumps(record).encode(), 10**12), Libraries())) < 100_000


def test_a_long_exchange_is_not_taken_for_two(tmp_path: Path) -> None:
    def say(c: Conversation) -> None:
        c.request(GET)
        c.response(b"HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\n")
        for _ in range(20):
            c.response(b"ab", step_ms=20_000)
        c.close()

    (record,) = check(tmp_path, say)
    assert record["durationMs"] == "400001.000" and record["marks"] == "[]"


def test_what_cannot_be_told_again_is_left_out_and_counted(tmp_path: Path) -> None:
    file, before, after = both(tmp_path, exchange(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", OK))
    assert before and not after and file.left_out() == {"doubtful": 1}

    def events(c: Conversation) -> None:
        c.request(GET).response(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
        c.wait(2)
        c.response(b"data: 2\n\n").close()

    file, before, after = both(tmp_path, events)
    assert len(before) == 2 and not after and file.left_out() == {"parts": 2}


def test_streams_of_http2(tmp_path: Path) -> None:
    talk = Talk()
    first = talk.ask([(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/a?b=c"), (b":authority", b"h")], end=True)
    fields = [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", b"/b"),
        (b":authority", b"h"),
        (b"x-long", b"v" * 20000),
    ]
    second = talk.ask([*fields, (b"content-length", b"5")])
    talk.flush()
    talk.body(second, REQUEST, b"12345", end=True)
    talk.answer(second, [(b":status", b"200"), (b"set-cookie", b"a=b"), (b"set-cookie", b"c=d")])
    talk.answer(first, [(b":status", b"404")], end=True)
    talk.body(second, RESPONSE, b"x" * 16000, end=True)
    talk.flush()

    def say(c: Conversation) -> None:
        for side, data in talk.events:
            (c.request if side == REQUEST else c.response)(data)
        c.close()

    after = check(tmp_path, say)
    assert [(r["type"], r["path"], r["status"]) for r in after] == [("HTTP/2.0", "/a?b=c", "404"), ("HTTP/2.0", "/b", "200")]


def message(text: bytes) -> bytes:
    return b"\0" + len(text).to_bytes(4) + text


def test_messages_of_grpc_web(tmp_path: Path) -> None:
    head = b"POST /s/M HTTP/1.1\r\nHost: h\r\nContent-Type: application/grpc-web+proto\r\nContent-Length: %d\r\n\r\n"
    for asked in (message(b"one"), message(b"one") + message(b"two"), message(b"")):
        answer = body(message(b"x" * 300), b"Content-Type: application/grpc-web+proto")
        (record,) = check(tmp_path, exchange(head % len(asked) + asked, answer))
        assert record["protocol"] == "grpc-web" and record["responseMessages"] == "1"


@pytest.mark.parametrize("compression", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_batches_for_kafka(tmp_path: Path, compression: str) -> None:
    pipe = pipeline()
    pipe.use_record_batches(*codec(compression), 1 << 20, 1 << 20)
    c = Conversation(pipe)
    c.request(POST * 3).response(OK * 3).close()
    file = Recorded(tmp_path / "capture", format=KAFKA)
    file.take(pipe)
    file.close()
    assert [r["path"] for r in replayed(file.path)] == ["/orders?x=1"] * 3


def test_a_file_that_goes_on_after_its_sink_was_killed(tmp_path: Path) -> None:
    file = Recorded(tmp_path / "capture")
    c = Conversation()
    c.request(GET).response(OK)
    file.take(c.pipe)
    os.write(file.fd, b"SPAN of a life that ended here")
    file.recorder = Recorder(file.fd, 1 << 30, file.counters, JSON_LINES, file.said.append)
    c.request(POST).response(OK).close()
    file.take(c.pipe)
    file.close()
    assert [r["path"] for r in replayed(file.path)] == ["/x", "/orders?x=1"]


def test_a_file_that_cannot_be_written_and_one_that_is_full(tmp_path: Path) -> None:
    c = Conversation()
    c.request(GET * 20).response(OK * 20).close()
    c.pipe.close_all()
    lines = taken(c.pipe)
    assert len(lines) == 20
    batch = Batch(
        b"".join(line + b"\n" for line in lines), b"".join(pack(len(line) + 1, 0, (10**9, 1, 0)) for line in lines), b""
    )
    with open("/dev/full", "wb") as full:
        said: list[str] = []
        counters = Counters(CounterMemory(1).block(0), SINK_NAMES)
        recorder = Recorder(full.fileno(), 1 << 30, counters, JSON_LINES, said.append)
        recorder.add(batch)
        recorder.close()
    assert said == ["--record: No space left on device: later exchanges are counted, not written; capture goes on"]
    assert recorder.failed and counters["redacted_file_exchanges"] == 0 and counters["redacted_file_skipped_bytes"] > 5000
    file = Recorded(tmp_path / "capture", limit=2000)
    file.recorder.add(batch)
    file.close()
    assert file.path.stat().st_size <= 2000 and 0 < file.counters["redacted_file_exchanges"] < 20
    recording = capturefile.Recording(str(file.path))
    assert list(recording.spans()) and recording.left_out_bytes == file.counters["redacted_file_skipped_bytes"] > 0


def test_batches_that_are_damaged(tmp_path: Path) -> None:
    file = Recorded(tmp_path / "capture")
    index = pack(3, 0, (1, 2, 3))
    for records in (b"{}\n", b"no\n", b"[]\n"):
        file.recorder.add(Batch(records, index, b""))
    assert file.left_out() == {"not_http": 3}
    file.recorder.add(Batch(b"{}\n{}\n", index, b""))  # the index says less
    file.recorder._unpack = inside.records
    file.recorder.add(Batch(b"no batch of Kafka's", index, b""))
    file.close()
    assert replayed(file.path) == []


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda some: st.lists(some) | st.dictionaries(st.text(), some)
)


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    c = Conversation()
    c.request(POST).response(OK).close()
    record: dict[str, Any] = json.loads(taken(c.pipe)[0])
    return record


@given(data=st.data())
def test_no_record_is_too_odd(made: dict[str, Any], data: st.DataObject) -> None:
    """Whatever a record holds, it is told or counted."""
    record = dict(made)
    for name in data.draw(st.lists(st.sampled_from(sorted(record)), max_size=4)):
        value = data.draw(
            JSON_VALUES
            | st.sampled_from(
                ["", "0", "-1", "9" * 30, "2", "{}", "[]", "true", "HTTP/2.0", "HTTP/0.9", "a\r\nb", "\ud800", "[" * 100000]
            )
        )
        record[name] = value if data.draw(st.booleans()) else json.dumps(value)
    try:
        events_ = of(read(json.dumps(record).encode(), 10**12), Libraries())
    except NotTold as error:
        why = error.args[0]
    else:
        why = ""
    assert not why or why in REASONS
    if why:
        return
    assert abi.walk(events_)[-1]["type"] == abi.CLOSE
    pipe = pipeline()
    pipe.feed(events_, 0)
    pipe.close_all()
    assert len(taken(pipe)) <= 1
    assert pipe.statistics()["bad_events"] == 0
