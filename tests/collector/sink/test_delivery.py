"""Delivery with a destination whose answers are written down: what is settled, repeated, dropped, given up."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import pytest

from collector.config import Config
from collector.errors import DestinationError
from collector.router import batches
from collector.sink.batch import Batch
from collector.sink.delivery import Delivery
from collector.sink.destination import Destination, Notes, Settled
from collector.sink.null import Null
from tests.live.harness import wait_for


def batch(*records: bytes, format: str = batches.JSON_LINES) -> Batch:
    return Batch(
        b"".join(record + b"\n" for record in records),
        b"".join(batches.pack(len(record) + 1, 0, (0, 0, 0)) for record in records),
        b"",
        format=format,
    )


def again(**how: Any) -> DestinationError:
    return DestinationError("not now", **{"retriable": True, "retry_seconds": 0.0, **how})


class Scripted(Destination):
    """Answers each call of deliver with the next entry: an error to raise, a number of records to settle at once, or an
    event to wait for first. At the end of the script everything is settled.
    """

    kind = "scripted"
    accepts = frozenset({batches.JSON_LINES})

    def __init__(self, settled: Settled, *script: DestinationError | int | threading.Event | Exception) -> None:
        super().__init__(settled)
        self.script = list(script)
        self.calls: list[Batch] = []
        self.closed = self.idled = 0
        self.reopened = (0, 0)

    @classmethod
    def claims(cls, output: str) -> bool:
        return False

    @classmethod
    def describe(cls, output: str, config: Config) -> str:
        return ""

    @classmethod
    def make(cls, options: dict[str, Any], *, fd: int | None, notes: Notes, settled: Settled) -> Self:
        return cls(settled)

    def deliver(self, batch: Batch) -> None:
        self.calls.append(batch)
        step = self.script.pop(0) if self.script else batch.left
        if isinstance(step, threading.Event):
            assert step.wait(30)
            step = batch.left
        if isinstance(step, Exception):
            raise step
        self.settled(batch, step, 0)

    def idle(self) -> None:
        self.idled += 1

    def reopen(self, fd: int, number: int) -> None:
        self.reopened = fd, number

    def close(self) -> None:
        self.closed += 1


@contextmanager
def delivery(
    *script: Any, lossless: bool = False, queue_bytes: int = 1000, start: bool = True
) -> Iterator[tuple[Delivery, Scripted]]:
    destinations = []

    def make(settled: Settled) -> Destination:
        destinations.append(Scripted(settled, *script))
        return destinations[0]

    out = Delivery(make, lossless=lossless, wake=lambda: None, queue_bytes=queue_bytes)
    if start:
        out.start()
    try:
        yield out, destinations[0]
    finally:
        out.close()
        assert not start or out.join(20)


def test_a_batch_is_done_when_all_its_records_are_settled() -> None:
    with delivery(1, 2) as (out, destination):
        one, two = batch(b"a", b"b", b"c"), batch(b"d", b"e")
        out.submit(one)
        out.submit(two)
        wait_for(lambda: out.totals.delivered == 3)
        assert out.done() == [two] and one.left == 2 and not out.settled()
        assert not destination.settled(one, 1, 0)
        assert destination.settled(one, 0, 1)  # by an acknowledgement that came later
        wait_for(out.settled)
        assert out.done() == [one]
    assert (out.totals.delivered, out.totals.failed) == (4, 1) and destination.closed == 1


def test_an_attempt_that_may_be_repeated_is_and_counts() -> None:
    with delivery(again(), again()) as (out, destination):
        one = batch(b"a")
        out.submit(one)
        wait_for(out.settled)
    assert destination.calls == [one] * 3
    assert (out.totals.errors, out.totals.delivered, out.gone, out.up) == (2, 1, "", True)


def test_a_destination_that_is_only_slow_has_no_error() -> None:
    with delivery(*[again(busy=True)] * 3) as (out, destination):
        out.submit(batch(b"a"))
        wait_for(out.settled)
    assert len(destination.calls) == 4 and out.totals.errors == 0 and out.up


def test_what_cannot_be_mended_ends_everything() -> None:
    hold = threading.Event()
    with delivery(hold, DestinationError("it has gone", retriable=False)) as (out, destination):
        first, second, third = batch(b"a"), batch(b"b", b"c"), batch(b"d")
        for one in (first, second, third):
            out.submit(one)
        hold.set()
        wait_for(out.settled)
        late = batch(b"e")
        out.submit(late)
        assert out.done() == [first, second, third, late]
    assert out.gone == "it has gone" and not out.up
    assert (out.totals.delivered, out.totals.failed) == (1, 4) and destination.calls == [first, second]


def test_at_the_end_it_is_given_up_after_its_attempts() -> None:
    with delivery(*[again(attempts_at_end=2)] * 50, start=False) as (out, destination):
        out.submit(batch(b"a"))
        out.close()
        out.start()
        assert out.join(20)
    assert len(destination.calls) == 3 and out.gone == "not now" and out.totals.failed == 1


def test_progress_gives_it_new_attempts_at_the_end() -> None:
    class Slow(Scripted):
        def deliver(self, batch: Batch) -> None:
            batch.at += len(self.calls) % 2  # every other attempt gets somewhere
            super().deliver(batch)

    made = []

    def make(settled: Settled) -> Destination:
        made.append(Slow(settled, *[again(attempts_at_end=2)] * 10))
        return made[0]

    out = Delivery(make, lossless=False, wake=lambda: None)
    out.submit(batch(b"a"))
    out.close()
    out.start()
    assert out.join(20) and out.gone == "" and out.totals.delivered == 1


def test_the_wait_for_the_next_attempt_ends_when_there_is_a_reason() -> None:
    for reason in ("reopen", "close"):
        with delivery(again(retry_seconds=3600, attempts_at_end=1)) as (out, destination):
            out.submit(batch(b"a"))
            wait_for(lambda: out.totals.errors == 1)  # noqa: B023
            if reason == "reopen":
                out.reopen(7, 1)
                assert destination.reopened == (7, 1)
            else:
                out.close()
            wait_for(out.settled)
        assert out.totals.delivered == 1


def test_what_does_not_fit_is_dropped_oldest_first_and_counted() -> None:
    hold = threading.Event()
    with delivery(hold, queue_bytes=100) as (out, destination):
        first = batch(b"a")
        out.submit(first)
        wait_for(lambda: destination.calls)
        given = [batch(b"x" * 39, b"y") for _ in range(4)]
        for one in given:
            out.submit(one)
        assert out.totals.dropped == 4 and out.done() == given[:2]
        hold.set()
    assert destination.calls == [first, *given[2:]] and out.totals.delivered == 5


def test_a_batch_in_a_format_that_it_does_not_accept_has_failed(caplog: pytest.LogCaptureFixture) -> None:
    with delivery() as (out, destination):
        one = batch(b"a", b"b", format="another")
        out.submit(one)
        assert out.done() == [one] and out.totals.failed == 2 and not out.gone
    assert destination.calls == [] and "does not take batches in format 'another'" in caplog.text


def test_a_batch_without_records_is_done_at_once() -> None:
    with delivery() as (out, _destination):
        empty = batch()
        out.submit(empty)
        assert out.done() == [empty] and out.settled()


def test_a_malformed_batch_has_failed_and_the_next_is_delivered(caplog: pytest.LogCaptureFixture) -> None:
    class PerRecord(Scripted):
        def deliver(self, batch: Batch) -> None:
            for _ in batch:
                self.settled(batch, 1, 0)

    out = Delivery(lambda settled: PerRecord(settled), lossless=False, wake=lambda: None)
    out.start()
    out.submit(Batch(b"abc\n", batches.pack(3, 0, (0, 0, 0)) * 2, b""))
    out.submit(batch(b"a", b"b", b"c"))
    out.close()
    assert out.join(20)
    assert (out.totals.failed, out.totals.delivered, out.gone) == (2, 3, "")
    assert "does not describe its records" in caplog.text


def test_a_destination_that_breaks_is_gone_with_what_waits(caplog: pytest.LogCaptureFixture) -> None:
    with delivery(RuntimeError("a fault of ours")) as (out, _destination):
        out.submit(batch(b"a"))
        wait_for(lambda: out.gone)
        out.submit(batch(b"b"))
    assert out.gone == "RuntimeError" and out.totals.failed == 2 and out.settled() and out.queue.idle()
    assert "delivery failed" in caplog.text


def test_idle_is_called_while_there_is_nothing_to_do() -> None:
    with delivery() as (_out, destination):
        wait_for(lambda: destination.idled > 1)


def test_null_takes_everything_without_a_thread() -> None:
    out = Delivery(lambda settled: Null(settled), lossless=False, wake=lambda: pytest.fail("the loop is awake"))
    out.start()
    given = [batch(b"a", b"b"), batch(b"c")]
    for one in given:
        out.submit(one)
    assert out.done() == given and out.totals.delivered == 3 and out.settled() and out.queue.bytes == 0
    out.close()
    assert out.join(1)


def test_the_age_of_what_is_delivered_is_counted() -> None:
    now = time.monotonic_ns()

    def aged(seconds: float, token: object) -> Batch:
        end = now - round(seconds * 1e9)
        return Batch(b"a\nb\n", batches.pack(2, 0, (end, 0, 0)) + batches.pack(2, 0, (now, 0, 0)), b"", token=token)

    with delivery() as (out, _):
        for seconds in (2.0, 20.0):
            out.submit(aged(seconds, "token"))
        out.submit(aged(20.0, None))  # out of the spool
        wait_for(out.settled)
    counters = out.lag.counters()
    assert {name: value for name, value in counters.items() if name != "lag_ms" and value} == {
        "lag_records_4": 2,
        "lag_records_7": 2,
    }
    assert 44_000 <= counters["lag_ms"] < 50_000


def test_who_may_wait_does_before_anything_gives_way_while_the_destination_takes_records() -> None:
    gate = threading.Event()
    with delivery(gate, again(), queue_bytes=100) as (out, _):
        out.submit(batch(b"x" * 60))
        assert not out.full(patient=True)
        out.submit(batch(b"y" * 19))
        assert out.full(patient=True) and not out.full(patient=False)
        out.up = False  # what waits would wait for nothing
        assert not out.full(patient=True)
        out.up = True
        gate.set()
        wait_for(out.settled)
        assert not out.full(patient=True) and out.totals.dropped == 0


def test_with_less_room_the_oldest_are_dropped_and_counted() -> None:
    gate = threading.Event()
    with delivery(gate, queue_bytes=100) as (out, _):
        given = [batch(b"x" * 19) for _ in range(5)]
        for one in given:
            out.submit(one)
        wait_for(lambda: out.queue.active() == given[:1])
        out.set_room(40)
        assert out.totals.dropped == 3 and out.done() == given[1:4] and out.queue.held == 40
        gate.set()
        wait_for(out.settled)
        assert out.totals.delivered == 2
