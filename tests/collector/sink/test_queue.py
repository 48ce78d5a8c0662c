"""The queue: bounded in bytes, the oldest gives way, a lossless one never."""

from __future__ import annotations

import threading

from hypothesis import given
from hypothesis import strategies as st

from collector.router import batches
from collector.sink.batch import Batch
from collector.sink.queue import BatchQueue


def batch(size: int = 10, records: int = 1) -> Batch:
    return Batch(b"x" * (size - 1) + b"\n", batches.pack(size, 0, (0, 0, 0)) * records, b"")


def taken(queue: BatchQueue) -> list[Batch]:
    out = []
    while (one := queue.take(0)) is not None:
        out.append(one)
    return out


def test_what_is_put_in_comes_out_in_order_and_counts_until_it_is_done() -> None:
    queue = BatchQueue(lossless=False)
    given = [batch(), batch(20)]
    for one in given:
        assert queue.put(one) == []
    assert queue.bytes == 30 and not queue.idle()
    assert taken(queue) == given
    assert queue.bytes == 30 and not queue.idle()
    queue.done(given[0])
    assert queue.bytes == 20
    queue.done(given[1])
    assert queue.bytes == 0 and queue.idle()


def test_the_oldest_gives_way_and_the_last_one_never() -> None:
    queue = BatchQueue(lossless=False, limit_bytes=100)
    a, b, c, large = batch(60), batch(40), batch(40), batch(1000)
    assert queue.put(a) == queue.put(b) == []
    assert queue.put(c) == [a]
    assert queue.put(large) == [b, c]
    assert taken(queue) == [large] and not queue.full()


def test_what_is_under_way_does_not_give_way() -> None:
    queue = BatchQueue(lossless=False, limit_bytes=100)
    a, b, c = batch(90), batch(40), batch(40)
    queue.put(a)
    assert queue.take(0) is a
    assert queue.put(b) == [] and queue.put(c) == [b]


def test_a_lossless_queue_is_full_instead() -> None:
    queue = BatchQueue(lossless=True, limit_bytes=100)
    a, b = batch(60), batch(60)
    assert queue.put(a) == [] and not queue.full()
    assert queue.put(b) == [] and queue.full()
    assert queue.take(0) is a and queue.full()
    queue.done(a)
    assert not queue.full()


def test_a_batch_that_the_shard_holds_as_well_counts_twice() -> None:
    queue = BatchQueue(lossless=False, limit_bytes=100)
    twice = Batch(b"x" * 29 + b"\n", batches.pack(30, 0, (0, 0, 0)), b"", copies=2)
    assert queue.put(twice) == [] and (queue.bytes, queue.held) == (30, 60)
    assert queue.put(batch(40)) == [] and (queue.bytes, queue.held) == (70, 100)
    assert queue.put(batch(1)) == [twice] and (queue.bytes, queue.held) == (41, 41)


def test_with_less_room_the_oldest_give_way_until_there_is_more_again() -> None:
    queue = BatchQueue(lossless=False, limit_bytes=100)
    a, b, c, d = (batch(25) for _ in range(4))
    for one in (a, b, c, d):
        queue.put(one)
    assert queue.nearly_full()
    assert queue.take(0) is a  # under way: it does not give way, and counts
    assert queue.set_room(60) == [b, c]
    assert queue.put(batch(10)) == [] and queue.held == 60
    assert queue.set_room(1000) == [] and queue.put(batch(40)) == [] and queue.held == 100
    assert queue.put(batch(20)) == [d]
    assert not BatchQueue(lossless=False, limit_bytes=100).nearly_full()


def test_clear_takes_what_waits_and_leaves_what_is_under_way() -> None:
    queue = BatchQueue(lossless=False)
    a, b, c = batch(), batch(), batch()
    for one in (a, b, c):
        queue.put(one)
    assert queue.take(0) is a
    assert queue.clear() == [b, c] and queue.take(0) is None and not queue.idle()
    queue.done(a)
    assert queue.idle()


def test_a_batch_ends_the_wait_for_one() -> None:
    queue = BatchQueue(lossless=False)
    found: list[Batch | None] = []
    thread = threading.Thread(target=lambda: found.append(queue.take(60)))
    thread.start()
    one = batch()
    queue.put(one)
    thread.join(30)
    assert found == [one]


@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("put"), st.integers(1, 60)),
            st.tuples(st.just("take"), st.just(0)),
            st.tuples(st.just("done"), st.just(0)),
        )
    ),
    lossless=st.booleans(),
)
def test_nothing_is_lost_twice_or_forgotten_in_any_order_of_steps(steps: list[tuple[str, int]], lossless: bool) -> None:
    queue = BatchQueue(lossless=lossless, limit_bytes=100)
    put: list[Batch] = []
    out: list[Batch] = []
    gave_way: list[Batch] = []
    under_way: list[Batch] = []
    for step, number in steps:
        if step == "put":
            put.append(batch(number))
            gave_way += queue.put(put[-1])
        elif step == "take" and (one := queue.take(0)) is not None:
            out.append(one)
            under_way.append(one)
        elif step == "done" and under_way:
            queue.done(under_way.pop())
        waiting = [one for one in put if one not in out and one not in gave_way]
        assert queue.bytes == sum(len(one.records) for one in waiting + under_way)
        assert lossless or queue.bytes <= 100 or len(waiting) <= 1
    queue.close()
    out += taken(queue)
    assert not (lossless and gave_way)
    assert sorted(map(id, out + gave_way)) == sorted(map(id, put))
    assert [one for one in put if one in out] == out and [one for one in put if one in gave_way] == gave_way
