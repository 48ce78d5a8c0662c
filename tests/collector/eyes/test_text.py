"""Foreign text and numbers, for a terminal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.eyes.text import count, duration, shown, size


@given(st.text())
def test_nothing_that_a_terminal_obeys_is_left(text: str) -> None:
    assert shown(text).isprintable() and "\x1b" not in shown(text)


def test_what_is_replaced_can_be_read() -> None:
    assert shown("a\x1b[2J\n\x9b\u202e\U000e0001é漢") == r"a\x1b[2J\x0a\x9b\u202e\U000e0001é漢"


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0"), (999, "999"), (1000, "1.0K"), (10_200, "10K"), (1_048_576, "1.0M"), (5 << 60, "5120P")]
)
def test_sizes(number: float, text: str) -> None:
    assert size(number) == text


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (0.001, "0.00ms"),
        (9.99, "9.99ms"),
        (12.34, "12.3ms"),
        (999.4, "999ms"),
        (999.6, "1.00s"),
        (61_000, "61.0s"),
        (6e6, "100m"),
    ],
)
def test_durations(milliseconds: float, text: str) -> None:
    assert duration(milliseconds) == text


@pytest.mark.parametrize(("number", "text"), [(0, "0"), (0.25, "0.2"), (10_012.3, "10012"), (2.5e6, "2.5M")])
def test_rates(number: float, text: str) -> None:
    assert count(number) == text
