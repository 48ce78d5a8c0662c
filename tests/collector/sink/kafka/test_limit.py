"""What a topic takes at once: asked for, found out, and no reason to end anything."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from collector.sink.kafka.limit import LEAST_BYTES, TopicLimit
from collector.sink.kafka.probe import Probe
from collector.sink.kafka.security import Security
from tests.live.harness import wait_for


def made(monkeypatch: pytest.MonkeyPatch, *answers: int) -> TopicLimit:
    left = list(answers)
    monkeypatch.setattr(Probe, "most_bytes", lambda _self, _topic: left.pop(0) if left else 0)
    return TopicLimit([("127.0.0.1", 9)], "t", Security)


def test_it_is_asked_once_in_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    one = made(monkeypatch, 5000, 6000)
    for now in (0.0, 1.0, 599.0):
        one.look(now)
        wait_for(lambda: one.bytes == 5000 and not one._asking.locked())
    one.look(601.0)
    wait_for(lambda: one.bytes == 6000)


def test_what_was_found_out_is_less_than_what_brokers_say_that_compress_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch is refused that is smaller, as it was sent: it says nothing of what a record may have."""
    one = made(monkeypatch, 1 << 20, 1 << 20, 4 << 20)
    one.look(0.0)
    wait_for(lambda: one.bytes == 1 << 20 and not one._asking.locked())
    for size in (600_000, 700_000):
        one.refused(size)
        assert (one.bytes, one.record_bytes) == ((1 << 20) // 3, 1 << 20)
    one.look(1000.0)
    wait_for(lambda: not one._asking.locked())
    assert one.bytes == (1 << 20) // 3
    one.look(2000.0)
    wait_for(lambda: one.bytes == one.record_bytes == 4 << 20)  # somebody has changed it


def test_a_record_that_is_refused_says_what_records_and_so_batches_may_have(monkeypatch: pytest.MonkeyPatch) -> None:
    one = made(monkeypatch, 1 << 20)
    one.look(0.0)
    wait_for(lambda: one.bytes == 1 << 20)
    one.refused_record(600_000)
    assert one.bytes == one.record_bytes == 300_000
    one.refused_record(700_000)  # made before
    assert one.bytes == one.record_bytes == 300_000


def test_halving_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    one = made(monkeypatch)
    for _ in range(40):
        one.refused(one.bytes or 1 << 30)
        one.refused_record(one.record_bytes or 1 << 30)
    assert one.bytes == one.record_bytes == LEAST_BYTES


def test_without_room_for_a_thread_it_is_asked_later(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    one = made(monkeypatch, 5000)
    start = threading.Thread.start

    def refuses(_self: Any) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuses)
    one.look(0.0)
    assert one.bytes == 0 and "cannot ask" in caplog.text
    monkeypatch.setattr(threading.Thread, "start", start)
    one.look(1000.0)
    wait_for(lambda: one.bytes == 5000)
