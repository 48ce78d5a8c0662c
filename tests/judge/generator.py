"""Random HTTP/1 conversations as the kernel would report them, with their truth. The same seed gives the same ones.

    plan = draw_plan(rng)                   flow, depth, pace, damage: what it is to be like
    conversation(rng, number, plan)         messages -> steps in a causal order -> events with positions and times -> damage

Nothing here knows how the collector reads HTTP: what is right follows from how the bytes were made.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from random import Random

import brotli
import zstandard

from collector import abi
from tests.judge.truth import (
    CLIENT_BYTES,
    CUT,
    FORGED,
    ON,
    SERVER_BYTES,
    Conversation,
    Event,
    Exchange,
    Message,
    Pieces,
    Plan,
)

KINDS = ("whole", "lost", "size_only", "tail", "join", "open_lost", "reorder", "silence", "evict")
_WEIGHTS = (40, 20, 7, 6, 13, 3, 5, 4)  # of all but evict, which is a whole batch's
DEPTHS = (1, 2, 3, 4, 10)
US, MS, SECOND = 1_000, 1_000_000, 1_000_000_000
_PHRASES = {
    200: "OK",
    201: "Created",
    202: "Accepted",
    204: "No Content",
    304: "Not Modified",
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    413: "Content Too Large",
    417: "Expectation Failed",
    500: "Oops",
}
_AGENTS = ("curl/7.88.1", "python-requests/2.31", "Go-http-client/1.1", "Mozilla/5.0 (X11; Linux x86_64)")


# ---- plans -------------------------------------------------------------------------------------------------------


def draw_plan(rng: Random, kinds: tuple[str, ...] = KINDS, *, evicting: bool = False) -> Plan:
    """A plan whose damage is of these kinds."""
    depth = rng.choices(DEPTHS, (35, 20, 12, 15, 18))[0]
    flow = "closed" if depth == 1 else rng.choices(("steady", "batch", "random"), (45, 30, 25))[0]
    client = rng.random() < 0.5
    possible = [k for k in KINDS[:-1] if k in kinds and (client or k != "reorder")] or ["whole"]
    weights = [_WEIGHTS[KINDS.index(k)] for k in possible]
    damage = [rng.choices(possible, weights)[0]]
    if rng.random() < 0.1:
        # the collector has to believe that a connection on which nothing happens for seconds is quiet, so a silence
        # with something outstanding stands alone
        damage += [k for k in rng.choices(possible, weights) if k not in damage and "silence" not in (k, *damage)]
    if evicting:
        damage.append("evict")
    return Plan(
        client=client,
        flow=flow,
        depth=depth,
        pace=rng.choice(("tight", "ms", "pauses")),
        exchanges=rng.randint(2, 8) if depth == 1 else rng.randint(depth + 1, min(3 * depth, depth + 9)),
        damage=tuple(k for k in damage if k != "whole"),
        forged=rng.choices(("", "request", "response", "both"), (78, 5, 5, 12))[0],
        last=rng.choices(("ordinary", "until_close", "upgrade", "connect", "unanswered"), (70, 9, 6, 4, 11))[0],
    )


# ---- bodies ------------------------------------------------------------------------------------------------------


def _filler(owner: str, size: int) -> bytes:
    """About so many bytes, of which every few say whose they are and where they belong."""
    return "".join([f"{owner}.{k}\n" for k in range(max(1, size // (len(owner) + 4)))]).encode()


def _size(rng: Random) -> int:
    return rng.choices(
        (rng.randint(1, 40), rng.randint(40, 300), rng.randint(300, 3000), rng.randint(60_000, 90_000)), (30, 45, 24.6, 0.4)
    )[0]


def _forged_request(rng: Random, marker: str) -> bytes:
    head = f"/{marker} HTTP/1.1\r\nHost: forged.example\r\nX-Owner: {marker}\r\nAuthorization: {marker}\r\n"
    body = _filler(marker, 60)
    how = rng.random()
    if how < 0.55:
        return f"GET {head}\r\n".encode()
    if how < 0.65:
        return f"HEAD {head}\r\n".encode()
    if how < 0.8:
        return f"POST {head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    if how < 0.9:  # swallows what comes, if it is believed
        return f"POST {head}Content-Length: {rng.randint(2000, 200_000)}\r\n\r\n".encode() + body
    return f"POST {head}Transfer-Encoding: chunked\r\n\r\n{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n"


def _forged_answer(rng: Random, marker: str) -> bytes:
    head = f"X-Owner: {marker}\r\n"
    body = _filler(marker, 60)
    how = rng.random()
    if how < 0.55:
        return f"HTTP/1.1 200 {marker}\r\n{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    if how < 0.65:
        return f"HTTP/1.1 204 {marker}\r\n{head}\r\n".encode()
    if how < 0.73:  # until the connection's end, if it is believed
        return f"HTTP/1.1 200 {marker}\r\n{head}\r\n".encode() + body
    if how < 0.8:
        return f"HTTP/1.1 101 {marker}\r\n{head}Upgrade: websocket\r\nConnection: upgrade\r\n\r\n".encode()
    if how < 0.84:
        return f"HTTP/1.1 100 {marker}\r\n{head}\r\n".encode()
    if how < 0.92:
        return f"HTTP/1.1 200 {marker}\r\n{head}Content-Length: {rng.randint(2000, 200_000)}\r\n\r\n".encode() + body
    return (
        f"HTTP/1.1 200 {marker}\r\n{head}Transfer-Encoding: chunked\r\n\r\n{len(body):x}\r\n".encode()
        + body
        + b"\r\n0\r\n\r\n"
    )


_CODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: gzip.compress(data, 1, mtime=0),
    "deflate": lambda data: zlib.compress(data, 1),
    "br": lambda data: brotli.compress(data, quality=1),
    "zstd": lambda data: zstandard.ZstdCompressor(level=1).compress(data),
}


def _write_body(rng: Random, message: Message, lines: list[str], plan: Plan, marker: str, *, framing: str = "") -> None:
    """Give the message a body, and to `lines` the header fields that describe it."""
    forged = plan.forged in ("both", "request" if message.request else "response") and rng.random() < 0.7
    owner, shown = message.owner, message.fields
    segments: Pieces
    media = "text/plain"
    if forged:
        message.forged = True
        segments = [(_filler(owner, rng.randint(10, 400)), ON)]
        for number in range(rng.choice((1, 1, 2, 3))):
            forge = _forged_request if message.request != (rng.random() < 0.1) else _forged_answer
            segments.append((forge(rng, f"f{marker}n{number}z"), FORGED))
            if rng.random() < 0.8:
                segments.append((_filler(owner, rng.randint(10, 200)), rng.choice((ON, CUT))))
    else:
        media = (
            "text/plain"
            if plan.simple
            else rng.choices(("text/plain", "application/json", "image/png", ""), (55, 30, 6, 9))[0]
        )
        size = _size(rng)
        if media == "application/json" or (media == "" and rng.random() < 0.5):
            text = json.dumps({"owner": owner, "items": _filler(owner, size).decode().split("\n"), "n": {"a": [1]}})
            message.plain = text.encode()
            message.closable = message.request
        else:
            message.plain = _filler(owner, size)
        message.coded = message.plain
        message.omitted = media == "image/png"
        if not plan.simple and rng.random() < 0.15:
            message.coding = rng.choice(("gzip", "gzip", "deflate", "br", "zstd"))
            message.coded = _CODERS[message.coding](message.plain)
            lines.append(f"Content-Encoding: {message.coding}")
            shown["Content-Encoding"] = message.coding
        segments = [(message.coded, ON)]
    if forged:
        message.plain = message.coded = b"".join(data for data, _ in segments)
    if media:
        lines.append(f"Content-Type: {media}")
        shown["Content-Type"] = media
    if framing == "close":
        message.until_close = True
        message.pieces = segments
    elif not plan.simple and rng.random() < 0.25:
        lines.append("Transfer-Encoding: chunked")
        shown["Transfer-Encoding"] = "chunked"
        _chunk(rng, message, segments, marker)
    else:
        lines.append(f"Content-Length: {len(message.coded)}")
        shown["Content-Length"] = str(len(message.coded))
        message.pieces = segments


def _chunk(rng: Random, message: Message, segments: Pieces, marker: str) -> None:
    pieces: Pieces = []
    for data, begins in segments:
        while data:
            size = len(data) if begins == FORGED or rng.random() < 0.5 else rng.randint(1, len(data))
            extension = ";a=b" if rng.random() < 0.05 else ""
            pieces += [(f"{size:x}{extension}\r\n".encode(), ON), (data[:size], begins), (b"\r\n", ON)]
            data = data[size:]
    message.trailers = rng.random() < 0.3
    pieces.append((f"0\r\nX-Trailer: t{marker}z\r\n\r\n".encode() if message.trailers else b"0\r\n\r\n", ON))
    message.pieces = pieces


# ---- messages ----------------------------------------------------------------------------------------------------


def _add(lines: list[str], shown: dict[str, str], name: str, *values: str) -> None:
    lines += [f"{name}: {value}" for value in values]
    shown[name] = {"Cookie": "; ", "Set-Cookie": "\n"}.get(name, ", ").join(values)


def _request(rng: Random, marker: str, plan: Plan, kind: str, last: bool) -> Message:
    owner = f"q{marker}z"
    message = Message(owner, True)
    lines: list[str] = []
    shown = message.fields
    has_body = False
    if kind == "connect":
        message.method, message.target = "CONNECT", f"{owner}.example:80"
        host = message.target
    else:
        host = f"{owner}.example"
        message.target = f"/{owner}/items?page={rng.randint(1, 9)}"
        if not plan.simple and rng.random() < 0.06:
            message.target += "&long=" + (owner + "-") * rng.randint(10, 70)
        if kind == "upgrade":
            message.method = "GET"
        elif kind == "expect" or plan.forged in ("request", "both") and rng.random() < 0.5:
            message.method, has_body = "POST", True
        elif rng.random() < plan.heads:
            message.method = "HEAD"
        elif plan.simple:
            message.method = rng.choice(("GET", "GET", "POST"))
            has_body = message.method == "POST"
        else:
            message.method = rng.choices(("GET", "POST", "PUT", "DELETE", "OPTIONS"), (50, 30, 10, 6, 4))[0]
            has_body = message.method in ("POST", "PUT")
    lines.append(f"Host: {host}")
    shown["host"] = host
    _add(lines, shown, "X-Owner", owner)
    if rng.random() < 0.5:
        _add(lines, shown, "User-Agent", rng.choice(_AGENTS))
    if rng.random() < 0.15:
        _add(lines, shown, "Cookie", f"a={owner}", *(["b=2"] if rng.random() < 0.5 else []))
    if rng.random() < 0.15:
        _add(lines, shown, "Accept", "text/html", *(["*/*;q=0.1"] if rng.random() < 0.5 else []))
    if not plan.simple and rng.random() < 0.1:
        _add(lines, shown, "Authorization", f"Bearer {owner}" * rng.choice((1, 1, 40)))
    if kind == "upgrade":
        _add(lines, shown, "Upgrade", "websocket")
        _add(lines, shown, "Connection", "Upgrade")
    elif kind == "expect":
        _add(lines, shown, "Expect", "100-continue")
    elif last and rng.random() < 0.3:
        _add(lines, shown, "Connection", "close")
    if has_body:
        _write_body(rng, message, lines, plan, marker)
    message.head = "\r\n".join([f"{message.method} {message.target} HTTP/1.1", *lines, "", ""]).encode()
    return message


def _answer(rng: Random, marker: str, plan: Plan, request: Message, *, status: int = 0, framing: str = "") -> Message:
    owner = f"a{marker}z"
    message = Message(owner, False)
    lines: list[str] = []
    shown = message.fields
    if not status:
        status = (
            200
            if plan.simple or framing
            else rng.choices((200, 201, 202, 204, 304, 400, 404, 500), (60, 8, 5, 8, 6, 5, 5, 3))[0]
        )
    # a phrase of its own: the owner shows, though all of the head but its first line may be lost
    message.status = f"{status} {_PHRASES.get(status, 'Fine')} {owner}"
    _add(lines, shown, "X-Owner", owner)
    if rng.random() < 0.3:
        _add(lines, shown, "Server", "nginx")
    if rng.random() < 0.15:
        _add(lines, shown, "Set-Cookie", f"s={owner}", *(["t=1, 2"] if rng.random() < 0.5 else []))
    if status == 101:
        _add(lines, shown, "Upgrade", "websocket")
        _add(lines, shown, "Connection", "Upgrade")
    elif status in (204, 304) or (request.method == "CONNECT" and status == 200):
        if status == 304 and rng.random() < 0.5:
            _add(lines, shown, "Content-Length", str(rng.randint(1, 5000)))
    elif request.method == "HEAD":
        if rng.random() < 0.7:
            _add(lines, shown, "Content-Length", str(rng.randint(1, 5000)))
        elif rng.random() < 0.5:
            _add(lines, shown, "Transfer-Encoding", "chunked")
    elif rng.random() < 0.06 and framing != "close":
        _add(lines, shown, "Content-Length", "0")
    else:
        if framing == "close" and rng.random() < 0.7:
            _add(lines, shown, "Connection", "close")
        _write_body(rng, message, lines, plan, marker, framing=framing)
    message.head = "\r\n".join([f"HTTP/1.1 {message.status}", *lines, "", ""]).encode()
    return message


def _interim(rng: Random, marker: str, status: int) -> bytes:
    link = f"Link: <i{marker}z>\r\n" if status == 103 or rng.random() < 0.2 else ""
    return f"HTTP/1.1 {status} i{marker}z\r\n{link}\r\n".encode()


def _exchanges(rng: Random, number: int, plan: Plan) -> list[Exchange]:
    out = []
    unanswered = rng.randint(1, plan.depth) if plan.last == "unanswered" else 0
    for n in range(plan.exchanges):
        marker = f"{number}x{n}"
        last = n == plan.exchanges - 1
        kind = plan.last if last and plan.last in ("upgrade", "connect") else "plain"
        if kind == "plain" and not plan.simple and rng.random() < 0.03:
            kind = rng.choice(("expect", "expect", "upgrade", "connect"))  # the latter two: refused
        request = _request(rng, marker, plan, kind, last)
        barrier = kind in ("expect", "connect", "upgrade") and rng.random() < (0.9 if kind == "upgrade" else 1)
        interims: list[bytes] = []
        response: Message | None = None
        if n < plan.exchanges - unanswered:
            status, framing = 0, ""
            if kind == "upgrade" and last and plan.last == kind:
                status = 101
            elif kind == "connect":
                status = 200 if last and plan.last == kind else rng.choice((403, 404))
            elif kind == "expect":
                status = rng.choice((0, 0, 200, 417, 413))
            elif last and plan.last == "until_close" and request.method != "HEAD":
                framing = "close"
            response = _answer(rng, marker, plan, request, status=status, framing=framing)
            if not plan.simple and kind == "plain" and rng.random() < 0.04:
                interims = [_interim(rng, marker, rng.choice((102, 103))) for _ in range(rng.choice((1, 1, 2)))]
        out.append(Exchange(n, kind, request, response, interims, barrier))
    return out


# ---- the order of things -----------------------------------------------------------------------------------------


def _order(rng: Random, plan: Plan, exchanges: list[Exchange]) -> Iterator[tuple[str, int, bool]]:
    """('q' or 'a', exchange, whether nothing was outstanding before) in a causal order."""
    sent = answered = 0
    total = len(exchanges)
    answers = sum(ex.response is not None for ex in exchanges)
    draining = False
    while sent < total or answered < answers:
        outstanding = sent - answered
        blocked = outstanding > 0 and (exchanges[sent - 1].barrier or (sent < total and exchanges[sent].barrier))
        can_ask = sent < total and outstanding < plan.depth and not blocked
        if sent < total and answered == answers:
            can_ask = True  # nobody answers any more
        if outstanding == 0:
            draining = False
        if plan.flow == "batch":
            ask = can_ask and not draining
        elif plan.flow == "random":
            ask = can_ask and (outstanding == 0 or rng.random() < 0.55)
        else:
            ask = can_ask
        if ask or answered == answers or outstanding == 0:
            yield "q", sent, outstanding == 0
            sent += 1
        else:
            draining = True
            yield "a", answered, False
            answered += 1


class _Tape:
    """Steps become events: positions, cuts, several messages in one event."""

    def __init__(self, rng: Random, plan: Plan) -> None:
        self.rng = rng
        self.plan = plan
        self.sent = [0, 0]
        self.steps: list[list[Event]] = []
        # how eagerly messages are cut and put together; a simple one is one event
        self.cuts = 0 if plan.simple else rng.choices((0, 1, 4), (60, 30, 10))[0]
        self.joins = 0.0 if plan.simple else rng.choice((0.0, 0.5, 0.9))

    def write(self, sender: int, pieces: Pieces, *, quiet: bool = False, asks: int = -1, answers: int = -1) -> None:
        """One step."""
        rng = self.rng
        runs: list[tuple[bytearray, int]] = []
        for data, begins in pieces:
            if begins or not runs:
                runs.append((bytearray(data), begins))
            else:
                runs[-1][0].extend(data)
        step: list[Event] = []
        for run, begins in runs:
            if not run:
                continue
            at = (
                sorted({rng.randrange(1, len(run)) for _ in range(rng.randint(1, 1 + self.cuts))})
                if (len(run) > 1 and self.cuts and rng.random() < 0.5)
                else []
            )
            if not at and len(run) > 16384:
                at = list(range(16384, len(run), 16384))
            for a, b in zip([0, *at], [*at, len(run)], strict=True):
                step.append(Event(sender, self.sent[sender], bytes(run[a:b]), b - a, forged=begins == FORGED and a == 0))
                self.sent[sender] += b - a
        step[0].quiet, step[0].first = quiet, True
        step[0].answers = answers
        step[-1].asks = asks
        self.steps.append(step)

    def message(
        self, message: Message, part: str = "all", *, interims: Iterable[bytes] = (), quiet: bool = False, exchange: int = -1
    ) -> None:
        """One message, or its head or its body, as a step."""
        sender = CLIENT_BYTES if message.request else SERVER_BYTES
        pieces: Pieces = [(data, ON) for data in interims]
        before = self.sent[sender] + sum(len(data) for data, _ in pieces)
        if part != "body":
            message.start = before
            message.head_end = message.end = before + len(message.head)
            pieces.append((message.head, CUT if pieces and self.rng.random() < 0.5 else ON))
        if part != "head":
            pieces += message.pieces
            message.end = message.head_end + sum(len(data) for data, _ in message.pieces)
        if not sum(len(data) for data, _ in pieces):
            return
        if part == "all" and message.pieces and not self.plan.simple and self.rng.random() < 0.3:
            pieces.insert(-len(message.pieces), (b"", CUT))  # head and body by two calls
        whole = part != "head" or not message.pieces
        self.write(
            sender,
            pieces,
            quiet=quiet,
            asks=exchange if message.request and whole else -1,
            answers=-1 if message.request or part == "body" else exchange,
        )

    def events(self, independent: set[int]) -> list[Event]:
        """All steps in one row. A step of `independent` may overlap with the one behind it."""
        rng = self.rng
        row: list[Event] = []
        n = 0
        while n < len(self.steps):
            step = self.steps[n]
            if n in independent and n + 1 < len(self.steps) and not self.plan.simple and rng.random() < 0.3:
                following = self.steps[n + 1]
                order = [0] * len(step) + [1] * len(following)
                rng.shuffle(order)
                sources = (iter(step), iter(following))
                row += [next(sources[k]) for k in order]
                n += 2
            else:
                row += step
                n += 1
        out: list[Event] = []
        for event in row:
            last = out[-1] if out else None
            if (
                last is not None
                and event.first
                and last.sender == event.sender
                and not event.forged
                and not event.quiet
                and rng.random() < self.joins
                and last.size + event.size < 100_000
            ):
                last.data += event.data
                last.size += event.size
                last.asks = max(last.asks, event.asks)
                last.answers = last.answers if last.answers >= 0 else event.answers
            else:
                out.append(event)
        return out


def _play(rng: Random, number: int, plan: Plan, exchanges: list[Exchange]) -> Conversation:
    tape = _Tape(rng, plan)
    independent: set[int] = set()
    order = list(_order(rng, plan, exchanges))
    opaque: tuple[int, int] | None = None
    for at, (what, n, quiet) in enumerate(order):
        ex = exchanges[n]
        if what == "q":
            if ex.kind == "expect":
                _expect(rng, tape, ex, number, quiet=quiet)
                continue
            if at + 1 < len(order) and order[at + 1][0] == "a" and order[at + 1][1] < n:
                independent.add(len(tape.steps))
            if (
                plan.simple
                or ex.barrier
                or not ex.request.pieces
                or plan.depth > 1
                or ex.response is None
                or rng.random() > 0.03
            ):
                tape.message(ex.request, quiet=quiet, exchange=n)
            else:  # answered before its body is whole
                tape.message(ex.request, "head", quiet=quiet, exchange=n)
                tape.message(ex.response, interims=ex.interims, exchange=n)
                tape.message(ex.request, "body", exchange=n)
        elif ex.response is not None and ex.response.start < 0:
            tape.message(ex.response, interims=ex.interims, exchange=n)
    if plan.last in ("upgrade", "connect"):
        opaque = tape.sent[0], tape.sent[1]
        _opaque(rng, tape, number)
    events = tape.events(independent)
    _times(rng, plan, events)
    sent = tape.sent[0], tape.sent[1]
    conversation = Conversation(number, plan, exchanges, events, sent, opaque_from=opaque)
    conversation.close = rng.choices(("normal", "reset", "swept", "none"), (80, 7, 3, 10))[0]
    ends = SERVER_BYTES if plan.client else CLIENT_BYTES
    now = events[-1].ns
    if rng.random() < (0.9 if plan.client and plan.last == "until_close" else 0.3) and (
        plan.client or plan.last != "until_close"
    ):
        now += 20 * US
        events.append(Event(ends, sent[ends], b"", 0, now, eof=True))
    conversation.close_ns = now + 50 * US
    return conversation


def _expect(rng: Random, tape: _Tape, ex: Exchange, number: int, *, quiet: bool) -> None:
    """A request that waits for 100 Continue: which comes, comes late, never comes, or is refused."""
    assert ex.response is None or ex.response.start < 0
    marker = f"{number}x{ex.number}"
    tape.message(ex.request, "head", quiet=quiet, exchange=ex.number)
    how = rng.random()
    refused = ex.response is not None and ex.response.status[:3] in ("417", "413")
    if refused and ex.response is not None:
        tape.message(ex.response, exchange=ex.number)
        if how < 0.7:  # the client keeps its body
            ex.request.pieces = []
            ex.request.coded = ex.request.plain = b""
            ex.request.unsent, ex.request.forged, ex.request.end = True, False, ex.request.head_end
        else:
            tape.message(ex.request, "body", exchange=ex.number)
    else:
        if how < 0.6:
            tape.write(SERVER_BYTES, [(_interim(rng, marker, 100), ON)])
        tape.message(ex.request, "body", exchange=ex.number)
        if how > 0.8 and ex.response is not None:
            tape.write(SERVER_BYTES, [(_interim(rng, marker, 100), ON)])  # late


def _opaque(rng: Random, tape: _Tape, number: int) -> None:
    """Another protocol; sometimes one that looks like HTTP."""
    looks_like = rng.random() < 0.5
    for n in range(rng.randint(0, 6)):
        sender = n % 2 if looks_like else rng.randint(0, 1)
        marker = f"o{number}x{n}z"
        data = _filler(marker, rng.randint(5, 200))
        if looks_like:
            data = (_forged_answer if sender else _forged_request)(rng, marker)
        tape.write(sender, [(data, FORGED if looks_like else CUT)])


def _times(rng: Random, plan: Plan, events: list[Event]) -> None:
    now = rng.randrange(0, 20 * SECOND)
    for event in events:
        if plan.pace == "tight":
            now += rng.randint(1 * US, 50 * US)
        elif plan.pace == "ms":
            now += rng.randint(50 * US, 5 * MS)
        else:
            now += int(min(rng.expovariate(6), 1) * SECOND)
        if event.quiet and rng.random() < 0.3:
            now += rng.randint(SECOND, 8 * SECOND)
        event.ns = now


# ---- damage ------------------------------------------------------------------------------------------------------


def lose(conversation: Conversation, chosen: set[int]) -> None:
    """These of the events that would be fed are never seen; positions go on."""
    conversation.fed = [e for n, e in enumerate(conversation.fed) if n not in chosen]


def join_at(conversation: Conversation, at: int, opened: str) -> None:
    """Nothing before this event is fed."""
    positions = [0, 0]
    for event in conversation.fed[:at]:
        positions[event.sender] = event.pos + event.size
    conversation.fed = conversation.fed[at:]
    conversation.opened = opened
    conversation.open_positions = positions[0], positions[1]


def _before_forged(conversation: Conversation) -> list[int]:
    """Events whose next one in the same direction is a forged message."""
    out = []
    last = [-1, -1]
    for n, event in enumerate(conversation.fed):
        if event.forged and last[event.sender] >= 0:
            out.append(last[event.sender])
        last[event.sender] = n
    return out


def _lost(rng: Random, conversation: Conversation) -> bool:
    fed = conversation.fed
    forged = _before_forged(conversation)
    if forged and rng.random() < 0.6:
        chosen = set(rng.sample(forged, min(len(forged), rng.randint(1, 2))))
        if rng.random() < 0.5:  # one hole each: pairs can match
            chosen = {next((n for n in forged if fed[n].sender == sender), forged[0]) for sender in (0, 1)}
    elif rng.random() < 0.3:
        first = rng.randrange(len(fed))
        chosen = set(range(first, min(len(fed), first + rng.randint(2, 5))))
    else:
        chosen = set(rng.sample(range(len(fed)), min(len(fed), rng.choice((1, 1, 1, 2, 3)))))
    lose(conversation, chosen)
    return True


def _size_only(rng: Random, conversation: Conversation) -> bool:
    data = [n for n, e in enumerate(conversation.fed) if e.size and not e.eof]
    if not data:
        return False
    for n in rng.sample(data, min(len(data), rng.choice((1, 1, 2, 3)))):
        e = conversation.fed[n]
        how = rng.random()
        kept = 0 if how < 0.5 else rng.randrange(e.size)
        flags = abi.F_FAULT if how > 0.85 else abi.F_CUT if kept else abi.F_SIZE_ONLY
        conversation.fed[n] = Event(
            e.sender, e.pos, e.data[:kept], e.size, e.ns, e.quiet, flags, e.asks, e.answers, e.eof, e.forged, e.first
        )
    return True


def _tail(rng: Random, conversation: Conversation) -> bool:
    keep = len(conversation.fed) - rng.choice((1, 1, 2, 3, 5))
    if keep < 1:
        return False
    del conversation.fed[keep:]
    if rng.random() < 0.4:
        conversation.close = "none"
    return True


def _join(rng: Random, conversation: Conversation) -> bool:
    fed = conversation.fed
    if len(fed) < 2:
        return False
    starts = {(CLIENT_BYTES, ex.request.start) for ex in conversation.exchanges} | {
        (SERVER_BYTES, ex.response.start) for ex in conversation.exchanges if ex.response is not None
    }
    begins = [n for n, e in enumerate(fed) if n and (e.sender, e.pos) in starts]
    forged = [n for n, e in enumerate(fed) if n and e.forged]
    if forged and rng.random() < 0.5:
        at = rng.choice(forged)
    elif begins and rng.random() < 0.7:
        at = rng.choice(begins)
    else:
        at = rng.randrange(1, len(fed))
    join_at(conversation, at, "mid" if rng.random() < 0.7 else "none")
    return True


def _open_lost(rng: Random, conversation: Conversation) -> bool:
    if conversation.opened == "none":
        return False
    conversation.opened = "none"
    return True


def _reorder(rng: Random, conversation: Conversation) -> bool:
    """An answer that was read before the call that sent its request returned, in another thread."""
    fed = conversation.fed
    possible = []
    for n in range(len(fed) - 1):
        e, following = fed[n], fed[n + 1]
        if e.sender == CLIENT_BYTES and following.sender == SERVER_BYTES and following.answers >= 0:
            request = conversation.exchanges[following.answers].request
            if e.pos <= request.start and request.end <= e.pos + e.size:
                possible.append(n)
    if not possible or not conversation.plan.client:
        return False
    for n in rng.sample(possible, min(len(possible), rng.choice((1, 1, 2)))):
        e, following = fed[n], fed[n + 1]
        if e.sender == CLIENT_BYTES and following.sender == SERVER_BYTES:  # not exchanged already
            e.ns, following.ns = following.ns, e.ns
            following.ahead = rng.random() < 0.8  # where connections are known by descriptor nobody says so
            fed[n], fed[n + 1] = following, e
    return True


def _silence(rng: Random, conversation: Conversation) -> bool:
    """Seconds in which nothing happens, though something is outstanding."""
    possible = [n for n, e in enumerate(conversation.fed) if n and not e.quiet and not e.eof]
    if not possible:
        return False
    at = rng.choice(possible)
    more = rng.choice((4, 10, 30)) * SECOND
    for e in conversation.fed[at:]:
        e.ns += more
    conversation.close_ns += more
    return True


def _nothing(_rng: Random, _conversation: Conversation) -> bool:
    """What is done to all of a batch is done by its settings."""
    return True


_DAMAGE: dict[str, Callable[[Random, Conversation], bool]] = {
    "lost": _lost,
    "size_only": _size_only,
    "tail": _tail,
    "join": _join,
    "open_lost": _open_lost,
    "reorder": _reorder,
    "silence": _silence,
    "evict": _nothing,
}


def conversation(rng: Random, number: int, plan: Plan) -> Conversation:
    """A conversation of this plan, damaged as it says."""
    out = _play(rng, number, plan, _exchanges(rng, number, plan))
    out.fed = list(out.events)
    out.damage = tuple(kind for kind in plan.damage if out.fed and _DAMAGE[kind](rng, out))
    return out
