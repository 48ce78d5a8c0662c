"""Valid HTTP/1 conversations for hypothesis, with what they mean: RFC 9112 and 9110, used to their edges.

A strategy knows the meaning of the bytes that it makes, so a test can compare three things: what was meant, what an
independent parser reads, what the collector reads.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from collector import abi
from tests.events import Conversation

Fields = tuple[tuple[bytes, bytes], ...]


def _as_latin1(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return chr(error.object[error.start]), error.start + 1


codecs.register_error("tests.as_latin1", _as_latin1)


def header_text(data: bytes) -> str:
    """The text that a record's header shows for bytes of the wire: UTF-8, and ISO-8859-1 byte by byte for the rest; a
    line break, which only a folded value has, is a blank."""
    return data.decode("utf-8", "tests.as_latin1").replace("\r", " ").replace("\n", " ")


def shown_fields(fields: Iterable[tuple[bytes, bytes]], *, request: bool, target: bytes = b"") -> list[tuple[str, str]]:
    """The members of a record's header object for fields of the wire, as docs/records.md says, in order."""
    joined: dict[bytes, tuple[str, list[str]]] = {}
    for name, value in fields:
        key = name.lower()
        shown = "host" if request and key == b"host" else header_text(name)
        joined.setdefault(key, (shown, []))[1].append(header_text(value))
    between = {b"cookie": "; ", b"set-cookie": "\n"}
    out = [(name, between.get(key, ", ").join(values)) for key, (name, values) in joined.items()]
    if request and b"host" not in joined:
        authority = b""
        if target[:7].lower() == b"http://" or target[:8].lower() == b"https://":
            authority = target.partition(b"://")[2].partition(b"/")[0].partition(b"?")[0]
        out.append(("host", header_text(authority)))
    return out


@dataclass(frozen=True)
class Message:
    """A request (method and target) or a response (status and reason): bytes, and what they mean."""

    version: bytes
    fields: Fields
    body: bytes
    head: bytes  # on the wire
    payload: bytes  # the body on the wire, chunks and trailers included
    method: bytes = b""
    target: bytes = b""
    status: int = 0
    reason: bytes = b""
    interim: bytes = b""  # before a response: its 1xx responses
    until_close: bool = False  # the connection's end is the response's end

    @property
    def wire(self) -> bytes:
        return self.interim + self.head + self.payload


@dataclass(frozen=True)
class Exchange:
    """A request, its answer, and the order in which their parts go."""

    request: Message
    response: Message
    expects: bool  # the body waits for a 1xx response, if there is one
    early: bool  # the response goes while the request's body is outstanding
    ahead: int  # requests that go, pipelined, before this response


@dataclass(frozen=True)
class Dialogue:
    """A whole connection."""

    exchanges: tuple[Exchange, ...]
    events: tuple[tuple[bool, bytes], ...]  # (request?, bytes), in order

    def play(self, role: int = abi.SERVER, **settings: Any) -> Conversation:
        """Through the collector's pipeline, to the connection's end."""
        c = Conversation(role=role, **settings)
        for request, data in self.events:
            (c.request if request else c.response)(data)
        if role == abi.CLIENT and self.exchanges[-1].response.until_close:
            c.eof(1 - c.requests)  # a client has to read the end to know that it has all
        return c.close()


# ---- heads -------------------------------------------------------------------------------------------------------

TCHAR = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
# They say where a message ends, or what comes after it; or the collector looks at them: made on purpose, not by chance
MEANINGFUL = frozenset(
    (
        b"host",
        b"content-length",
        b"transfer-encoding",
        b"connection",
        b"proxy-connection",
        b"upgrade",
        b"expect",
        b"content-type",
        b"content-encoding",
    )
)
# httptools (llhttp) refuses all other methods
KNOWN_METHODS = (
    b"GET",
    b"POST",
    b"PUT",
    b"DELETE",
    b"PATCH",
    b"OPTIONS",
    b"TRACE",
    b"PROPFIND",
    b"MKCOL",
    b"REPORT",
    b"M-SEARCH",
    b"PURGE",
    b"QUERY",
    b"HEAD",
    b"HEAD",
)
# Lower case is another method (RFC 9110 section 9.1): "head" has a body
METHODS = st.one_of(
    st.sampled_from(KNOWN_METHODS),
    st.sampled_from(KNOWN_METHODS),
    st.sampled_from([b"get", b"head", b"Head", b"HEADS", b"HEA", b"connect", b"!#$%&'*+-.^_`|~", b"0"]),
    st.text(TCHAR, min_size=1, max_size=20).map(str.encode),
).filter(lambda m: m != b"CONNECT")
NAMES = st.one_of(
    # few, so that they repeat, in several cases; lengths around eight, for names are compared eight bytes at a time
    st.sampled_from(
        [
            b"X-A",
            b"x-a",
            b"X-a",
            b"Cookie",
            b"cookie",
            b"Set-Cookie",
            b"SET-COOKIE",
            b"Accept",
            b"accept",
            b"Via",
            b"X-Seven",
            b"x-SEVEN",
            b"X-Eight8",
            b"x-eight8",
            b"X-Nine-99",
            b"x-nine-99",
            b"A^b",
            b"A~b",
            b"Accept-Encoding",
            b"X-Forwarded-For-1",
            b"x-forwarded-for-1",
            b"X-Forwarded-For-2",
        ]
    ),
    st.text(TCHAR, min_size=1, max_size=24).map(str.encode).filter(lambda n: n.lower() not in MEANINGFUL),
)
BLANKS = st.sampled_from([b"", b" ", b" ", b"  ", b"\t", b" \t "])


def _legal(data: bytes) -> bytes:
    """Any bytes, made a field value: VCHAR, obs-text, and blanks inside (RFC 9110 section 5.5)."""
    return bytes(c if c == 9 or 0x20 <= c != 0x7F else c % 0x5E + 0x21 for c in data).strip(b" \t")


UNICODE = "Zo\u00eb \u6f22\u5b57 \U0001f600".encode()
VALUES = st.one_of(
    st.sampled_from(
        [
            b"",
            b"x",
            b'"',
            b"\\",
            b'a "quoted \\" string", b',
            b"a\tb \t c",
            UNICODE,
            b"\xe9t\xe9",
            b"\xc3",
            b"\x80\xff",
            b'{"a":[1]}',
            b"a;b=c, d",
            b"a=1; b=2",
            b":",
            b": :",
            b"chunked",
            b"close",
            b"HTTP/1.1 200 OK",
            b'<">',
            b"\\u0041\\n",
        ]
    ),
    st.binary(max_size=40).map(_legal),
    st.tuples(st.binary(min_size=1, max_size=6).map(_legal), st.integers(1, 60)).map(lambda v: (v[0] * v[1]).strip(b" \t")),
)
LINES = st.lists(st.tuples(NAMES, BLANKS, VALUES, BLANKS), max_size=7)

_PCHARS = "abcXYZ019-._~!$&'()*+,;=:@/"
# The last ones are no URI characters, but browsers and curl send them as they are; both oracles take them
_PATHS = st.lists(
    st.one_of(
        st.text(_PCHARS, max_size=12),
        st.sampled_from(["%20", "%2F", "%c3%A9", "%00", "%", "//", "/../", '"', "\\", "{id}", "|", "[0]", "a" * 200]),
    ),
    max_size=6,
).map("".join)
_QUERIES = st.one_of(st.just(""), st.just("?"), _PATHS.map(lambda q: "?" + q), st.just("?a=1&a=2&b=%3D??/:@"))
_AUTHORITIES = st.sampled_from(["a.example", "A.Example:8080", "127.0.0.1:80", "[::1]:443", "[2001:db8::1]", "x"])
TARGETS = st.one_of(
    st.tuples(_PATHS, _QUERIES).map(lambda t: ("/" + t[0] + t[1]).encode()),
    st.tuples(
        st.sampled_from(["http", "HTTP", "https"]),
        _AUTHORITIES,
        st.one_of(st.just(""), _PATHS.map(lambda p: "/" + p)),
        _QUERIES,
    ).map(lambda t: f"{t[0]}://{t[1]}{t[2]}{t[3]}".encode()),
)


def _line(name: bytes, before: bytes, value: bytes, after: bytes) -> bytes:
    return name + b":" + before + value + after + b"\r\n"


# ---- bodies ------------------------------------------------------------------------------------------------------

BODIES = st.one_of(
    st.sampled_from(
        [
            b"",
            b"x",
            b'{"a":1}',
            b"GET /forged HTTP/1.1\r\nHost: x\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n\r\n",
            b"\r\n",
            b"0\r\n\r\n",
            b"\r\n\r\n",
            UNICODE,
            b"\xff\x00",
            b"\n" * 40,
            b"y" * 20_000,
            b'\\"' * 300,
        ]
    ),
    st.text(max_size=60).map(lambda t: t.encode("utf-8", "replace")),
    st.binary(max_size=60),
)
EXTENSIONS = st.sampled_from([b"", b"", b"", b";a", b";a=b", b';a="b;c=\\"d"', b';a=b;c;d=""', b';a="' + b"e" * 100 + b'"'])


@st.composite
def chunks(draw: Any, body: bytes, blanks: bytes = b"") -> bytes:
    """The body in chunks (RFC 9112 section 7.1). `blanks`: what may stand around a chunk extension's signs."""
    out = b""
    count = draw(st.integers(0, 3))
    cuts = sorted(draw(st.lists(st.integers(0, len(body)), min_size=count, max_size=count)))
    for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True):
        if start < end:
            out += _size(draw, end - start, blanks) + body[start:end] + b"\r\n"
    out += _size(draw, 0, blanks)
    for line in draw(st.lists(st.tuples(NAMES, BLANKS, VALUES, BLANKS), max_size=2)):
        out += _line(*line)  # trailers
    return out + b"\r\n"


def _size(draw: Any, n: int, blanks: bytes) -> bytes:
    digits: bytes = draw(st.sampled_from([b"%x", b"%X", b"0%x", b"00000%X"])) % n
    extension: bytes = draw(EXTENSIONS)
    if extension:
        extension = blanks + extension.replace(b";a", b";" + blanks + b"a", 1)
    return digits + extension + b"\r\n"


CONTENT_TYPES = st.sampled_from(
    [
        b"",
        b"",
        b"text/plain",
        b"text/html; charset=UTF-8",
        b"application/json",
        b"Application/JSON",
        b"application/json; charset=utf-8",
        b"application/problem+json",
        b"image/svg+xml",
        b"application/x-www-form-urlencoded",
        b"image/png",
        b"Application/Octet-Stream",
    ]
)


# ---- messages ----------------------------------------------------------------------------------------------------


def _shuffled(
    draw: Any, lines: list[tuple[bytes, bytes, bytes, bytes]], special: list[tuple[bytes, bytes]]
) -> tuple[Fields, bytes]:
    """Fields that mean something go anywhere between the others."""
    for name, value in special:
        place = draw(st.integers(0, len(lines)))
        lines = [*lines[:place], (name, draw(BLANKS), value, draw(BLANKS)), *lines[place:]]
    return tuple((name, value) for name, _, value, _ in lines), b"".join(_line(*line) for line in lines)


def _length(draw: Any, n: int) -> tuple[bytes, bytes]:
    return draw(st.sampled_from([b"Content-Length", b"content-length"])), draw(st.sampled_from([b"%d", b"%d", b"00%d"])) % n


def _chunked(draw: Any) -> tuple[bytes, bytes]:
    return (
        draw(st.sampled_from([b"Transfer-Encoding", b"TRANSFER-ENCODING"])),
        draw(st.sampled_from([b"chunked", b"chunked", b"Chunked"])),
    )


@st.composite
def requests(draw: Any, last: bool, blanks: bytes = b"") -> Message:
    """One request; `Connection: close`, HTTP/1.0 without keep-alive, and CONNECT only as the connection's last one."""
    special: list[tuple[bytes, bytes]] = []
    version = b"HTTP/1.0" if draw(st.integers(0, 5)) == 5 else b"HTTP/1.1"
    method, target = draw(METHODS), draw(TARGETS)
    if last and draw(st.integers(0, 9)) == 9:
        method, target = b"CONNECT", b"a.example:443"
    elif method == b"OPTIONS" and draw(st.booleans()):
        target = b"*"
    if version == b"HTTP/1.1" or draw(st.booleans()):
        # exactly one; it may be empty, but repeats the authority of an absolute target (RFC 9112 section 3.2)
        authority = target.partition(b"://")[2].partition(b"/")[0].partition(b"?")[0]
        special.append(
            (
                draw(st.sampled_from([b"Host", b"host", b"HOST"])),
                authority or draw(st.sampled_from([b"a.example:80", b"", b"[::1]"])),
            )
        )
    body, payload = b"", b""
    framing = draw(st.sampled_from(["none", "none", "length", "chunked"]))
    if method != b"CONNECT" and framing != "none":
        body = draw(BODIES)
        kind = draw(CONTENT_TYPES)
        if kind:
            special.append((b"Content-Type", kind))
        if framing == "chunked" and version == b"HTTP/1.1":
            special.append(_chunked(draw))
            payload = draw(chunks(body, blanks))
        else:
            special.append(_length(draw, len(body)))
            payload = body
        if version == b"HTTP/1.1" and body and draw(st.integers(0, 3)) == 3:
            special.append((b"Expect", b"100-continue"))
    if last and draw(st.booleans()):
        special.append((b"Connection", b"close"))
    elif draw(st.integers(0, 5)) == 5 or (version == b"HTTP/1.0" and not last):
        special.append((b"Connection", b"keep-alive"))
    fields, lines = _shuffled(draw, draw(LINES), special)
    # an empty line before a request is to be skipped (RFC 9112 section 2.2)
    empty = b"\r\n" if draw(st.integers(0, 9)) == 9 else b""
    return Message(
        version=version,
        fields=fields,
        body=body,
        payload=payload,
        method=method,
        target=target,
        head=empty + method + b" " + target + b" " + version + b"\r\n" + lines + b"\r\n",
    )


REASONS = st.one_of(
    st.sampled_from([b"", b"OK", b"Not Found", b" two  blanks", b"\ttab", b'"\\"', b"\xe9t\xe9", UNICODE, b"x" * 70]),
    st.binary(max_size=20).map(_legal),
)
STATUSES = st.one_of(st.sampled_from([200, 200, 204, 304, 304, 404, 500]), st.integers(200, 599))


@st.composite
def responses(draw: Any, to: Message, last: bool, blanks: bytes = b"") -> Message:
    """The answer to a request."""
    special: list[tuple[bytes, bytes]] = []
    status, reason = draw(STATUSES), draw(REASONS)
    version = b"HTTP/1.0" if to.version == b"HTTP/1.0" and draw(st.booleans()) else b"HTTP/1.1"
    body, payload, interim = b"", b"", b""
    framing = draw(st.sampled_from(["length", "chunked", "close"]))
    if framing == "chunked" and b"HTTP/1.0" in (version, to.version):
        framing = "length"  # RFC 9112 section 6.1
    if framing == "close" and not last:
        framing = "length"
    if to.method == b"CONNECT" and status < 300:
        framing = "none"  # what follows is a tunnel (RFC 9110 section 9.3.6)
    elif status == 204:
        framing = "none"  # RFC 9110 section 8.6, RFC 9112 section 6.1
    elif to.method == b"HEAD" or status == 304:
        # the fields are those of the answer to GET, without its body (RFC 9110 sections 9.3.2 and 15.4.5)
        special += [] if framing == "close" else [_chunked(draw) if framing == "chunked" else _length(draw, 5)]
        framing = "none"
    else:
        body = draw(BODIES)
    if framing == "chunked":
        special.append(_chunked(draw))
        payload = draw(chunks(body, blanks))
    elif framing == "length":
        special.append(_length(draw, len(body)))
        payload = body
    elif framing == "close":
        payload = body
    kind = draw(CONTENT_TYPES)
    if kind:
        special.append((b"Content-Type", kind))
    if framing == "close" or (last and draw(st.booleans())):
        special.append((b"Connection", b"close"))
    elif version == b"HTTP/1.0":
        special.append((b"Connection", b"keep-alive"))
    fields, lines = _shuffled(draw, draw(LINES), special)
    # RFC 9112 section 4 wants the blank even before an empty phrase, many servers leave it out, all parsers allow that
    phrase = b" " + reason if reason or draw(st.booleans()) else b""
    if to.version == b"HTTP/1.1":
        for code in draw(st.lists(st.sampled_from([100, 102, 103, 199]), max_size=2)):
            interim += b"HTTP/1.1 %d Wait\r\n" % code + b"".join(_line(*line) for line in draw(LINES)) + b"\r\n"
    return Message(
        version=version,
        fields=fields,
        body=body,
        payload=payload,
        status=status,
        reason=reason,
        interim=interim,
        until_close=framing == "close",
        head=version + b" %d" % status + phrase + b"\r\n" + lines + b"\r\n",
    )


@st.composite
def dialogues(draw: Any, max_exchanges: int = 4, blanks: bytes = b"") -> Dialogue:
    """A connection: exchanges, pipelined here and there, and how their bytes came in events."""
    exchanges: list[Exchange] = []
    count = draw(st.integers(1, max_exchanges))
    for number in range(count):
        last = number == count - 1
        request = draw(requests(last, blanks))
        response = draw(responses(request, last, blanks))
        expects = any(name == b"Expect" for name, _ in request.fields)
        early = bool(request.payload) and not expects and draw(st.integers(0, 3)) == 3
        exchanges.append(Exchange(request, response, expects, early, ahead=draw(st.integers(0, 2))))
    return Dialogue(tuple(exchanges), tuple(_events(draw, exchanges)))


def _events(draw: Any, exchanges: list[Exchange]) -> list[tuple[bool, bytes]]:
    parts: list[tuple[bool, bytes]] = []
    sent = 0
    for number, exchange in enumerate(exchanges):
        if sent <= number and (exchange.early or exchange.expects):
            answer = exchange.response.wire
            half = len(exchange.response.interim) if exchange.expects else draw(st.integers(0, len(answer)))
            parts += [
                (True, exchange.request.head),
                (False, answer[:half]),
                (True, exchange.request.payload),
                (False, answer[half:]),
            ]
            sent = number + 1
            continue
        while sent < min(number + 1 + exchange.ahead, len(exchanges)):
            parts.append((True, exchanges[sent].request.wire))
            sent += 1
        parts.append((False, exchange.response.wire))
    # what goes the same way without a word from the other side may well be one write
    runs: list[tuple[bool, bytes]] = []
    for request, data in parts:
        if runs and runs[-1][0] == request and draw(st.booleans()):
            runs[-1] = (request, runs[-1][1] + data)
        else:
            runs.append((request, data))
    out: list[tuple[bool, bytes]] = []
    for request, data in runs:
        step = draw(st.sampled_from([0, 0, 0, 1, 16]))
        if step and len(data) <= 2000:
            cuts: list[int] = list(range(step, len(data), step))
        else:
            cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=4)))
        pieces = (data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True))
        out += [(request, piece) for piece in pieces if piece]
    return out
