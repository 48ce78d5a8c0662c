"""Messages as JSON: each as its sender's library has it, or null."""

from __future__ import annotations

import base64
import gzip
import json
from typing import Any

import pytest

from collector.shards.records.descriptors import DescriptorError, Methods, services
from tests.collector.shards.layers.http2.test_grpc import framed
from tests.events import Conversation, ident, pipeline
from tests.http2 import REQUEST, RESPONSE, Talk, play, request, response
from tests.protobuf import OLD, RICH, as_json, descriptor_set, kind, pool, rich

NO_BOUND = 1 << 40
ALL = Methods([descriptor_set(*RICH), descriptor_set(*OLD)])
ONE, OLD_GET = b"/rich.v1.Rich/One", b"/old.Old/Get"


def shown(messages: list[bytes | None], path: bytes = ONE, most: int = 1 << 20, allowance: int = NO_BOUND) -> list[Any]:
    found = ALL.json_of(path, True, messages, most, allowance)
    assert found is not None
    text, failed, _work = found
    values = json.loads(text)
    assert isinstance(values, list) and len(values) == len(messages) and values.count(None) == failed
    return values


def one(message: Any, path: bytes = ONE) -> Any:
    return shown([message.SerializeToString()], path)[0]


def test_a_path_finds_the_types_of_its_method() -> None:
    item = kind("rich.v1.Everything.Item", *RICH)(name_of_item="a", count=2).SerializeToString()
    found = ALL.json_of(b"/rich.v1.Rich/Many", False, [item], 1000, NO_BOUND)
    assert found is not None and found[:2] == (b'[{"nameOfItem":"a","count":2}]', 0)
    assert shown([b""], b"/rich.v1.Rich/Nothing") == [{}]
    assert shown([b""], b"/behind/a/prefix/rich.v1.Rich/One?connect=v1&message=a/b") == [{}]


@pytest.mark.parametrize(
    "path",
    [b"", b"/", b"/rich.v1.Rich", b"/rich.v1.Rich/", b"/rich.v1.Rich/None", b"/Rich/One", b"/rich.v1.Everything/One"]
    + [b"/rich.v1.Rich/One/", b"/rich.v1.Rich/\xff", b"/\0/One", b"rich.v1.Rich.One"],
)
def test_other_paths_find_nothing(path: bytes) -> None:
    assert ALL.json_of(path, True, [b""], 1000, NO_BOUND) is None


def test_conventions_of_the_mapping() -> None:
    message = rich(an_int64=-(1 << 63), a_uint64=(1 << 64) - 1, a_double=float("nan"), a_float=float("-inf"))
    message.some_bytes, message.with_name, message.present = b"\xff\0", "x", 0
    message.colours.extend([1, -7, 99])
    message.at.FromJsonString("2026-01-02T03:04:05.000006Z")
    message.took.FromJsonString("-1.5s")
    message.mask.FromJsonString("aName,b.c")
    message.struct.update({"a": [1, None, {"b": True}]})
    message.maybe.value = 0
    assert one(message) == {
        "anInt64": "-9223372036854775808",
        "aUint64": "18446744073709551615",
        "aDouble": "NaN",
        "aFloat": "-Infinity",
        "someBytes": "/wA=",
        "@other": "x",
        "present": 0,
        "colours": ["COLOUR_RED", "COLOUR_BLUE", 99],
        "at": "2026-01-02T03:04:05.000006Z",
        "took": "-1.500s",
        "mask": "aName,b.c",
        "struct": {"a": [1, None, {"b": True}]},
        "maybe": "0",
    }
    assert one(message) == as_json(message, *RICH)


def test_any() -> None:
    message = rich()
    message.any.Pack(rich(a_string="inner"))
    assert one(message) == {"any": {"@type": "type.googleapis.com/rich.v1.Everything", "aString": "inner"}}
    message.anything.add().Pack(message.any)
    assert one(message) == as_json(message, *RICH)
    for url in ("type.googleapis.com/rich.v1.Unknown", "", "x" * 500, "type.googleapis.com/rich.v1.Rich"):
        message.any.type_url, message.any.value = url, b"\x08\1"
        assert shown([b"", message.SerializeToString(), b""]) == [{}, None, {}]
    message.any.type_url, message.any.value = "a/rich.v1.Everything", b"\xff"
    assert one(message) is None


def test_old_things() -> None:
    before = kind("old.Before", *OLD)
    message = before(name="a", entry=[{"number": 1, "before": {"name": "b"}}, {}])
    extensions = pool(*OLD)
    message.Extensions[extensions.FindExtensionByName("old.more.extra_number")] = 7
    message.Extensions[extensions.FindExtensionByName("old.more.Scope.scopes")].add(depth=3)
    assert one(message, OLD_GET) == as_json(message, *OLD)
    assert one(message, OLD_GET)["[old.more.Scope.scopes]"] == [{"depth": 3}]
    assert one(message, OLD_GET)["[old.more.extra_number]"] == "7"
    # a value that a closed enumeration does not have is an unknown field; the text of a proto2 string may be anything
    assert shown([b"\x0a\1a\x10\x09", b"\x0a\1a\x2a\1\xff", b"\x0a\1b"], OLD_GET) == [{"name": "a"}, None, {"name": "b"}]


@pytest.mark.parametrize(
    "broken",
    [b"\x72\1\xff", b"\x72\5ab", b"\x08", b"\xff" * 11, b"\x07", b"\x0c", b"\x0b\x14", b"\0\0", b"\x8a\1\x02\x0a\5", None],
)
def test_one_that_is_not_its_type_is_null_alone(broken: bytes | None) -> None:
    """Text that is no UTF-8, lengths beyond the end, groups, field number zero, a message that is a prefix."""
    good = rich(a_string="é").SerializeToString()
    assert shown([good, broken, good]) == [{"aString": "é"}, None, {"aString": "é"}]


def nested(depth: int) -> bytes:
    out = b""
    for _ in range(depth):
        inner = b"\x1a" + varint(len(out)) + out  # Item.whole
        out = b"\x8a\x01" + varint(len(inner)) + inner  # Everything.item
    return out


def varint(n: int) -> bytes:
    return bytes([n & 0x7F | 0x80]) + varint(n >> 7) if n > 0x7F else bytes([n])


def anys(depth: int) -> bytes:
    message = rich(a_string="x")
    for _ in range(depth):
        outer = rich()
        outer.any.Pack(message)
        message = outer
    return bytes(message.SerializeToString())


def test_depth_is_bounded() -> None:
    assert shown([nested(40)])[0] and shown([nested(60), nested(2000), b""])[:] == [None, None, {}]
    assert shown([anys(40)])[0] and shown([anys(60), anys(500), b""]) == [None, None, {}]
    lists = b""
    for _ in range(500):
        value = b"\x32" + varint(len(lists)) + lists  # Value.list_value
        lists = b"\x0a" + varint(len(value)) + value
    assert shown([b"\xa2\x02" + varint(len(lists)) + lists, b""]) == [None, {}]


def test_work_is_bounded() -> None:
    """As much as one body of 64 KiB may take."""
    allowance = 300 * 65536
    bombs = {
        "empty messages": b"\xca\1\0" * 20000,
        "packed": b"\xaa\1" + varint(60000) + b"\1" * 60000,
        "map": b"".join(b"\xda\1\5\x0a\1%c\x10\1" % (65 + n % 26) for n in range(9000)),
        "enumeration": b"\xc2\1" + varint(60000) + b"\1" * 60000,
    }
    for name, bomb in bombs.items():
        found = ALL.json_of(ONE, True, [b"", bomb, b""], 1 << 20, allowance)
        assert found is not None and found[:2] == (b"[{},null,{}]", 1), name
        assert found[2] < allowance, name


def test_an_any_in_two_pieces_is_refused() -> None:
    """Each piece weighs little; put together they are a third message."""
    inner = b"\xca\1\0" * 10
    url = b"\x0a\x22type.googleapis.com/rich.v1.Everything"
    url = b"\x0a" + varint(len(url) - 2) + url[2:]
    value = b"\x12" + varint(len(inner)) + inner
    pieces = [b"\xf2\1" + varint(len(piece)) + piece for piece in (url + b"\x12\0", value)]
    assert shown([pieces[0], b"".join(pieces), b"".join(reversed(pieces))])[1:] == [None, None]


def test_size_is_bounded_with_its_escapes() -> None:
    texts = [rich(a_string=text * 100).SerializeToString() for text in ('"', "\n", "\x7f", "a", "é")]
    for most in range(100, 3000, 7):
        found = ALL.json_of(ONE, True, texts, most, NO_BOUND)
        assert found is not None
        text, failed, _ = found
        controls = text.count(b"\x7f") * 5 + text.count(b"\xc2\x80")
        assert len(text) + text.count(b'"') + text.count(b"\\") + controls <= most
        assert failed == json.loads(text).count(None)
    assert failed == 0


def test_a_budget_that_is_used_up_is_null() -> None:
    assert shown([b""] * 10, allowance=0) == [None] * 10
    some = shown([b""] * 10, allowance=50_000)
    assert some[0] == {} and some[-1] is None


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "is no FileDescriptorSet"),
        (b"syntax = 'proto3';", "is no FileDescriptorSet"),
        (gzip.compress(descriptor_set(*RICH), mtime=0), "is no FileDescriptorSet"),
        (descriptor_set(*RICH)[:-3], "is no FileDescriptorSet"),
        (descriptor_set(*RICH, imports=False), "imports 'google/protobuf/any.proto', which is not in it"),
        (descriptor_set("more.proto"), ""),
        (descriptor_set(*RICH).replace(b".rich.v1.Everything", b".rich.v1.Everywhere"), "'rich.proto': "),
        (b"\x0a\x0e\x0a\x05a.tst\x1a\x05a.tst", "'a.tst' imports itself"),
        (b"\x0a\x07\x0a\x05a.tst", "there is no service in it"),
    ],
)
def test_a_set_that_cannot_be_used_says_why(data: bytes, why: str) -> None:
    if not why:
        assert services(data) == 1  # an import brings the service of another file
        return
    with pytest.raises(DescriptorError) as error:
        services(data)
    assert why in str(error.value)


# ---- in records


def pipe_with(**settings: Any) -> Conversation:
    return Conversation(methods=ALL, **settings)


def call(asked: bytes, answered: bytes, media: str = "application/grpc", path: str = ONE.decode(), **settings: Any) -> Any:
    """(the record of one call, the numbers)."""
    talk = Talk()
    head = [("content-type", media), ("grpc-encoding", "gzip")]
    stream = talk.ask(request(path, "POST", *head))
    talk.body(stream, REQUEST, asked, end=True)
    talk.flush()
    talk.answer(stream, response(200, *head))
    talk.body(stream, RESPONSE, answered)
    talk.trailers(stream, RESPONSE, [(b"grpc-status", b"0")])
    talk.flush()
    conversation = play(talk, pipe_with(**settings)).close()
    (record,) = conversation.records()
    return record, {
        name: conversation.pipe.statistics()[name]
        for name in ("messages_transcoded", "messages_not_transcoded", "unknown_methods", "callback_errors")
    }


def numbers(transcoded: int, not_transcoded: int = 0, unknown: int = 0) -> dict[str, int]:
    return {
        "messages_transcoded": transcoded,
        "messages_not_transcoded": not_transcoded,
        "unknown_methods": unknown,
        "callback_errors": 0,
    }


A, B = (rich(a_string=text).SerializeToString() for text in ('a "quoted"\n\x7f', "ü"))
IN_JSON = [{"aString": 'a "quoted"\n\x7f'}, {"aString": "ü"}]


def test_a_record_has_both_forms() -> None:
    record, counted = call(framed(A), framed(A, B))
    assert json.loads(record["requestMessagesJson"]) == IN_JSON[:1]
    assert json.loads(record["responseMessagesJson"]) == IN_JSON
    assert base64.b64decode(record["requestPayload"]) == A and record["responseMessages"] == "2"
    assert record["mark"] == [] and counted == numbers(3)


def test_compressed_messages_too() -> None:
    record, counted = call(framed(gzip.compress(A), flags=1) + framed(B), b"")
    assert json.loads(record["requestMessagesJson"]) == IN_JSON and "responseMessagesJson" not in record
    assert counted == numbers(2)


def test_without_a_method_there_is_no_field() -> None:
    record, counted = call(framed(A), framed(B), path="/rich.v1.Rich/Other")
    assert "requestMessagesJson" not in record and "responseMessagesJson" not in record
    assert record["requestMessages"] == "1" and counted == numbers(0, 0, 2)


@pytest.mark.parametrize("media", ["application/grpc+json", "application/connect+json", "application/grpc+protobufs"])
def test_messages_that_are_not_protobuf_are_left_alone(media: str) -> None:
    record, counted = call(framed(b"{}"), framed(b"{}"), media)
    assert "requestMessagesJson" not in record and counted == numbers(0)


@pytest.mark.parametrize("media", ["application/grpc+proto", "application/grpc-web+proto", "application/connect+proto"])
def test_messages_that_are(media: str) -> None:
    record, counted = call(framed(A), framed(B), f"{media}; x=y")
    assert json.loads(record["requestMessagesJson"]) == IN_JSON[:1] and counted == numbers(2)


def test_a_cut_message_is_null() -> None:
    record, counted = call(framed(b"\x72\x64" + b"x" * 100), framed(b"\xff"), body_bytes=60)
    assert json.loads(record["requestMessagesJson"]) == [None] and record["requestMessages"] == "1"
    assert json.loads(record["responseMessagesJson"]) == [None]
    assert counted == numbers(0, 2)


def unary(asked: bytes, answered: bytes, media: str = "application/proto", fields: bytes = b"", **settings: Any) -> Any:
    c = pipe_with(**settings)
    head = b"Content-Type: %s\r\n%s" % (media.encode(), fields)
    c.request(b"POST /rich.v1.Rich/One HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n%s\r\n%s" % (len(asked), head, asked))
    c.response(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%s\r\n%s" % (len(answered), head, answered))
    (record,) = c.records()
    return record


def test_unary_calls_of_connect() -> None:
    record = unary(A, B)
    assert json.loads(record["requestMessagesJson"]) == IN_JSON[:1]
    assert json.loads(record["responseMessagesJson"]) == IN_JSON[1:]
    assert record["requestPayload"].startswith("r") and "requestMessages" not in record  # it happens to be text
    record = unary(gzip.compress(A), b"", fields=b"Content-Encoding: gzip\r\n")
    assert json.loads(record["requestMessagesJson"]) == IN_JSON[:1]
    record = unary(b"", b"\xff\xfe")
    assert (record["requestMessagesJson"], record["responseMessagesJson"]) == ("[{}]", "[null]")
    record = unary(A, A * 20, body_bytes=64)
    assert json.loads(record["requestMessagesJson"]) == IN_JSON[:1] and record["responseMessagesJson"] == "[null]"
    record = unary(A, A, response_bodies=False)
    assert "responseMessagesJson" not in record
    record = unary(b"not gzip", A, fields=b"Content-Encoding: gzip\r\n")
    assert record["requestMessagesJson"] == "[null]"
    for media in ("application/protox", "application/json", "application/protobuf-x", "text/plain"):
        assert "requestMessagesJson" not in unary(A, A, media)
    for media in ("application/protobuf", "application/x-protobuf; a=b"):
        assert json.loads(unary(A, A, media)["requestMessagesJson"]) == IN_JSON[:1]


def test_grpc_web_in_text() -> None:
    trailers = framed(b"grpc-status:0\r\n", flags=0x80)
    record = unary(base64.b64encode(framed(A)), base64.b64encode(framed(B) + trailers), "application/grpc-web-text+proto")
    assert json.loads(record["requestMessagesJson"]) == IN_JSON[:1]
    assert json.loads(record["responseMessagesJson"]) == IN_JSON[1:]


def test_json_gives_way_before_bodies() -> None:
    """A record that is too long with it is written without it, and nothing else is cut."""
    large = rich(a_string='"' * 3000).SerializeToString()
    record, counted = call(framed(large), framed(A), record_bytes=9500)
    assert base64.b64decode(record["requestPayload"]) == large and record["mark"] == []
    assert "requestMessagesJson" not in record and "responseMessagesJson" not in record
    assert counted == numbers(0, 2)


def test_one_connection_does_not_use_up_what_others_need() -> None:
    pipe = pipeline(methods=ALL)
    costly = rich(numbers=range(10000)).SerializeToString()
    other = Conversation(pipe, conn=ident(100, 6))
    busy = Conversation(pipe, conn=ident(100, 5))
    assert asked_on(busy, costly) != [None]
    assert [asked_on(busy, costly) for _ in range(20)][-1] == [None]
    assert asked_on(other, A) == IN_JSON[:1]


def asked_on(c: Conversation, message: bytes) -> Any:
    """What the record says of a request on this connection."""
    head = b"POST /rich.v1.Rich/One HTTP/1.1\r\nHost: a\r\nContent-Type: application/proto\r\nContent-Length: %d\r\n\r\n"
    c.request(head % len(message) + message)
    c.response(b"HTTP/1.1 204 No Content\r\n\r\n")
    (record,) = c.records()
    return json.loads(record["requestMessagesJson"])
