"""Content codings and charsets of bodies (RFC 9110 sections 8.3 and 8.4): bytes on the wire -> UTF-8 text bytes.

Everything is bounded: a decoded body is never longer than the cap, whatever a bomb promises, and never costs more than
the work that it is allowed (codings.pyx says what is counted). A body that cannot be decoded, or not for that, is handed
back as it was, and the record says so.
"""

from __future__ import annotations

import codecs
import contextlib
import encodings.aliases
import pkgutil
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

import brotli
import zstandard

from collector.shards.records import messages
from collector.shards.records.codings import BROKEN, CUT, ENDED, LONGER, OVER, Inflater, zstd_frames

if TYPE_CHECKING:
    from collector.shards.records.descriptors import Methods

GZIP, DEFLATE, BR, ZSTD, UNKNOWN = 1, 2, 3, 4, 5  # enum coding of shards/state.pxd
UNDECODED, DECODED, REFUSED = 0, 1, 2  # enum of records/bodies.pyx

# Prices in units of WORK, beside those of codings.pyx (docs/decisions/0013).
WORK_LAYER = 1500  # a call, its objects
WORK_CHARSET = 10  # a byte of text in a charset
# A byte of output beyond so many for each byte on the wire: it is to be written, sent and stored by all who come later
EXPANSION = 32
WORK_EXPANDED = 10
# Brotli tells nothing about its blocks, but it gives output as soon as it can. So it gets its input in steps: a step that
# gives nothing only described codes, at up to 2,000 units a byte. Before the first output that is known to be less when
# the first block has few kinds of literals, as encoders begin.
BR_STEP = 16
WORK_BR_STEP = 3200
WORK_BR_CODES = 34000
WORK_BR_FIRST_CODES = 8000
BR_KINDS = 8

_CHARSET = re.compile(
    rb"(iso-?8859-?\d{1,2}|latin-?\d|windows-\d{3,4}|cp\d{3,4}|koi8-[rut]|utf-?(16|32)([-_]?[lb]e)?|gb2312|gbk|gb18030"
    rb"|big5(-hkscs)?|euc-(jp|kr)|shift[-_]jis|sjis|ks_c_5601-1987|iso-2022-(jp|kr)|tis-620|macintosh|us-ascii|utf-?8)"
)


# (output, how it ended, bytes behind the end, work)
_Undone = tuple[bytes, int, int, int]


def _few_kinds(data: bytes) -> bool:
    """Does a Brotli stream begin with a compressed block of at most BR_KINDS kinds of literals (RFC 7932 section 9)?"""
    bits, at = int.from_bytes(data[:16], "little"), 0

    def take(n: int) -> int:
        nonlocal at
        at += n
        return bits >> at - n & (1 << n) - 1

    if take(1) and take(3) == 0 and take(3) == 1:
        return False  # "large window": not for HTTP
    last = take(1)
    if last and take(1):
        return False
    nibbles = take(2)
    if nibbles == 3:
        return False
    take(4 * (4 + nibbles))
    if not last and take(1):
        return False
    if not take(1):
        return True
    extra = take(3)
    return 1 + (1 << extra) + take(extra) <= BR_KINDS


def _unbrotli(data: bytes, limit: int, _cut: bool, allowance: int) -> _Undone:
    engine = brotli.Decompressor()
    process, wants_more = engine.process, engine.can_accept_more_data
    pieces: list[bytes] = []
    size = work = place = 0
    codes = WORK_BR_FIRST_CODES if _few_kinds(data) else WORK_BR_CODES
    try:
        for place in range(0, len(data), BR_STEP):
            piece = process(data[place : place + BR_STEP], output_buffer_limit=limit + 1 - size)
            if piece:
                codes = WORK_BR_CODES
                work += WORK_BR_STEP
                pieces.append(piece)
                size += len(piece)
                while size <= limit and not wants_more():
                    piece = process(b"", output_buffer_limit=limit + 1 - size)
                    pieces.append(piece)
                    size += len(piece)
                    if not piece:
                        break
                if size > limit:
                    return b"".join(pieces)[:limit], LONGER, 0, work + (size >> 1)
            else:
                work += codes
            if work > allowance:
                return b"", OVER, 0, work
    except brotli.error:
        # It is broken, or its end lies before the end of this step: the engine does not say which.
        out, behind = _brotli_end(data, place, limit)
        return out, BROKEN if behind < 0 else ENDED, max(behind, 0), 2 * work + WORK_BR_CODES
    return b"".join(pieces), ENDED if engine.is_finished() else CUT, 0, work + (size >> 1)


def _brotli_end(data: bytes, place: int, limit: int) -> tuple[bytes, int]:
    """(output, bytes behind the end) of a stream that goes on to ``place`` and ends, if it does, within the step there;
    -1 when it does not. The output is known to be within the limit before that step.
    """
    engine = brotli.Decompressor()
    out, done = b"", 0
    try:
        for end in range(place, min(place + BR_STEP, len(data)) + 1):
            piece = engine.process(data[done:end], output_buffer_limit=limit + 1)
            out += piece
            while piece and len(out) <= limit and not engine.can_accept_more_data():
                piece = engine.process(b"", output_buffer_limit=limit + 1)
                out += piece
            done = end
            if engine.is_finished():
                return out[:limit], len(data) - done
    except brotli.error:
        pass
    return b"", -1


def load_charsets() -> None:
    """Import the code of all charsets that a message may name (30 ms, 2.5 MB): a shard that meets them can open no file."""
    modules = {module.name for module in pkgutil.iter_modules(encodings.__path__)}
    for name in {name.replace("_", "-") for name in modules | encodings.aliases.aliases.keys()}:
        if _CHARSET.fullmatch(name.encode()):
            with contextlib.suppress(LookupError):
                codecs.lookup(name)


class Decoder:
    """The decoders' states, and the charsets that this shard has met, by number (1-255), so that a message needs one byte
    for it.

    ``methods``: what the messages of gRPC and the like are, None when nobody has said so. With them the messages of the last
    body are ``kept`` (None for one of which only a prefix is there), for transcode.pyx, which takes them.
    """

    def __init__(self, methods: Methods | None = None) -> None:
        self.methods = methods
        self.kept: list[bytes | None] | None = None
        self._numbers: dict[bytes, int] = {}
        self._names: list[str] = [""]
        self.inflater = Inflater()  # bodies.pyx uses it by itself, where gzip is all there is to undo
        # 8 MiB is the window that a sender may use for HTTP (RFC 9659 section 3)
        self._zstd = zstandard.ZstdDecompressor(max_window_size=8 << 20)

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

    def _gunzip(self, data: bytes, limit: int, cut: bool, allowance: int) -> _Undone:
        out, ended, behind, work = self.inflater.undo(data, 31, limit, allowance, True)
        if behind == 1 and cut and data[-1] == 0x1F:
            behind = 0  # perhaps the beginning of a further member
        return out, ended, behind, work

    def _undeflate(self, data: bytes, limit: int, _cut: bool, allowance: int) -> _Undone:
        # "deflate" means the zlib format, but raw deflate is sent too (RFC 9110 section 8.4.1.2)
        out, ended, behind, work = self.inflater.undo(data, 15, limit, allowance, False)
        if ended == BROKEN:
            out, ended, behind, more = self.inflater.undo(data, -15, limit, allowance - work, False)
            work += more
        return out, ended, behind, work

    def _unzstd(self, data: bytes, limit: int, cut: bool, allowance: int) -> _Undone:
        end, ended, work = zstd_frames(data, allowance)
        if ended in (BROKEN, OVER):
            return b"", ended, 0, work
        behind = len(data) - end if ended == ENDED else 0
        if ended == CUT:
            if not cut:
                return b"", CUT, 0, work
            end = len(data)
        elif cut and 0 < behind < 4:
            behind = 0  # perhaps the beginning of a further frame
        out = b""
        try:
            with self._zstd.stream_reader(data[:end], read_across_frames=True) as reader:
                while len(out) <= limit:
                    piece = reader.read(limit + 1 - len(out))
                    if not piece:
                        break
                    out += piece
        except zstandard.ZstdError:
            if not (cut and out):
                ended = BROKEN
        work += len(out) >> 1
        return (out[:limit], LONGER, 0, work) if len(out) > limit else (out, ended, behind, work)

    def decode(
        self, data: bytes, codings: bytes, charset: int, cut: bool, limit: int, allowance: int
    ) -> tuple[bytes, int, bool, int, bool, int]:
        """(text bytes, UNDECODED or DECODED or REFUSED, shorter than the whole?, bytes behind the end of a coding, are
        some of them the wire's?, work).

        codings: numbers in the order they were applied, 0 ends. cut: ``data`` is known to be a prefix.
        limit: bytes of output at most. allowance: work at most, some steps aside. When not decoded, ``data`` comes back.
        """
        out, shorter, behind, outer, work = data, False, 0, False, 0
        for coding in reversed(codings.partition(b"\0")[0]):
            undo = _UNDO.get(coding)
            if undo is None:
                return data, UNDECODED, False, 0, False, work
            outermost = out is data
            out, ended, after, cost = undo(self, out, limit, cut or shorter, allowance - work)
            work += cost + WORK_LAYER + max(0, len(out) - EXPANSION * len(data)) * WORK_EXPANDED
            if ended == OVER or work > allowance:
                return data, REFUSED, False, 0, False, work
            if ended == BROKEN or (ended == CUT and not (cut or shorter)):
                return data, UNDECODED, False, 0, False, work
            shorter = shorter or ended in (CUT, LONGER)
            behind += after
            outer = outer or (outermost and after > 0)
        if charset:
            work += WORK_LAYER + len(out) * WORK_CHARSET
            if work > allowance:
                return data, REFUSED, False, 0, False, work
            try:
                decoder_of = codecs.getincrementaldecoder(self._names[charset])("strict")
                out = decoder_of.decode(out, not (cut or shorter)).encode()
            except (UnicodeError, LookupError, AssertionError):
                return data, UNDECODED, shorter, 0, False, work
        if len(out) > limit:
            return out[:limit], DECODED, True, behind, outer, work
        return out, DECODED, shorter, behind, outer, work

    def messages(
        self, data: bytes, media: int, inner: int, codings: bytes, cut: bool, limit: int, allowance: int
    ) -> tuple[bytes, int, int, bool, int]:
        """(payload, number of messages, UNDECODED or DECODED or REFUSED, shorter than the whole?, work) of such a body.

        inner: the coding of those whose flag says that they are compressed. The rest as `decode`.
        """
        spent = state = 0
        if codings[0]:
            data, state, shorter, _behind, _outer, spent = self.decode(data, codings, 0, cut, limit, allowance)
            if state != DECODED:
                return b"", 0, state, False, spent
            cut = cut or shorter
        state, room = UNDECODED, limit

        def undo(message: bytes, prefix: bool) -> tuple[bytes, bool] | None:
            nonlocal spent, state, room
            out, state, shorter, _behind, _outer, work = self.decode(
                message, bytes((inner,)), 0, prefix, max(room, 1), allowance - spent
            )
            spent += work
            room -= len(out)
            return (out, shorter) if state == DECODED else None

        kept: list[bytes | None] | None = None if self.methods is None else []
        found = messages.of_body(data, media, cut, undo, kept)
        if found is None:
            return b"", 0, REFUSED if state == REFUSED else UNDECODED, False, spent
        self.kept = kept
        payload, number, shorter = found
        return payload, number, DECODED, shorter, spent + WORK_LAYER + number * messages.WORK_MESSAGE


# Here and not in the decoder, which would then refer to itself: its buffers are to go with its last user.
_UNDO: dict[int, Callable[[Decoder, bytes, int, bool, int], _Undone]] = {
    GZIP: Decoder._gunzip,
    DEFLATE: Decoder._undeflate,
    ZSTD: Decoder._unzstd,
    BR: lambda _decoder, data, limit, cut, allowance: _unbrotli(data, limit, cut, allowance),
}
