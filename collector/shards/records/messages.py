"""The messages in a body of gRPC, gRPC-Web or Connect, each in base64.

Each has a prefix of five bytes: flags, and a length in network order (gRPC over HTTP/2, "Length-Prefixed-Message"; gRPC-Web
puts the trailers of the answer into a last one of these; Connect, "Enveloped-Message", the end of a stream).
"""

from __future__ import annotations

import binascii
import json
from collections.abc import Callable, Iterator

GRPC, GRPC_WEB, GRPC_WEB_TEXT, CONNECT = 6, 7, 8, 9  # enum media of http/message.pxd
COMPRESSED, CONNECT_END, WEB_TRAILERS = 0x01, 0x02, 0x80
PREFIX_BYTES = 5
WORK_MESSAGE = 300  # units of WORK (codings.pyx)

# (a message as it was sent, may it be shorter than it was) -> (decoded, is that a prefix of it only), or None
Undo = Callable[[bytes, bool], "tuple[bytes, bool] | None"]


def of_body(
    body: bytes, media: int, cut: bool, undo: Undo, kept: list[bytes | None] | None = None
) -> tuple[bytes, int, bool] | None:
    """(the payload of the record, how many messages, is the last one only a prefix?), None for what is no body of messages.

    ``cut``: the body is known to be a prefix. ``kept`` gets the messages themselves, None for one that is only a prefix.
    """
    if media == GRPC_WEB_TEXT:
        plain = _unbase64(body, cut)
        if plain is None:
            return None
        body = plain
    shorter = False
    texts: list[str] = []
    for flags, message, whole in _frames(body):
        if not whole and not cut:
            return None
        if not whole and not message:
            shorter = True
            continue
        if flags & (CONNECT_END if media == CONNECT else WEB_TRAILERS):
            continue
        prefix = not whole
        if flags & COMPRESSED:
            undone = undo(message, prefix)
            if undone is None:
                return None
            message, less = undone
            prefix = prefix or less
        shorter = shorter or prefix
        if kept is not None:
            kept.append(None if prefix else message)
        texts.append(binascii.b2a_base64(message, newline=False).decode())
    payload = json.dumps(texts, separators=(",", ":")) if len(texts) > 1 else "".join(texts)
    return payload.encode(), len(texts), shorter


def _frames(body: bytes) -> Iterator[tuple[int, bytes, bool]]:
    """(flags, message, is it whole?); of a prefix that is not whole itself nothing but that."""
    at = 0
    while at < len(body):
        if len(body) - at < PREFIX_BYTES:
            yield 0, b"", False
            return
        begin = at + PREFIX_BYTES
        at = begin + int.from_bytes(body[at + 1 : begin])
        yield body[begin - PREFIX_BYTES], body[begin:at], at <= len(body)


def _unbase64(body: bytes, cut: bool) -> bytes | None:
    """Of gRPC-Web in text: pieces of base64, each with its own padding."""
    out = []
    if cut:
        body = body[: len(body) // 4 * 4]
    try:
        for piece in body.replace(b"=", b"=\0").replace(b"\0=", b"=").split(b"\0"):
            out.append(binascii.a2b_base64(piece, strict_mode=bool(piece)))
    except binascii.Error:
        return None
    return b"".join(out)
