"""The sending half of a channel without its socket: numbers, window, retention, what is sent again and when.

Nothing here reads a clock or touches a socket: ``now`` is an argument, messages go out by a function that was given.
See collector/router/channel.py for the protocol.
"""

from __future__ import annotations

import collections
import math
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from collector.errors import ProtocolError
from collector.router import messages

HELLO_SECONDS = 0.05  # between two HELLOs; doubled after each that had no answer, up to the next figure
MAX_HELLO_SECONDS = 0.5
QUIET_SECONDS = 0.2  # nothing heard for this long with messages on the way: ask what has become of them


def new_epoch() -> int:
    """A number that no other life of this process had: 63 random bits, never 0."""
    return secrets.randbits(63) | 1


@dataclass(slots=True)
class _Message:
    kind: int
    frames: Sequence[bytes]
    size: int
    wall_offset_ns: int
    file: int
    done: Callable[[], None] | None
    introduction: bool = False
    number: int = 0  # in the present session
    transmission: int = 0  # of its last copy; 0: never on the wire


class Outbox:
    """``transmit(frames)`` puts one message on the wire, or loses it. ``on_peer(again)`` hears that a receiver has begun a
    session with us, ``again`` when there was one before: then it may `introduce`.
    """

    def __init__(
        self,
        token: bytes,
        transmit: Callable[[Sequence[bytes]], None],
        on_peer: Callable[[bool], None] = lambda _again: None,
    ) -> None:
        self.epoch = new_epoch()
        self.in_flight_bytes = 0
        self.resent = 0
        self._token = token
        self._transmit = transmit
        self._on_peer = on_peer
        self._session = 0
        self._window = 0
        self._seen = 0  # the highest transmission that the receiver has spoken of
        self._next_number = 1
        self._transmission = 0
        self._sent: collections.OrderedDict[int, _Message] = collections.OrderedDict()  # by number, ascending
        self._waiting: collections.deque[_Message] = collections.deque()  # for a session, or for its window
        self._hello_at = -math.inf
        self._hello_wait = HELLO_SECONDS
        self._heard_at = -math.inf

    @property
    def connected(self) -> bool:
        """Has a receiver welcomed us?"""
        return self._session != 0

    def room(self) -> int:
        """Bytes that may be sent now. A single message may exceed it while nothing is on the way."""
        if not self._session or self._waiting:
            return 0
        return max(0, self._window - self.in_flight_bytes)

    def idle(self) -> bool:
        """Is everything acknowledged?"""
        return not self._sent and not self._waiting

    def send(
        self,
        frames: Sequence[bytes],
        *,
        kind: int = messages.DATA,
        wall_offset_ns: int = 0,
        file: int = 0,
        size: int | None = None,
        done: Callable[[], None] | None = None,
    ) -> None:
        """Send one message; the caller has asked room(). ``wall_offset_ns`` and ``file``: see messages.py. ``size``: bytes
        it stands for, if not those of its frames. ``done`` is called when it is acknowledged: in the order of sending if
        the receiver acknowledges in that order, else in that of the acknowledgements.
        """
        size = sum(map(len, frames)) if size is None else size
        message = _Message(kind, frames, size, wall_offset_ns, file, done)
        if self._session and not self._waiting:
            self._number_and_put(message)
        else:
            self._waiting.append(message)  # nothing overtakes what is to be sent again

    def introduce(self, frames: Sequence[bytes], *, wall_offset_ns: int = 0) -> None:
        """Send a message that comes before everything that is sent again. Only in ``on_peer``. A receiver that dies with it
        has a successor, who gets its own.
        """
        self._number_and_put(
            _Message(messages.DATA, frames, sum(map(len, frames)), wall_offset_ns, 0, None, introduction=True)
        )

    def end(self) -> None:
        """Say that nothing follows; acknowledged like any message."""
        self.send((), kind=messages.END)

    def may_end(self) -> bool:
        """Is `end` the next message, if it is called now?"""
        return self.connected and not self._waiting

    def heard(self, frames: Sequence[bytes | memoryview], now: float) -> None:
        """Take in one message from a receiver; anything that is not for us is ignored. ``now``: seconds, monotonic."""
        if len(frames) != 2:
            return
        try:
            header = messages.unpack(frames[0], self._token)
            said = messages.unpack_acknowledgement(frames[1])
        except ProtocolError:
            return
        if (
            header.kind not in (messages.WELCOME, messages.ACK)
            or header.sender_epoch != self.epoch
            or not header.session
            or header.transmission > self._transmission
        ):
            return
        if header.session != self._session:
            # A link begins empty, so whoever has seen more of us than the last receiver is its successor.
            if header.kind != messages.WELCOME or header.transmission <= self._seen:
                return
            self._begin_session(header.session)
        self._heard_at = now
        self._hello_wait = HELLO_SECONDS
        self._seen = max(self._seen, header.transmission)
        self._window = said.window
        self._acknowledged(said)
        if header.kind == messages.WELCOME or said.received.scattered:
            self._repeat_missing(header.transmission, said)

    def turn(self, now: float) -> None:
        """What is due: introduce ourselves, ask, send what waits for the window."""
        unsure = not self._session or (not self.idle() and now - self._heard_at > QUIET_SECONDS)
        if unsure and now - self._hello_at >= self._hello_wait:
            self._hello_at = now
            self._hello_wait = min(MAX_HELLO_SECONDS, 2 * self._hello_wait)
            self._transmission += 1
            self._transmit([messages.pack(self._token, messages.HELLO, self.epoch, 0, transmission=self._transmission)])
        while (
            self._session
            and self._waiting
            and (not self._sent or self.in_flight_bytes + self._waiting[0].size <= self._window)
        ):
            message = self._waiting.popleft()
            self.resent += message.transmission != 0
            self._number_and_put(message)

    def _number_and_put(self, message: _Message) -> None:
        message.number = self._next_number
        self._next_number += 1
        self._sent[message.number] = message
        self.in_flight_bytes += message.size
        self._put(message)

    def _put(self, message: _Message) -> None:
        self._transmission += 1
        message.transmission = self._transmission
        header = messages.pack(
            self._token,
            message.kind,
            self.epoch,
            self._session,
            number=message.number,
            transmission=message.transmission,
            wall_offset_ns=message.wall_offset_ns,
            file=message.file,
        )
        self._transmit([header, *message.frames])

    def _begin_session(self, session: int) -> None:
        """A new receiver: what the old one had not acknowledged is sent again, in its order and under new numbers, behind
        what introduces us.
        """
        again = self._session != 0
        doubtful = [message for message in (*self._sent.values(), *self._waiting) if not message.introduction]
        self._sent.clear()
        self._waiting = collections.deque(doubtful)
        self.in_flight_bytes = 0
        self._session = session
        self._next_number = 1
        self._on_peer(again)

    def _acknowledged(self, said: messages.Acknowledgement) -> None:
        while self._sent and next(iter(self._sent)) < said.done.below:
            self._free(self._sent.popitem(last=False)[1])
        if said.done.scattered:
            for number in [number for number in self._sent if number in said.done]:
                self._free(self._sent.pop(number))

    def _free(self, message: _Message) -> None:
        self.in_flight_bytes -= message.size
        if message.done is not None:
            message.done()

    def _repeat_missing(self, seen: int, said: messages.Acknowledgement) -> None:
        """Send again what the receiver does not have although something that was put on the wire behind it has come."""
        for message in self._sent.values():
            if message.transmission <= seen and message.number not in said.received:
                self.resent += 1
                self._put(message)
