"""The channel between processes, on real sockets: windows, acknowledgement, restarts; partition."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq

from collector.errors import ProtocolError
from collector.router import messages, partition
from collector.router.channel import Receiver, Sender

TOKEN = b"12345678"


@pytest.fixture
def context() -> Iterator[zmq.Context]:
    c = zmq.Context()
    yield c
    for end in ENDS:
        end.close()
    ENDS.clear()
    c.destroy(0)


ENDS: list[Sender | Receiver] = []


def kept(end):  # noqa: ANN001, ANN201
    """Closed at the end of the test."""
    ENDS.append(end)
    return end


def until(what: Callable[[], object]) -> None:
    deadline = time.monotonic() + 5
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def connected(sender: Sender, receiver: Receiver) -> bool:
    sender.service()
    assert receiver.receive() is None
    return sender.connected


def collect(sender: Sender, receiver: Receiver, out: list, *, acknowledge: bool = True) -> None:
    sender.service()
    delivery = receiver.receive()
    if delivery is not None:
        out.append(delivery)
        if acknowledge:
            receiver.acknowledge(delivery)


def test_window_bounds_what_is_on_the_way(context: zmq.Context, tmp_path: Path) -> None:
    endpoint = f"ipc://{tmp_path}/a"
    receiver = kept(Receiver(context, endpoint, TOKEN, window=1000))
    sender = kept(Sender(context, endpoint, TOKEN, retain=False))
    assert sender.room() == 0
    until(lambda: connected(sender, receiver))
    assert sender.room() == 1000
    sender.send([b"x" * 600], 7)
    sender.send([b"y" * 600])
    assert sender.room() == 0
    out: list = []
    until(lambda: collect(sender, receiver, out) or len(out) == 2 and sender.idle())
    assert (bytes(out[0].frames[0]), out[0].argument) == (b"x" * 600, 7)
    assert sender.room() == 1000


def test_stranger_is_refused(context: zmq.Context, tmp_path: Path) -> None:
    endpoint = f"ipc://{tmp_path}/a"
    receiver = kept(Receiver(context, endpoint, TOKEN, window=1000))
    stranger = kept(Sender(context, endpoint, b"87654321", retain=False))
    until(lambda: stranger.service() or receiver.receive() or receiver.refused)
    assert not stranger.connected


@pytest.mark.parametrize("retain", [True, False])
def test_new_receiver_gets_again_what_was_not_acknowledged(context: zmq.Context, tmp_path: Path, retain: bool) -> None:
    endpoint = f"ipc://{tmp_path}/a"
    lost: list[tuple[int, int]] = []
    sender = kept(Sender(context, endpoint, TOKEN, retain=retain, on_lost=lambda n, size: lost.append((n, size))))
    first = kept(Receiver(context, endpoint, TOKEN, window=10_000))
    until(lambda: connected(sender, first))
    done: list[int] = []
    for i in range(5):
        sender.send([b"%d" % i], done=lambda i=i: done.append(i))
    out: list = []
    until(lambda: collect(sender, first, out, acknowledge=len(out) < 2) or len(out) == 5)
    until(lambda: sender.service() or done == [0, 1])
    first.close()
    sender.send([b"5"], done=lambda: done.append(5))
    second = kept(Receiver(context, endpoint, TOKEN, window=10_000))
    again: list = []
    until(lambda: collect(sender, second, again) or sender.idle())
    got = [bytes(d.frames[0]) for d in again]
    if retain:
        assert got == [b"2", b"3", b"4", b"5"] and done == [0, 1, 2, 3, 4, 5] and sender.resent == 4
    else:
        assert got == [] and lost == [(4, 4)]


def test_damaged_headers_are_refused() -> None:
    good = messages.pack(TOKEN, messages.DATA, 1, 2, 3)
    assert messages.unpack(good, TOKEN).number == 3
    for bad in (b"", good[:-1], b"XXXX" + good[4:], good[:4] + b"\x09" + good[5:]):
        with pytest.raises(ProtocolError):
            messages.unpack(bad, TOKEN)
    with pytest.raises(ProtocolError):
        messages.unpack_span(b"short")
    assert messages.unpack_span(messages.pack_span(1, 2, 3)) == (1, 2, 3)


def test_partition_is_stable_and_even() -> None:
    counts = [0] * 4
    for when in range(1000, 6000):  # identities are the times at which they were given, by two CPUs
        for cpu in (0, 1):
            counts[partition.ring_of(when << 12 | cpu, 4)] += 1
    assert min(counts) > 2200
    assert partition.ring_count(2, 8) == 8 and partition.ring_count(16, 4) == 16 and partition.ring_count(1, 200) == 64
