"""The channel on real sockets: windows, acknowledgement, restarts, and a link that loses messages and breaks."""

from __future__ import annotations

import functools
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from collector.router.channel import Receiver, Sender
from collector.router.inbox import Delivery
from tests.collector.router.proxy import RECEIVER, SENDER, Proxy

TOKEN = b"12345678"
WINDOW = 10_000


class Ends:
    """Whatever a test opens, closed in the end; with a proxy between the ends if it asks for one."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._open: list[Sender | Receiver | Proxy] = []
        self._way = "receiver"

    def receiver(self, window: int = WINDOW) -> Receiver:
        end = Receiver(self.context, f"ipc://{self.directory}/receiver", TOKEN, window=window)
        self._open.append(end)
        return end

    def sender(self, token: bytes = TOKEN, on_peer: Callable[[bool], None] = lambda _again: None) -> Sender:
        end = Sender(self.context, f"ipc://{self.directory}/{self._way}", token, on_peer=on_peer)
        self._open.append(end)
        return end

    def proxy(self) -> Proxy:
        """Between the sender that is made next and the receiver."""
        self._way = "proxy"
        proxy = Proxy(f"{self.directory}/proxy", f"{self.directory}/receiver")
        self._open.append(proxy)
        return proxy

    def close(self) -> None:
        for end in reversed(self._open):
            end.close()
        self.context.destroy(0)


@pytest.fixture
def ends(tmp_path: Path) -> Iterator[Ends]:
    made = Ends(tmp_path)
    yield made
    made.close()


def until(what: Callable[[], object]) -> None:
    """The time limit of a test is pytest's."""
    while not what():
        time.sleep(0.001)


def meet(sender: Sender, receiver: Receiver) -> None:
    until(lambda: (sender.service(), receiver.receive(), sender.connected)[-1])


class Talk:
    """A sender and a receiver that acknowledges at once, unless ``keep``; what was delivered, and of what is done."""

    def __init__(self, sender: Sender, receiver: Receiver, *, keep: bool = False) -> None:
        self.sender, self.receiver, self.keep = sender, receiver, keep
        self.got: list[bytes] = []
        self.kept: list[Delivery] = []
        self.done: list[bytes] = []
        meet(sender, receiver)

    def send(self, *payloads: bytes) -> None:
        for payload in payloads:
            self.sender.send([payload], done=functools.partial(self.done.append, payload))

    def turn(self) -> None:
        self.sender.service()
        delivery = self.receiver.receive()
        if delivery is None:
            return
        self.got.append(bytes(delivery.frames[0]))
        if self.keep:
            self.kept.append(delivery)
        else:
            self.receiver.acknowledge(delivery)

    def until(self, what: Callable[[], object]) -> None:
        until(lambda: (self.turn(), what())[-1])


def test_window_bounds_what_is_on_the_way(ends: Ends) -> None:
    receiver, sender = ends.receiver(1000), ends.sender()
    assert sender.room() == 0
    meet(sender, receiver)
    assert sender.room() == 1000
    sender.send([b"x" * 600], wall_offset_ns=-7, file=3)
    sender.send([b"y" * 600])
    assert sender.room() == 0
    out: list[Delivery] = []

    def collect() -> None:
        sender.service()
        delivery = receiver.receive()
        if delivery is not None:
            out.append(delivery)
            receiver.acknowledge(delivery)

    until(lambda: (collect(), sender.idle())[-1])
    assert [(bytes(d.frames[0]), d.wall_offset_ns, d.file, d.size) for d in out] == [
        (b"x" * 600, -7, 3, 600),
        (b"y" * 600, 0, 0, 600),
    ]
    assert sender.room() == 1000


def test_a_socket_is_nobody_elses(ends: Ends) -> None:
    ends.receiver()
    assert stat.S_IMODE((ends.directory / "receiver").stat().st_mode) == 0o700


def test_stranger_is_refused(ends: Ends) -> None:
    receiver, stranger = ends.receiver(), ends.sender(b"87654321")
    until(lambda: (stranger.service(), receiver.receive(), receiver.refused)[-1])
    stranger.service()
    assert not stranger.connected


def test_large_messages_of_many_frames_go_both_with_and_without_copies(ends: Ends) -> None:
    receiver, sender = ends.receiver(1 << 20), ends.sender()
    meet(sender, receiver)
    frames = [bytes([n]) * size for n, size in enumerate((100_000, 0, 3))]
    sender.send(frames)
    sender.send(frames[1:])
    out: list[list[bytes]] = []

    def collect() -> None:
        sender.service()
        delivery = receiver.receive()
        if delivery is not None:
            out.append([bytes(frame) for frame in delivery.frames])

    until(lambda: (collect(), len(out) == 2)[-1])
    assert out == [frames, frames[1:]]


def test_acknowledged_out_of_order(ends: Ends) -> None:
    talk = Talk(ends.sender(), ends.receiver(), keep=True)
    talk.send(*(b"%d" % n * 1000 for n in range(9)))
    talk.until(lambda: len(talk.kept) == 9)
    talk.receiver.acknowledge(talk.kept.pop(6))
    talk.until(lambda: talk.done)
    assert talk.done == [b"6" * 1000] and talk.sender.room() == WINDOW - 8000 and not talk.sender.idle()
    while talk.kept:
        talk.receiver.acknowledge(talk.kept.pop(len(talk.kept) // 2))
    talk.until(talk.sender.idle)
    assert len(talk.done) == 9 and talk.sender.room() == WINDOW


def test_new_receiver_gets_again_what_was_not_acknowledged(ends: Ends) -> None:
    first, sender = ends.receiver(), ends.sender()
    talk = Talk(sender, first, keep=True)
    talk.send(*(b"%d" % n for n in range(5)))
    talk.until(lambda: len(talk.kept) == 5)
    for n in (3, 0):
        first.acknowledge(talk.kept[n])
    talk.until(lambda: len(talk.done) == 2)
    first.close()
    talk.send(b"5")
    talk.receiver, talk.keep = ends.receiver(), False
    talk.until(sender.idle)
    assert talk.got[5:] == [b"1", b"2", b"4", b"5"]
    assert sorted(talk.done) == [b"%d" % n for n in range(6)] and sender.resent == 4 and sender.room() == WINDOW


@pytest.mark.parametrize("following", [0, 3])
def test_a_message_that_was_swallowed_is_sent_again(ends: Ends, following: int) -> None:
    """Nothing or more may follow it on the link that comes after."""
    receiver, proxy = ends.receiver(), ends.proxy()
    talk = Talk(ends.sender(), receiver)
    talk.send(b"before")
    talk.until(talk.sender.idle)
    proxy.swallow(SENDER)
    talk.send(b"swallowed")
    talk.until(lambda: proxy.resets)
    later = [b"later %d" % n for n in range(following)]
    talk.send(*later)
    talk.until(talk.sender.idle)
    assert talk.got == talk.done == [b"before", b"swallowed", *later]
    # what was written before the link's end was noticed is lost with it
    assert 1 <= talk.sender.resent <= 1 + following and talk.sender.room() == WINDOW
    assert receiver.refused == receiver.duplicates == 0


def test_an_acknowledgement_that_was_swallowed_is_repeated(ends: Ends) -> None:
    receiver, proxy = ends.receiver(), ends.proxy()
    talk = Talk(ends.sender(), receiver)
    proxy.swallow(RECEIVER)
    talk.send(b"1", b"2")
    talk.until(lambda: proxy.resets)
    talk.until(talk.sender.idle)
    assert talk.got == talk.done == [b"1", b"2"] and talk.sender.room() == WINDOW


def test_an_introduction_that_was_swallowed_comes_before_the_rest(ends: Ends) -> None:
    receiver, proxy = ends.receiver(), ends.proxy()
    lives: list[bool] = []

    def introduce(again: bool) -> None:
        lives.append(again)
        proxy.swallow(SENDER)
        sender.introduce([b"introduction"])

    sender = ends.sender(on_peer=introduce)
    sender.send([b"1"])
    talk = Talk(sender, receiver)
    talk.until(sender.idle)
    assert talk.got == [b"introduction", b"1"] and lives == [False]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.sampled_from(
            ["send", "send", "send", "swallow message", "swallow answer", "reset", "turn", "new receiver", "acknowledge"]
        ),
        max_size=40,
    ),
    st.data(),
)
def test_whatever_breaks_everything_arrives(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str], data: st.DataObject
) -> None:
    ends = Ends(tmp_path_factory.mktemp("ends"))
    try:
        receiver, proxy = ends.receiver(), ends.proxy()
        talk = Talk(ends.sender(), receiver, keep=True)
        count, since = 0, 0
        for step in steps:
            if step == "send" and talk.sender.room() > 100:
                talk.send(b"%d" % count)
                count += 1
            elif step == "swallow message":
                proxy.swallow(SENDER)
            elif step == "swallow answer":
                proxy.swallow(RECEIVER)
            elif step == "reset":
                proxy.reset()
            elif step == "turn":
                talk.turn()
            elif step == "acknowledge" and talk.kept:
                talk.receiver.acknowledge(talk.kept.pop(data.draw(st.integers(0, len(talk.kept) - 1))))
            elif step == "new receiver":
                in_order(talk.got[since:])
                talk.receiver.close()
                talk.receiver, talk.kept, since = ends.receiver(), [], len(talk.got)

        def turn() -> bool:
            talk.turn()
            while talk.kept:
                talk.receiver.acknowledge(talk.kept.pop())
            return talk.sender.idle()

        until(turn)
        in_order(talk.got[since:])
        assert {int(payload) for payload in talk.got} == set(range(count))
        assert sorted(map(int, talk.done)) == list(range(count))
        assert talk.sender.room() == WINDOW
    finally:
        ends.close()


def in_order(payloads: list[bytes]) -> None:
    """What one receiver was given: in the order of sending, none twice."""
    numbers = [int(payload) for payload in payloads]
    assert numbers == sorted(set(numbers))
