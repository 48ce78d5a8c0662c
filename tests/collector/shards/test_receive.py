"""The receive buffer, alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.shards.receive import Lines


@pytest.mark.parametrize(
    ("pieces", "said"),
    [
        ([b"abc\n"], [("whole", 4, b"abc")]),
        ([b"abc\nd"], [("whole", 4, b"abc")]),
        ([b"\n"], [("whole", 1, b"")]),
        ([b"a", b"b\n"], [("more", 1, None), ("whole", 2, b"ab")]),
        ([b"1234567\n"], [("whole", 8, b"1234567")]),  # with its LF exactly the limit
        ([b"12345678\n"], [("long", 9, b"12345678")]),
        ([b"1234567", b"\n"], [("more", 7, None), ("whole", 1, b"1234567")]),
        ([b"12345678"], [("more", 8, None)]),
        ([b"12345678", b"9"], [("more", 8, None), ("long", 1, b"12345678")]),
        ([b"1234", b"56789\n0"], [("more", 4, None), ("long", 6, b"12345678")]),
        ([b"123456789"], [("long", 9, b"12345678")]),
    ],
)
def test_a_line(pieces: list[bytes], said: list[tuple[str, int, bytes | None]]) -> None:
    lines = Lines(8)
    assert [lines.feed(piece) for piece in pieces] == said


def test_nothing_is_kept_of_a_line_that_is_whole() -> None:
    lines = Lines(100)
    lines.feed(b"abc")
    assert lines.waiting()[0] == b"abc" and lines.waiting()[1] >= 3
    lines.feed(b"d\n")
    assert lines.waiting() == (b"", 0)


@given(st.binary(max_size=60), st.lists(st.integers(1, 9), max_size=40), st.integers(1, 12))
def test_the_same_lines_however_they_are_cut(data: bytes, cuts: list[int], limit: int) -> None:
    lines, found, at, skipping = Lines(limit), [], 0, False
    for cut in [*cuts, len(data)]:
        piece, at = data[at : at + cut], at + cut
        while piece:
            if skipping:  # as a layer does behind a line that is too long
                head, newline, piece = piece.partition(b"\n")
                skipping = not newline
                continue
            said, used, line = lines.feed(piece)
            if said == "long":
                skipping = not piece[:used].endswith(b"\n")
            if line is not None:
                found.append((said, line))
            piece = piece[used:]
    expected = []
    for line in data.split(b"\n")[:-1]:
        expected.append(("whole", line) if len(line) < limit else ("long", line[:limit]))
    rest = data.split(b"\n")[-1]
    if len(rest) > limit:
        expected.append(("long", rest[:limit]))
    assert found == expected
