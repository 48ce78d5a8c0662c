"""Restart decisions."""

from __future__ import annotations

from collector.supervisor import policy


def test_first_restart_is_at_once_then_ever_later() -> None:
    history = policy.History()
    delays = []
    for n in range(9):
        history.ended(float(n), was_ready=True, lived_seconds=1)
        delays.append(policy.restart_delay(history))
    assert delays == [0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


def test_a_long_healthy_life_forgives() -> None:
    history = policy.History()
    for n in range(5):
        history.ended(float(n), was_ready=True, lived_seconds=1)
    history.ended(100.0, was_ready=True, lived_seconds=3600)
    assert policy.restart_delay(history) == 0.0


def test_a_child_that_cannot_start_is_given_up() -> None:
    history = policy.History()
    for n in range(policy.MAX_FAILED_STARTS):
        assert n == 0 or policy.restart_delay(history) is not None
        history.ended(float(n), was_ready=False, lived_seconds=0.1)
    assert policy.restart_delay(history) is None


def test_hangs() -> None:
    assert policy.hangs(ready=True, silent_seconds=6, lived_seconds=100)
    assert not policy.hangs(ready=True, silent_seconds=4, lived_seconds=100)


def test_a_start_may_take_long_as_long_as_it_gets_on() -> None:
    assert not policy.hangs(ready=False, silent_seconds=30, lived_seconds=30)
    assert policy.hangs(ready=False, silent_seconds=61, lived_seconds=61)
    assert not policy.hangs(ready=False, silent_seconds=1, lived_seconds=300)
    assert policy.hangs(ready=False, silent_seconds=61, lived_seconds=300)
    assert policy.hangs(ready=False, silent_seconds=1, lived_seconds=601)


def test_what_killed_a_shard_twice_is_skipped() -> None:
    assert policy.suspects({1: 1, 2: 2, 3: 5}) == [2, 3]
