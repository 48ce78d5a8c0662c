"""Public test data of HTTP/2: single frames, what a conformance tester sent, and header blocks as whole connections. What is
expected stands beside each test: another implementation (h2, hyperframe, hpack) says what the bytes mean.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, RequestReceived, StreamEnded
from h2.exceptions import ProtocolError
from hpack import Decoder, HPACKError
from hyperframe.exceptions import HyperframeError
from hyperframe.frame import ContinuationFrame, Frame, HeadersFrame

from collector import abi
from tests.events import Conversation
from tests.http2 import BODY_MARKS, REQUEST, Fields, Message, stream_of

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = b"\0\0\0\4\0\0\0\0\0"
DATA, HEADERS, CONTINUATION = 0, 1, 9
END_STREAM, END_HEADERS = 1, 4
TIMES = {"time", "startTimeMs", "firstByteMs", "durationMs"}


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


def literal(name: bytes, value: bytes) -> bytes:
    """A field that no table has anything to do with (RFC 7541 section 6.2.2)."""
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


def asked(stream: int, path: bytes, flags: int = END_STREAM | END_HEADERS) -> bytes:
    """A request's head; without END_HEADERS its fields are all of its block but `:path`."""
    block = b"\x82\x86" + literal(b":authority", b"a.example")
    return frame(HEADERS, flags, stream, block + (literal(b":path", path) if flags & END_HEADERS else b""))


def answered(stream: int, body: bytes) -> bytes:
    return frame(HEADERS, END_HEADERS, stream, b"\x88") + frame(DATA, END_STREAM, stream, body)


# ---- single frames

FRAMES = 34
# Frames that are well formed and say something about a stream: its number, and whether the server sends them.
HEADS = {"headers/normal", "headers/priority", "push_promise/normal", "continuation/header"}
# Frames that an end has to refuse, of a stream that then has the mark.
OF_A_STREAM = {
    "data-frame-padding": 1,
    "headers-frame-padding": 1,
    "rst_stream-frame-size": 2,
}
LENGTH_UNKNOWN = {"data-frame-size"}  # more than a frame may have, and less than it says


def single_frames(corpora: Path) -> Iterator[tuple[str, bytes, dict[str, Any]]]:
    for path in sorted((corpora / "http2-frames").glob("*/*.json")):
        case = json.loads(path.read_bytes())
        name = path.stem if case["error"] else f"{path.parent.name}/{path.stem}"
        yield name, bytes.fromhex(case["wire"]), case


@pytest.mark.parametrize("by_client", [True, False])
def test_behind_any_frame_the_next_request_is_read(corpora: Path, by_client: bool) -> None:
    """Between two exchanges that have nothing to do with it, sent by either end, in one piece or byte by byte."""
    count = 0
    for name, wire, _case in single_frames(corpora):
        for step in (1 << 20, 1):
            c = Conversation().request(PREFACE + SETTINGS).response(SETTINGS)
            c.request(asked(101, b"/before")).response(answered(101, b"first"))
            for at in range(0, len(wire), step):
                (c.request if by_client else c.response)(wire[at : at + step])
            c.request(asked(103, b"/behind")).response(answered(103, b"second")).close()
            records = {r["path"]: r for r in c.records()}
            assert set(records) <= {"/before", "/behind", ""}, (name, records)
            assert records["/before"]["responsePayload"] == "first" and not records["/before"]["mark"], name
            behind = records["/behind"]
            assert behind["statusCode"] == "200", name
            assert behind["responsePayload"] == "second" or "response_bytes_lost" in behind["words"], name
            # a block that is no HPACK leaves the table unknown, which nothing here refers to
            assert not behind["mark"] or name in LENGTH_UNKNOWN, (name, behind["mark"])
        count += 1
    assert count == FRAMES


def test_a_frame_that_an_end_refuses_marks_its_stream(corpora: Path) -> None:
    seen = set()
    for name, wire, case in single_frames(corpora):
        stream = int.from_bytes(wire[5:9]) & 0x7FFFFFFF
        if name not in OF_A_STREAM:
            continue
        seen.add(name)
        assert stream == OF_A_STREAM[name] and case["error"]
        stream += stream % 2 == 0  # a client's; the frame goes with it
        wire = wire[:5] + stream.to_bytes(4) + wire[9:]
        c = Conversation().request(PREFACE + SETTINGS).response(SETTINGS)
        c.request(asked(stream, b"/odd", END_HEADERS)).request(wire).request(frame(DATA, END_STREAM, stream, b""))
        c.response(answered(stream, b"x")).close()
        (record,) = c.records()
        assert record["path"] == "/odd" and "ambiguous_framing:frame" in record["mark"], (name, record["mark"])
    assert seen == set(OF_A_STREAM)


def test_good_frames_say_what_the_corpus_says(corpora: Path) -> None:
    """The frames of the corpus, of streams of a client: data without padding, a stream that was reset, blocks in pieces."""
    cases = {name: (wire, case) for name, wire, case in single_frames(corpora)}
    wire, case = cases["data/normal"]
    data = case["frame"]["frame_payload"]["data"]
    c = Conversation().request(PREFACE + SETTINGS)
    c.request(asked(3, b"/data", END_HEADERS)).request(wire[:5] + (3).to_bytes(4) + wire[9:])
    c.request(frame(DATA, END_STREAM, 3, b"")).response(answered(3, b""))
    (record,) = c.records()
    assert record["requestPayload"] == data and record["requestSize"] == str(len(data)) and not record["mark"]

    c.request(asked(5, b"/reset")).response(cases["rst_stream/normal"][0])
    (record,) = c.records()
    assert record["path"] == "/reset" and record["words"] == {"no_response"}

    # the fragment of the corpus is no HPACK: in its place the rest of a head, in two frames of which one is empty
    c.request(asked(50 + 1, b"", END_STREAM) + frame(CONTINUATION, 0, 51, b"") + frame(
        CONTINUATION, END_HEADERS, 51, literal(b":path", b"/continued")))  # fmt: skip
    c.response(answered(51, b"x"))
    (record,) = c.records()
    assert record["path"] == "/continued" and not record["mark"]


# ---- what a conformance tester sent


@dataclass
class Heard:
    """What another implementation reads in a client's bytes: heads by stream, and the requests that a server takes."""

    heads: dict[int, list[dict[bytes, bytes]]]
    taken: dict[int, tuple[bytes, bool]]  # body, whether it has ended
    refused: str  # why it reads no more


def heads_of(data: bytes) -> dict[int, list[dict[bytes, bytes]]]:
    """All header blocks, whether or not an end would have gone on reading until there."""
    heads: dict[int, list[dict[bytes, bytes]]] = {}
    decoder, block, at = Decoder(), b"", len(PREFACE)
    while len(data) - at >= 9:
        length = int.from_bytes(data[at : at + 3])
        try:
            read, _ = Frame.parse_frame_header(memoryview(data)[at : at + 9])
            read.parse_body(memoryview(data)[at + 9 : at + 9 + length])
        except (HyperframeError, ValueError):
            block = b""
        else:
            if isinstance(read, HeadersFrame):
                block = read.data
            elif isinstance(read, ContinuationFrame):
                block += read.data
            if isinstance(read, HeadersFrame | ContinuationFrame) and "END_HEADERS" in read.flags:
                try:
                    fields = dict(decoder.decode(block, raw=True))
                except HPACKError:
                    fields = {}
                heads.setdefault(read.stream_id, []).append({_bytes(k): _bytes(v) for k, v in fields.items()})
        at += 9 + length
    return heads


def pieces(data: bytes) -> Iterator[bytes]:
    """The preface and each frame."""
    yield data[: len(PREFACE)]
    at = len(PREFACE)
    while at < len(data):
        end = at + 9 + int.from_bytes(data[at : at + 3])
        yield data[at:end]
        at = end


def _bytes(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text


def hear(data: bytes) -> tuple[Heard, bytes]:
    """What h2 as a server takes of it, and what it says."""
    server = H2Connection(H2Configuration(client_side=False, header_encoding=None))
    server.initiate_connection()
    heard = Heard(heads_of(data), {}, "")
    said = server.data_to_send()
    try:
        for piece in pieces(data):
            for event in server.receive_data(piece):
                if isinstance(event, RequestReceived):
                    heard.taken[event.stream_id] = (b"", False)
                elif isinstance(event, DataReceived):
                    heard.taken[event.stream_id] = (heard.taken[event.stream_id][0] + event.data, False)
                elif isinstance(event, StreamEnded):
                    heard.taken[event.stream_id] = (heard.taken[event.stream_id][0], True)
    except ProtocolError as error:
        heard.refused = str(error)
    return heard, said + server.data_to_send()


def without_times(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in record.items() if name not in TIMES} for record in records]


SEEDS = 133


@pytest.fixture(scope="module")
def seeds(corpora: Path) -> list[bytes]:
    found = [path.read_bytes() for path in sorted((corpora / "nghttp2-h2spec" / "seeds").iterdir())]
    assert len(found) == SEEDS
    return found


def judge_heard(record: dict[str, Any], heard: Heard) -> None:
    """No word of the record is one that was not said on its stream."""
    words, stream = record["words"], stream_of(record)
    heads = heard.heads.get(stream, [])
    assert heads, record
    doubtful = words & {"ambiguous_framing", "headers_unknown", "headers_uncertain", "headers_cut"}
    readable = {} not in heads  # else h2 finds fault with how the table's size is changed, which changes no field
    if "method_unknown" not in words and not doubtful and readable:
        assert any(head.get(b":method", b"").decode() == record["method"] for head in heads), (record, heads)
    if "path_unknown" not in words and not doubtful and readable:
        assert any(head.get(b":path", b"").decode() == record["path"] for head in heads), (record, heads)
    assert record["statusCode"] == "0" and "no_response" in words
    if stream in heard.taken and heard.taken[stream][1] and not doubtful:
        body, shown = heard.taken[stream][0], record["requestPayload"].encode()
        assert body.startswith(shown) if words & BODY_MARKS[REQUEST] else body == shown, (record["mark"], heard)
    if not doubtful and "request_incomplete" not in words:
        assert stream in heard.taken or heard.refused, record


def test_what_a_conformance_tester_sends_gives_no_false_record(seeds: list[bytes]) -> None:
    records = marked = 0
    for data in seeds:
        heard, said = hear(data)
        c = Conversation().request(data).response(said).close()
        found = [r for r in c.records() if r["protocol"] == "http2"]
        for record in found:
            judge_heard(record, heard)
            records += 1
            marked += "ambiguous_framing" in record["words"]
        assert {n for n in heard.taken if n % 2} <= {stream_of(r) for r in found}, "a request that a server takes"
        assert len({stream_of(r) for r in found}) == len(found)
        assert c.pipe.statistics()["connections"] == 0
    assert records > 50 and marked > 10


# What h2 ends a connection for though every end reads the same there, so that the record has no mark.
HARMLESS = (
    "may not depend on itself",  # RFC 7540 section 5.3.1; priorities are no more
    "Max inbound streams",  # the limit is the server's own
    "Table size update not at the start",  # RFC 7541 section 4.2
    "Encoder exceeded max allowable table size",  # the settings that allow more may have gone by unseen
)


def test_a_request_that_a_server_refuses_for_what_it_says_is_marked(seeds: list[bytes]) -> None:
    """What h2 finds wrong with it, if no earlier frame has made it stop."""
    unmarked, judged = [], 0
    for data in seeds:
        heard, said = hear(data)
        if not heard.refused or any(words in heard.refused for words in HARMLESS):
            continue
        for record in Conversation().request(data).response(said).close().records():
            doubt = record["words"] & {"ambiguous_framing", "headers_unknown", "request_incomplete", "request_bytes_lost"}
            judged += stream_of(record) not in heard.taken
            if stream_of(record) not in heard.taken and not doubt:
                unmarked.append((heard.refused, record["method"], record["path"], record["request"]))
    assert not unmarked and judged > 10, (judged, unmarked)


@pytest.mark.parametrize("step", [1, 5, 9, 64])
def test_any_cut_of_what_a_conformance_tester_sends_gives_the_same(seeds: list[bytes], step: int) -> None:
    rng = random.Random(step)
    for number, data in enumerate(seeds):
        whole = Conversation().request(data).close()
        expected = without_times(whole.records())
        if whole.counters()["skipped_bytes"]:
            continue  # framing that is lost is found again where an event begins: that depends on the cut
        c = Conversation()
        at = 0
        while at < len(data):
            size = rng.choice([step, 1, 2 * step])
            c.request(data[at : at + size])
            at += size
        assert without_times(c.close().records()) == expected, number


def test_what_a_conformance_tester_sends_with_a_hole_anywhere(seeds: list[bytes]) -> None:
    """And joined in the middle: still no record of what was not said."""
    rng = random.Random(1)
    for data in seeds:
        heard, said = hear(data)
        for _ in range(20):
            a, b = sorted(rng.sample(range(len(data) + 1), 2))
            c = Conversation()
            if a:
                c.request(data[:a])
            c.request(data[a:b], lose=True).response(said)
            if data[b:]:
                c.request(data[b:])
            joined = Conversation(start=abi.MID).request(data[b:] or b"\0").response(said)
            for record in (*c.close().records(), *joined.close().records()):
                if record["protocol"] == "http2":
                    judge_heard(record, heard)


# ---- header blocks as whole connections

STORIES = 191
GAPS = 6  # of each story
ODD = {"ambiguous_framing"}  # the stories were recorded before the RFC
FOLLOWED = 15  # exchanges behind a gap


def stories(corpora: Path) -> Iterator[tuple[str, list[tuple[bytes, Fields]]]]:
    """Header blocks with what they say, in the order of one direction of a connection. The size of the table is as its
    encoder says in the blocks; the settings that allow it are not here."""
    for path in sorted((corpora / "hpack").glob("*/*.json")):
        cases = json.loads(path.read_bytes())["cases"]
        yield (
            f"{path.parent.name}/{path.stem}",
            [
                (
                    bytes.fromhex(case["wire"]),
                    [(n.encode("latin-1"), v.encode("latin-1")) for field in case["headers"] for n, v in field.items()],
                )
                for case in cases
            ],
        )


def exchanges(c: Conversation, blocks: list[tuple[int, bytes]], *, requests: bool, lost: int = -1) -> Conversation:
    """One exchange for each block, which is a request's head or an answer's; the other side says little. Heads are sent
    each in an event of its own, and that of block number ``lost`` is not seen."""
    for number, block in blocks:
        stream = 2 * number + 1
        gone = number == lost
        c.request(
            frame(HEADERS, END_STREAM | END_HEADERS, stream, block) if requests else asked(stream, b"/%d" % number),
            lose=gone and requests,
        )
        c.response(
            frame(HEADERS, END_STREAM | END_HEADERS, stream, b"\x88" if requests else block), lose=gone and not requests
        )
    return c


def records_of(c: Conversation) -> list[dict[str, Any]]:
    """Not validated: there are many, all alike."""
    batch = c.close().pipe.take()
    lines = bytes(batch[0]).splitlines() if batch is not None else []
    return [
        {
            **record,
            "request": json.loads(record["requestHeaders"]),
            "response": json.loads(record["responseHeaders"]),
            "mark": json.loads(record["marks"]),
            "words": {mark.partition(":")[0] for mark in json.loads(record["marks"])},
        }
        for record in map(json.loads, lines)
    ]


def judge_story(records: list[dict[str, Any]], said: dict[int, Fields], *, requests: bool) -> int:
    """What a record shows is what its block says, or a mark says that something of it is not known; how many are marked."""
    doubtful = 0
    for record in records:
        number = stream_of(record) // 2
        ours, other = Message(said[number]), Message([(b":status", b"200")] if requests else _asking(number))
        asking, answer = (ours, other) if requests else (other, ours)
        words = record["words"]
        if requests:
            for word, name, shown in (("method", b":method", record["method"]), ("path", b":path", record["path"])):
                assert f"{word}_unknown" in words or shown == asking.pseudo(name), (record["mark"], shown)
        else:
            known = not words & {"status_unknown", "no_response"}
            assert record["statusCode"] == (answer.pseudo(b":status") if known else "0"), record["mark"]
        shown = record["request" if requests else "response"]
        if words & {"headers_unknown", "no_response", "status_unknown"}:
            doubtful += 1
            for name, value in shown.items():
                assert all(part in ours.shown().get(name, "") for part in re.split(", |; |\n", value)), (name, value)
        else:
            right = ours.shown()
            assert {k.lower(): v for k, v in shown.items()} == right, (record["mark"], shown, right)
    return doubtful


def _asking(number: int) -> Fields:
    return [(b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"a.example"), (b":path", b"/%d" % number)]


@pytest.mark.timeout(600)
def test_stories_as_connections(corpora: Path) -> None:
    """Whole, joined at a block, and with one block lost."""
    whole = doubtful = gaps = count = 0
    rng = random.Random(1)
    for name, story in stories(corpora):
        requests = any(field == b":method" for field, _value in story[0][1])
        said = dict(enumerate(fields for _wire, fields in story))
        blocks = list(enumerate(wire for wire, _fields in story))
        c = Conversation().request(PREFACE + SETTINGS).response(SETTINGS)
        records = records_of(exchanges(c, blocks, requests=requests))
        assert len(records) == len(blocks), name
        assert judge_story(records, said, requests=requests) == 0 and not any(r["words"] - ODD for r in records), name
        whole += len(records)
        for _ in range(GAPS):
            at = rng.randrange(len(blocks))
            joined = exchanges(Conversation(start=abi.MID), blocks[at : at + FOLLOWED], requests=requests)
            doubtful += judge_story(records_of(joined), said, requests=requests)
            c = Conversation().request(PREFACE + SETTINGS).response(SETTINGS)
            records = records_of(exchanges(c, blocks[: at + FOLLOWED], requests=requests, lost=at))
            doubtful += judge_story(records, said, requests=requests)
            assert len(records) >= min(len(blocks), at + FOLLOWED) - 1, name
            gaps += len(records)
        count += 1
    assert count == STORIES and whole == 20_187 and 0 < doubtful < gaps // 3
