"""Ways in which a body travels: each a function of (media type, body) to the calls of a conversation, and the settings that
it takes."""

from __future__ import annotations

import base64
import gzip
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import brotli
import zstandard
from google.protobuf import descriptor_pb2

from collector.shards.records.descriptors import Methods
from tests import http2
from tests.http2 import REQUEST, RESPONSE, Fields, Talk
from tests.secrets.documents import multipart
from tests.secrets.running import CLIENT, PLAIN_ANSWER, PLAIN_REQUEST, SERVER, Calls, answered, asked, head
from tests.websocket import CLIENT as BY_CLIENT
from tests.websocket import SERVER as BY_SERVER
from tests.websocket import Chat

Carry = Callable[[str, bytes], Calls]


@dataclass(frozen=True, slots=True)
class Carrier:
    """``text``: only bodies that are UTF-8. ``named``: names in the body still count. ``settings`` are the pipeline's."""

    name: str
    carry: Carry
    text: bool = False
    named: bool = True
    settings: dict[str, Any] = field(default_factory=dict)


CARRIERS: dict[str, Carrier] = {}


def carrier(**how: Any) -> Callable[[Carry], Carry]:
    def add(carry: Carry) -> Carry:
        name = carry.__name__.strip("_").replace("_", "-")
        assert name not in CARRIERS
        CARRIERS[name] = Carrier(name, carry, **how)
        return carry

    return add


def _add(name: str, carry: Carry, **how: Any) -> None:
    CARRIERS[name] = Carrier(name, carry, **how)


# ---- HTTP/1 ----


@carrier()
def request(kind: str, body: bytes) -> Calls:
    return [(CLIENT, asked(body, kind)), (SERVER, PLAIN_ANSWER)]


@carrier()
def response(kind: str, body: bytes) -> Calls:
    return [(CLIENT, PLAIN_REQUEST), (SERVER, answered(body, kind))]


def chunked(body: bytes, size: int) -> bytes:
    pieces = [body[i : i + size] for i in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


@carrier()
def response_in_chunks(kind: str, body: bytes) -> Calls:
    first = head("HTTP/1.1 200 OK", f"Content-Type: {kind}", "Transfer-Encoding: chunked")
    return [(CLIENT, PLAIN_REQUEST), (SERVER, first + chunked(body, 7))]


@carrier()
def response_until_close(kind: str, body: bytes) -> Calls:
    return [(CLIENT, PLAIN_REQUEST), (SERVER, head("HTTP/1.1 200 OK", f"Content-Type: {kind}")), (SERVER, body)]


@carrier()
def response_of_an_error(kind: str, body: bytes) -> Calls:
    return [(CLIENT, PLAIN_REQUEST), (SERVER, answered(body, kind, status="500 Internal Server Error"))]


@carrier()
def request_without_answer(kind: str, body: bytes) -> Calls:
    return [(CLIENT, asked(body, kind))]


@carrier(settings={"orphan_responses": True, "want_details": False})
def response_alone(kind: str, body: bytes) -> Calls:
    return [(SERVER, answered(body, kind))]


# ---- content codings ----


def deflate_raw(body: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(body) + packer.flush()


CODINGS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "x-gzip": lambda body: gzip.compress(body, 1),
    "deflate": zlib.compress,
    "br": brotli.compress,
    "zstd": lambda body: zstandard.compress(body),
}


def _coded(coding: str, pack: Callable[[bytes], bytes]) -> None:
    said = f"Content-Encoding: {coding}"
    _add(f"request-{coding}", lambda k, b: [(CLIENT, asked(pack(b), k, said)), (SERVER, PLAIN_ANSWER)])
    _add(f"response-{coding}", lambda k, b: [(CLIENT, PLAIN_REQUEST), (SERVER, answered(pack(b), k, said))])


for _coding, _pack in CODINGS.items():
    _coded(_coding, _pack)
_coded("deflate, gzip", lambda body: gzip.compress(zlib.compress(body)))
_add(
    "response-deflate-raw",
    lambda k, b: [(CLIENT, PLAIN_REQUEST), (SERVER, answered(deflate_raw(b), k, "Content-Encoding: deflate"))],
)


@carrier(named=False)
def response_of_an_unknown_coding(kind: str, body: bytes) -> Calls:
    return [(CLIENT, PLAIN_REQUEST), (SERVER, answered(body, kind, "Content-Encoding: secret-sauce"))]


@carrier(named=False)
def response_that_is_no_gzip(kind: str, body: bytes) -> Calls:
    return [(CLIENT, PLAIN_REQUEST), (SERVER, answered(body, kind, "Content-Encoding: gzip"))]


@carrier(named=False)
def response_of_broken_gzip(kind: str, body: bytes) -> Calls:
    """Not compressed, and its check sum is wrong: the text stands in it as it is."""
    stored = gzip.compress(body, 0)[:-8] + b"\1" * 8
    return [(CLIENT, PLAIN_REQUEST), (SERVER, answered(stored, kind, "Content-Encoding: gzip"))]


@carrier()
def response_that_is_only_said_to_be_gzip(kind: str, body: bytes) -> Calls:
    first = head("HTTP/1.1 200 OK", f"Content-Type: {kind}", "Transfer-Encoding: gzip, chunked")
    return [(CLIENT, PLAIN_REQUEST), (SERVER, first + chunked(body, 100))]


# ---- charsets ----


def _wide(name: str, charset: str, coding: str, mark: bytes = b"") -> None:
    def carry(kind: str, body: bytes) -> Calls:
        said = kind.partition(";")[0] + (f"; charset={charset}" if charset else "")
        return [(CLIENT, asked(mark + body.decode().encode(coding, "replace"), said)), (SERVER, PLAIN_ANSWER)]

    _add(name, carry, text=True)


_wide("utf-16le", "utf-16le", "utf-16-le")
_wide("utf-16be", "utf-16be", "utf-16-be")
_wide("utf-16-marked", "utf-16", "utf-16-be", b"\xfe\xff")
_wide("utf-16-marked-le", "UTF-16", "utf-16-le", b"\xff\xfe")
_wide("utf-32", "utf-32", "utf-32")
_wide("utf-16-by-mark", "", "utf-16-le", b"\xff\xfe")
_wide("utf-16-by-mark-be", "", "utf-16-be", b"\xfe\xff")
_wide("utf-16-unsaid", "", "utf-16-le")
_wide("utf-16-said-to-be-utf-8", "utf-8", "utf-16-be")
_wide("latin", "iso-8859-1", "latin-1")
_wide("latin-unsaid", "", "latin-1")
_wide("windows", "windows-1251", "cp1251")
_wide("shift-jis", "shift_jis", "shift_jis")
_wide("gb18030", "gb18030", "gb18030")


# ---- HTTP/2 ----


def talk_calls(talk: Talk) -> Calls:
    talk.flush()
    return [(side == REQUEST, data) for side, data in talk.events]


def over_http2(asking: Fields, body: bytes, answering: Fields, answer: bytes, trailers: Fields | None = None) -> Calls:
    talk = Talk()
    stream = talk.ask(asking, end=not body)
    for at in range(0, len(body), 10_000):
        talk.body(stream, REQUEST, body[at : at + 10_000], end=at + 10_000 >= len(body))
        talk.flush()
    talk.flush()
    talk.answer(stream, answering)
    for at in range(0, len(answer), 10_000):
        talk.body(stream, RESPONSE, answer[at : at + 10_000], end=trailers is None and at + 10_000 >= len(answer))
        talk.flush()
    if trailers is not None:
        talk.trailers(stream, RESPONSE, trailers)
    return talk_calls(talk)


def _typed(kind: str) -> tuple[tuple[str, str], ...]:
    return (("content-type", kind),) if kind else ()


@carrier()
def http2_request(kind: str, body: bytes) -> Calls:
    return over_http2(http2.request("/v1/login", "POST", *_typed(kind)), body, http2.response(), b"{}")


@carrier()
def http2_response(kind: str, body: bytes) -> Calls:
    return over_http2(http2.request("/v1/me"), b"", http2.response(200, *_typed(kind)), body)


@carrier()
def http2_response_br(kind: str, body: bytes) -> Calls:
    fields = (*_typed(kind), ("content-encoding", "br"))
    return over_http2(http2.request("/v1/me"), b"", http2.response(200, *fields), brotli.compress(body))


# ---- gRPC and the like: the text is a string of a message ----


@cache
def methods() -> Methods:
    """Of `/shop.Users/Login`: a message with `comment` (1), `password` (2), `raw` (3), and a message of its own (4)."""
    file = descriptor_pb2.FileDescriptorProto(name="login.proto", package="shop", syntax="proto3")
    message = file.message_type.add(name="Login")
    kinds = descriptor_pb2.FieldDescriptorProto
    for number, name, type_, label, named in (
        (1, "comment", kinds.TYPE_STRING, kinds.LABEL_OPTIONAL, ""),
        (2, "password", kinds.TYPE_STRING, kinds.LABEL_OPTIONAL, ""),
        (3, "raw", kinds.TYPE_BYTES, kinds.LABEL_OPTIONAL, ""),
        (4, "inner", kinds.TYPE_MESSAGE, kinds.LABEL_REPEATED, ".shop.Login"),
    ):
        message.field.add(name=name, number=number, type=type_, label=label, type_name=named)
    service = file.service.add(name="Users")
    service.method.add(name="Login", input_type=".shop.Login", output_type=".shop.Login")
    return Methods([descriptor_pb2.FileDescriptorSet(file=[file]).SerializeToString()])


def _varint(n: int) -> bytes:
    out = b""
    while n > 0x7F:
        out += bytes([n & 0x7F | 0x80])
        n >>= 7
    return out + bytes([n])


def string_field(number: int, text: bytes) -> bytes:
    """A length-delimited field (protobuf's wire type 2)."""
    return bytes([number << 3 | 2]) + _varint(len(text)) + text


def framed(message: bytes, flags: int = 0) -> bytes:
    return struct.pack(">BI", flags, len(message)) + message


_GRPC = ("content-type", "application/grpc")


def _grpc(number: int, *, answer: bool, nested: bool = False, packed: bool = False) -> Carry:
    def carry(kind: str, body: bytes) -> Calls:
        message = string_field(number, body)
        if nested:
            message = string_field(1, b"ab") + string_field(4, message) + string_field(4, string_field(1, b"cd"))
        wire = framed(gzip.compress(message), 1) if packed else framed(message)
        coding = (("grpc-encoding", "gzip"),) if packed else ()
        asking = http2.request(
            "/shop.Users/Login", "POST", ("content-type", "application/grpc"), ("te", "trailers"), *coding
        )
        answering = http2.response(200, ("content-type", "application/grpc"), *coding)
        trailers = [(b"grpc-status", b"0")]
        return over_http2(asking, framed(b"") if answer else wire, answering, wire if answer else framed(b""), trailers)

    return carry


_add("grpc-request", _grpc(1, answer=False), text=True, named=False)
_add("grpc-response", _grpc(1, answer=True), text=True, named=False)
_add("grpc-nested", _grpc(1, answer=False, nested=True), text=True, named=False)
_add("grpc-packed", _grpc(1, answer=False, packed=True), text=True, named=False)
_add("grpc-bytes", _grpc(3, answer=False), named=False)


@carrier(text=True, named=False)
def grpc_message(kind: str, body: bytes) -> Calls:
    """The error text of a call, percent-encoded."""
    said = "".join(chr(b) if 32 <= b < 127 and b != 37 else f"%{b:02X}" for b in body)
    answering = http2.response(200, ("content-type", "application/grpc"))
    asking = http2.request("/shop.Users/Login", "POST", ("content-type", "application/grpc"))
    return over_http2(
        asking, framed(b""), answering, framed(b""), [(b"grpc-status", b"3"), (b"grpc-message", said.encode())]
    )


@carrier(text=True, named=False)
def grpc_web_text(kind: str, body: bytes) -> Calls:
    wire = base64.b64encode(framed(string_field(1, body)))
    return [(CLIENT, asked(wire, "application/grpc-web-text")), (SERVER, answered(wire, "application/grpc-web-text"))]


@carrier(text=True, named=False)
def grpc_web(kind: str, body: bytes) -> Calls:
    wire = framed(string_field(1, body)) + framed(b"grpc-status: 3\r\ngrpc-message: " + body.replace(b"\n", b" "), 0x80)
    return [(CLIENT, asked(wire, "application/grpc-web+proto")), (SERVER, answered(wire, "application/grpc-web+proto"))]


@carrier(text=True)
def connect_json_stream(kind: str, body: bytes) -> Calls:
    return [
        (CLIENT, asked(framed(body), "application/connect+json")),
        (SERVER, answered(framed(b"{}", 2), "application/connect+json")),
    ]


@carrier(text=True)
def grpc_json(kind: str, body: bytes) -> Calls:
    asking = http2.request("/shop.Users/Login", "POST", ("content-type", "application/grpc+json"))
    answering = http2.response(200, ("content-type", "application/grpc+json"))
    return over_http2(asking, framed(body), answering, framed(b"{}"), [(b"grpc-status", b"0")])


# ---- WebSocket ----


def _chat(say: Callable[[Chat, bytes], None], *, deflate: bool = False) -> Carry:
    def carry(kind: str, body: bytes) -> Calls:
        chat = Chat(deflate=deflate)
        say(chat, body)
        chat.close()
        return [(side == BY_CLIENT, data) for side, data in chat.calls]

    return carry


_add("websocket-text", _chat(lambda c, b: c.say(BY_CLIENT, b.decode())), text=True)
_add("websocket-answer", _chat(lambda c, b: c.say(BY_SERVER, b.decode())), text=True)
_add("websocket-deflate", _chat(lambda c, b: c.say(BY_CLIENT, b.decode()), deflate=True), text=True)
_add("websocket-fragments", _chat(lambda c, b: c.say(BY_SERVER, b.decode(), fragments=5)), text=True)
_add("websocket-binary", _chat(lambda c, b: c.say(BY_CLIENT, b)))
_add("websocket-binary-behind-bytes", _chat(lambda c, b: c.say(BY_SERVER, b"\xff\0\x81" + b)), named=False)
_add("websocket-socket-io", _chat(lambda c, b: c.say(BY_CLIENT, '42["login",' + b.decode() + "]")), text=True)


# ---- others ----


@carrier()
def http_0_9(kind: str, body: bytes) -> Calls:
    return [(CLIENT, b"GET /old\r\n"), (SERVER, body)]


@carrier(named=False)
def file_of_multipart(kind: str, body: bytes) -> Calls:
    part = f'Content-Disposition: form-data; name="file"; filename="a"\r\nContent-Type: {kind or "text/plain"}'
    whole = multipart((part, "@@"), boundary="b").encode().replace(b"@@", body)
    return [(CLIENT, asked(whole, "multipart/form-data; boundary=b")), (SERVER, PLAIN_ANSWER)]


@carrier(text=True)
def server_sent_events(kind: str, body: bytes) -> Calls:
    """In chunks, as they come."""
    first = head("HTTP/1.1 200 OK", "Content-Type: text/event-stream", "Transfer-Encoding: chunked")
    event = b"".join(b"data: " + line + b"\n" for line in body.splitlines()) + b"\n"
    return [(CLIENT, PLAIN_REQUEST), (SERVER, first + chunked(b"data: {}\n\n" + event + b": end\n\n", 11))]
