"""The border of a protocol: a layer that is no part of the product, compiled by the test (toy/toy.pyx)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from collector.shards.layers.table import layer_names
from tests.collector.shards import compiling
from tests.events import GET, OK, Conversation, ident, pipeline


@pytest.fixture(scope="module", autouse=True)
def toy(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The toy, in the table of layers from now on: it takes nothing but what begins with its own greeting."""
    if "toy" not in layer_names():
        compiling.load(Path(__file__).parent / "toy" / "toy.pyx", tmp_path_factory.mktemp("toy"))
    assert layer_names()[0] == "toy" and layer_names()[-1] == "http1"


def records(c: Conversation) -> list[dict[str, Any]]:
    """Not validated: the published form knows no toy."""
    batch = c.pipe.take()
    if batch is None:
        return []
    assert isinstance(batch[0], bytes)
    return [json.loads(line) for line in batch[0].splitlines()]


def test_its_records_come_out_with_its_name() -> None:
    c = Conversation().request(b"TOY\nASK one\nASK two\n").response(b"SAY 1\n").response(b"SAY 2\n")
    rs = records(c)
    assert [(r["protocol"], r["type"], r["method"], r["path"], r["responsePayload"], r["marks"]) for r in rs] == [
        ("toy", "TOY/1", "ASK", "one", "1", "[]"),
        ("toy", "TOY/1", "ASK", "two", "2", "[]"),
    ]
    assert rs[0]["recordId"] != rs[1]["recordId"]
    assert Conversation(c.pipe, conn=ident(9, 9)).request(GET).response(OK).records()[0]["protocol"] == "http1"


@pytest.mark.parametrize("step", [1, 2, 3, 5])
def test_however_the_bytes_are_cut(step: int) -> None:
    c = Conversation()
    asks, says = b"TOY\nASK one\nASK two\n", b"SAY 1\nSAY 2\n"
    for i in range(0, len(asks), step):
        c.request(asks[i : i + step])
    for i in range(0, len(says), step):
        c.response(says[i : i + step])
    assert [(r["path"], r["responsePayload"]) for r in records(c)] == [("one", "1"), ("two", "2")]


@pytest.mark.parametrize("cut", [1, 2, 3, 4])
def test_what_only_begins_like_it_is_read_from_its_first_byte(cut: int) -> None:
    text = b"TOYS / HTTP/1.1\r\nHost: h\r\n\r\n"
    c = Conversation().request(text[:cut]).request(text[cut:]).response(OK)
    (r,) = c.records()
    assert (r["method"], r["protocol"], r["mark"]) == ("TOYS", "http1", [])
    assert r["recordId"].endswith("-0")


def test_its_deadline_is_its_own() -> None:
    c = Conversation().request(b"TOY\nASK one\n").wait(5).request(b"ASK two\n").wait(4.5)
    assert records(c) == []
    assert [r["path"] for r in records(c.wait(1))] == ["one"]
    assert [r["path"] for r in records(c.wait(5))] == ["two"]


def test_holes_ends_and_limits_come_to_it() -> None:
    c = Conversation().request(b"TOY\nASK one\n").response(b"SAY", lose=True).response(b"SAY 2\n")
    assert [json.loads(r["marks"]) for r in records(c)] == [["no_response", "pairing_uncertain"]]
    assert [r["path"] for r in records(c.request(b"ASK two\n").close())] == ["two"]


def test_it_goes_on_after_it_was_given_up() -> None:
    pipe = pipeline(max_connections=1)
    c = Conversation(pipe).request(b"TOY\nASK one\n").response(b"SAY 1\n")
    Conversation(pipe, conn=ident(7, 7)).request(GET).response(OK)
    records(c)
    assert [(r["path"], r["marks"]) for r in records(c.request(b"ASK two\n").response(b"SAY 2\n"))] == [("two", "[]")]
