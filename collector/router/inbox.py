"""The receiving half of a channel without its socket: sessions, order, duplicates, acknowledgements.

Nothing here reads a clock or touches a socket: ``now`` is an argument, answers go out by a function that was given.
See collector/router/channel.py for the protocol.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from collector.errors import ProtocolError
from collector.router import messages
from collector.router.messages import Acknowledgement, Header
from collector.router.numbers import Numbers
from collector.router.outbox import new_epoch

HELD_MESSAGES = 4096  # held back behind a gap, of one sender; further ones are dropped, and so sent again
FORGET_SECONDS = 60.0  # a sender that is not heard and cannot be reached for this long is gone


@dataclass(frozen=True, slots=True)
class Delivery:
    """One received message. Acknowledge it when it is done with. ``wall_offset_ns`` and ``file``: see messages.py."""

    sender_epoch: int
    session: int
    number: int
    kind: int
    wall_offset_ns: int
    file: int
    frames: list[memoryview]
    size: int


@dataclass(slots=True)
class _Peer:
    epoch: int
    link: bytes  # the transport's name of the link that its latest transmission came by
    heard_at: float
    session: int = field(default_factory=new_epoch)
    seen: int = 0  # its highest transmission
    received: Numbers = field(default_factory=Numbers)
    done: Numbers = field(default_factory=Numbers)
    held: dict[int, Delivery] = field(default_factory=dict)  # behind a gap
    held_bytes: int = 0


class Inbox:
    """``window`` is the number of bytes that each sender may have on the way. ``transmit(link, frames)`` puts an answer on
    the wire, or loses it; False when there is no such link any more.
    """

    def __init__(self, token: bytes, window: int, transmit: Callable[[bytes, Sequence[bytes]], bool]) -> None:
        self.refused = 0
        self.duplicates = 0  # copies of messages that were only late
        self._token = token
        self._window = window
        self._transmit = transmit
        self._peers: dict[int, _Peer] = {}  # by epoch: a link that breaks does not make a sender another one
        self._owed: dict[int, _Peer] = {}
        self._ready: collections.deque[Delivery] = collections.deque()

    def take(self, link: bytes, frames: Sequence[memoryview], now: float) -> None:
        """Take in one message of a sender. ``now``: seconds, monotonic."""
        try:
            header = messages.unpack(frames[0] if frames else b"", self._token)
        except ProtocolError:
            self.refused += 1
            return
        peer = self._peers.get(header.sender_epoch)
        if header.kind == messages.HELLO and peer is None:
            self._forget_gone(now)
            peer = self._peers[header.sender_epoch] = _Peer(header.sender_epoch, link, now)
        elif (
            peer is None
            or header.kind != messages.HELLO
            and (header.session != peer.session or header.kind not in messages.NUMBERED)
        ):
            self.refused += 1  # meant for an earlier life of ours: the sender will hear of this one
            return
        peer.heard_at = now
        if header.transmission > peer.seen:
            peer.seen = header.transmission
            peer.link = link
        if header.kind == messages.HELLO:
            self._answer(messages.WELCOME, peer)
        else:
            self._arrived(peer, header, list(frames[1:]))

    def next(self) -> Delivery | None:
        """The next message in the order of its sender's numbers, or None."""
        return self._ready.popleft() if self._ready else None

    def acknowledge(self, delivery: Delivery) -> None:
        """Say that a message is done, whether or not earlier ones are."""
        self.note_done(delivery)
        self.reply()

    def note_done(self, delivery: Delivery) -> None:
        """As `acknowledge`, without telling the sender yet."""
        peer = self._peers.get(delivery.sender_epoch)
        if peer is not None and peer.session == delivery.session and peer.done.add(delivery.number):
            self._owed[peer.epoch] = peer

    def reply(self) -> None:
        """Tell the senders what was noted as done since the last reply: one message each."""
        while self._owed:
            self._answer(messages.ACK, self._owed.popitem()[1])

    def _arrived(self, peer: _Peer, header: Header, payload: list[memoryview]) -> None:
        if header.number in peer.received:
            self.duplicates += 1
            return
        delivery = Delivery(
            peer.epoch,
            peer.session,
            header.number,
            header.kind,
            header.wall_offset_ns,
            header.file,
            payload,
            sum(map(len, payload)),
        )
        if header.number != peer.received.below:
            if len(peer.held) >= HELD_MESSAGES or peer.held_bytes > self._window:
                return
            peer.received.add(header.number)
            peer.held[header.number] = delivery
            peer.held_bytes += delivery.size
            if len(peer.held) == 1:
                self._answer(messages.ACK, peer)  # a gap: the sender need not wait until it is asked
            return
        peer.received.add(header.number)
        self._ready.append(delivery)
        for number in range(header.number + 1, peer.received.below):
            held = peer.held.pop(number)
            peer.held_bytes -= held.size
            self._ready.append(held)

    def _answer(self, kind: int, peer: _Peer) -> bool:
        header = messages.pack(self._token, kind, peer.epoch, peer.session, transmission=peer.seen)
        return self._transmit(peer.link, [header, Acknowledgement(self._window, peer.done, peer.received).pack()])

    def _forget_gone(self, now: float) -> None:
        """Drop what is known of senders that are gone. One that is not after all gets a new session."""
        for epoch, peer in list(self._peers.items()):
            if now - peer.heard_at > FORGET_SECONDS and not self._answer(messages.ACK, peer):
                self.refused += len(peer.held)
                del self._peers[epoch]
                self._owed.pop(epoch, None)
