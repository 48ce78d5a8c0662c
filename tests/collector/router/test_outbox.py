"""The sending half: window, retention, what is sent again, and what is not."""

from __future__ import annotations

import functools

from hypothesis import given
from hypothesis import strategies as st

from collector.router import messages
from collector.router.messages import Acknowledgement
from collector.router.numbers import Numbers
from collector.router.outbox import QUIET_SECONDS, Outbox
from tests.collector.router.wires import TOKEN, WINDOW, Wires, text


def connected() -> Wires:
    wires = Wires()
    assert wires.settle() == [] and wires.outbox.connected
    return wires


def test_nothing_may_be_sent_before_a_receiver_is_there() -> None:
    wires = Wires()
    assert wires.outbox.room() == 0 and not wires.outbox.may_end()
    wires.outbox.send([b"early"])
    assert not wires.outbox.idle() and not wires.link.up
    assert text(wires.settle()) == [b"early"]
    assert wires.outbox.resent == 0 and wires.outbox.room() == WINDOW - 5


def test_the_window_counts_what_is_not_acknowledged_in_any_order() -> None:
    wires = connected()
    done: list[int] = []
    for n in range(1, 9):
        wires.outbox.send([b"x" * 100], done=functools.partial(done.append, n))
    assert wires.outbox.room() == WINDOW - 800
    deliveries = wires.settle()
    for n in (7, 5, 6):
        wires.inbox.acknowledge(deliveries[n - 1])
    wires.settle()
    assert done == [7, 5, 6] and wires.outbox.room() == WINDOW - 500
    for n in (1, 2, 8, 3, 4):
        wires.inbox.note_done(deliveries[n - 1])
    wires.inbox.reply()
    wires.settle()
    assert sorted(done) == list(range(1, 9)) and wires.outbox.idle() and wires.outbox.room() == WINDOW


def test_one_stuck_message_does_not_stop_the_others() -> None:
    wires = connected()
    wires.outbox.send([b"stuck"])
    (stuck,) = wires.settle()
    for n in range(1000):
        assert wires.outbox.room() == WINDOW - 5
        wires.outbox.send([b"%d" % n * 100])
        (delivery,) = wires.settle()
        wires.inbox.acknowledge(delivery)
        wires.settle()
    wires.inbox.acknowledge(stuck)
    wires.settle()
    assert wires.outbox.idle() and wires.outbox.resent == 0


def test_a_message_behind_which_another_came_is_sent_again_once() -> None:
    wires = connected()
    wires.outbox.send([b"1"])
    wires.reset()
    for n in (2, 3, 4):
        wires.outbox.send([b"%d" % n])
    assert text(wires.settle()) == [b"1", b"2", b"3", b"4"] and wires.outbox.resent == 1


def test_the_last_message_is_missed_when_nothing_is_heard() -> None:
    wires = connected()
    wires.outbox.send([b"1"])
    wires.reset()
    assert wires.settle(QUIET_SECONDS / 2) == []
    assert text(wires.settle(QUIET_SECONDS)) == [b"1"] and wires.outbox.resent == 1


def test_a_copy_that_is_lost_too_is_sent_again() -> None:
    wires = connected()
    wires.outbox.send([b"1"])
    for lost in range(3):
        wires.reset()
        wires.now += 1
        wires.outbox.turn(wires.now)  # asks
        wires.up()
        wires.down()  # hears that it is missing
        assert wires.outbox.resent == lost + 1 and len(wires.link.up) == 1
    wires.up()
    assert text(wires.settle()) == [b"1"]


def test_an_answer_that_is_lost_is_made_good_by_the_next() -> None:
    wires = connected()
    done: list[int] = []
    wires.outbox.send([b"1"], done=lambda: done.append(1))
    (delivery,) = wires.settle()
    wires.inbox.acknowledge(delivery)
    wires.reset()
    assert wires.settle() == [] and not done
    assert wires.settle(1.0) == [] and done == [1] and wires.outbox.resent == 0


def test_a_silent_receiver_is_asked_ever_less_often() -> None:
    wires = connected()
    wires.outbox.send([b"1"])
    for _ in range(6000):
        wires.now += 0.01
        wires.outbox.turn(wires.now)
    assert 100 < len(wires.link.up) < 150  # a minute, two a second


def test_nobody_is_asked_while_nothing_is_on_the_way() -> None:
    wires = connected()
    wires.now += 1000
    wires.outbox.turn(wires.now)
    assert not wires.link.up


def test_a_new_receiver_gets_what_was_not_acknowledged_behind_its_introduction() -> None:
    wires = connected()
    done: list[bytes] = []
    for name in (b"1", b"2", b"3", b"4"):
        wires.outbox.send([name], done=functools.partial(done.append, name))
    deliveries = wires.settle()
    wires.inbox.acknowledge(deliveries[0])
    wires.inbox.acknowledge(deliveries[2])
    wires.settle()
    assert done == [b"1", b"3"]
    asked: list[bool] = []

    def introduce(again: bool) -> None:
        asked.append(again)
        wires.outbox.introduce([b"introduction"])

    wires.on_peer = introduce
    for life in (1, 2):  # the first one dies before it has acknowledged anything
        wires.new_inbox()
        wires.outbox.send([b"%d" % (4 + life)])
        deliveries = wires.settle(1.0)
        assert text(deliveries) == [b"introduction", b"2", b"4", b"5", b"6"][: 3 + life] and asked == [True] * life
    wires.outbox.end()
    (end,) = wires.settle()
    assert end.kind == messages.END and wires.outbox.resent == 3 + 4
    for delivery in (*deliveries, end):
        wires.inbox.acknowledge(delivery)
    wires.settle()
    assert wires.outbox.idle() and wires.outbox.room() == WINDOW and done == [b"1", b"3", b"2", b"4"]


def test_what_is_sent_again_keeps_to_the_window_and_nothing_overtakes_it() -> None:
    wires = connected()
    for n in range(4):
        wires.outbox.send([b"%d" % n * 400])
    wires.settle()
    wires.new_inbox()
    wires.outbox.turn(wires.now + 1)
    wires.up()
    wires.down()
    wires.outbox.turn(wires.now)
    assert wires.outbox.in_flight_bytes == 800 and wires.outbox.room() == 0 and not wires.outbox.may_end()
    wires.outbox.send([b"new"])
    got: list[bytes] = []
    while not wires.outbox.idle():
        for delivery in wires.settle():
            got.append(bytes(delivery.frames[0][:3]))
            wires.inbox.acknowledge(delivery)
    assert got == [b"000", b"111", b"222", b"333", b"new"]


def test_a_message_that_is_larger_than_the_window_goes_alone() -> None:
    wires = connected()
    wires.outbox.send([b"x" * 2 * WINDOW])
    assert wires.outbox.room() == 0
    (delivery,) = wires.settle()
    wires.inbox.acknowledge(delivery)
    wires.settle()
    assert wires.outbox.idle()


def test_the_welcome_of_a_receiver_that_has_a_successor_changes_nothing() -> None:
    wires = Wires()
    wires.outbox.turn(wires.now)
    wires.up()
    (old,) = wires.link.down
    wires.new_inbox()
    wires.settle(1.0)
    wires.outbox.send([b"1"])
    wires.outbox.heard(old, wires.now)
    assert text(wires.settle()) == [b"1"] and wires.outbox.resent == 0 and wires.inbox.refused == 0


@given(
    st.lists(st.binary(max_size=80), max_size=3),
    st.integers(0, 9),
    st.integers(0, 5),
    st.integers(0, 50),
    st.sampled_from([b"12345678", b"another."]),
)
def test_whatever_a_receiver_says_nothing_is_done_that_was_not_sent(
    noise: list[bytes], kind: int, session: int, transmission: int, token: bytes
) -> None:
    put: list[list[bytes]] = []
    outbox = Outbox(TOKEN, lambda frames: put.append(list(frames)))
    outbox.turn(1.0)
    outbox.send([b"1"])
    outbox.heard(noise, 1.0)
    said = Acknowledgement(WINDOW, Numbers(100), Numbers(100)).pack()
    header = messages.pack(token, kind, outbox.epoch, session, number=3, transmission=transmission)
    outbox.heard([header, said], 1.0)
    outbox.turn(1.0)
    welcome = token == TOKEN and kind == messages.WELCOME and session != 0 and transmission == 1
    assert outbox.connected == welcome and len(put) == 1 + welcome
    assert not outbox.idle()  # what is acknowledged before it was on the wire is not
