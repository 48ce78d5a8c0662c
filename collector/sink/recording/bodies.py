"""The payload of a record -> the bytes of a body, in the codings that the head of its message names.

What the parser has undone is done again: charset, content coding, messages of gRPC and the like. So a replay reads the head
as it was, and undoes it again. The bytes are other ones than those of the wire, and as a rule of another number.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import contextlib
import encodings
import gzip
import json
import pkgutil
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import brotli
import zstandard

from collector.sink.recording.exchange import NOT_HTTP, Message, NotTold

GZIP_LEVEL, BROTLI_QUALITY, ZSTD_LEVEL = 6, 4, 3
CODE: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: gzip.compress(data, GZIP_LEVEL, mtime=0),
    "x-gzip": lambda data: gzip.compress(data, GZIP_LEVEL, mtime=0),
    "deflate": lambda data: zlib.compress(data, GZIP_LEVEL),
    "br": lambda data: brotli.compress(data, quality=BROTLI_QUALITY),
    "zstd": lambda data: zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress(data),
    "identity": lambda data: data,
    "": lambda data: data,
}
# The charsets that the parser undoes (shards/records/content.py), by the beginnings of Python's names for them.
_CHARSETS = re.compile(
    r"(iso8859|latin|cp\d|koi8|utf_?(16|32)|gb|big5|euc_(jp|kr)|shift_jis|iso2022_(jp|kr)|tis_620|mac_roman)"
)
_CHARSET = re.compile(r";\s*charset\s*=\s*\"?([A-Za-z0-9._:-]{1,40})", re.IGNORECASE)
_MAX_HOLE_BYTES = 1 << 40  # it takes an event for every GiB
_PREFIX_BYTES = 5  # of a message of gRPC: flags, length
_CONNECT_END, _WEB_END = b"\x02\0\0\0\x02{}", b"\x80\0\0\0\0"


@dataclass(frozen=True, slots=True)
class Hole:
    """Bytes of a body that are not there; ``lost``: nobody saw them, else only their number was wanted."""

    size: int
    lost: bool


Piece = bytes | Hole


def load_charsets() -> None:
    """Import the code of all charsets that a message may name: a sink that meets them can open no file."""
    for module in pkgutil.iter_modules(encodings.__path__):
        if _CHARSETS.match(module.name):
            with contextlib.suppress(LookupError):
                codecs.lookup(module.name)


def pieces(message: Message) -> list[Piece]:
    """The body, and what is missing from it. Raises NotTold for one that cannot be made."""
    body = b"" if message.missing and not message.payload else wire(message)
    if not message.missing:
        return [body] if body else []
    if message.size > _MAX_HOLE_BYTES:
        raise NotTold(NOT_HTTP)
    hole = Hole(max(message.size - len(body), 1), message.lost)
    return [body, hole] if body else [hole]


def wire(message: Message) -> bytes:
    """The bytes that a payload came from, as far as it holds them. Raises NotTold."""
    try:
        if message.messages is not None and not message.undecoded:
            data = _messages(message)
        elif message.is_base64:
            data = base64.b64decode(message.payload, validate=True)
        else:
            data = _text(message)
        if data and not message.undecoded:
            for coding in message.field("content-encoding").lower().split(","):
                data = CODE[coding.strip()](data)
    except (ValueError, TypeError, LookupError, RecursionError):
        raise NotTold(NOT_HTTP) from None
    return data


def _text(message: Message) -> bytes:
    """In the charset of its type. Raises UnicodeError, LookupError."""
    named = _CHARSET.search(message.field("content-type"))
    if named is None:
        return message.payload.encode()
    try:
        codec = codecs.lookup(named[1])
    except LookupError:
        return message.payload.encode()  # the parser does not know it, either
    if not _CHARSETS.match(codec.name.replace("-", "_")):
        return message.payload.encode()
    return codec.encode(message.payload)[0]


def _messages(message: Message) -> bytes:
    """Each with its prefix, not compressed: its flag says so. A body without any has what ends a stream. Raises ValueError,
    TypeError.
    """
    kind = message.field("content-type").lower()
    texts = json.loads(message.payload) if message.messages != 1 and message.payload else [message.payload]
    out = b""
    for text in texts if message.messages else ():
        one = binascii.a2b_base64(text)
        out += b"\0" + len(one).to_bytes(_PREFIX_BYTES - 1) + one
    if not out and message.size:
        out = _CONNECT_END if "connect" in kind else _WEB_END
    return base64.b64encode(out) if "grpc-web-text" in kind else out
