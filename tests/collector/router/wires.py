"""Both halves of a channel on simulated links: what is on the wire, lost or late is the test's to say."""

from __future__ import annotations

import collections
from collections.abc import Callable, Sequence

from collector.router.inbox import Delivery, Inbox
from collector.router.outbox import Outbox

TOKEN = b"12345678"
WINDOW = 1000


class Link:
    """A connection, or what is still to come of one that broke: messages keep their order, each way."""

    def __init__(self, name: bytes) -> None:
        self.name = name
        self.up: collections.deque[list[bytes]] = collections.deque()  # to the receiver
        self.down: collections.deque[list[bytes]] = collections.deque()


class Wires:
    """One receiver, one sender (of its present lives), the link between them, and what is late of older links."""

    def __init__(self, on_peer: Callable[[bool], None] = lambda _again: None) -> None:
        self.now = 0.0
        self.on_peer = on_peer
        self._links = 0
        self.late: list[Link] = []
        self.connect()
        self.new_outbox()
        self.inbox = Inbox(TOKEN, WINDOW, self._down)

    def new_outbox(self) -> None:
        """The sender's next life."""
        self.outbox = Outbox(TOKEN, self._up, lambda again: self.on_peer(again))

    def new_inbox(self) -> None:
        """The receiver's next life: nothing that the one before had not read is left."""
        self.late.clear()
        self.connect()
        self.inbox = Inbox(TOKEN, WINDOW, self._down)

    def connect(self) -> None:
        """A fresh link; what was on the old one is lost."""
        self._links += 1
        self.link = Link(b"link %d" % self._links)

    def _up(self, frames: Sequence[bytes]) -> None:
        self.link.up.append(list(frames))

    def _down(self, link: bytes, frames: Sequence[bytes]) -> bool:
        if link == self.link.name:
            self.link.down.append(list(frames))
        return link == self.link.name

    def reset(self, arrives: int = 0, late: int = 0) -> None:
        """Break the link. The first ``arrives`` of the sender's messages still come, the last ``late`` of these only when
        `read_late` is called; the others and all answers are lost.
        """
        old = self.link
        coming = list(old.up)[:arrives]
        for frames in coming[: len(coming) - late]:
            self._take(old.name, frames)
        old.up = collections.deque(coming[len(coming) - late :] if late else [])
        if old.up:
            self.late.append(old)
        self.connect()

    def up(self) -> None:
        """The receiver reads one message."""
        if self.link.up:
            self._take(self.link.name, self.link.up.popleft())

    def read_late(self, which: int = 0) -> None:
        """The receiver reads one message that an older link had brought."""
        if self.late:
            old = self.late[which % len(self.late)]
            self._take(old.name, old.up.popleft())
            if not old.up:
                self.late.remove(old)

    def _take(self, link: bytes, frames: list[bytes]) -> None:
        self.inbox.take(link, [memoryview(frame) for frame in frames], self.now)

    def down(self) -> None:
        """The sender reads one answer."""
        if self.link.down:
            self.outbox.heard(self.link.down.popleft(), self.now)

    def settle(self, seconds: float = 0.0) -> list[Delivery]:
        """Let time pass and everything arrive; returns what the receiver delivers."""
        out = []
        self.now += seconds
        self.outbox.turn(self.now)
        while self.link.up or self.link.down or self.late:
            self.read_late()
            self.up()
            self.down()
            self.outbox.turn(self.now)
        while (delivery := self.inbox.next()) is not None:
            out.append(delivery)
        return out


def text(deliveries: Sequence[Delivery]) -> list[bytes]:
    """Their payload."""
    return [bytes(delivery.frames[0]) for delivery in deliveries]
