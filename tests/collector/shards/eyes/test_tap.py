"""Which records go to which viewer."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.shards.codecs import codec
from collector.shards.eyes.tap import Tap
from collector.viewing import Request
from tests.collector.shards.eyes.test_tally import record
from tests.events import Conversation, pipeline


def seen(request: Request, *records: bytes) -> list[dict[str, str]]:
    tap = Tap()
    tap.watch(1, request)
    tap.feed(b"".join(records))
    lines, count, lost = tap.lines(1)
    assert len(lines.splitlines()) == count and lost == 0
    return [json.loads(line) for line in lines.splitlines()]


@pytest.mark.parametrize(
    ("request_", "paths"),
    [
        (Request(), ["/a", "/b?x=1", "/c"]),
        (Request(path="/b"), ["/b?x=1"]),
        (Request(path="/?"), ["/a", "/b?x=1", "/c"]),
        (Request(path="*x=1"), ["/b?x=1"]),
        (Request(status=("4xx",)), ["/b?x=1"]),
        (Request(status=("0", "200")), ["/a", "/c"]),
        (Request(direction=2), ["/c"]),
        (Request(direction=1, status=("200",)), ["/a"]),
        (Request(process="cli*"), ["/c"]),
        (Request(process="77"), ["/c"]),
        (Request(process="7"), []),
        (Request(host="A.*"), ["/a", "/b?x=1", "/c"]),
        (Request(host="b.*"), []),
    ],
)
def test_filters(request_: Request, paths: list[str]) -> None:
    found = seen(
        request_,
        record("/a"),
        record("/b?x=1", "404"),
        record("/c", "0", direction="2", process_name="client", process_id="77"),
    )
    assert [one["path"] for one in found] == paths


@settings(max_examples=200)
@given(st.text('ab*?é"\\', max_size=8), st.text('abé"\\\n', max_size=10))
def test_patterns_mean_what_their_regular_expression_means(glob: str, text: str) -> None:
    expression = "".join(".*" if letter == "*" else "." if letter == "?" else re.escape(letter) for letter in glob)
    fits = not glob or re.fullmatch(expression, text, re.DOTALL) is not None
    assert bool(seen(Request(process=glob), record(process_name=text))) == fits


def test_a_short_line_has_what_a_viewer_goes_by_and_a_whole_one_everything() -> None:
    line = record("/a", requestPayload='{"secret":1}')
    (short,) = seen(Request(), line)
    assert short["host"] == "a.example" and "requestPayload" not in short and "requestHeaders" not in short
    assert {name: value for name, value in short.items() if name != "host"}.items() <= json.loads(line).items()
    tap = Tap()
    tap.watch(1, Request(whole=True))
    tap.feed(line + line)
    assert tap.lines(1) == (line + line, 2, 0)
    assert tap.lines(1) == (b"", 0, 0)


def test_each_viewer_has_its_own() -> None:
    tap = Tap()
    tap.watch(1, Request(path="/a"))
    tap.watch(2, Request(path="/b"))
    tap.feed(record("/a") + record("/b") + record("/a"))
    tap.forget(1)
    tap.watch(3, Request())
    assert tap.lines(1) == (b"", 0, 0)
    assert tap.lines(2)[1:] == (1, 0) and tap.lines(3)[1:] == (0, 0)
    tap.feed(record("/a"))
    assert tap.lines(2)[1:] == (0, 0) and tap.lines(3)[1:] == (1, 0)


def test_there_are_eight_places() -> None:
    tap = Tap()
    for number in range(1, 9):
        tap.watch(number, Request())
    with pytest.raises(ValueError, match="too many"):
        tap.watch(9, Request())


@pytest.mark.parametrize("kafka", [False, True])
@settings(max_examples=25, deadline=None)
@given(sizes=st.lists(st.integers(0, 3000), min_size=1, max_size=30), most=st.integers(1, 20_000))
def test_every_record_of_every_batch_is_seen_once_as_it_was_delivered(kafka: bool, sizes: list[int], most: int) -> None:
    """A RecordBatch may leave records for the next one."""
    with_tap, without = (Conversation(pipeline(want_details=True)) for _ in range(2))
    tap = Tap()
    tap.watch(1, Request(whole=True))
    with_tap.pipe.use_tap(tap)
    if kafka:
        with_tap.pipe.use_record_batches(*codec("none"), most, 1 << 20)
    shown = delivered = b""
    for c in (with_tap, without):
        for number, size in enumerate(sizes):
            c.request(f"GET /{number} HTTP/1.1\r\nHost: a.example\r\n\r\n".encode())
            c.response(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"a" * size)
    while with_tap.pipe.take(1) is not None:
        shown += tap.lines(1)[0]
    while (batch := without.pipe.take()) is not None:
        assert isinstance(batch[0], bytes)
        delivered += batch[0]
    assert shown == delivered and len(shown.splitlines()) == len(sizes)


def test_nobody_looks_any_more() -> None:
    c = Conversation(pipeline())
    tap = Tap()
    tap.watch(1, Request())
    c.pipe.use_tap(tap)
    c.pipe.use_tap(None)
    c.request(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    c.response(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    assert c.pipe.take() is not None and tap.lines(1) == (b"", 0, 0)


@given(st.binary(max_size=200))
def test_whatever_is_no_record_is_passed_over(data: bytes) -> None:
    tap = Tap()
    tap.watch(1, Request())
    tap.count_figures(True)
    tap.feed(data + b"\n" + record())
    assert tap.lines(1)[1] >= 1
