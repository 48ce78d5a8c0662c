"""What `top` knows: rows put together, percentiles, how the collector is."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector import lag
from collector.eyes import health
from collector.eyes.figures import GROUPS, OTHERS, SORTS, Interval, Sums, bucket_middle
from collector.shards.eyes.tap import Tap
from tests.collector.shards.eyes.test_tally import record


def row(process: str, host: str, endpoint: str, *numbers: int, durations: tuple[int, ...] = (), direction: int = 1) -> bytes:
    filled = [*numbers, *[0] * (7 - len(numbers))]
    return json.dumps([process, direction, host, endpoint, *filled, list(durations)]).encode() + b"\n"


def interval(*rows: bytes) -> Interval:
    made = Interval()
    made.add(0, 1.0, b"".join(rows))
    return made


def test_rows_of_shards_are_put_together() -> None:
    made = interval(row("nginx", "a", "GET /x", 3, 1), row("nginx", "b", "GET /x", 1))
    made.add(1, 1.5, row("nginx", "a", "GET /x", 4, 0, 2))
    made.add(1, 0.5, row("", "", "", 6, direction=0))
    assert made.seconds == 1.5  # one and two, on average
    assert [(name, sums.requests) for name, sums in made.grouped("endpoint", sort="requests")] == [
        ("GET a/x", 7),
        (OTHERS, 6),
        ("GET b/x", 1),
    ]
    assert [(name, sums.requests) for name, sums in made.grouped("process", sort="requests")] == [
        ("nginx in", 8),
        (OTHERS, 6),
    ]
    assert [name for name, _sums in made.grouped("host", sort="requests", wanted="B")] == ["b"]
    assert made.total().requests == 14 and made.total().server_errors == 2


def test_every_group_and_every_order() -> None:
    made = interval(
        row("p", "h", "GET /slow", 1, durations=(100, 1)),
        row("p", "h", "GET /bad", 2, 0, 1),
        row("p", "h", "GET /big", 3, 0, 0, 0, 0, 5, 5),
        row("q", "h", "GET /often", 9, direction=2),
    )
    first = {sort: made.grouped("endpoint", sort=sort)[0][0] for sort in SORTS}
    assert first == {"requests": "GET h/often", "errors": "GET h/bad", "p99": "GET h/slow", "bytes": "GET h/big"}
    assert {group: len(made.grouped(group, sort="requests")) for group in GROUPS} == {
        "endpoint": 4,
        "host": 1,
        "process": 2,
        "all": 4,
    }


@given(st.lists(st.integers(1, 10_000_000), min_size=1, max_size=60), st.sampled_from([0.5, 0.95, 0.99]))
def test_a_percentile_is_at_most_seven_percent_off(micros: list[int], part: float) -> None:
    tap = Tap()
    tap.count_figures(True)
    for us in micros:
        tap.feed(record(duration=f"{us // 1000}.{us % 1000:03d}"))
    made = Interval()
    made.add(0, 1.0, b"".join(line for line, _count in tap.figures()))
    exact = sorted(micros)[max(0, -int(-part * len(micros) // 1) - 1)]
    found = made.total().percentile(part)
    assert found is not None and abs(found * 1000 - exact) <= max(1.0, 0.07 * exact)


def test_no_answer_has_no_percentile() -> None:
    assert Sums().percentile(0.5) is None
    assert bucket_middle(0) == 0.0005 and bucket_middle(8) == 0.0085


@pytest.mark.parametrize(
    "line", [b"nonsense", b"[]", b"[1,2,3]", b"{}", b'["a",1,"b","c",1,2,3,4,5,6,7,[1]]', b"[" * 100_000]
)
def test_what_is_no_row_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - whatever it says, nobody reads it
        interval(line)


def test_rows_are_bounded() -> None:
    made = Interval()
    for part in range(30):
        made.add(0, 1.0, b"".join(row("p", "h", f"GET /{part}/x{number}", 1) for number in range(1000)))
    assert len(made.rows) == 20_000


def said(**totals: int) -> dict[str, object]:
    cpu = totals.pop("cpu", 0)
    return {
        "ready": True,
        "ready_words": "ok",
        "totals": totals,
        "usage": {"shard-0": {"cpu_ns": cpu, "resident_bytes": 5 << 20}},
    }


def test_how_the_collector_is_comes_from_two_answers() -> None:
    before = said(cpu=1_000_000_000, holes=1, sink_lag_records_0=1)
    after = said(cpu=1_500_000_000, holes=5, sink_dropped_records=4, supervisor_lost_records=2, sink_lag_records_0=99,
                 sink_lag_records_2=2, sink_queue_bytes=7)  # fmt: skip
    state = health.between(before, after, 2.0)
    assert state.words == "" and state.holes == 2.0 and state.dropped == 3.0 and state.queue == 7
    assert state.processes == (health.Process("shard-0", 25.0, 5 << 20),)
    assert (state.lag, state.lag_open) == (lag.SECONDS[2], False)
    beyond = health.between(after, said(**{f"sink_lag_records_{len(lag.SECONDS)}": 1000}), 1.0)
    assert (beyond.lag, beyond.lag_open) == (lag.SECONDS[-1], True)
    assert (
        health.between(before, {**before, "ready": False, "ready_words": "not ready: sink"}, 1.0).words == "not ready: sink"
    )
    assert health.between(before, before, 1.0).lag is None
