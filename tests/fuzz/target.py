"""What the fuzzer runs for each input: `one(data)`. It raises when something is wrong; harness.c makes that a crash.

Three kinds of input, by the first byte: a script (script.py), a script whose data comes in two different cuts and must
give the same records, and bytes that are taken for a span as they are.
"""

from __future__ import annotations

import random
import re

from collector.shards.records.encode import ambiguity_words, mark_words
from tests.fuzz.script import CUTS, HEADER, RAW, STRUCTURED, Runner, empty_end, steps

_WORDS = {word: number for number, word in enumerate(mark_words() + ambiguity_words())}
FEATURES = 4096  # harness.c: EXTRA
_PAIRS = 1024
_RECORD_HALF = re.compile(rb"expect", re.IGNORECASE)


def features(runner: Runner) -> set[int]:
    """What was reached that no branch of the code tells: the size of each counter, the marks that came together."""
    found = set()
    for number, value in enumerate(runner.memory[:40]):
        if value:
            found.add(number * 16 + min(value.bit_length(), 15))
    for record in runner.records:
        words = sorted({_WORDS[word] for mark in record["words"] for word in mark.split(":") if word in _WORDS})
        for i, a in enumerate(words):
            found.update(_PAIRS + a * 48 + b for b in words[i:])
    return found


def raw(data: bytes) -> Runner:
    """Any bytes as a span; what comes first in them are the settings all the same."""
    runner = Runner(data[:HEADER])
    span = data[HEADER:]
    if not empty_end(span):
        runner.feed(span)
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


def one(data: bytes) -> set[int]:
    """One input; the numbers of what it reached."""
    if len(data) <= HEADER:
        return set()
    kind = data[0]
    if kind == RAW:
        return features(raw(data))
    if kind == CUTS or (kind != STRUCTURED and kind & 3 == 3):
        return features(cuts(data))
    runner = Runner(data[:HEADER])
    runner.run(data)
    return features(runner)


