"""The byte search: does anything that was written hold a secret, as it is or in another form?

It undoes, again and again, what may stand between a secret and its reader: the escapes of JSON, percent-encoding,
base64 (at any place within a text), UTF-16, hexadecimal, character references, gzip. Then a run of RUN characters of one
of the secret's random parts is a find.
"""

from __future__ import annotations

import binascii
import functools
import html
import re
import urllib.parse
import zlib
from collections.abc import Iterator

from tests.secrets.kinds import RUN, Secret

DEPTH = 4  # codings within codings
_ESCAPE = re.compile(rb'\\(?:u([0-9a-fA-F]{4})|(["\\/bfnrt]))')
_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]{11,}")
_HEX = re.compile(rb"[0-9a-fA-F]{16,}")
_TEXT = re.compile(
    rb"(?:[ -~]|[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|\xf0[\x80-\xbf]{3}){6}"  # UTF-8
    rb"|(?:[ -~]\0){4}|(?:\0[ -~]){4}|(?:[\0-\xff]\x04){4}|(?:\x04[\0-\xff]){4}"  # UTF-16, of Latin and Cyrillic letters
    rb"|\x1f\x8b\x08"  # gzip
)
_STANDARD = bytes.maketrans(b"-_", b"+/")
_PAIR = re.compile(rb"\\u(d[89ab][0-9a-f]{2})\\u(d[c-f][0-9a-f]{2})", re.I)
_CONTROLS = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t"}


def _unescaped(data: bytes) -> bytes:
    if b"\\" not in data:
        return data

    def pair(match: re.Match[bytes]) -> bytes:
        return bytes.fromhex((match[1] + match[2]).decode()).decode("utf-16-be").encode()

    def one(match: re.Match[bytes]) -> bytes:
        if match[1]:
            return chr(int(match[1], 16)).encode("utf-8", "surrogatepass")
        return _CONTROLS.get(match[2], match[2])

    return _ESCAPE.sub(one, _PAIR.sub(pair, data))


def _unquoted(data: bytes) -> bytes:
    return urllib.parse.unquote_to_bytes(data) if b"%" in data else data


def _unreferenced(data: bytes) -> bytes:
    if b"&" not in data:
        return data
    return html.unescape(data.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")


def _readable(piece: bytes) -> bool:
    """Could text, or something compressed, stand in there?"""
    return _TEXT.search(piece) is not None


def _unencoded(data: bytes) -> bytes:
    """What the runs of base64's characters are, from each of four characters on, where that can be read."""
    found = []
    for match in _BASE64.finditer(data):
        text = match[0].translate(_STANDARD)
        for offset in range(4):
            piece = binascii.a2b_base64(text[offset : len(text) - (len(text) - offset) % 4] or b"", strict_mode=False)
            rest = (len(text) - offset) % 4
            if rest > 1:
                piece += binascii.a2b_base64(text[-rest:] + b"=" * (4 - rest))
            if _readable(piece):
                found.append(piece)
    return b"\n".join(found)


def _unhexed(data: bytes) -> bytes:
    found = []
    for match in _HEX.finditer(data):
        for offset in range(2):
            piece = binascii.unhexlify(match[0][offset : len(match[0]) - (len(match[0]) - offset) % 2])
            if _readable(piece):
                found.append(piece)
    return b"\n".join(found)


def _inflated(data: bytes) -> bytes:
    """Of what begins as gzip does (RFC 1952), up to where it breaks."""
    at = data.find(b"\x1f\x8b\x08")
    if at < 0:
        return b""
    try:
        return zlib.decompressobj(31).decompress(data[at:], 1 << 20)
    except zlib.error:
        return b""


def _plain(data: bytes) -> Iterator[bytes]:
    """The data without its escapes, step by step."""
    seen = {data}
    for _ in range(8):
        before = data
        for step in (_unescaped, _unquoted, _unreferenced):
            data = step(data)
            if data not in seen:
                seen.add(data)
                yield data
        if data == before:
            return


def views(data: bytes, depth: int = DEPTH) -> Iterator[bytes]:
    """The data, and everything that it can be read as."""
    yield data
    last = data
    for last in _plain(data):
        yield last
    if b"+" in last:
        yield last.replace(b"+", b" ")
    if depth == 0:
        return
    coded = [_unencoded(last), _unhexed(last), _inflated(data)]
    if b"\0" in last or b"\x04" in last:
        coded += [last.replace(b"\0", b""), *(_wide(last[n:], f"utf-16-{end}") for n in (0, 1) for end in ("le", "be"))]
    for one in coded:
        if len(one) >= RUN:
            yield from views(one, depth - 1)


def _wide(data: bytes, coding: str) -> bytes:
    return data[: len(data) & ~1].decode(coding, "ignore").encode("utf-8", "ignore")


@functools.cache
def needles(secret: Secret, run: int = RUN) -> list[bytes]:
    """Every run of so many characters of its random parts; of a long part not every one of them."""
    out = []
    for core in secret.cores:
        step = 1 if len(core) <= 64 else run
        out += [core[at : at + run].encode() for at in range(0, max(1, len(core) - run + 1), step)]
        if core.isascii() is False:  # as ISO-8859-1
            latin = [core[at : at + run] for at in range(max(1, len(core) - run + 1))]
            out += [part.encode("latin-1") for part in latin if all(ord(c) < 256 for c in part)]
    return out


def found(written: bytes, *secrets: Secret) -> list[tuple[str, bytes]]:
    """(kind, what of it was found) of the secrets that can be read in what was written."""
    everything = list(views(written))
    out = []
    for secret in secrets:
        hit = next((needle for needle in needles(secret) if any(needle in view for view in everything)), None)
        if hit is not None:
            out.append((secret.kind, hit))
    return out
