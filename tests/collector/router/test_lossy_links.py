"""Any losses, resets, late messages and restarts of either end, in any order: what a channel promises holds all the same.

Invariant tested: between two lives, messages are delivered in the order of sending and none twice; the receiver is never
given a message before one that was sent earlier and is not acknowledged; no more is on the way than the window; and when
the losses end, everything is delivered, acknowledged once, and the window is what it was.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from hypothesis import given, settings
from hypothesis import strategies as st

from collector.router.inbox import Delivery
from tests.collector.router.wires import WINDOW, Wires


class LossyLinks:
    """One history. Messages are their place in the order of sending, and padding."""

    def __init__(self) -> None:
        self.wires = Wires(on_peer=self.introduce)
        self.count = 0
        self.done: set[int] = set()
        self.delivered: list[int] = []  # by the sender's present life to the receiver's
        self.held: list[Delivery] = []  # not acknowledged yet, of any life of the sender
        self.introductions: list[int] = []  # likewise delivered
        self.sessions = 0
        self.settle(0.0)

    def introduce(self, _again: bool) -> None:
        self.sessions += 1
        self.wires.outbox.introduce([b"introduction %d" % self.sessions])

    def send(self, size: int) -> None:
        outbox = self.wires.outbox
        if outbox.room() < size and not (outbox.connected and outbox.idle()):
            return
        number = self.count
        self.count += 1

        def done() -> None:
            assert number not in self.done
            self.done.add(number)

        outbox.send([b"%06d" % number + bytes(size - 6)], done=done)

    def settle(self, seconds: float) -> None:
        self.take(self.wires.settle(seconds))

    def take(self, deliveries: Iterable[Delivery] = ()) -> None:
        for delivery in itertools.chain(deliveries, iter(self.wires.inbox.next, None)):
            self.held.append(delivery)
            if delivery.sender_epoch != self.wires.outbox.epoch:
                continue  # an earlier life's, read late
            words = bytes(delivery.frames[0])
            if words.startswith(b"introduction"):
                assert not self.delivered and not self.introductions  # before all else that this receiver is given
                self.introductions.append(int(words.split()[1]))
                continue
            number = int(words[:6])
            expected = self.delivered[-1] + 1 if self.delivered else 0
            assert self.introductions
            assert number >= expected  # in order, none twice
            assert set(range(expected, number)) <= self.done  # left out is only what an earlier receiver acknowledged
            self.delivered.append(number)

    def acknowledge(self, which: int) -> None:
        if self.held:
            self.wires.inbox.note_done(self.held.pop(which % len(self.held)))

    def pass_time(self, seconds: float) -> None:
        self.wires.now += seconds
        self.wires.outbox.turn(self.wires.now)

    def restart_receiver(self) -> None:
        self.wires.new_inbox()
        self.delivered, self.held, self.introductions = [], [], []

    def restart_sender(self) -> None:
        self.wires.new_outbox()
        self.count, self.done, self.delivered, self.introductions = 0, set(), [], []

    def step(self, what: str, much: int, little: int) -> None:
        """``much`` is below 1000, ``little`` below 6."""
        match what:
            case "send":
                self.send(6 + much // 4)
            case "send large":
                self.send(6 + 2 * much)
            case "up":
                for _ in range(little):
                    self.wires.up()
            case "late":
                self.wires.read_late(little)
            case "down":
                for _ in range(little):
                    self.wires.down()
            case "take":
                self.take()
            case "acknowledge":
                self.acknowledge(much)
            case "reply":
                self.wires.inbox.reply()
            case "time":
                self.pass_time(much / 1000)
            case "all":
                self.settle(much / 2000)
            case "break":
                self.wires.reset(little, min(little, much % 6))
            case "new receiver":
                self.restart_receiver()
            case "new sender":
                self.wires.reset(little, min(little, much % 6))
                self.restart_sender()
        outbox = self.wires.outbox
        assert outbox.in_flight_bytes <= WINDOW or len(outbox._sent) == 1
        assert not outbox.idle() or outbox.in_flight_bytes == 0

    def heal(self) -> None:
        """The losses are over."""
        for _ in range(100):
            self.pass_time(0.3)
            for _ in range(100):
                self.wires.read_late()
                self.wires.up()
                self.wires.down()
            self.take()
            while self.held:
                self.acknowledge(len(self.held) // 2)
            self.wires.inbox.reply()
            if self.wires.outbox.connected and self.wires.outbox.idle():
                break
        assert self.done == set(range(self.count))
        assert self.wires.outbox.room() == WINDOW


OFTEN = ["send"] * 6 + ["up", "time"] * 4 + ["down"] * 3 + ["take", "acknowledge"] * 3 + ["reply", "all"]
SELDOM = ["late", "break", "send large", "new receiver", "new sender"]
steps = st.tuples(st.sampled_from(OFTEN * 2 + SELDOM * 2 + ["break"] * 3), st.integers(0, 999), st.integers(0, 5))


@settings(max_examples=500, deadline=None)
@given(st.lists(steps, max_size=100))
def test_everything_arrives_once_and_in_order(history: list[tuple[str, int, int]]) -> None:
    links = LossyLinks()
    for step in history:
        links.step(*step)
    links.heal()
