"""Sets of message numbers, against Python's own sets."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from collector.router.numbers import Numbers


@given(st.lists(st.integers(1, 30), max_size=60))
@example([2, 1, 3])  # closes the gap below a range
@example([3, 5, 4, 1, 2])  # joins two ranges
def test_holds_what_was_put_in(added: list[int]) -> None:
    numbers, plain = Numbers(), set()
    for number in added:
        assert numbers.add(number) == (number not in plain)
        plain.add(number)
        assert {n for n in range(32) if n in numbers} == plain | {0}
        assert all(n in plain for n in range(1, numbers.below)) and numbers.below not in plain
        bounds = [numbers.below, *(bound for both in numbers.ranges() for bound in both)]
        assert bounds == sorted(set(bounds))  # no two ranges touch
        assert numbers.scattered == (max(plain) >= numbers.below)
        assert Numbers(numbers.below, list(numbers.ranges())) == numbers


def test_says_what_it_holds() -> None:
    assert repr(Numbers(4, [(7, 9), (11, 12)])) == "<below 4, 7-8, 11-11>"
