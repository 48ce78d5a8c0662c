"""A bounded, numbered, acknowledged stream of messages between two of our processes, over ZeroMQ.

ZeroMQ alone loses silently when a peer dies or a link breaks, and its high-water mark counts messages, not bytes. So:

* The receiver grants a window of bytes; the sender never has more on the way (its own queue included). A full window
  is `room() == 0`, never a wait.
* Every life of a sending process has an epoch, and every pair of a sender's and a receiver's life a session, which the
  receiver names in its WELCOME. Messages carry both; a receiver refuses others. So after a restart of the receiver exactly
  the unacknowledged messages are in doubt: the sender has kept them and sends them again, under the new session's numbers.
* A receiver delivers the messages of a session in the order of their numbers and none twice. It holds back what came behind
  a gap. It acknowledges each message by itself, in any order; an acknowledged message leaves the window.
* Everything that a sender puts on the wire has a transmission number. What is on the wire keeps its order on one link. So
  when the receiver has seen a later transmission than a message's and not the message, the message was lost with its link
  (or is late), and is sent again: the receiver drops the second copy. A sender that hears nothing puts a HELLO on the wire
  and learns by the answer what has come.
* A receiver knows a sender by its epoch and answers on the link that the latest transmission came by. A sender that has to
  connect again is so no new one, and what still comes of the old link is not lost.
* Socket types: DEALER at the sender, ROUTER at the receiver, one connection for both ways (docs/decisions/0002).

    Outbox, Inbox      the rules, without socket and clock
    Sender, Receiver   the same on a socket: this file

Nothing here blocks. `Sender.service` is to be called whenever the socket is readable and at least every HELLO_SECONDS.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence

import zmq
import zmq.utils.garbage  # pyzmq does it with the first frame that is not copied: then no file can be opened

from collector.router.inbox import Delivery, Inbox
from collector.router.outbox import HELLO_SECONDS, Outbox

__all__ = ["HELLO_SECONDS", "Delivery", "Receiver", "Sender"]

_NO_COPY_BYTES = 65536  # from here on ZeroMQ takes a message's own memory


class Sender(Outbox):
    """The sending half; connects. See the module, and `Outbox` for ``on_peer``."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        endpoint: str,
        token: bytes,
        *,
        on_peer: Callable[[bool], None] = lambda _again: None,
    ) -> None:
        super().__init__(token, self._send_frames, on_peer)
        self.socket = context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.SNDHWM, 0)  # the window bounds it, in bytes
        self.socket.setsockopt(zmq.RECONNECT_IVL, 10)
        self.socket.setsockopt(zmq.RECONNECT_IVL_MAX, 100)
        self.socket.connect(endpoint)

    def service(self) -> None:
        """Take in what the receiver says; introduce ourselves where needed; send again what must be."""
        now = time.monotonic()
        while int(self.socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN:  # asking is cheaper than an exception a call
            self.heard(self.socket.recv_multipart(zmq.DONTWAIT), now)
        self.turn(now)

    def _send_frames(self, frames: Sequence[bytes]) -> None:
        self.socket.send_multipart(frames, zmq.DONTWAIT, copy=sum(map(len, frames)) < _NO_COPY_BYTES)

    def close(self) -> None:
        """Close the socket at once."""
        self.socket.close(0)


class Receiver(Inbox):
    """The receiving half; binds. ``window`` is the number of bytes that each sender may have on the way."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], endpoint: str, token: bytes, *, window: int) -> None:
        super().__init__(token, window, self._send_frames)
        self.socket = context.socket(zmq.ROUTER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.RCVHWM, 0)
        self.socket.setsockopt(zmq.SNDHWM, 0)  # answers are bounded by what is answered
        self.socket.setsockopt(zmq.ROUTER_MANDATORY, 1)  # a link that is gone is an error, not silence
        mask = os.umask(0o077)
        try:
            self.socket.bind(endpoint)
        finally:
            os.umask(mask)

    def receive(self) -> Delivery | None:
        """The next message for us, or None when there is none now."""
        while (delivery := self.next()) is None:
            try:
                link, *frames = self.socket.recv_multipart(zmq.DONTWAIT, copy=False)
            except zmq.Again:
                return None
            self.take(link.bytes, [frame.buffer for frame in frames], time.monotonic())
        return delivery

    def _send_frames(self, link: bytes, frames: Sequence[bytes]) -> bool:
        try:
            self.socket.send_multipart([link, *frames], zmq.DONTWAIT)
        except zmq.ZMQError:
            return False  # the sender comes back by another link, and asks
        return True

    def close(self) -> None:
        """Close the socket at once."""
        self.socket.close(0)
