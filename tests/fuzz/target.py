"""What the fuzzer runs for each input: `one(data)`. It raises when something is wrong; harness.c makes that a crash.

Four kinds of input, by the first byte: a script (script.py), a script whose data comes in two different cuts and must
give the same records, bytes that are taken for a span as they are, and a text for the escapers and the head parser alone.
"""

from __future__ import annotations

import contextlib
import json
import random
import re

from collector import abi
from collector.shards.layers.http1.head import head_fields
from collector.shards.layers.http1.layer import reason_words
from collector.shards.layers.http2.layer import http2_reason_words
from collector.shards.layers.websocket.layer import websocket_reason_words
from collector.shards.records.marks import mark_words
from collector.shards.records.text import close_json_text, escape_text
from tests.fuzz.script import CUTS, HEADER, PLACE, RAW, STRUCTURED, TEXT, Runner, steps

_REASONS = reason_words() + http2_reason_words() + websocket_reason_words()
_WORDS = {word: number for number, word in enumerate(mark_words() + _REASONS)}
FEATURES = 4096  # harness.c: EXTRA
_PAIRS = 1024
_CONTROL = re.compile("[\x7f-\x9f]")  # what records escape, and JSON need not
_RECORD_HALF = re.compile(rb"expect", re.IGNORECASE)


def _escape(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"


def features(runner: Runner) -> set[int]:
    """What was reached that no branch of the code tells: the size of each counter, the marks that came together."""
    found = set()
    for number, value in enumerate(runner.memory[:40]):
        if value:
            found.add(number * 16 + min(value.bit_length(), 15))
    for marks in {record["marks"] for record in runner.records}:
        words = sorted({_WORDS[word] for mark in json.loads(marks) for word in mark.split(":") if word in _WORDS})
        for i, a in enumerate(words):
            found.update(_PAIRS + a * 54 + b for b in words[i:])
    return found


def raw(data: bytes) -> Runner:
    """Any bytes as a span; what comes first in them are the settings all the same."""
    runner = Runner(data[:HEADER])
    runner.feed(data[HEADER:])
    runner.finish()
    return runner


def in_cuts(data: bytes, seed: int | None) -> Runner:
    """The data of a script on one connection, nothing lost: as it stands, or cut anywhere (`seed`)."""
    # over-long heads are treated differently when they come whole, and what a filter sees in time may differ
    runner = Runner(bytes((data[0], data[1] & 3, 8 | (data[2] & 1) << 3, 0)), header_bytes=65536, buffer_bytes=10_000_000)
    choose = random.Random(seed)
    for verb, argument, text in steps(data):
        runner.now += 1_000_000
        if verb == ord("E"):
            runner.eof(argument & 1, b"")
            continue
        direction = verb >> 1 & 1  # I: 0, O: 1
        while text:
            n = len(text) if seed is None else choose.choice((1, 1, 2, 3, 10, 50, 400, len(text)))
            runner.data(direction, text[:n])
            text = text[n:]
    runner.close(0, b"")
    runner.finish()
    return runner


def cuts(data: bytes) -> Runner:
    """Any cuts give the same records.

    Not where a message is looked for again, which only the beginning of an event can be, nor where a client may have
    thought better of an Expect: 100-continue, which shows at the beginning of an event too.
    """
    whole = in_cuts(data, None)
    pieces = in_cuts(data, data[3])
    if _RECORD_HALF.search(data) or whole.pipe.statistics()["resyncs"] or pieces.pipe.statistics()["resyncs"]:
        return whole
    assert len(whole.records) == len(pieces.records), (whole.records, pieces.records)
    for a, b in zip(whole.records, pieces.records, strict=True):
        assert a == b, {key: (a[key], b.get(key)) for key in a if a[key] != b.get(key)}
    return whole


def text(data: bytes) -> None:
    """The encoder's parts against Python's json, and the parser, in places of any length and alignment."""
    wire = data[HEADER:]
    for response in (False, True):
        head = head_fields(wire, response)
        if isinstance(head, dict):
            assert 0 < head["length"] <= len(wire), head
    once, twice = escape_text(wire), escape_text(wire, twice=True)
    inner = json.loads(b'"%s"' % json.loads(b'"%s"' % twice).encode("utf-8", "surrogatepass"))
    try:
        plain = wire.decode()
    except UnicodeDecodeError:
        assert once is None, once
    else:
        assert once == _CONTROL.sub(_escape, json.dumps(plain, ensure_ascii=False)[1:-1]).encode(), (plain, once)
        assert inner == plain.replace("\r", " ").replace("\n", " "), (plain, inner)
        if plain[:1] in ("{", "["):
            whole_json(wire)
    with contextlib.suppress(ValueError):
        abi.walk(PLACE(wire))


def whole_json(wire: bytes) -> None:
    """A JSON text cut anywhere is closed again to one."""
    try:
        json.loads(wire)
    except (ValueError, RecursionError):
        return
    for end in range(1, min(len(wire), 300)):
        closed = close_json_text(wire[:end])
        if closed:
            json.loads(closed)


def one(data: bytes) -> set[int]:
    """One input; the numbers of what it reached."""
    if len(data) <= HEADER:
        return set()
    kind = data[0]
    if kind == RAW:
        return features(raw(data))
    if kind == TEXT:
        text(data)
        return set()
    if kind == CUTS or (kind != STRUCTURED and kind & 3 == 3):
        return features(cuts(data))
    runner = Runner(data[:HEADER])
    runner.run(data)
    return features(runner)
