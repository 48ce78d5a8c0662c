"""The table of connections, alone: names, limits, timers (drive.pyx)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.collector.shards import compiling

SECOND = 1_000_000_000


@pytest.fixture(scope="module")
def Table(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return compiling.load(Path(__file__).parent / "drive.pyx", tmp_path_factory.mktemp("drive")).Table


def test_a_connection_is_found_by_its_name_until_it_ends(Table: Any) -> None:
    t = Table()
    for n in range(1, 5000):
        t.add(n << 12)
    assert t.count() == 4999 and all(t.find(n << 12) == n << 12 for n in range(1, 5000))
    assert t.find(0) is None and t.find(5000 << 12) is None
    assert t.close(17 << 12, 5) == [(17 << 12, 5)] and t.find(17 << 12) is None and t.count() == 4998


def test_a_second_name_finds_it_too(Table: Any) -> None:
    t = Table()
    for n in range(1, 3000):
        t.add(n)
        t.bind(n, n + 1_000_000)
    assert all(t.find(n + 1_000_000) == n for n in range(1, 3000))
    t.bind(5, 77_000_000)
    assert (t.find(1_000_005), t.find(77_000_000), t.find(5)) == (None, 5, 5)
    t.close(5)
    assert t.find(77_000_000) is None and t.find(1_000_006) == 6
    t.bind(6, 0)
    assert t.find(1_000_006) is None and t.find(6) == 6


def test_the_least_recently_active_goes_first(Table: Any) -> None:
    t = Table(max_connections=2)
    t.add(1, now=1 * SECOND)
    t.add(2, now=2 * SECOND)
    t.touch(1, 10 * SECOND)
    t.add(3, now=11 * SECOND)
    assert [conn for conn, _ in t.limit()] == [2] and t.limit() == []


def test_too_many_bytes_count_as_too_many(Table: Any) -> None:
    t = Table()
    t.add(1)
    each = t.bytes()
    del t
    t = Table(max_bytes=3 * each)
    for n in range(1, 6):
        t.add(n, now=n * 2 * SECOND)
    assert [conn for conn, _ in t.limit()] == [1, 2] and t.bytes() == 3 * each


def test_the_end_of_a_process_is_told_by_each_ring(Table: Any) -> None:
    t = Table()
    for n, (tgid, ring) in enumerate([(1, 0), (1, 1), (1025, 0), (1, 0)]):
        t.add(n + 1, tgid=tgid, ring=ring)
    assert sorted(conn for conn, _ in t.exit(1, 0)) == [1, 4]
    assert sorted(conn for conn, _ in t.exit(1, 1)) == [2]
    assert t.find(3) == 3 and t.exit(7, 0) == []


@pytest.mark.parametrize("wait", [1, SECOND // 10, SECOND, 60 * SECOND, 69 * SECOND, 3600 * SECOND, 86_400 * SECOND])
@pytest.mark.parametrize("begin", [0, 1, 10**15])
def test_a_deadline_of_any_length_is_noticed_and_not_before(Table: Any, wait: int, begin: int) -> None:
    t = Table()
    t.tick(begin)
    t.add(1, now=begin)
    t.arm(1, begin + wait, begin)
    assert t.tick(begin + wait - 1) == []
    assert t.tick(begin + wait + t.granularity()) == [(1, begin + wait, begin + wait)]
    assert t.tick(begin + 10 * wait + SECOND) == []


def test_a_far_deadline_is_not_asked_at_every_turn(Table: Any) -> None:
    t = Table()
    t.tick(SECOND)
    t.add(1, now=SECOND)
    t.arm(1, 3601 * SECOND, SECOND)
    for second in range(2, 3600):
        assert t.tick(second * SECOND) == []
    assert t.looks(1) == 1


def test_one_that_moves_back_is_found_out_at_the_look(Table: Any) -> None:
    t = Table()
    t.tick(SECOND)
    t.add(1, now=SECOND)
    t.arm(1, 2 * SECOND, SECOND)
    t.arm(1, 30 * SECOND, SECOND)  # armed already
    assert t.tick(10 * SECOND) == [] and t.looks(1) == 2
    assert [conn for conn, _due, _now in t.tick(31 * SECOND)] == [1]


def test_what_has_gone_is_not_asked(Table: Any) -> None:
    t = Table()
    for n in (1, 2, 3):
        t.add(n)
        t.arm(n, SECOND, 0)
    t.close(2)
    assert sorted(conn for conn, *_ in t.tick(2 * SECOND)) == [1, 3]


@given(steps=st.lists(st.tuples(st.integers(1, 6), st.integers(0, 200), st.integers(0, 150)), max_size=60))
def test_like_a_list_of_deadlines(Table: Any, steps: list[tuple[int, int, int]]) -> None:
    """Each fires once, at the first tick a granularity after it, never before."""
    t, now, armed = Table(), 1000 * SECOND, {}
    t.tick(now)
    for n in range(1, 7):
        t.add(n, now=now)
    for conn, wait, passed in steps:
        if conn not in armed:
            armed[conn] = now + wait * SECOND
            t.arm(conn, armed[conn], now)
        now += passed * SECOND
        for fired, due, at in t.tick(now):
            assert armed.pop(fired) == due <= at <= now
        assert all(due + t.granularity() > now for due in armed.values())
