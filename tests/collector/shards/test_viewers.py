"""A shard's viewers: sockets that are never waited for."""

from __future__ import annotations

import array
import json
import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from collector import viewing
from collector.counter_names import SHARD_NAMES
from collector.counters import Counters
from collector.shards.viewers import Viewers
from collector.viewing import Request
from tests.collector.shards.eyes.test_tally import record

SECOND = 1_000_000_000


class Rig:
    """A shard's viewers, and the other ends of their sockets."""

    def __init__(self) -> None:
        self.counters = Counters(memoryview(array.array("Q", [0] * 128)), SHARD_NAMES)
        self.viewers = Viewers(3, self.counters)
        self.ends: list[socket.socket] = []

    def come(self, request: Request, now: int = 0) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.ends.append(ours)
        theirs.setblocking(False)
        number = len(self.ends)
        message = {"kind": "view", "number": number, "request": request.to_message(), "fds": [theirs.detach()]}
        self.viewers.add(message, now)
        ours.setblocking(False)
        return ours

    def pass_by(self, *records: bytes) -> None:
        assert self.viewers.tap is not None
        self.viewers.tap.feed(b"".join(records))
        self.viewers.batch_taken()

    def close(self) -> None:
        self.viewers.close()
        for end in self.ends:
            end.close()


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    yield made
    made.close()


def messages(end: socket.socket) -> list[tuple[dict[str, Any], bytes]]:
    found = []
    while True:
        try:
            data = end.recv(4 << 20)
        except BlockingIOError:
            return found
        if not data:
            return found
        found.append(viewing.unpack(data))


def test_records_go_to_whom_they_fit(rig: Rig) -> None:
    everything, errors = rig.come(Request(whole=True)), rig.come(Request(status=("5xx",)))
    rig.pass_by(record("/a"), record("/b", "500"))
    ((head, body),) = messages(everything)
    assert head == {"shard": 3, "kind": "lines", "lost": 0, "seconds": 0.0}
    assert body == record("/a") + record("/b", "500")
    ((_head, body),) = messages(errors)
    assert json.loads(body)["path"] == "/b"
    assert rig.counters["viewer_lines"] == 3 and rig.counters["viewer_lost_lines"] == 0


def test_a_viewer_that_does_not_read_loses_lines_and_is_told_how_many(rig: Rig) -> None:
    slow, quick = rig.come(Request(whole=True)), rig.come(Request(whole=True))
    line = record("/a", responsePayload="x" * 5000)
    got, sent = 0, 0
    while rig.counters["viewer_lost_lines"] < 100:
        rig.pass_by(line, line, line)
        sent += 3
        got += sum(body.count(b"\n") for _head, body in messages(quick))
        assert sent < 5000
    assert got == sent  # nobody else notices
    queued = messages(slow)
    lost = rig.counters["viewer_lost_lines"]
    assert sum(body.count(b"\n") for _head, body in queued) == sent - lost
    rig.viewers.turn(SECOND)
    ((head, body),) = messages(slow)
    assert head["lost"] == lost and body == b""
    rig.viewers.turn(2 * SECOND)
    assert messages(slow) == []  # told once


def test_the_last_viewer_takes_the_tap_with_it(rig: Rig) -> None:
    one, other = rig.come(Request()), rig.come(Request(figures=True))
    one.close()
    rig.viewers.turn(1)
    assert rig.viewers.tap is not None
    other.close()
    rig.viewers.turn(2)
    assert rig.viewers.tap is None
    rig.viewers.turn(3)
    rig.viewers.batch_taken()


def test_one_that_goes_while_it_is_written_to(rig: Rig) -> None:
    rig.come(Request()).close()
    rig.pass_by(record())
    assert rig.viewers.tap is None and rig.counters["viewer_lost_lines"] == 0


def test_a_record_that_no_socket_holds_is_lost_and_the_others_are_not(rig: Rig) -> None:
    end = rig.come(Request(whole=True))
    rig.pass_by(record("/a"), record("/huge", responsePayload="x" * 1_000_000), record("/b"))
    bodies = b"".join(body for _head, body in messages(end))
    assert [json.loads(line)["path"] for line in bodies.splitlines()] == ["/a", "/b"]
    assert rig.counters["viewer_lost_lines"] == 1


def test_figures_come_each_second_to_all_who_want_them(rig: Rig) -> None:
    first = rig.come(Request(figures=True), now=SECOND)
    rig.pass_by(record("/users/1"), record("/users/2"))
    rig.viewers.turn(SECOND + SECOND // 2)
    assert messages(first) == []
    second = rig.come(Request(figures=True), now=SECOND + SECOND // 2)
    rig.viewers.turn(2 * SECOND + SECOND // 4)
    for end in (first, second):
        ((head, body),) = messages(end)
        assert head["kind"] == "figures" and head["seconds"] == 1.25
        (row,) = [json.loads(line) for line in body.splitlines()]
        assert row[3:5] == ["GET /users/{id}", 2]
    rig.viewers.turn(4 * SECOND)
    ((head, body),) = messages(first)
    assert head["seconds"] == 1.75 and body == b""  # nothing came; that is a figure, too


def test_figures_that_are_not_read_are_counted_by_exchange(rig: Rig) -> None:
    rig.come(Request(figures=True))
    now = 0
    while rig.counters["viewer_lost_lines"] == 0:
        now += 2 * SECOND
        rig.pass_by(*(record(f"/{'y' * 100}{letter}") for letter in "abcdefghijklmnop"))
        rig.viewers.turn(now)
        assert now < 10_000 * SECOND
    assert rig.counters["viewer_lost_lines"] == 16


def test_a_request_that_cannot_be_read_costs_its_socket_only(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    fd = theirs.detach()
    rig.viewers.add({"kind": "view", "number": 1, "request": {"colour": "red"}, "fds": [fd]}, 0)
    assert rig.viewers.tap is None and ours.recv(1) == b"" and "cannot be read" in caplog.text
    with pytest.raises(OSError, match="descriptor"):
        os.fstat(fd)
    ours.close()
