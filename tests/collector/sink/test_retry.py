"""The retry policy, as its table says."""

from __future__ import annotations

import pytest

from collector.errors import DestinationError
from collector.sink import retry


@pytest.mark.parametrize("failures_at_end", [0, 1, 100])
def test_what_cannot_be_mended_is_given_up(failures_at_end: int) -> None:
    assert retry.delay(DestinationError("x", retriable=False), failures_at_end) is None


def test_while_the_sink_runs_everything_else_is_tried_again() -> None:
    for at_end in (0, 10, None):
        assert retry.delay(DestinationError("x", retriable=True, retry_seconds=0.5, attempts_at_end=at_end), 0) == 0.5


@pytest.mark.parametrize(
    ("attempts_at_end", "expected"),
    [(0, [None, None, None]), (1, [2.0, None, None]), (2, [2.0, 2.0, None]), (None, [2.0, 2.0, 2.0])],
)
def test_at_the_end_so_many_attempts_are_worth_it(attempts_at_end: int | None, expected: list[float | None]) -> None:
    error = DestinationError("x", retriable=True, retry_seconds=2.0, attempts_at_end=attempts_at_end)
    assert [retry.delay(error, failures) for failures in (1, 2, 3)] == expected
