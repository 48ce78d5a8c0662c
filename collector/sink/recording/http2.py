"""An exchange as a stream of HTTP/2 (RFC 9113): the beginning of a connection, and the frames of this stream alone.

Fields are literals that nobody needs a table for (RFC 7541 section 6.2.2), so each exchange stands for itself. Trailers are
fields like others: a record does not tell them apart.
"""

from __future__ import annotations

import re

from collector.sink.recording.bodies import Hole, Piece, pieces
from collector.sink.recording.exchange import NOT_HTTP, Exchange, Fields, Message, NotTold
from collector.sink.recording.http1 import Said

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_MAX_FRAME_BYTES = (1 << 24) - 1
# One that allows frames as long as there are (SETTINGS_MAX_FRAME_SIZE): of a long body that is not there, few are enough.
_SETTINGS = b"\0\0\x06\x04\0\0\0\0\0" + b"\0\x05" + _MAX_FRAME_BYTES.to_bytes(4)
_DATA, _HEADERS, _CONTINUATION = 0, 1, 9
_END_STREAM, _END_HEADERS = 1, 4
_HEAD_BYTES = 16384  # of a field block in one frame
_MAX_STREAM = 1 << 31
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+")
_VALUE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")


def told(exchange: Exchange) -> tuple[Said, Said | None]:
    """What the client and the server said. Raises NotTold."""
    if exchange.method == "CONNECT" or not 0 < exchange.position < _MAX_STREAM or not exchange.target:
        raise NotTold(NOT_HTTP)
    pseudo: Fields = (
        (":method", exchange.method),
        (":scheme", "http" if exchange.tls is None else "https"),
        (":path", exchange.target),
    )
    host = exchange.request.field("host")
    if host:
        pseudo += ((":authority", host),)
    request = _message(exchange.position, pseudo, exchange.request, bodiless=False)
    asked = Said(request, before=_PREFACE + _SETTINGS)
    if exchange.response is None:
        return asked, None
    bodiless = exchange.method == "HEAD" or exchange.status_code in (204, 304)
    answer = _message(exchange.position, ((":status", exchange.status[:3]),), exchange.response, bodiless=bodiless)
    return asked, Said(answer, before=_SETTINGS)


def _message(stream: int, pseudo: Fields, message: Message, *, bodiless: bool) -> list[Piece]:
    body = [] if bodiless else pieces(message)
    length = sum(piece.size if isinstance(piece, Hole) else len(piece) for piece in body)
    fields = pseudo
    for name, value in message.fields:
        if name == "host":
            continue
        if name == "content-length" and not bodiless:
            value = str(length + message.incomplete)
        fields += ((name, value),)
    out: list[Piece] = [_head(stream, fields, end=not body and not message.incomplete)]
    for number, piece in enumerate(body, 1):
        out += _data(stream, piece, end=number == len(body) and not message.incomplete)
    return out


def _frame(kind: int, flags: int, stream: int, length: int) -> bytes:
    return length.to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4)


def _head(stream: int, fields: Fields, *, end: bool) -> bytes:
    """HEADERS, and CONTINUATION for what does not fit."""
    block = b"".join(_literal(name, value) for name, value in fields)
    parts = [block[at : at + _HEAD_BYTES] for at in range(0, len(block), _HEAD_BYTES)]
    out = b""
    for number, part in enumerate(parts):
        flags = (_END_HEADERS if number + 1 == len(parts) else 0) | (_END_STREAM if end and not number else 0)
        out += _frame(_CONTINUATION if number else _HEADERS, flags, stream, len(part)) + part
    return out


def _data(stream: int, piece: Piece, *, end: bool) -> list[Piece]:
    size = piece.size if isinstance(piece, Hole) else len(piece)
    out: list[Piece] = []
    for at in range(0, size, _MAX_FRAME_BYTES):
        length = min(_MAX_FRAME_BYTES, size - at)
        out.append(_frame(_DATA, _END_STREAM if end and at + length == size else 0, stream, length))
        out.append(Hole(length, piece.lost) if isinstance(piece, Hole) else piece[at : at + length])
    return out


def _literal(name: str, value: str) -> bytes:
    """A field that is never indexed, not in Huffman's code. Raises NotTold for what no field can hold."""
    if not _NAME.fullmatch(name.removeprefix(":")) or not _VALUE.fullmatch(value) or value != value.strip(" \t"):
        raise NotTold(NOT_HTTP)
    return b"\x10" + _text(name.encode()) + _text(value.encode())


def _text(data: bytes) -> bytes:
    """Its length in a prefix of seven bits (RFC 7541 section 5.1), and the bytes."""
    size = len(data)
    if size < 127:
        return bytes((size,)) + data
    out, size = bytearray((127,)), size - 127
    while size > 127:
        out.append(size & 127 | 128)
        size >>= 7
    out.append(size)
    return bytes(out) + data
