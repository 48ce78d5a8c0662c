"""The receiving half: order, duplicates, gaps, senders that come and go."""

from __future__ import annotations

from collector.router import inbox as inbox_module
from collector.router import messages
from collector.router.inbox import FORGET_SECONDS, Inbox
from tests.collector.router.wires import TOKEN, WINDOW, Wires, text


def test_a_message_that_was_late_and_is_sent_again_is_delivered_once() -> None:
    wires = Wires()
    wires.settle()
    wires.outbox.send([b"1"])
    wires.reset(arrives=1, late=1)
    wires.outbox.send([b"2"])
    wires.up()  # the new link is read first: 1 seems to be lost
    assert wires.inbox.next() is None
    wires.down()
    assert wires.outbox.resent == 1
    assert text(wires.settle()) == [b"1", b"2"] and wires.inbox.duplicates == 1


def test_what_comes_behind_a_gap_waits_and_is_not_told_to_be_missing() -> None:
    wires = Wires()
    wires.settle()
    wires.outbox.send([b"1"])
    wires.reset()
    for n in (2, 3, 4):
        wires.outbox.send([b"%d" % n])
        wires.up()
    assert wires.inbox.next() is None
    assert len(wires.link.down) == 1  # told at once, and once
    assert text(wires.settle()) == [b"1", b"2", b"3", b"4"]
    assert wires.outbox.resent == 1 and wires.inbox.duplicates == 0


def test_what_is_held_behind_a_gap_is_bounded(monkeypatch) -> None:
    monkeypatch.setattr(inbox_module, "HELD_MESSAGES", 3)
    wires = Wires()
    wires.settle()
    wires.outbox.send([b"0"])
    wires.reset()
    for n in range(1, 9):
        wires.outbox.send([b"%d" % n])
        wires.up()
    assert text(wires.settle(1.0)) == [b"%d" % n for n in range(9)]
    assert wires.outbox.resent == 6  # the one that was lost, and five that could not be held


def test_bytes_held_behind_a_gap_are_bounded_too() -> None:
    wires = Wires()
    wires.settle()
    wires.outbox.send([b"first"])
    wires.reset()
    for n in range(5):  # more than the window: no sender of ours does that
        wires.outbox.send([b"%d" % n * (WINDOW * 2 // 3)])
        wires.up()
    wires.down()
    got = [data[:5] for data in text(wires.settle(1.0))]
    assert got == [b"first", b"00000", b"11111", b"22222", b"33333", b"44444"] and wires.outbox.resent == 4


def test_a_sender_that_connects_again_is_no_other_one() -> None:
    wires = Wires()
    wires.settle()
    wires.outbox.send([b"1"])
    (delivery,) = wires.settle()
    wires.reset()
    wires.inbox.acknowledge(delivery)  # nobody hears that
    assert wires.settle(1.0) == [] and wires.outbox.idle()


def test_what_was_meant_for_the_receiver_before_is_refused_though_the_sender_is_known() -> None:
    wires = Wires()
    wires.settle()
    wires.outbox.send([b"1"])
    wires.new_inbox()
    wires.now += 1.0
    wires.outbox.turn(wires.now)  # HELLO
    wires.outbox.send([b"2"])  # before it has heard of the new receiver
    wires.up()
    wires.up()
    assert wires.inbox.refused == 1
    assert text(wires.settle()) == [b"1", b"2"] and wires.inbox.refused == 1


def test_two_senders_are_kept_apart() -> None:
    wires = Wires()
    wires.settle()
    wires.outbox.send([b"old 1"])
    wires.outbox.send([b"old 2"])
    wires.up()  # the second one is read later than the next life's
    wires.reset(arrives=1, late=1)
    wires.new_outbox()
    wires.outbox.turn(wires.now)
    wires.up()
    wires.down()
    wires.outbox.send([b"new 1"])
    wires.up()
    deliveries = [wires.inbox.next(), wires.inbox.next()]
    deliveries += wires.settle()
    assert text([d for d in deliveries if d is not None]) == [b"old 1", b"new 1", b"old 2"]
    for delivery in deliveries:
        assert delivery is not None
        wires.inbox.acknowledge(delivery)
    wires.settle()
    assert wires.outbox.idle()


def test_a_sender_that_is_gone_is_forgotten_and_one_that_is_only_idle_is_not() -> None:
    wires = Wires()
    wires.settle()
    first = wires.outbox
    wires.outbox.send([b"1"])
    (held,) = wires.settle()
    wires.now += FORGET_SECONDS + 1
    wires.new_outbox()  # on the same link: the first can still be reached
    wires.settle()
    wires.inbox.acknowledge(held)
    first.heard(wires.link.down.pop(), wires.now)
    assert first.idle()
    wires.reset()
    wires.now += FORGET_SECONDS + 1
    wires.new_outbox()
    wires.settle()
    wires.inbox.acknowledge(held)
    assert not wires.link.down and wires.inbox.refused == 0
    wires.outbox, second = first, wires.outbox  # it lives after all: it is given a new session
    wires.outbox.send([b"2"])
    assert text(wires.settle()) == [b"2"] and wires.inbox.refused == 1
    assert second.connected


def test_strangers_and_nonsense_are_refused_and_counted() -> None:
    answers: list[bytes] = []
    box = Inbox(TOKEN, WINDOW, lambda link, _frames: bool(answers.append(link)) or True)
    hello = messages.pack(TOKEN, messages.HELLO, 5, 0, transmission=1)
    box.take(b"a", [memoryview(hello)], 0.0)
    assert answers == [b"a"]
    for n, bad in enumerate(
        (
            b"",
            hello[:-1],
            messages.pack(b"another.", messages.HELLO, 5, 0, transmission=1),
            messages.pack(TOKEN, messages.DATA, 5, 7, number=1, transmission=2),
            messages.pack(TOKEN, messages.DATA, 6, 7, number=1, transmission=2),
            messages.pack(TOKEN, messages.WELCOME, 5, 7, number=1, transmission=2),
        ),
        1,
    ):
        box.take(b"a", [memoryview(bad)], 0.0)
        assert box.refused == n
    box.take(b"a", [], 0.0)
    assert box.refused == 7 and box.next() is None and answers == [b"a"]
