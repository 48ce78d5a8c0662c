"""The queue with a spool behind it: one order, nothing lost on the way to disk and back, and what the end leaves."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.errors import DestinationError
from collector.router import batches
from collector.sink import spooled
from collector.sink.batch import Batch
from collector.sink.delivery import Delivery
from collector.sink.destination import Settled
from collector.sink.spool import Spool
from collector.sink.spool_directory import prepare
from collector.sink.spooled import SpooledQueue
from tests.collector.sink.test_delivery import Scripted, again
from tests.live.harness import wait_for


def batch(text: str) -> Batch:
    record = text.encode()
    return Batch(record + b"\n", batches.pack(len(record) + 1, 0, (0, 0, 0)), b"", token=text)


def text(one: Batch) -> str:
    return bytes(one.records).decode().rstrip("\n")


@contextmanager
def opened(directory: Path, limit_bytes: int = 1 << 20) -> Iterator[Spool]:
    fd = prepare(str(directory))
    spool = Spool(fd, limit_bytes=limit_bytes)
    os.close(fd)
    try:
        yield spool
    finally:
        spool.close()


class Away:
    """Is the destination?"""

    def __init__(self) -> None:
        self.now = False

    def __call__(self) -> bool:
        return self.now


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["put", "move", "take", "done", "done last", "reopen"]), max_size=60))
def test_batches_come_out_in_their_order_and_none_is_missing(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str]
) -> None:
    directory = tmp_path_factory.mktemp("spooled")
    away = Away()
    gone: list[Batch] = []
    with opened(directory) as spool:
        queue = SpooledQueue(spool, away=away, spooled=gone.append)
        put, taken, under_way = 0, list[str](), list[Batch]()
        for step in steps:
            if step == "put":
                assert queue.put(batch(str(put))) == []
                put += 1
            elif step == "move":
                away.now = True
                queue._move()
                away.now = False
            elif step == "take" and (one := queue.take(0)) is not None:
                taken.append(text(one))
                under_way.append(one)
            elif step.startswith("done") and under_way:
                queue.done(under_way.pop(-1 if step == "done last" else 0))
        while (rest := queue.take(0)) is not None:
            taken.append(text(rest))
            under_way.append(rest)
        assert taken == [str(n) for n in range(put)]
        assert not queue.idle() or not under_way
        for one in under_way:
            queue.done(one)
        assert queue.idle() and queue.bytes == 0 and spool.records == 0
        assert queue.spooled_records == queue.released_records == len(gone)


@contextmanager
def delivery(directory: Path, *script: Any, limit_bytes: int = 1 << 20) -> Iterator[tuple[Delivery, Scripted]]:
    made: list[Scripted] = []

    def make(settled: Settled) -> Scripted:
        made.append(Scripted(settled, *script))
        return made[0]

    out = Delivery(make, lossless=False, wake=lambda: None, queue_bytes=100_000)
    with opened(directory, limit_bytes) as spool:
        out.use_spool(spool)
        out.start()
        try:
            yield out, made[0]
        finally:
            out.close()
            made[0].script.clear()
            out.give_up("the test is over")
            out.join(20)
            out.close_spool()


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("collector.sink.delivery._AWAY_SECONDS", 0.0)


@pytest.mark.usefixtures("at_once")
def test_while_the_destination_is_away_batches_are_done_and_on_disk_and_come_back_in_order(tmp_path: Path) -> None:
    gate = threading.Event()
    with delivery(tmp_path, again(), gate) as (out, destination):
        for n in range(50):
            out.submit(batch(str(n)))
        assert out.spooled is not None
        wait_for(lambda: out.spooled is not None and out.spooled.spooled_records == 49)  # one is with the destination
        assert sorted(int(one.token) for one in out.done()) == list(range(1, 50))
        assert not out.up and out.totals.dropped == 0
        gate.set()
        wait_for(lambda: out.totals.delivered == 50)
        wait_for(out.settled)
        calls = list(dict.fromkeys(text(one) for one in destination.calls))
        assert calls == [str(n) for n in range(50)]
        assert out.spooled.spool.records == 0 and out.spooled.released_records == 49


@pytest.mark.usefixtures("at_once")
def test_what_is_left_at_the_end_is_delivered_by_the_next_start(tmp_path: Path) -> None:
    never = threading.Event()
    with delivery(tmp_path, again(), never) as (out, _):
        for n in range(20):
            out.submit(batch(str(n)))
        wait_for(lambda: not out.up)
        out.close()
        wait_for(out.settled)
        assert out.abandon() == 0 and out.totals.failed == 0
        assert out.spooled is not None and out.spooled.spooled_records == 20
        never.set()
    with delivery(tmp_path) as (out, destination):
        wait_for(lambda: out.totals.delivered == 20)
        assert sorted(text(one) for one in destination.calls) == sorted(str(n) for n in range(20))


@pytest.mark.usefixtures("at_once")
def test_at_the_end_shards_do_not_wait_for_the_batch_that_a_destination_does_not_take(tmp_path: Path) -> None:
    with delivery(
        tmp_path, *[DestinationError("not now", retriable=True, retry_seconds=0.1, attempts_at_end=None)] * 100
    ) as (out, before):
        for n in range(20):
            out.submit(batch(str(n)))
        wait_for(lambda: out.spooled is not None and out.spooled.spooled_records == 19)
        out.end()
        wait_for(lambda: out.spooled is not None and out.spooled.spooled_records == 20)
        assert len(out.done()) == 20 and out.totals.failed == 0
        out.submit(batch("last"))
        wait_for(lambda: out.spooled is not None and out.spooled.spooled_records == 21)
        before.calls.clear()
    with delivery(tmp_path) as (out, after):
        wait_for(out.settled)
        assert {text(one) for one in before.calls + after.calls} == {*map(str, range(20)), "last"}


def test_memory_that_is_half_full_goes_to_disk_though_the_destination_is_only_slow(tmp_path: Path) -> None:
    gate = threading.Event()
    with delivery(tmp_path, gate) as (out, _):
        for n in range(80):
            out.submit(batch(f"{n}" * 1000))
            wait_for(lambda: out.queue.bytes <= 55_000)  # half of it, and what is under way
        assert out.totals.dropped == 0 and out.up
        gate.set()
        wait_for(lambda: out.totals.delivered == 80)


@pytest.mark.usefixtures("at_once")
def test_a_disk_that_takes_nothing_leaves_records_in_memory_until_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(spooled, "_RETRY_SECONDS", 0.0)
    full = [True]
    append = Spool.append

    def appends(self: Spool, *parts: Any) -> Any:
        if full[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return append(self, *parts)

    monkeypatch.setattr(Spool, "append", appends)
    gate = threading.Event()
    with delivery(tmp_path, again(), gate) as (out, destination):
        for n in range(10):
            out.submit(batch(str(n)))
        wait_for(lambda: out.spooled is not None and out.spooled.errors > 1)
        assert caplog.text.count("No space left") == 1
        full[0] = False
        wait_for(lambda: out.spooled is not None and out.spooled.spooled_records == 9)
        gate.set()
        wait_for(lambda: out.totals.delivered == 10)
        assert list(dict.fromkeys(text(one) for one in destination.calls)) == [str(n) for n in range(10)]


@pytest.mark.usefixtures("at_once")
def test_what_gives_way_in_a_full_spool_is_counted(tmp_path: Path) -> None:
    gate = threading.Event()
    with delivery(tmp_path, again(), gate, limit_bytes=20_000) as (out, _):
        for n in range(60):
            out.submit(batch(f"{n:03d}" * 300))
        wait_for(lambda: out.spooled is not None and out.spooled.spooled_records >= 59)
        gate.set()
        wait_for(out.queue.idle)
        wait_for(lambda: out.up)
        assert out.spooled is not None
        lost = out.spooled.spool.lost.records
        assert 0 < lost < 60 and out.totals.delivered == 60 - lost and out.totals.dropped == 0


def test_the_destination_forgets_what_the_spool_has_taken_over(tmp_path: Path) -> None:
    with delivery(tmp_path, *[again(retry_seconds=0.1) for _ in range(1000)]) as (out, destination):
        forgotten: list[Batch] = []
        destination.forget = forgotten.append  # type: ignore[method-assign,assignment]
        out.submit(batch("one"))
        wait_for(out._is_away, 20)
        assert destination.calls and not forgotten
        out.end()
        wait_for(lambda: forgotten, 20)
        assert text(forgotten[0]) == "one" and out.spooled is not None and out.spooled.spooled_records == 1


def test_whoever_takes_a_batch_waits_while_only_those_of_the_spool_are_under_way(tmp_path: Path) -> None:
    """At the end, too: nothing in memory, nothing in the spool that is not taken, and no answer yet."""
    with opened(tmp_path) as spool:
        queue = SpooledQueue(spool, away=lambda: False, spooled=lambda _one: None)
        spool.append(b"kept\n", batches.pack(5, 0, (0, 0, 0)), b"", batches.JSON_LINES, 1)
        taken = queue.take(0.0)
        assert taken is not None and queue.held == len(taken.records) == 5
        queue.close()
        begin = time.monotonic()
        threading.Timer(0.3, queue.done, [taken]).start()
        assert queue.take(20.0) is None
        assert 0.2 < time.monotonic() - begin < 15 and queue.held == 0


def test_a_spool_that_cannot_be_read_is_asked_now_and_then_with_batches_in_memory_behind_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(self: Spool, after: Any = None) -> Any:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(Spool, "peek", refuses)
    with opened(tmp_path) as spool:
        queue = SpooledQueue(spool, away=lambda: False, spooled=lambda _one: None)
        queue.put(batch("behind"))
        asked = sum(queue.take(0.2) is None for _ in range(3))
        assert asked == 3 and queue.errors == 6


def test_a_batch_that_is_kept_at_the_end_may_be_acknowledged_all_the_same(tmp_path: Path) -> None:
    with opened(tmp_path, limit_bytes=20_000) as spool:
        queue = SpooledQueue(spool, away=lambda: True, spooled=lambda one: setattr(one, "left", 0))
        queue.put(batch("first" * 100))
        queue._move()
        taken = queue.take(0.0)
        assert taken is not None
        for n in range(40):  # until its segment has given way
            queue.put(batch(f"{n:03d}" * 300))
            queue._move()
        taken.left = 1
        assert queue.keep(taken)
        queue.done(taken)
        assert queue.held == 0


def test_what_gives_way_in_the_spool_while_the_destination_has_it_is_saved_again_at_the_end(tmp_path: Path) -> None:
    with opened(tmp_path, limit_bytes=20_000) as spool:
        queue = spooled.SpooledQueue(spool, away=lambda: True, spooled=lambda one: setattr(one, "left", 0))
        queue.put(batch("first" * 100))
        queue._move()
        taken = queue.take(0.0)
        assert taken is not None and queue.idle()
        made = 1
        while spool.has(queue._out[taken]):
            queue.put(batch("later" * 100))
            queue._move()
            made += 1
        assert not queue.idle() and queue.active() == [taken]
        queue.save_active()
        assert queue.idle() and spool.records + spool.lost.records == made and not taken.left
        assert queue.spooled_records - queue.released_records == made
        queue.done(taken)  # too late
        queue.end()


def test_what_is_delivered_is_not_kept_in_memory_until_an_older_one_is(tmp_path: Path) -> None:
    with opened(tmp_path, limit_bytes=1 << 20) as spool:
        queue = spooled.SpooledQueue(spool, away=lambda: True, spooled=list[Batch]().append)
        for n in range(10):
            queue.put(batch(str(n) * 10_000))
        queue._move()
        oldest, *others = [queue.take(0.0) for _ in range(10)]
        assert oldest is not None and queue.bytes > 100_000
        for one in others:
            assert one is not None
            queue.done(one)
        assert len(oldest.records) == queue.bytes < 10_100
        queue.done(oldest)
        assert queue.bytes == spool.records == 0
        queue.end()


def test_what_another_destination_has_left_is_not_given_to_one_that_cannot_read_it(tmp_path: Path) -> None:
    with opened(tmp_path) as spool:
        spool.append(b"binary", batches.pack(6, 0, (0, 0, 0)) * 3, b"", batches.KAFKA, 3)
    with delivery(tmp_path) as (out, destination):
        out.submit(batch("a"))
        wait_for(out.queue.idle)
        assert [text(one) for one in destination.calls] == ["a"]
        assert (out.totals.delivered, out.totals.failed) == (1, 3)


def test_a_destination_that_is_gone_leaves_records_for_the_next_start(tmp_path: Path) -> None:
    gone = DestinationError("gone", retriable=False)
    with delivery(tmp_path, gone) as (out, _):
        out.submit(batch("the one that was tried"))
        wait_for(lambda: out.gone)
        out.submit(batch("later"))
        assert out.totals.failed == 1 and out.spooled is not None and out.spooled.spool.records == 1
    with delivery(tmp_path) as (out, destination):
        wait_for(lambda: out.totals.delivered == 1)
        assert [text(one) for one in destination.calls] == ["later"]


def test_a_spool_that_cannot_be_read_for_a_while_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(tmp_path) as spool:
        spool.append(b"kept\n", batches.pack(5, 0, (0, 0, 0)), b"", batches.JSON_LINES, 1)
    peek, refuse = Spool.peek, [True]

    def peeks(self: Spool, after: Any = None) -> Any:
        if refuse[0]:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return peek(self, after)

    monkeypatch.setattr(Spool, "peek", peeks)
    with delivery(tmp_path) as (out, _):
        wait_for(lambda: out.spooled is not None and out.spooled.errors)
        assert not out.gone
        refuse[0] = False
        wait_for(lambda: out.totals.delivered == 1)


def test_with_less_room_more_goes_to_disk_and_nothing_is_dropped(tmp_path: Path) -> None:
    gate = threading.Event()
    with delivery(tmp_path, gate) as (out, _):
        for n in range(10):
            out.submit(batch(f"{n}" * 4000))
        wait_for(lambda: len(out.queue.active()) == 1)  # it is under way, and will not come out of the spool
        assert out.spooled is not None and out.spooled.spooled_records == 0 and out.up
        out.set_room(20_000)
        wait_for(lambda: out.queue.held <= 10_000)
        assert out.spooled.spooled_records >= 7 and out.totals.dropped == 0
        gate.set()
        wait_for(lambda: out.totals.delivered == 10)


@pytest.mark.usefixtures("at_once")
def test_shards_wait_for_a_slow_disk_and_nothing_gives_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    append, disk = Spool.append, threading.Event()

    def appends(self: Spool, *parts: Any) -> Any:
        disk.wait(20)
        return append(self, *parts)

    monkeypatch.setattr(Spool, "append", appends)
    gate = threading.Event()
    with delivery(tmp_path, again(), gate) as (out, _):
        given = 0
        while not out.full(patient=False):
            out.submit(batch(f"{given:02d}" * 2000))
            given += 1
            assert given < 30
        assert not out.settled()
        disk.set()
        wait_for(lambda: not out.full(patient=False))
        gate.set()
        wait_for(lambda: out.totals.delivered == given)
        assert out.totals.dropped == 0


@pytest.mark.usefixtures("at_once")
def test_with_less_room_and_a_disk_that_takes_nothing_the_oldest_are_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(self: Spool, *_parts: Any) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Spool, "append", refuses)
    gate = threading.Event()
    with delivery(tmp_path, again(), gate) as (out, _):
        for n in range(10):
            out.submit(batch(f"{n}" * 4000))
        wait_for(lambda: out.spooled is not None and out.spooled.errors > 0)
        out.set_room(20_000)
        assert out.queue.held <= 20_000 and out.totals.dropped >= 5 and not out.full(patient=False)
        assert out.totals.dropped + sum(one.count for one in out.queue._waiting) + len(out.queue.active()) == 10
        gate.set()
        wait_for(out.settled)
