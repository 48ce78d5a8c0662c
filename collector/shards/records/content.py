"""Content codings and charsets of bodies (RFC 9110 sections 8.3 and 8.4): bytes on the wire -> UTF-8 text bytes.

Everything is bounded: a decoded body is never longer than the cap, whatever a bomb promises. A body that cannot be
decoded is handed back as it was, and the record says so.
"""

from __future__ import annotations

import codecs
import re
import zlib

import brotli
import zstandard

GZIP, DEFLATE, BR, ZSTD, UNKNOWN = 1, 2, 3, 4, 5  # enum coding of shards/state.pxd


_CHARSET = re.compile(
    rb"(iso-?8859-?\d{1,2}|latin-?\d|windows-\d{3,4}|cp\d{3,4}|koi8-[rut]|utf-?(16|32)([-_]?[lb]e)?|gb2312|gbk|gb18030"
    rb"|big5(-hkscs)?|euc-(jp|kr)|shift[-_]jis|sjis|ks_c_5601-1987|iso-2022-(jp|kr)|tis-620|macintosh|us-ascii|utf-?8)")


# An engine copies what it was given and did not need. Behind the first member or frame it gets this much at a time, so
# that a body of thousands of empty ones does not take quadratic time.
_STEP = 4096


class _Undecodable(Exception):
    """The body is not what its headers say."""


def _inflate(data: bytes, limit: int, cut: bool, wbits: int) -> tuple[bytes, bool]:
    out = bytearray()
    place, step = 0, len(data)
    while place < len(data):
        engine = zlib.decompressobj(wbits)
        while place < len(data) and not engine.eof:
            piece = data[place:place + step]
            try:
                out += engine.decompress(piece, limit + 1 - len(out))
            except zlib.error as error:
                raise _Undecodable from error
            if len(out) > limit:
                return bytes(out[:limit]), True
            place += len(piece) - len(engine.unused_data)
        if not engine.eof:
            if not cut:
                raise _Undecodable
            return bytes(out), True
        if wbits != 31 or data[place:place + 2] != b"\x1f\x8b":
            break
        step = _STEP        # gzip: more members may follow (RFC 1952 section 2.2)
    return bytes(out), False


def _gunzip(data: bytes, limit: int, cut: bool) -> tuple[bytes, bool]:
    return _inflate(data, limit, cut, 31)


def _undeflate(data: bytes, limit: int, cut: bool) -> tuple[bytes, bool]:
    # "deflate" means the zlib format, but raw deflate is sent too (RFC 9110 section 8.4.1.2)
    try:
        return _inflate(data, limit, cut, 15)
    except _Undecodable:
        return _inflate(data, limit, cut, -15)


def _unbrotli(data: bytes, limit: int, cut: bool) -> tuple[bytes, bool]:
    engine = brotli.Decompressor()
    out = b""
    try:
        out = engine.process(data, output_buffer_limit=limit + 1)
        while len(out) <= limit and not engine.is_finished() and not engine.can_accept_more_data():
            more = engine.process(b"", output_buffer_limit=limit + 1 - len(out))
            if not more:
                break
            out += more
    except brotli.error as error:
        raise _Undecodable from error
    if len(out) > limit:
        return out[:limit], True
    if not engine.is_finished():
        if not cut:
            raise _Undecodable
        return out, True
    return out, False


def _unzstd(data: bytes, limit: int, cut: bool) -> tuple[bytes, bool]:
    # 8 MiB is the window that a sender may use for HTTP (RFC 9659 section 3)
    engine = zstandard.ZstdDecompressor(max_window_size=8 << 20)
    out = b""
    try:
        with engine.stream_reader(data, read_across_frames=True) as reader:
            while len(out) <= limit:
                piece = reader.read(limit + 1 - len(out))
                if not piece:
                    break
                out += piece
        if len(out) > limit:
            return out[:limit], True
        if not cut and data:
            # a stream reader ends quietly inside a frame: ask each frame for its end (the size is known to be bounded)
            place, step = 0, len(data)
            while place < len(data):
                frame = engine.decompressobj()
                while place < len(data) and not frame.eof:
                    chunk = data[place:place + step]
                    frame.decompress(chunk)
                    place += len(chunk) - len(frame.unused_data)
                if not frame.eof:
                    raise _Undecodable
                step = _STEP
    except zstandard.ZstdError as error:
        if not (cut and out):
            raise _Undecodable from error
    return out, cut


_DECODERS = {GZIP: _gunzip, DEFLATE: _undeflate, BR: _unbrotli, ZSTD: _unzstd}


class Decoder:
    """Holds the charsets that this shard has met, by number (1-255), so that a message needs one byte for it."""

    def __init__(self) -> None:
        self._numbers: dict[bytes, int] = {}
        self._names: list[str] = [""]

    def charset_number(self, text: bytes) -> int:
        """The number of a charset parameter's value (what follows ``charset=``), 0 when Python knows none such."""
        name = text.split(b";")[0].strip().strip(b'"').lower()[:40]
        known = self._numbers.get(name)
        if known is not None:
            return known
        # Only charsets that text is really sent in: Python has codecs that are no charsets ("hex"), and some whose
        # decoding takes quadratic time ("punycode"); an unknown name would stay in its cache for ever.
        if not _CHARSET.fullmatch(name):
            return 0
        number = 0
        try:
            found = codecs.lookup(name.decode("ascii"))
            canonical = found.name
            if canonical not in ("utf-8", "ascii"):
                number = len(self._names)
        except (LookupError, ValueError, UnicodeError):
            number = 0
        if number > 255:
            return 0
        if number:
            self._names.append(canonical)
        self._numbers[name] = number
        return number

    def decode(self, data: bytes, codings: bytes, charset: int, cut: bool, limit: int) -> tuple[bytes, bool, bool]:
        """(text bytes, decoded?, shorter than the whole?).

        codings: numbers in the order they were applied, 0 ends. cut: ``data`` is known to be a prefix.
        limit: bytes of output at most. When not decoded, ``data`` comes back.
        """
        out, shorter = data, False
        for coding in reversed(codings.partition(b"\0")[0]):
            decoder = _DECODERS.get(coding)
            if decoder is None:
                return data, False, False
            try:
                out, here = decoder(out, limit, cut or shorter)
            except _Undecodable:
                return data, False, False
            shorter = shorter or here
        if charset:
            try:
                decoder_of = codecs.getincrementaldecoder(self._names[charset])("strict")
                out = decoder_of.decode(out, not (cut or shorter)).encode()
            except (UnicodeError, LookupError, AssertionError):
                return data, False, shorter
        if len(out) > limit:
            return out[:limit], True, True
        return out, True, shorter
