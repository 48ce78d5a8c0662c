"""A bounded, numbered, acknowledged stream of messages between two of our processes, over ZeroMQ.

ZeroMQ alone loses silently when a peer dies, and its high-water mark counts messages, not bytes. So:

* The receiver grants a window of bytes; the sender never has more on the way (its own queue included). A full window
  is `room() == 0`, never a wait.
* Every life of a process has an epoch. Messages name the receiver's epoch they are meant for; a receiver refuses
  others. So after a restart of the receiver exactly the unacknowledged messages are in doubt, and the sender either
  counts them as lost (`retain=False`) or sends them again (`retain=True`: batches to the sink; spans to a shard, which
  are still in their ring).
* Socket types: DEALER at the sender, ROUTER at the receiver, one connection for both ways. PUSH/PULL, as first
  designed, would need a second pair for the credits (docs/decisions/0002).

Nothing here blocks. `service()` is to be called whenever the socket is readable and at least every HELLO_SECONDS.
"""

from __future__ import annotations

import collections
import os
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import zmq

from collector.errors import ProtocolError
from collector.router import messages

HELLO_SECONDS = 0.05
QUIET_SECONDS = 0.2  # no acknowledgement for this long with messages on the way: ask whether the peer still lives


def new_epoch() -> int:
    """A number that no other life of this process had: 63 random bits, never 0."""
    return secrets.randbits(63) | 1


@dataclass(slots=True)
class _Sent:
    number: int
    size: int
    argument: int
    kind: int
    frames: Sequence[bytes] | None
    done: Callable[[], None] | None


class Sender:
    """The sending half; see the module. ``on_lost(messages, bytes)`` hears what a dead receiver held; ``on_peer(again)``
    that a receiver has taken us on, ``again`` when it is another life of one that had: then it may `introduce`.
    """

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], endpoint: str, token: bytes, *, retain: bool,
        on_lost: Callable[[int, int], None] = lambda _messages, _size: None,
        on_peer: Callable[[bool], None] = lambda _again: None,
    ) -> None:
        self.epoch = new_epoch()
        self._token = token
        self._retain = retain
        self._on_lost = on_lost
        self._on_peer = on_peer
        self._peer = 0
        self._window = 0
        self._next = 1  # 0 is that of introductions
        self._sent: collections.deque[_Sent] = collections.deque()
        self._resend: collections.deque[_Sent] = collections.deque()
        self.in_flight_bytes = 0
        self.resent = 0
        self._last_hello = 0.0
        self._last_heard = 0.0
        self.socket = context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.SNDHWM, 0)  # the window bounds it, in bytes
        self.socket.setsockopt(zmq.RECONNECT_IVL, 10)
        self.socket.setsockopt(zmq.RECONNECT_IVL_MAX, 100)
        self.socket.connect(endpoint)

    @property
    def connected(self) -> bool:
        """Has a receiver welcomed us?"""
        return self._peer != 0

    def room(self) -> int:
        """Bytes that may be sent now. A single message may exceed it while nothing is on the way."""
        if not self._peer or self._resend:
            return 0
        return max(0, self._window - self.in_flight_bytes)

    def idle(self) -> bool:
        """Is everything acknowledged?"""
        return not self._sent and not self._resend

    def send(self, frames: Sequence[bytes], argument: int = 0, *, kind: int = messages.DATA, size: int | None = None,
             done: Callable[[], None] | None = None) -> None:
        """Send one message; the caller has asked room(). ``size``: bytes it stands for, if not those of its frames.
        ``done`` is called when it is acknowledged.
        """
        size = sum(map(len, frames)) if size is None else size
        item = _Sent(self._next, size, argument, kind, frames if self._retain else None, done)
        self._next += 1
        self._put(item, frames)

    def introduce(self, frames: Sequence[bytes], argument: int = 0) -> None:
        """Send a message that comes before everything that is sent again. Only in ``on_peer``. It is not acknowledged: a
        receiver that dies with it has a successor, who gets its own.
        """
        header = messages.pack(self._token, messages.DATA, self.epoch, self._peer, 0, argument)
        self.socket.send_multipart([header, *frames], zmq.DONTWAIT)

    def end(self) -> None:
        """Say that nothing follows; acknowledged like any message. Only when nothing is to be sent again first."""
        if self._resend:
            raise ProtocolError("the end must not overtake what is sent again")
        self.send((), kind=messages.END)

    def may_end(self) -> bool:
        """May `end` be called now?"""
        return self.connected and not self._resend

    def _put(self, item: _Sent, frames: Sequence[bytes]) -> None:
        self._sent.append(item)
        self.in_flight_bytes += item.size
        header = messages.pack(self._token, item.kind, self.epoch, self._peer, item.number, item.argument)
        self.socket.send_multipart([header, *frames], zmq.DONTWAIT, copy=item.kind != messages.DATA or item.size < 65536)

    def service(self) -> None:
        """Take in what the receiver says; introduce ourselves where needed; send again what must be."""
        now = time.monotonic()
        while int(self.socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN:  # asking is cheaper than an exception a call
            frames = self.socket.recv_multipart(zmq.DONTWAIT)
            try:
                header = messages.unpack(frames[0], self._token)
            except ProtocolError:
                continue
            if header.sender_epoch != self.epoch:
                continue
            self._last_heard = now
            if header.receiver_epoch != self._peer:
                if header.kind != messages.WELCOME:
                    continue
                self._adopt(header)
            self._window = header.argument
            self._acknowledged(header.number)
        waiting = not self._peer or ((self._sent or self._resend) and now - self._last_heard > QUIET_SECONDS)
        if waiting and now - self._last_hello > HELLO_SECONDS:
            self._last_hello = now
            self.socket.send(messages.pack(self._token, messages.HELLO, self.epoch, 0, self._next, self._oldest()),
                             zmq.DONTWAIT)
        while self._resend and (self.in_flight_bytes + self._resend[0].size <= self._window or not self._sent):
            item = self._resend.popleft()
            self.resent += 1
            assert item.frames is not None
            self._put(item, item.frames)

    def _oldest(self) -> int:
        """The number that a new receiver's acknowledgements begin with."""
        if not self._retain:
            return self._next
        return min((item.number for queue in (self._sent, self._resend) for item in queue), default=self._next)

    def _adopt(self, header: messages.Header) -> None:
        """A new receiver: what the old one had not acknowledged is sent again, or lost."""
        doubtful = list(self._sent)
        again = self._peer != 0
        self._sent.clear()
        self.in_flight_bytes = 0
        self._peer = header.receiver_epoch
        if self._retain:
            self._resend = collections.deque(sorted([*doubtful, *self._resend], key=lambda item: item.number))
        else:
            data = [item for item in doubtful if item.kind != messages.END]
            if data:
                self._on_lost(len(data), sum(item.size for item in data))
            if any(item.kind == messages.END for item in doubtful):
                self.end()
        self._on_peer(again)

    def _acknowledged(self, number: int) -> None:
        """All messages below ``number`` are done."""
        while self._sent and self._sent[0].number < number:
            item = self._sent.popleft()
            self.in_flight_bytes -= item.size
            if item.done is not None:
                item.done()

    def close(self) -> None:
        """Close the socket at once."""
        self.socket.close(0)


@dataclass(frozen=True, slots=True)
class Delivery:
    """One received message. Acknowledge it when it is done with."""

    peer: bytes
    number: int
    argument: int
    kind: int
    frames: list[memoryview]
    size: int


@dataclass(slots=True)
class _Peer:
    epoch: int
    acknowledged: int  # all below are done
    done: set[int]  # done out of order


class Receiver:
    """The receiving half; binds. ``window`` is the number of bytes that each sender may have on the way."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], endpoint: str, token: bytes, *, window: int) -> None:
        self.epoch = new_epoch()
        self._token = token
        self._window = window
        self._peers: dict[bytes, _Peer] = {}
        self._owed: dict[bytes, _Peer] = {}
        self.refused = 0
        self.socket = context.socket(zmq.ROUTER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.RCVHWM, 0)
        self.socket.setsockopt(zmq.ROUTER_HANDOVER, 1)
        mask = os.umask(0o077)
        try:
            self.socket.bind(endpoint)
        finally:
            os.umask(mask)

    def receive(self) -> Delivery | None:
        """The next message for us, or None when there is none now."""
        while True:
            try:
                frames = self.socket.recv_multipart(zmq.DONTWAIT, copy=False)
            except zmq.Again:
                return None
            identity = frames[0].bytes
            try:
                header = messages.unpack(frames[1].buffer if len(frames) > 1 else b"", self._token)
            except ProtocolError:
                self.refused += 1
                continue
            if header.kind == messages.HELLO:
                peer = self._peers.get(identity)
                if peer is None or peer.epoch != header.sender_epoch:
                    self._peers[identity] = peer = _Peer(header.sender_epoch, self._first_number(header), set())
                self._reply(identity, messages.WELCOME, peer)
                continue
            peer = self._peers.get(identity)
            if (peer is None or header.receiver_epoch != self.epoch or header.sender_epoch != peer.epoch
                    or header.kind not in (messages.DATA, messages.SPAN, messages.SLOT, messages.FILE, messages.END)):
                self.refused += 1  # meant for an earlier life of ours: the sender will hear of the new one
                continue
            payload = [frame.buffer for frame in frames[2:]]
            return Delivery(identity, header.number, header.argument, header.kind, payload, sum(map(len, payload)))

    def acknowledge(self, delivery: Delivery) -> None:
        """Say that a message is done. The sender hears of it as soon as all earlier ones are done too."""
        self.note_done(delivery)
        self.reply()

    def reply(self) -> None:
        """Tell the senders what was noted as done since the last reply: one message each."""
        while self._owed:
            identity, peer = self._owed.popitem()
            self._reply(identity, messages.ACK, peer)

    def note_done(self, delivery: Delivery) -> None:
        """As `acknowledge`, without telling the sender yet."""
        peer = self._peers.get(delivery.peer)
        if peer is None or delivery.number < peer.acknowledged:
            return
        peer.done.add(delivery.number)
        before = peer.acknowledged
        while peer.acknowledged in peer.done:
            peer.done.remove(peer.acknowledged)
            peer.acknowledged += 1
        if peer.acknowledged != before:
            self._owed[delivery.peer] = peer

    @staticmethod
    def _first_number(header: messages.Header) -> int:
        """The number that the sender begins with: its oldest unacknowledged one."""
        return header.argument

    def _reply(self, identity: bytes, kind: int, peer: _Peer) -> None:
        header = messages.pack(self._token, kind, peer.epoch, self.epoch, peer.acknowledged, self._window)
        try:
            self.socket.send_multipart([identity, header], zmq.DONTWAIT)
        except zmq.ZMQError:
            self._peers.pop(identity, None)  # it has gone

    def close(self) -> None:
        """Close the socket at once."""
        self.socket.close(0)
