"""An exchange as two messages of HTTP/1.0, 1.1 or 0.9 (RFC 9112, RFC 1945).

Fields stand as they are in the record, but for Content-Length: it says how long the body is in the file. A body whose
message named neither a length nor chunks ends with the connection, as it did.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from collector.sink.recording.bodies import CODE, Hole, Piece, pieces
from collector.sink.recording.exchange import NOT_HTTP, Exchange, Fields, Message, NotTold

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_TARGET = re.compile(r"[^\x00-\x20\x7f-\xa0]+")
_VALUE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")
_STATUS = re.compile(r"[0-9]{3} [^\x00-\x08\x0a-\x1f\x7f]*")
_VERSION = re.compile(r"HTTP/1\.[01]")


@dataclass(frozen=True, slots=True)
class Said:
    """What one side has said; ``to_the_end``: only the connection's end ends it. ``before`` stands in front of the message
    and is no part of it.
    """

    pieces: list[Piece]
    to_the_end: bool = False
    before: bytes = b""


def told(exchange: Exchange) -> tuple[Said, Said | None]:
    """What the client and the server said. Raises NotTold."""
    if exchange.version == "HTTP/0.9":
        return _told09(exchange)
    if not (
        _TOKEN.fullmatch(exchange.method) and _TARGET.fullmatch(exchange.target) and _VERSION.fullmatch(exchange.version)
    ):
        raise NotTold(NOT_HTTP)
    line = f"{exchange.method} {exchange.target} {exchange.version}\r\n"
    request = _message(line, exchange.request, no_body=False, may_end=False)
    if exchange.response is None:
        return request, None
    # a status without a phrase stands without the blank that the wire has behind it
    status = exchange.status if len(exchange.status) > 3 else exchange.status + " "
    if not _STATUS.fullmatch(status):
        raise NotTold(NOT_HTTP)
    line = f"{exchange.version} {status}\r\n"
    return request, _message(line, exchange.response, no_body=_no_body(exchange), may_end=True)


def _told09(exchange: Exchange) -> tuple[Said, Said | None]:
    if exchange.method != "GET" or not _TARGET.fullmatch(exchange.target) or exchange.response is None:
        raise NotTold(NOT_HTTP)
    line = f"GET {exchange.target}\r\n".encode()
    return Said([line]), Said(pieces(exchange.response), to_the_end=True)


def _no_body(exchange: Exchange) -> bool:
    """Has the answer no body, whatever its fields say (RFC 9112 section 6.3)?"""
    code = exchange.status_code
    return exchange.method == "HEAD" or code in (101, 204, 304) or (exchange.method == "CONNECT" and 200 <= code < 300)


def _message(line: str, message: Message, *, no_body: bool, may_end: bool) -> Said:
    names = {name.lower() for name, _value in message.fields}
    if no_body:
        return Said([_head(line, message.fields)])
    if "transfer-encoding" in names:
        return Said(_chunked(line, message))
    body = pieces(message)
    length = sum(piece.size if isinstance(piece, Hole) else len(piece) for piece in body)
    if "content-length" in names:
        said = message.field("content-length")
        if message.incomplete:
            length = max(length + 1, int(said) if said.isdecimal() else 0)
        fields = tuple((name, str(length) if name.lower() == "content-length" else value) for name, value in message.fields)
        return Said([_head(line, fields), *body])
    if body and not may_end:
        raise NotTold(NOT_HTTP)
    return Said([_head(line, message.fields), *body], to_the_end=may_end)


def _chunked(line: str, message: Message) -> list[Piece]:
    """In one chunk; one that did not come to its end has no last chunk."""
    *codings, last = [coding.strip().lower() for coding in message.field("transfer-encoding").split(",")]
    if last != "chunked" or message.field("content-length") or len(codings) > 1:
        raise NotTold(NOT_HTTP)
    body = pieces(message)
    if codings and codings[0] not in ("gzip", "x-gzip", "deflate"):
        raise NotTold(NOT_HTTP)
    if codings and body and isinstance(body[0], bytes):
        body[0] = CODE[codings[0]](body[0])
    length = sum(piece.size if isinstance(piece, Hole) else len(piece) for piece in body)
    head = _head(line, message.fields)
    if message.incomplete:
        return [head + b"%x\r\n" % (length + 1), *body]
    return [head + b"%x\r\n" % length, *body, b"\r\n0\r\n\r\n"] if length else [head + b"0\r\n\r\n"]


def _head(line: str, fields: Fields) -> bytes:
    """Raises NotTold for what no field can hold."""
    for name, value in fields:
        if not (_TOKEN.fullmatch(name) and _VALUE.fullmatch(value)) or value != value.strip(" \t"):
            raise NotTold(NOT_HTTP)
    lines = [f"{name}: {value}\r\n" for name, value in fields if value or name != "host"]
    return (line + "".join(lines) + "\r\n").encode()
