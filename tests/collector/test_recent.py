"""The ring of the last lines of the log."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector import logs, recent


@pytest.fixture
def writer() -> Iterator[recent.Writer]:
    made = recent.Writer()
    yield made
    made.close()


def reader(writer: recent.Writer) -> recent.Reader:
    fd = writer.read_only_fd()
    try:
        return recent.Reader(fd)
    finally:
        os.close(fd)


def test_nothing_was_written(writer: recent.Writer) -> None:
    assert reader(writer).read() == b""


def test_lines_come_back_as_they_were_written(writer: recent.Writer) -> None:
    one = reader(writer)
    writer.write("first")
    writer.write("second\nthird \u00fc")
    assert one.read().decode() == "first\nsecond\nthird \u00fc\n"


@given(st.lists(st.text(st.characters(blacklist_characters="\n", blacklist_categories=["Cs"]), max_size=60), max_size=40))
def test_of_more_than_it_holds_the_last_whole_lines_stay(words: list[str]) -> None:
    writer = recent.Writer()
    try:
        filling = ["x" * 5000 + str(number) for number in range(recent.SIZE // 5000 + 3)]
        for text in [*filling, *words]:
            writer.write(text)
        got = reader(writer).read().decode().splitlines(keepends=False) if not words else None
        lines = reader(writer).read().decode().split("\n")[:-1]
    finally:
        writer.close()
    everything = [*filling, *words]
    assert len(lines) > len(words) and lines == everything[-len(lines) :] and filling[0] not in lines
    assert got is None or got == lines


def test_what_cannot_be_had_whole_is_cut(writer: recent.Writer) -> None:
    writer.write("y" * 1_000_000)
    writer.write("behind it")
    lines = reader(writer).read().split(b"\n")
    assert lines[1:] == [b"behind it", b""] and 30_000 < len(lines[0]) < 40_000


def test_its_readers_cannot_write_it(writer: recent.Writer) -> None:
    fd = writer.read_only_fd()
    try:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.pwrite(fd, b"no", 0)
    finally:
        os.close(fd)


def test_the_handler_keeps_records_and_said_lines() -> None:
    handler = recent.Handler(logs._TextFormatter())
    try:
        handler.handle(logging.LogRecord("x", logging.WARNING, "", 0, "number %d", (7,), None))
        handler.say("said")
        text = reader(handler.lines).read().decode()
    finally:
        handler.close()
    assert text.endswith("WARNING x: number 7\nsaid\n")
    handler.say("too late, and no harm")
