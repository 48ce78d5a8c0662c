"""What decoding costs is bounded, the same bytes always cost the same, and what stands behind the end of a coding is
never left out in silence."""

from __future__ import annotations

import base64
import gzip
import json
import random
import zlib
from typing import Any

import brotli
import pytest
import zstandard
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from collector import abi
from collector.shards.pipeline import Pipeline
from collector.shards.records.codings import BROKEN, CUT, ENDED, LONGER, OVER, Inflater, zstd_frames
from collector.shards.records.content import BR, DECODED, DEFLATE, GZIP, REFUSED, UNDECODED, ZSTD, Decoder
from tests.events import GET, Conversation, ident, pipeline, take
from tests.properties.test_contents import (
    CODERS,
    DATA,
    SIDES,
    SKIPPABLE,
    TEXTS,
    cut_mark,
    escaped,
    gzipped,
    is_text,
    members,
    raw_deflate,
    record_of,
    shown,
    within,
    zstd_stream,
)

NUMBERS = {"gzip": GZIP, "x-gzip": GZIP, "deflate": DEFLATE, "br": BR, "zstd": ZSTD}
NO_BOUND = 1 << 40

# ---- the end of a coding -----------------------------------------------------------------------------------------

BEHIND = st.one_of(
    st.binary(min_size=1, max_size=40),
    st.sampled_from(
        [b"\0", bytes(8), b"\x1f", b"\x1f\x8b\x07", b"\x1f\x8b\x08\xff", b"\x28", b"\x28\xb5\x2f", b"GET / HTTP/1.1\r\n\r\n"]
    ),
)


def more_of_it(coding: str, behind: bytes) -> bool:
    """Does this go on with the coding (a member, a frame)?"""
    if coding in ("gzip", "x-gzip"):
        return behind[:2] == b"\x1f\x8b" and behind[2:3] in (b"", b"\x08") and not (behind[3:4] > b"\x1f")
    return (
        coding == "zstd"
        and len(behind) > 3
        and (behind[:4] == b"\x28\xb5\x2f\xfd" or (behind[1:4] == b"\x2a\x4d\x18" and behind[0] >> 4 == 5))
    )


@settings(max_examples=300, deadline=None)
@given(DATA, st.sampled_from(CODERS), BEHIND, SIDES)
@example(b'{"a":1}', CODERS[0], b"HIDDEN", "response")
def test_bytes_behind_the_end_are_told(data: bytes, coder: tuple, behind: bytes, side: str) -> None:
    coding, pack = coder
    assume(not more_of_it(coding, behind))
    record = record_of(side, pack(data) + behind, f"Content-Encoding: {coding}")
    assert shown(record, side) == data and record["mark"] == [f"{side}_body_trailing:{len(behind)}"]
    assert record[f"{side}Size"] == str(len(pack(data)) + len(behind))


@settings(max_examples=100, deadline=None)
@given(DATA, st.sampled_from(CODERS), st.sampled_from(CODERS[:4]), BEHIND, BEHIND, SIDES)
def test_bytes_behind_the_end_of_either_coding(
    data: bytes, inner: tuple, outer: tuple, behind: bytes, further: bytes, side: str
) -> None:
    assume(not more_of_it(inner[0], behind) and not more_of_it(outer[0], further))
    body = outer[1](inner[1](data) + behind) + further
    record = record_of(side, body, f"Content-Encoding: {inner[0]}, {outer[0]}")
    assert shown(record, side) == data and record["mark"] == [f"{side}_body_trailing:{len(behind) + len(further)}"]


@settings(max_examples=100, deadline=None)
@given(TEXTS, st.sampled_from(CODERS), st.binary(max_size=20), SIDES)
def test_what_goes_on_as_the_coding_and_breaks_is_shown_as_it_was(
    data: bytes, coder: tuple, noise: bytes, side: str
) -> None:
    coding, pack = coder
    assume(coding in ("gzip", "x-gzip", "zstd"))
    body = pack(data) + (b"\x28\xb5\x2f\xfd" if coding == "zstd" else b"\x1f\x8b\x08\x00") + noise
    record = record_of(side, body, f"Content-Encoding: {coding}")
    assert shown(record, side) == body and record["mark"] == [f"{side}_body_undecoded"]


@settings(max_examples=100, deadline=None)
@given(TEXTS, st.sampled_from(CODERS), st.integers(2, 200), st.data(), SIDES)
def test_behind_the_end_and_over_the_cap(data: bytes, coder: tuple, extra: int, draw: st.DataObject, side: str) -> None:
    """Nobody kept the bytes behind the cap, but their number is known."""
    coding, pack = coder
    body = pack(data) + b"!" * extra
    cap = draw.draw(st.integers(len(pack(data)) + 1, len(body) - 1))
    assume(cap >= len(data) and data[:1] not in (b"{", b"["))
    assume(coding != "zstd" or cap - len(pack(data)) > 3)  # with fewer it could be the beginning of a frame
    record = record_of(side, body, f"Content-Encoding: {coding}", body_bytes=cap)
    assert shown(record, side) == within(data, cap) or not is_text(data)
    assert f"{side}_body_trailing:{extra}" in record["mark"] and cut_mark(record, side) is not None


# ---- the engines -------------------------------------------------------------------------------------------------


def inflated(data: bytes, wbits: int, limit: int) -> tuple[bytes, int, int]:
    """The same by Python's zlib: one engine a member, byte by byte, so that all is there that comes before damage."""
    out, rest = b"", data
    while True:
        engine = zlib.decompressobj(wbits)
        try:
            while rest and not engine.eof:
                out += engine.decompress(rest[:1])
                rest = rest[1:]
        except zlib.error:
            return (out[:limit], LONGER, 0) if len(out) > limit else (b"", BROKEN, 0)
        if len(out) > limit:
            return out[:limit], LONGER, 0
        if not engine.eof:
            return out, CUT, 0
        if wbits != 31 or not rest or not more_of_it("gzip", rest):
            return out, ENDED, len(rest)


STREAMS = st.one_of(
    DATA.map(gzipped),
    DATA.map(members),
    DATA.map(zlib.compress),
    DATA.map(raw_deflate),
    st.tuples(DATA, st.integers(1, 50)).map(lambda d: gzipped(d[0] * d[1])),
    st.lists(DATA.map(gzipped), max_size=4).map(b"".join),
)
INFLATER = Inflater()  # one for all examples: nothing may remain of the body before


@settings(max_examples=500, deadline=None)
@given(STREAMS, st.sampled_from([31, 15, -15]), st.integers(0, 6000), st.data())
def test_the_inflater_is_zlib(stream: bytes, wbits: int, limit: int, draw: st.DataObject) -> None:
    place = draw.draw(st.integers(0, len(stream)))
    how = draw.draw(st.sampled_from(["whole", "cut", "changed", "followed"]))
    if how == "cut":
        stream = stream[:place]
    elif how == "changed" and place < len(stream):
        stream = stream[:place] + bytes([stream[place] ^ draw.draw(st.integers(1, 255))]) + stream[place + 1 :]
    elif how == "followed":
        stream += draw.draw(BEHIND)
    assume(stream)
    *result, work = INFLATER.undo(stream, wbits, limit, NO_BOUND, wbits == 31)
    assert tuple(result) == inflated(stream, wbits, limit)
    assert Inflater().undo(stream, wbits, limit, NO_BOUND, wbits == 31) == (*result, work)
    allowance = draw.draw(st.integers(0, work))
    bounded = INFLATER.undo(stream, wbits, limit, allowance, wbits == 31)
    assert bounded == Inflater().undo(stream, wbits, limit, allowance, wbits == 31)
    assert bounded == (*result, work) if allowance == work else bounded[1] == OVER


FRAMES = st.lists(
    st.one_of(
        DATA.map(zstandard.compress),
        DATA.map(zstd_stream),
        st.just(SKIPPABLE),
        st.just(SKIPPABLE[:4] + bytes(4)),
        DATA.map(lambda d: zstandard.ZstdCompressor(write_checksum=True, write_content_size=False).compress(d)),
        st.integers(0, 300_000).map(lambda n: zstandard.compress(b"a" * n)),
    ),
    min_size=1,
    max_size=5,
)


@settings(max_examples=300, deadline=None)
@given(FRAMES, st.data())
def test_frames_of_zstd_are_found(frames: list[bytes], draw: st.DataObject) -> None:
    stream = b"".join(frames)
    ends = [sum(map(len, frames[:n])) for n in range(len(frames) + 1)]
    assert zstd_frames(stream, NO_BOUND)[:2] == (len(stream), ENDED)
    place = draw.draw(st.integers(1, len(stream) - 1))
    end = max(e for e in ends if e <= place)
    # fewer than four bytes behind whole frames are no frame yet
    assert zstd_frames(stream[:place], NO_BOUND)[:2] == (end, ENDED if end and place - end < 4 else CUT)
    assert zstd_frames(stream + b"no frame", NO_BOUND)[:2] == (len(stream), ENDED)
    work = zstd_frames(stream, NO_BOUND)[2]
    assert zstd_frames(stream, work)[1] == ENDED and zstd_frames(stream, work - 1)[1] == OVER


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.sampled_from([b"", b"\x28\xb5\x2f\xfd", SKIPPABLE[:4]]))
def test_any_bytes_are_walked_to_their_end_at_most(data: bytes, magic: bytes) -> None:
    end, ended, work = zstd_frames(magic + data, NO_BOUND)
    assert 0 <= end <= len(magic + data) and ended in (ENDED, CUT, BROKEN) and work >= 0


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(
        st.tuples(DATA, st.sampled_from(CODERS)).map(lambda d: (d[1][0], d[1][1](d[0]))),
        st.tuples(st.sampled_from(sorted(NUMBERS)), st.binary(max_size=100)),
    ),
    st.integers(1, 5000),
    st.booleans(),
    st.integers(0, 100_000),
)
def test_the_same_bytes_cost_the_same(body: tuple[str, bytes], limit: int, cut: bool, allowance: int) -> None:
    codings = bytes([NUMBERS[body[0]]])
    result = DECODER.decode(body[1], codings, 0, cut, limit, NO_BOUND)
    assert Decoder().decode(body[1], codings, 0, cut, limit, NO_BOUND) == result
    text, state, *_, work = result
    assert state != REFUSED and len(text) <= max(limit, len(body[1])) and work > 0
    bounded = DECODER.decode(body[1], codings, 0, cut, limit, allowance)
    if work <= allowance:
        assert bounded == result
    else:
        assert bounded[:2] in ((body[1], REFUSED), (body[1], UNDECODED)) or bounded[1] == DECODED and not bounded[0]


DECODER = Decoder()


# ---- bodies that ask for much ------------------------------------------------------------------------------------


class Bits:
    """A stream of bits, the lowest first, as deflate and Brotli have them."""

    def __init__(self) -> None:
        self.value = self.length = 0

    def put(self, value: int, length: int) -> Bits:
        self.value |= value << self.length
        self.length += length
        return self

    def done(self) -> bytes:
        return self.value.to_bytes((self.length + 7) // 8, "little")


def brotli_block(kinds: int, trees: int) -> Bits:
    """A block of one byte whose map of contexts has an entry for each of ``kinds`` times 64 contexts (RFC 7932 section 7):
    all entries are one symbol, so that they take no bits, and each is moved to the front of a list."""
    b = Bits().put(0, 3).put(0, 16).put(0, 1)  # more blocks follow, 1 byte, compressed
    extra = (kinds - 1).bit_length() - 1
    b.put(1, 1).put(extra, 3).put(kinds - 1 - (1 << extra), extra)  # kinds of literals
    b.put(1, 4).put(0, (kinds + 1).bit_length()).put(1, 4).put(0, 5).put(0, 2).put(0, 2).put(0, 6).put(0, 2 * kinds)
    extra = (trees - 1).bit_length() - 1
    b.put(1, 1).put(extra, 3).put(trees - 1 - (1 << extra), extra)
    b.put(0, 1).put(1, 4).put(trees - 1, (trees - 1).bit_length()).put(1, 1).put(0, 1)
    for _ in range(trees):
        b.put(1, 4).put(65, 8)
    return b.put(1, 4).put(8, 10).put(1, 4).put(0, 6)


def brotli_bomb(kinds: int, trees: int, size: int) -> bytes:
    block, out = brotli_block(kinds, trees), Bits().put(0, 1)
    for _ in range(size * 8 // block.length):
        out.put(block.value, block.length)
    return out.put(3, 2).done()


EMPTY_FRAMES = zstandard.compress(b"") * 7281
CONTROLS = gzip.compress(b"\x01" * 65536, mtime=0)
WORK_BODY = 65536 * 300


def test_hostile_bodies_are_what_they_are_said_to_be() -> None:
    bomb = brotli_bomb(256, 2, 4000)
    assert brotli.decompress(bomb) == b"A" * (4000 * 8 // brotli_block(256, 2).length)
    assert len(zstandard.compress(EMPTY_FRAMES)) < 40 and len(CONTROLS) < 100


@pytest.mark.parametrize(
    ("coding", "body", "least"),
    [
        (BR, brotli_bomb(256, 2, 8000), 8000 * 1500),
        (BR, brotli_bomb(32, 8, 8000), 8000 * 500),
        (ZSTD, EMPTY_FRAMES, 7281 * 100),
        (GZIP, gzipped(b"") * 3000, 3000 * 150),
        (GZIP, CONTROLS, 65536 * 8),
        (ZSTD, zstandard.compress(bytes(65536)), 65536 * 8),
    ],
    ids=["contexts", "small contexts", "frames", "members", "controls", "zeros"],
)
def test_what_costs_much_is_dear(coding: int, body: bytes, least: int) -> None:
    work = Decoder().decode(body, bytes([coding]), 0, False, 65536, NO_BOUND)[5]
    assert work >= least


def test_what_servers_send_is_cheap() -> None:
    """For a kilobyte of JSON a thousandth of a second's budget at most, for gzip and zstd far less."""
    text = json.dumps([{"id": n, "name": f"item {n}", "price": n * 1.25, "tags": ["new"]} for n in range(16)]).encode()
    for name, pack in CODERS:
        work = Decoder().decode(pack(text), bytes([NUMBERS[name]]), 0, False, 65536, NO_BOUND)[5]
        assert work < (500_000 if name == "br" else 15_000), (name, work)


def test_a_body_stops_at_its_own_bound() -> None:
    for bomb in (brotli_bomb(256, 2, 65000), gzip.compress(brotli_bomb(256, 2, 65000))):
        codings = bytes([BR]) if bomb[:2] != b"\x1f\x8b" else bytes([BR, GZIP])
        text, state, _, _, _, work = Decoder().decode(bomb, codings, 0, False, 65536, WORK_BODY)
        assert (text, state) == (bomb, REFUSED) and WORK_BODY < work < WORK_BODY * 1.1


# ---- the budgets -------------------------------------------------------------------------------------------------


class Talk(Conversation):
    """A connection on which each exchange has its time."""

    def exchange(self, at_ns: int, coding: str, body: bytes) -> None:
        self.now = at_ns
        self.request(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", step_ms=0)
        fields = f"Content-Encoding: {coding}\r\n" if coding else ""
        self.response(f"HTTP/1.1 200 OK\r\n{fields}Content-Length: {len(body)}\r\n\r\n".encode() + body, step_ms=0)


HOSTILE = [("gzip", CONTROLS), ("zstd, gzip", gzip.compress(EMPTY_FRAMES, mtime=0)), ("br", brotli_bomb(256, 2, 1500))]
REFUSED_MARK = "response_body_undecoded:budget"
START = 2_000_000_000


def taken(pipe: Pipeline) -> list[dict[str, Any]]:
    """Records as they are: validating thousands of them takes longer than making them."""
    batch = pipe.take()
    assert batch is not None and isinstance(batch[0], bytes)
    return [{**r, "mark": json.loads(r["marks"])} for r in map(json.loads, batch[0].splitlines())]


@pytest.mark.parametrize(("coding", "body"), HOSTILE, ids=["controls", "frames", "contexts"])
def test_a_connection_beyond_its_budget_hurts_nobody_else(coding: str, body: bytes) -> None:
    pipe = pipeline()
    hostile, honest = Talk(pipe, conn=ident(1, 1)), Talk(pipe, conn=ident(1, 2))
    packed = gzipped(b"text")
    refused = 0
    for n in range(600):
        for when in range(START + n * 1_000_000, START + (n + 1) * 1_000_000, 250_000):
            hostile.exchange(when, coding, body)
        honest.exchange(START + n * 1_000_000, "gzip", packed)
        honest.exchange(START + n * 1_000_000, "", b"clear")
        records = taken(pipe)
        own = [r for r in records if r["socket_id"] == "2"]
        assert [(r["mark"], r["responsePayload"]) for r in own] == [([], "text"), ([], "clear")]
        others = [r for r in records if r["socket_id"] == "1" and REFUSED_MARK in r["mark"]]
        assert len(records) == 6 and all(shown(r, "response") == body for r in others)
        refused += len(others)
    assert 1700 < refused < 2400  # a quarter of a core, and no more
    assert pipe.statistics()["refused_bodies"] == pipe.statistics()["undecoded_bodies"] == refused


@pytest.mark.parametrize(("coding", "body"), HOSTILE, ids=["controls", "frames", "contexts"])
def test_many_connections_share_the_budget_of_the_shard(coding: str, body: bytes) -> None:
    pipe = pipeline()
    talks = [Talk(pipe, conn=ident(1, fd)) for fd in range(100)]
    work = Decoder().decode(body, bytes(NUMBERS[c] for c in coding.split(", ")), 0, False, 65536, NO_BOUND)[5]
    decoded = 0
    for n in range(2000):
        talks[n % 100].exchange(START + n * 500_000, coding, body)
        (record,) = taken(pipe)
        decoded += REFUSED_MARK not in record["mark"]
    # half of a second, a quarter at the beginning, and the last body
    assert 0 < decoded * work <= 750_000_000 + 2 * work


def test_a_budget_comes_back_with_time() -> None:
    pipe = pipeline()
    talk = Talk(pipe)
    for n in range(200):
        talk.exchange(START + n * 1000, "gzip", CONTROLS)
    assert REFUSED_MARK in take(pipe)[-1]["mark"]
    talk.exchange(START + 1_000_000_000, "gzip", CONTROLS)
    (record,) = take(pipe)
    assert REFUSED_MARK not in record["mark"]


def test_requests_left_unanswered_bring_no_budget() -> None:
    """They are recorded long after they ended: were that taken for the time of the budget, each would fill it again."""
    pipe = pipeline()
    talk = Talk(pipe)
    late = [Conversation(pipe, conn=ident(2, fd)) for fd in range(40)]
    for c in late:
        c.request(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Encoding: gzip\r\nContent-Length: 97\r\n\r\n" + CONTROLS)
    end = START + 50_000_000_000
    for n in range(200):
        talk.exchange(end + n, "gzip", CONTROLS)
    assert REFUSED_MARK in taken(pipe)[-1]["mark"]
    for n, c in enumerate(late):
        c.close()
        talk.exchange(end + 200 + n, "gzip", CONTROLS)
    assert all(REFUSED_MARK in r["mark"] for r in taken(pipe) if r["process_id"] == "100")


@pytest.mark.parametrize("seed", range(10))
def test_a_replay_gives_the_same_records(seed: int) -> None:
    """Whatever else happens between the events: other spans, a live shard's ticks."""
    choose = random.Random(seed)
    bodies = [*HOSTILE, ("", b"clear"), ("gzip", gzipped(b"text")), ("br", brotli.compress(b"text"))]
    events, positions, now = [], [[0, 0] for _ in range(3)], START
    ask = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
    for _ in range(300):
        fd = choose.randrange(3)
        now += choose.randrange(200_000)
        coding, body = choose.choice(bodies)
        fields = f"Content-Encoding: {coding}\r\n" if coding else ""
        answer = f"HTTP/1.1 200 OK\r\n{fields}Content-Length: {len(body)}\r\n\r\n".encode() + body
        for direction, data in ((0, ask), (1, answer)):
            events.append(abi.pack_data(ident(1, fd), direction, positions[fd][direction], data, ts_ns=now))
            positions[fd][direction] += len(data)
    opened = b"".join(
        abi.pack_open(
            ident(1, fd), ts_ns=START, role=abi.SERVER, start=abi.SEEN, local=("10.0.0.1", 80), remote=("10.0.0.2", 4)
        )
        for fd in range(3)
    )
    live, replayed = pipeline(), pipeline()
    seen: list[Any] = []
    again: list[Any] = []
    live.feed(opened, 0)
    for event in events:
        live.feed(event, 0)
        live.tick(START + choose.randrange(now - START + 1))
        seen.append((live.take() or (b"",))[0])
    span, at = opened + b"".join(events), 0
    while at < len(span):
        at = replayed.feed(span, 0, at)
        again.append((replayed.take() or (b"",))[0])
    assert b"".join(seen) == b"".join(again) and 0 < live.statistics()["refused_bodies"] < 300


# ---- escaped text ------------------------------------------------------------------------------------------------

RUNS = st.tuples(
    st.sampled_from(["\x01", "\x7f", "\u0080", "\u009f", '"', "\\", "\n", "a", "\u00e9", "\U0001f600"]), st.integers(1, 120)
).map(lambda run: run[0] * run[1])
SPREADING = st.lists(st.one_of(st.text(max_size=10), RUNS), max_size=8).map(
    lambda parts: "".join(parts).encode("utf-8", "replace")
)


@settings(max_examples=300, deadline=None)
@given(SPREADING, st.integers(1, 400), st.sampled_from(["", "gzip"]), SIDES)
@example(b"\x01" * 400, 400, "", "request")
def test_escaped_text_counts_against_the_limit(data: bytes, cap: int, coding: str, side: str) -> None:
    assume(data and data[:1] not in (b"{", b"["))
    body = gzipped(data) if coding else data
    assume(len(body) <= cap)
    record = record_of(side, body, *[f"Content-Encoding: {coding}"] if coding else [], body_bytes=cap)
    payload = shown(record, side)
    assert payload == within(data[:cap], cap) and f"{side}PayloadEncoding" not in record
    assert len(escaped(payload.decode()).encode()) <= 2 * cap
    if payload != data:
        assert record["mark"] == ([f"{side}_body_cut"] if coding else [f"{side}_body_cut:{len(data) - len(payload)}"])
    else:
        assert record["mark"] == []


@pytest.mark.parametrize(
    "text",
    [
        b'{"a":"' + b"\x01" * 300 + b'"}',
        json.dumps({"a": "\x01" * 300}).encode(),
        json.dumps(["\u009b" * 100], ensure_ascii=False).encode(),
    ],
)
def test_a_json_request_that_is_cut_for_its_escapes_is_json_again(text: bytes) -> None:
    for cap in (len(text), len(text) + 100):
        record = record_of("request", text, "Content-Type: application/json", body_bytes=cap)
        payload = json.loads(record["requestPayload"], strict=False)
        assert type(payload) is type(json.loads(text, strict=False))
        assert len(escaped(record["requestPayload"]).encode()) <= 2 * cap + 3


def test_64_kib_of_control_characters_are_no_384_kib_of_record() -> None:
    c = Conversation()
    c.request(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
    c.response(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(CONTROLS) + CONTROLS)
    batch = c.pipe.take()
    assert batch is not None and isinstance(batch[0], bytes) and len(batch[0]) < 2 * 65536 + 1000
    assert json.loads(batch[0])["responsePayload"] == "\x01" * (2 * 65536 // 6)


@st.composite
def _gzip_bodies(draw: st.DrawFn) -> bytes:
    """Members, whole and damaged, cut, with something behind them."""
    texts = draw(
        st.lists(st.one_of(st.binary(max_size=300), st.sampled_from([b"a" * 70000, "ü€".encode() * 900])), max_size=3)
    )
    body = b"".join(gzip.compress(text, draw(st.integers(0, 9))) for text in texts) + draw(
        st.sampled_from([b"", b"\x1f", b"\x1f\x8b", b"xyz"])
    )
    if draw(st.booleans()):
        body = body[: draw(st.integers(0, len(body)))]
    if body and draw(st.booleans()):
        at = draw(st.integers(0, len(body) - 1))
        body = body[:at] + bytes([draw(st.integers(0, 255))]) + body[at + 1 :]
    return body


@settings(max_examples=400, deadline=None)
@given(_gzip_bodies(), st.sampled_from([1000, 65536]), st.booleans())
def test_the_short_way_of_gzip_is_the_long_one(body: bytes, limit: int, whole: bool) -> None:
    c = Conversation(body_bytes=limit)
    c.request(GET)
    length = len(body) + (0 if whole else 10)
    c.response(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % length + body)
    (record,) = c.close().records()
    kept = body[:limit]
    cut = not whole or len(body) > limit
    out, state, shorter, behind, _outer, _work = Decoder().decode(kept, b"\1\0\0\0", 0, cut, limit, 300 * 65536)
    words = {"response_body_undecoded"} if kept and state != DECODED else set()
    assert {word for word in record["words"] if word.endswith("undecoded")} == words
    assert ("response_body_trailing" in record["words"]) == bool(kept and behind)
    if kept and state == DECODED:
        coded = "responsePayloadEncoding" in record
        text = base64.b64decode(record["responsePayload"]) if coded else record["responsePayload"].encode()
        assert out.startswith(text) and len(out) - len(text) < (4 if cut or shorter else 1)
