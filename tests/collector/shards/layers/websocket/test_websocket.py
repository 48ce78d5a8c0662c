"""WebSocket (RFC 6455, RFC 7692) over HTTP/1 and HTTP/2: the handshake, and messages as events."""

from __future__ import annotations

import json
import struct
import zlib
from typing import Any

import pytest

from collector import abi
from tests.events import Conversation
from tests.http2 import REQUEST, RESPONSE, Talk, play
from tests.websocket import CLIENT, SERVER, Chat, events_of, payload
from tests.websocket import play as play_chat

ASK = (
    b"GET /chat?room=1 HTTP/1.1\r\nHost: a.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
MASK = b"\x37\xfa\x21\x3d"


def accept(extensions: bytes = b"") -> bytes:
    head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    return head + (b"Sec-WebSocket-Extensions: %s\r\n" % extensions if extensions else b"") + b"\r\n"


def frame(data: bytes, opcode: int = 1, *, fin: bool = True, masked: bool = False, rsv: int = 0) -> bytes:
    first = bytes([fin << 7 | rsv << 4 | opcode])
    bit = masked << 7
    if len(data) < 126:
        head = bytes([bit | len(data)])
    elif len(data) < 65536:
        head = bytes([bit | 126]) + struct.pack(">H", len(data))
    else:
        head = bytes([bit | 127]) + struct.pack(">Q", len(data))
    if masked:
        data = bytes(byte ^ MASK[i & 3] for i, byte in enumerate(data))
        head += MASK
    return first + head + data


def asked(data: bytes, opcode: int = 1, **how: Any) -> bytes:
    return frame(data, opcode, masked=True, **how)


def opened(extensions: bytes = b"", **settings: Any) -> Conversation:
    c = Conversation(**settings)
    c.request(ASK).response(accept(extensions))
    return c


def said(c: Conversation) -> list[dict[str, Any]]:
    return events_of(c.close().records())


def test_the_handshake_and_then_messages() -> None:
    c = opened()
    (record,) = c.records()
    assert (record["statusCode"], record["protocol"], record["connection_type"]) == ("101", "http1", "WEBSOCKET")
    assert (record["path"], record["mark"]) == ("/chat?room=1", []) and "events" not in record and "part" not in record
    c.request(asked(b'{"type":"hello"}')).response(frame(b"ok")).response(frame(b"\0\xff", 2))
    assert c.records() == []
    (record,) = c.wait(1.5).records()
    assert (record["protocol"], record["connection_type"], record["path"]) == ("websocket", "WEBSOCKET", "/chat?room=1")
    assert (record["part"], record["lastPart"], record["mark"]) == ("1", "false", [])
    assert (record["requestPayload"], record["responsePayload"], record["statusCode"]) == ("", "", "101")
    assert (record["requestSize"], record["responseSize"]) == ("16", "4")
    events = json.loads(record["events"])
    assert [(e["opcode"], e["from"], e["fin"], e["length"]) for e in events] == [
        (1, "client", True, 16),
        (1, "server", True, 2),
        (2, "server", True, 2),
    ]
    assert [payload(event) for event in events] == [b'{"type":"hello"}', b"ok", b"\0\xff"]
    assert events[2]["payloadEncoding"] == "base64" and "payloadEncoding" not in events[0]
    assert [event["timeMs"] for event in events] == sorted(event["timeMs"] for event in events)
    c.request(asked(b"more"))
    (last,) = c.close().records()
    assert (last["part"], last["lastPart"], last["recordId"]) == ("2", "true", record["recordId"][:-1] + "2")


def test_the_last_record_comes_even_if_no_message_is_left() -> None:
    c = opened()
    c.request(asked(b"hi")).wait(2)
    last = c.close().records()[-1]
    assert (last["events"], last["part"], last["lastPart"]) == ("[]", "2", "true")
    c = opened()
    assert ["events" in record for record in c.close().records()] == [False]  # none was sent at all
    assert c.counters()["connections"] == 0


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_in_pieces(size: int) -> None:
    wire = asked(b"a" * 200) + asked(b"", 2) + asked(b"b" * 70000)
    c = opened(body_bytes=100_000)
    for at in range(0, len(wire) if size > 3 else 400, size):
        c.request(wire[at : at + size], step_ms=0)
    assert payload(said(c)[0]) == b"a" * 200


def test_fragments_are_one_message_and_control_frames_stand_between_them() -> None:
    c = opened()
    c.request(asked(b"Hel", fin=False) + asked(b"ping", 9) + asked(b"lo ", 0, fin=False) + asked(b"you", 0))
    c.response(frame(b"ping", 10) + frame(b"\x03\xe8bye", 8)).response(b"anything")
    (event,) = said(c)
    assert (payload(event), event["opcode"], event["length"]) == (b"Hello you", 1, 9)
    assert c.counters()["skipped_bytes"] == len(b"anything")


def test_control_frames_on_request() -> None:
    c = opened(websocket_control=True)
    c.request(asked(b"x", 9)).response(frame(b"", 10)).response(frame(b"\x03\xe8bye", 8))
    assert [(e["opcode"], payload(e)) for e in said(c)] == [(9, b"x"), (10, b""), (8, b"\x03\xe8bye")]


def test_a_message_beyond_the_limit_is_shown_by_its_beginning() -> None:
    c = opened(body_bytes=1000)
    c.request(asked("ö".encode() * 700 + b"!")).request(asked(b"next"))
    records = c.close().records()
    first, second = events_of(records)
    assert (first["truncated"], first["length"], payload(first)) == (True, 1401, "ö".encode() * 500)
    assert payload(second) == b"next" and "truncated" not in second
    assert records[1]["words"] == {"request_body_cut"}


def test_a_record_is_never_too_long() -> None:
    c = opened(body_bytes=200_000, record_bytes=50_000)
    for opcode, data in ((1, b'"\x01' * 60_000), (2, bytes(100_000)), (1, b"\xff" * 90_000)):
        c.request(asked(data, opcode)).response(frame(data, opcode))
    records = c.close().records()
    assert len(events_of(records)) == 6 and c.counters()["records_dropped_size"] == 0
    assert all(event["truncated"] for event in events_of(records))


def deflated(*messages: bytes, takeover: bool = True) -> list[bytes]:
    out, packer = [], zlib.compressobj(wbits=-15)
    for message in messages:
        if not takeover:
            packer = zlib.compressobj(wbits=-15)
        out.append((packer.compress(message) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4])
    return out


TEXTS = [b"the same text, over and over, " * n for n in (4, 5, 6)]


@pytest.mark.parametrize(
    ("extension", "takeover"),
    [
        (b"permessage-deflate", True),
        (b"permessage-deflate; server_max_window_bits=15", True),
        (b"permessage-deflate; server_no_context_takeover ;client_no_context_takeover", False),
    ],
)
def test_compression(extension: bytes, takeover: bool) -> None:
    c = opened(extension)
    for data in deflated(*TEXTS, takeover=takeover):
        c.request(asked(data, rsv=4))
        half = len(data) // 2
        c.response(frame(data[:half], rsv=4, fin=False) + frame(data[half:], 0))
    events = said(c)
    assert [payload(event) for event in events] == [text for text in TEXTS for _ in range(2)]
    assert events[0]["length"] == len(deflated(TEXTS[0])[0])


def test_behind_a_lost_message_nothing_is_guessed() -> None:
    one, two, three = deflated(*TEXTS)
    c = opened(b"permessage-deflate")
    c.request(asked(one, rsv=4)).request(asked(two, rsv=4), lose=True).request(asked(three, rsv=4))
    c.request(asked(b"in clear")).response(frame(b"all is well"))
    records = c.close().records()
    events = events_of(records)
    assert payload(events[0]) == TEXTS[0]
    assert events[1]["undecoded"] is True and payload(events[1]) == b"" and events[1]["length"] == len(three)
    assert [payload(event) for event in events[2:]] == [b"in clear", b"all is well"]
    assert records[1]["words"] == {"request_bytes_lost", "request_body_undecoded"}
    assert c.counters()["undecoded_bodies"] == 1


def test_without_context_the_next_message_is_read_again() -> None:
    one, two, three = deflated(*TEXTS, takeover=False)
    c = opened(b"permessage-deflate; client_no_context_takeover")
    c.request(asked(one, rsv=4)).request(asked(two, rsv=4), lose=True).request(asked(three, rsv=4))
    assert [payload(event) for event in said(c)] == [TEXTS[0], TEXTS[2]]


def test_what_does_not_decompress_is_said_so() -> None:
    c = opened(b"permessage-deflate")
    c.request(asked(b"\xff\xff\xff", rsv=4)).request(asked(b"in clear"))
    records = c.close().records()
    assert [event.get("undecoded") for event in events_of(records)] == [True, None]
    assert "ambiguous_framing:websocket_deflate" in records[1]["mark"]


def test_a_bomb_costs_no_more_than_a_body_may() -> None:
    c = opened(b"permessage-deflate")
    (bomb,) = deflated(bytes(1 << 28))
    at = 0
    wire = asked(bomb, rsv=4)
    while at < len(wire):
        c.request(wire[at : at + 100_000])
        at += 100_000
    c.request(asked(b"in clear"))
    records = c.close().records()
    first, second = events_of(records)
    assert first["truncated"] and payload(first).strip(b"\0") == b"" and payload(second) == b"in clear"
    assert c.counters()["buffer_peak_bytes"] < 1 << 22


@pytest.mark.parametrize("hole", range(1, 190, 7))
def test_a_hole_anywhere(hole: int) -> None:
    """Within a message its place is known; beyond, frames are searched for where a call begins."""
    messages = [b"%d " % n * 30 for n in range(3)]
    wire = b"".join(asked(message) for message in messages)
    c = opened()
    c.request(wire[:hole]).request(wire[hole : hole + 40], lose=True).request(wire[hole + 40 :])
    c.request(asked(b"again"))
    records = c.close().records()
    for event in events_of(records):
        data = payload(event)
        if event["fin"] and not event.get("truncated"):
            assert data in [*messages, b"again"]
        else:
            assert any(message.startswith(data) for message in messages)
    assert payload(events_of(records)[-1]) == b"again"
    assert any("request_bytes_lost" in record["words"] for record in records)


def test_what_the_kernel_did_not_copy() -> None:
    data = b"0123456789" * 1000
    wire = asked(data)
    c = opened(body_bytes=5000)
    c.request(wire[:6000], true_length=len(wire)).request(asked(b"next"))
    first, second = said(c)
    assert (first["truncated"], first["length"], payload(first)) == (True, len(data), data[:5000])
    assert payload(second) == b"next"


@pytest.mark.parametrize(
    "wire",
    [
        asked(b"x", 3),
        asked(b"x", 11),
        asked(b"x", rsv=4),
        asked(b"x", rsv=2),
        asked(b"x", 0),
        asked(b"x" * 200, 9),
        asked(b"x", 9, fin=False),
        asked(b"a", fin=False) + asked(b"b"),
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    ],
)
def test_what_breaks_the_protocol_is_marked_and_found_again(wire: bytes) -> None:
    c = opened()
    c.request(wire).request(asked(b"again"))
    records = c.close().records()
    assert payload(events_of(records)[-1]) == b"again"
    assert any("ambiguous_framing:websocket_frame" in record["mark"] for record in records)


def test_a_mask_on_the_wrong_side() -> None:
    c = opened()
    c.request(frame(b"bare")).response(asked(b"masked"))
    records = c.close().records()
    assert [payload(event) for event in events_of(records)] == [b"bare", b"masked"]
    assert records[1]["mark"] == ["ambiguous_framing:websocket_mask"]


def test_an_extension_that_nobody_knows() -> None:
    c = opened(b"x-webkit-secret")
    c.request(asked(b"x", rsv=4)).request(asked(b"plain"))
    first, second = said(c)
    assert first["undecoded"] is True and payload(second) == b"plain"


def test_the_end_of_a_message_that_does_not_come() -> None:
    c = opened()
    c.request(asked(b"whole") + asked(b"half of it")[:-5])
    records = c.close().records()
    first, second = events_of(records)
    assert payload(first) == b"whole"
    assert (second["fin"], second["truncated"], payload(second)) == (False, True, b"half ")
    assert records[1]["words"] == {"request_body_cut"}


def test_records_are_made_by_time_and_number() -> None:
    c = opened()
    for _ in range(600):
        c.request(asked(b"x"), step_ms=0.1)
    assert [len(json.loads(record["events"])) for record in c.records()[1:]] == [256, 256]
    c.request(asked(b"late"), step_ms=2000)
    (record,) = c.records()
    assert len(json.loads(record["events"])) == 88
    assert record["durationMs"] == "1000.000"


def test_it_may_be_silent_for_long_and_hold_little() -> None:
    c = opened()
    c.request(asked(b"hello" * 1000)).wait(2)
    held = c.counters()["buffer_bytes"]
    assert held < 12_000
    c.wait(10_000).response(frame(b"still here"))
    assert [payload(event) for event in said(c)] == [b"hello" * 1000, b"still here"]


def test_a_filter_leaves_the_messages_out_too() -> None:
    rules = '[{"key":{"eq":"host","ifAbsent":"reject"},"value":{"regex":"other"}}]'
    c = Conversation(rules=rules)
    c.request(ASK).response(accept()).request(asked(b"secret"))
    assert c.close().records() == []


def test_held_until_its_peer_is_known() -> None:
    c = Conversation(source=1, opened=False, conn=(7 << 4, 100, -1))
    c.request(ASK).response(accept()).request(asked(b"hi"))
    assert c.records() == []
    records = c.wait(3).records()
    assert [record.get("part") for record in records] == [None, "1"]
    c.request(asked(b"more"))
    assert [payload(event) for event in events_of(records + c.close().records())] == [b"hi", b"more"]


def test_a_refused_upgrade_is_no_websocket() -> None:
    c = Conversation()
    c.request(ASK).response(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
    (record,) = c.records()
    assert "connection_type" not in record and record["protocol"] == "http1"


def test_another_upgrade_is_a_tunnel() -> None:
    c = Conversation()
    c.request(ASK.replace(b"websocket", b"other")).response(accept().replace(b"websocket", b"other"))
    c.request(asked(b"x")).response(frame(b"y"))
    (record,) = c.close().records()
    assert record["statusCode"] == "101" and "connection_type" not in record


def test_between_other_implementations() -> None:
    chat = Chat(seed=3)
    chat.say(CLIENT, "hello")
    chat.say(SERVER, b"\0" * 5000, fragments=3)
    chat.say(CLIENT, "hello again " * 500)
    chat.close()
    events = events_of(play_chat(chat).close().records())
    assert len(events) == 3 and all(sent.shown_in(event) for sent, event in zip(chat.sent, events, strict=True))


@pytest.mark.parametrize("extension", [b"", b"permessage-deflate"])
def test_what_has_come_of_the_client_before_the_answer_is_missing_and_marked(extension: bytes) -> None:
    """Events of the two directions may come in either order."""
    c = Conversation().request(ASK)
    early = asked(b"early") + asked(b"early too")
    c.request(early[:-4]).response(accept(extension)).request(early[-4:])
    c.request(asked(b"late")).response(frame(b"answer"))
    handshake, record = c.close().records()
    assert (handshake["statusCode"], handshake["mark"]) == ("101", [])
    assert [payload(event) for event in events_of([record])] == [b"late", b"answer"]
    assert record["words"] == {"request_bytes_lost"}


# ---- over HTTP/2 (RFC 8441)


def connect(talk: Talk, path: str = "/chat") -> int:
    fields = [
        (b":method", b"CONNECT"),
        (b":protocol", b"websocket"),
        (b":scheme", b"https"),
        (b":path", path.encode()),
        (b":authority", b"a.example"),
        (b"sec-websocket-version", b"13"),
    ]
    return talk.ask(fields)


def test_over_http2() -> None:
    talk = Talk()
    stream = connect(talk)
    other = talk.ask([(b":method", b"GET"), (b":scheme", b"https"), (b":path", b"/x"), (b":authority", b"b")], end=True)
    talk.flush()
    talk.answer(stream, [(b":status", b"200"), (b"sec-websocket-extensions", b"permessage-deflate")])
    talk.answer(other, [(b":status", b"204")], end=True)
    talk.flush()
    (packed,) = deflated(TEXTS[0])
    for piece in (asked(b"hello")[:3], asked(b"hello")[3:] + asked(packed, rsv=4)):
        talk.body(stream, REQUEST, piece)
        talk.flush()
    talk.body(stream, RESPONSE, frame(b"answer"))
    talk.flush()
    c = play(talk)
    handshake, get = sorted(c.records(), key=lambda record: record["path"])
    assert (handshake["method"], handshake["path"], handshake["statusCode"]) == ("CONNECT", "/chat", "200")
    assert (handshake["connection_type"], handshake["protocol"], handshake["mark"]) == ("WEBSOCKET", "http2", [])
    assert get["path"] == "/x" and "connection_type" not in get
    (record,) = c.wait(300).records()
    assert (record["protocol"], record["type"], record["part"]) == ("websocket", "HTTP/2.0", "1")
    assert [payload(event) for event in json.loads(record["events"])] == [b"hello", TEXTS[0], b"answer"]
    talk.events.clear()
    talk.body(stream, RESPONSE, frame(b"late"), end=True)
    talk.body(stream, REQUEST, asked(b"\x03\xe8", 8), end=True)
    talk.flush()
    (record,) = play(talk, c).records()
    assert [payload(event) for event in json.loads(record["events"])] == [b"late"] and record["lastPart"] == "true"
    c.close()
    assert c.counters()["connections"] == 0 and c.counters()["queued_exchanges"] == 0


@pytest.mark.parametrize("cut", [None, 4])
def test_over_http2_frames_of_the_client_before_the_answer(cut: int | None) -> None:
    """Events of the two directions may come in either order."""
    talk = Talk()
    stream = connect(talk)
    talk.flush()
    before = len(talk.events)
    talk.answer(stream, [(b":status", b"200")])
    talk.flush()
    answered = talk.events[before:]
    del talk.events[before:]
    talk.body(stream, REQUEST, asked(b"at once") + asked(b"in two"))
    talk.flush()
    (_, data) = talk.events.pop()
    c = play(talk)
    c.request(data if cut is None else data[:-cut])
    for _, answer in answered:
        c.response(answer)
    c.request(b"" if cut is None else data[-cut:])
    handshake, record = c.wait(3).records()
    assert (handshake["requestSize"], handshake["requestPayload"], handshake["mark"]) == ("0", "", [])
    assert [payload(event) for event in events_of([record])] == [b"at once", b"in two"]
    assert (record["mark"], record["requestSize"]) == ([], "13")
    c.close()
    assert c.counters()["queued_exchanges"] == 0


def test_over_http2_the_answer_before_the_request() -> None:
    talk = Talk()
    talk.flush()
    before = len(talk.events)
    stream = connect(talk)
    talk.flush()
    asking = talk.events[before:]
    del talk.events[before:]
    talk.answer(stream, [(b":status", b"200"), (b"sec-websocket-extensions", b"permessage-deflate")])
    talk.flush()
    (packed,) = deflated(TEXTS[0])
    talk.body(stream, RESPONSE, frame(packed, rsv=4) + frame(b"whole")[:-2])
    talk.flush()
    c = play(talk)
    for _, data in asking:
        c.request(data)
    talk.events.clear()
    talk.body(stream, RESPONSE, frame(b"whole")[-2:])
    talk.body(stream, REQUEST, asked(b"asked"))
    talk.flush()
    handshake, record = play(talk, c).wait(3).records()
    assert (handshake["path"], handshake["responseSize"], handshake["responsePayload"]) == ("/chat", "0", "")
    assert sorted(payload(event) for event in events_of([record])) == sorted([TEXTS[0], b"whole", b"asked"])
    assert handshake["mark"] == record["mark"] == []


def test_over_http2_what_is_beside_a_stream_does_not_move_its_time() -> None:
    talk = Talk()
    stream = connect(talk)
    talk.answer(stream, [(b":status", b"200")])
    talk.body(stream, REQUEST, asked(b"whole") + asked(b"not whole")[:-2])
    talk.flush()
    c = play(talk)
    talk.events.clear()
    c.wait(3)
    c.now += 7_000_000_000
    talk.ask([(b":method", b"GET"), (b":scheme", b"https"), (b":path", b"/x"), (b":authority", b"b")], end=True)
    talk.flush()
    records = play(talk, c).close().records()
    whole, half = events_of(records)
    assert (half["fin"], half["timeMs"]) == (False, whole["timeMs"])


def test_over_http2_held_and_its_peer_never_known() -> None:
    talk = Talk()
    stream = connect(talk)
    talk.answer(stream, [(b":status", b"200")])
    talk.flush()
    c = play(talk, Conversation(source=1, opened=False, conn=(7 << 4, 100, -1)))
    for number in range(3):
        talk.events.clear()
        talk.body(stream, REQUEST, asked(b"%d" % number))
        talk.flush()
        records = play(talk, c).wait(3).records()
        assert [payload(event) for event in events_of(records)] == [b"%d" % number]
        assert "evicted" not in records[-1]["words"]


def test_a_refused_connect_over_http2() -> None:
    talk = Talk()
    stream = connect(talk)
    talk.answer(stream, [(b":status", b"403")], end=True)
    talk.flush()
    (record,) = play(talk).close().records()
    assert "connection_type" not in record and record["statusCode"] == "403"


def test_a_hole_in_http2_is_one_in_its_websocket() -> None:
    talk = Talk()
    stream = connect(talk)
    talk.answer(stream, [(b":status", b"200")])
    talk.flush()
    for data in (b"one", b"two", b"three"):
        talk.body(stream, REQUEST, asked(data))
        talk.flush()
    c = Conversation()
    calls = 0
    for side, data in talk.events:
        calls += bytes(byte ^ MASK[i & 3] for i, byte in enumerate(data[-3:])) == b"two" and side == REQUEST
        lose = calls == 1 and side == REQUEST and len(data) == 9 + 9
        (c.request if side == REQUEST else c.response)(data, lose=lose)
        calls += lose
    records = c.close().records()
    assert [payload(event) for event in events_of(records)] == [b"one", b"three"]
    assert any("request_bytes_lost" in record["words"] for record in records)


def test_by_a_client_that_is_traced() -> None:
    c = Conversation(role=abi.CLIENT)
    c.request(ASK).response(accept()).request(asked(b"out")).response(frame(b"in"))
    records = c.close().records()
    assert [(event["from"], payload(event)) for event in events_of(records)] == [("client", b"out"), ("server", b"in")]
    assert records[1]["direction"] == "2"
