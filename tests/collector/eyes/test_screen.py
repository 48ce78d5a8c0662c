"""The screen of `top`: what stands where, whatever the size and the names."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from collector.eyes.figures import Interval
from collector.eyes.health import Process, State
from collector.eyes.screen import HELP, LEAST_WIDTH, Choice, Frame, lines
from tests.collector.eyes.test_figures import interval, row

STATE = State(
    words="",
    events_lost=1.0,
    holes=2.0,
    dropped=0.0,
    delivered=10_000.0,
    lag=0.25,
    queue=2048,
    processes=tuple(
        Process(name, 12.3, 40 << 20) for name in ("shard-0", "shard-1", "loader", "sink", "supervisor", "health")
    ),
)
ROWS = interval(
    row("nginx", "a.example", "GET /users/{id}", 10_000, 150, 3, 0, 20, 2000, 3000, durations=(63, 9000, 90, 1000)),
    row("curl", "b.example", "POST /漢字", 1, 0, 0, 1, direction=2),
)


def text(frame: Frame, choice: Choice, width: int = 80, height: int | None = 24) -> list[str]:
    return [line.plain for line in lines(frame, choice, width, height)]


def test_eighty_by_twenty_four() -> None:
    screen = text(Frame(ROWS, STATE, 7, 0.0), Choice())
    assert len(screen) == 24 and screen[-1] == HELP
    assert screen[1] == "requests  10001/s, 4xx 1.5%, errors <.1%, p50 0.99ms, p95 10.8ms, p99 10.8ms"
    assert screen[2] == "records   10000/s delivered, dropped 0/s, marked 0.2%, lag p99 <0.25s, queue 2.0K"[:79] + "~"
    assert screen[3] == "lost      events 1.0/s, holes 2.0/s; not in these figures: 7"
    assert screen[4] == "processes shard-0 12% 40M, shard-1 12% 40M, loader 12% 40M, sink 12% 40M,"
    assert screen[5] == "          supervisor 12% 40M, health 12% 40M"
    assert screen[6].split() == ["req/s", "4xx%", "err%", "p50", "p95", "p99", "B/s", "endpoint"]
    assert screen[7].split() == ["10000", "1.5", "<.1", "0.99ms", "10.8ms", "10.8ms", "4.9K", "GET", "a.example/users/{id}"]
    assert screen[8].split() == ["1.0", "0", "100", "-", "-", "-", "0", "POST", "b.example/漢字"]


def test_before_the_first_figures() -> None:
    screen = text(Frame(Interval(), State(), 0, 0.0), Choice())
    assert len(screen) == 24 and "waiting for the first figures" in screen and "no answer" in screen[3]


def test_many_shards_are_one_entry() -> None:
    state = State(processes=tuple(Process(f"shard-{number}", 10.0, 1 << 20) for number in range(64)))
    assert "processes 64 shards 640% 64M" in text(Frame(ROWS, state, 0, 0.0), Choice())


@settings(max_examples=60)
@given(
    st.integers(1, 200),
    st.integers(1, 60),
    st.lists(st.tuples(st.text(max_size=30), st.text(max_size=30), st.text(max_size=80)), max_size=40),
    st.text(max_size=10),
)
def test_no_line_is_too_long_nor_steers_anything(
    width: int, height: int, names: list[tuple[str, str, str]], typed: str
) -> None:
    made = interval(*(row(process, host, f"GET /{path}", 1) for process, host, path in names))
    for choice in (Choice(group="all"), Choice(typed=typed), Choice(wanted=typed)):
        screen = text(Frame(made, STATE, 0, 0.0), choice, width, height)
        assert len(screen) <= height
        assert all(line.isprintable() and cell_len(line) <= max(width, LEAST_WIDTH) for line in screen)


def test_a_file_gets_all_rows_and_no_help() -> None:
    many = interval(*(row("p", "h", f"GET /{number}x", 1) for number in range(500)))
    screen = text(Frame(many, STATE, 0, 0.0), Choice(), 160, None)
    assert len([line for line in screen if "GET h/" in line]) == 500 and HELP not in screen


@pytest.mark.parametrize(
    ("keys", "choice"),
    [
        ("g", Choice(group="host")),
        ("gggg", Choice()),
        ("s", Choice(sort="errors")),
        (" ", Choice(paused=True)),
        ("pp", Choice()),
        ("/ab\x7fc\r", Choice(wanted="ac")),
        ("/q", Choice(typed="q")),
        ("/ab\x1b", Choice()),
        ("/ab\r\x1b", Choice()),
        ("x\t", Choice()),
    ],
)
def test_keys(keys: str, choice: Choice) -> None:
    made = Choice()
    assert all(made.key(key) for key in keys)
    assert made == choice


@pytest.mark.parametrize("key", ["q", "\x03", "\x04"])
def test_keys_that_end(key: str) -> None:
    assert not Choice().key(key)
