"""What a generated conversation really was: its exchanges, its bytes, and which of them the collector was given.

Everything that a message shows carries a marker that names its owner, so whoever finds a byte in a record can say whose
it is: `q` a request, `a` an answer, `i` an interim answer, `t` a trailer, `f` a forged message inside a body, `o` the
bytes behind an upgrade; then the conversation, the exchange, and the number of a forged message.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

MARKER = re.compile(r"[qaitfo]\d+x\d+(?:n\d+)?z")
CLIENT_BYTES, SERVER_BYTES = 0, 1  # who sent them

# How a piece of a message begins: behind the one before it, in an event of its own, or that and it looks like a message.
ON, CUT, FORGED = 0, 1, 2
Pieces = list[tuple[bytes, int]]


@dataclass(slots=True)
class Message:
    """A request or a final answer."""

    owner: str  # its marker
    request: bool
    method: str = ""
    target: str = ""
    status: str = ""  # code and phrase
    fields: dict[str, str] = field(default_factory=dict)  # as docs/records.md says that they are shown, in order
    head: bytes = b""
    pieces: Pieces = field(default_factory=list)  # what follows the head
    coded: bytes = b""  # the body without its transfer coding
    plain: bytes = b""  # and without its content coding
    coding: str = ""
    omitted: bool = False  # a binary media type: not shown
    closable: bool = False  # a JSON request: closed again when it is cut
    until_close: bool = False
    unsent: bool = False  # the body that the head announces was never sent
    forged: bool = False  # holds forged messages
    trailers: bool = False
    # set when it is played: positions in the stream of whoever sent it
    start: int = -1
    head_end: int = -1
    end: int = -1


@dataclass(slots=True)
class Exchange:
    """A request and the answer that was meant for it, if there was one."""

    number: int
    kind: str  # plain, expect, upgrade, connect
    request: Message
    response: Message | None
    interims: list[bytes] = field(default_factory=list)
    barrier: bool = False  # not pipelined: nothing else is outstanding


@dataclass(slots=True)
class Event:
    """Bytes of one call, or the end of a direction (`data` is empty, `size` is 0)."""

    sender: int
    pos: int
    data: bytes
    size: int  # true length; `data` is a prefix
    ns: int = 0
    quiet: bool = False  # nothing was outstanding before it
    flags: int = 0
    asks: int = -1  # the newest exchange whose request ends in it
    answers: int = -1  # the oldest exchange whose answer begins in it
    eof: bool = False
    ahead: bool = False  # before it the kernel says that a request is on its way
    forged: bool = False  # begins with a forged message (or what looks like one)
    first: bool = False  # begins a message or a part of one: may share an event with what is before it


@dataclass(frozen=True)
class Plan:
    """What a conversation is to be like; what stands here is settled, the rest is drawn."""

    client: bool  # seen by the client (direction 2) or by the server (1)
    flow: str  # closed, steady, batch, random
    depth: int
    exchanges: int
    pace: str  # tight, ms, pauses
    damage: tuple[str, ...]  # kinds, in the order in which they are done
    forged: str = ""  # request, response, both
    last: str = "ordinary"  # ordinary, until_close, upgrade, connect, unanswered
    simple: bool = False  # GET and POST with Content-Length only
    heads: float = 0.06  # share of HEAD requests


@dataclass(slots=True)
class Conversation:
    """The truth, and what the collector is given of it."""

    number: int
    plan: Plan
    exchanges: list[Exchange]
    events: list[Event]  # as they happened
    sent: tuple[int, int]  # bytes of both directions in all
    damage: tuple[str, ...] = ()  # what was really done to it
    fed: list[Event] = field(default_factory=list)
    opened: str = "seen"  # seen, mid, none: what its OPEN says, or that there is none
    open_positions: tuple[int, int] = (0, 0)
    close: str = "normal"  # normal, reset, swept, none
    close_ns: int = 0
    opaque_from: tuple[int, int] | None = None  # where another protocol begins, in both directions

    def captured(self, sender: int) -> list[tuple[int, int]]:
        """The parts of a direction whose bytes the collector was given, in order and joined."""
        out: list[tuple[int, int]] = []
        for begin, end in sorted((e.pos, e.pos + len(e.data)) for e in self.fed if e.sender == sender and e.data):
            if out and begin <= out[-1][1]:
                out[-1] = (out[-1][0], max(end, out[-1][1]))
            else:
                out.append((begin, end))
        return out
