"""The screen of `collector top`, as lines of text: what stands where. It knows no terminal but its size."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from collector import __version__
from collector.eyes.figures import GROUPS, SORTS, Interval, Sums
from collector.eyes.health import State
from collector.eyes.text import count, duration, shown, size

HELP = "q quit  g group  s sort  / filter  space pause"
LEAST_WIDTH = 40
_SHARDS_APART = 4  # with more of them they are one entry
_COLUMNS = ("req/s", "4xx%", "err%", "p50", "p95", "p99", "B/s")
_WIDTHS = (6, 5, 5, 6, 6, 6, 5)


@dataclass
class Choice:
    """What is chosen by key. ``typed``: the filter that is being entered, None while none is."""

    group: str = "endpoint"
    sort: str = "requests"
    wanted: str = ""
    typed: str | None = None
    paused: bool = False

    def key(self, key: str) -> bool:
        """A key was pressed; False: it was the last one."""
        if self.typed is not None:
            self._type(key)
        elif key in ("q", "\x03", "\x04"):
            return False
        elif key == "g":
            self.group = _next(list(GROUPS), self.group)
        elif key == "s":
            self.sort = _next(list(SORTS), self.sort)
        elif key in (" ", "p"):
            self.paused = not self.paused
        elif key == "/":
            self.typed = ""
        elif key == "\x1b":
            self.wanted = ""
        return True

    def _type(self, key: str) -> None:
        assert self.typed is not None
        if key in ("\r", "\n"):
            self.wanted, self.typed = self.typed, None
        elif key in ("\x1b", "\x03"):
            self.typed = None
        elif key in ("\x7f", "\b"):
            self.typed = self.typed[:-1]
        elif key.isprintable():
            self.typed += key


def _next(names: list[str], name: str) -> str:
    return names[(names.index(name) + 1) % len(names)]


@dataclass(frozen=True)
class Frame:
    """What is shown: the figures of an interval, and how the collector is. ``lost``: exchanges that are missing in all
    figures so far; ``at``: Unix time.
    """

    interval: Interval
    state: State
    lost: int
    at: float


def lines(frame: Frame, choice: Choice, width: int, height: int | None) -> list[Text]:
    """The screen, no line wider than ``width`` cells, at most ``height`` lines; None: as many as there are rows."""
    width = max(width, LEAST_WIDTH)
    top = [*_head(frame, choice, width), Text(_row(_COLUMNS, choice.group, width), "reverse")]
    if frame.interval.seconds:
        rows = [
            Text(_row(_figures(sums, frame.interval.seconds), name, width), _style(sums))
            for name, sums in frame.interval.grouped(choice.group, sort=choice.sort, wanted=choice.wanted)
        ]
    else:
        rows = [Text("waiting for the first figures")]
    if height is None:
        return [*top, *rows]
    room = max(0, height - 1 - len(top))
    rows = rows[:room] + [Text("")] * (room - len(rows))
    foot = f"filter: {shown(choice.typed)}_" if choice.typed is not None else HELP
    return [*top, *rows, Text(_fit(foot, width), "dim")][:height]


def _fit(text: str, width: int) -> str:
    """At most so many cells; what is cut off ends in `~`. A wide letter takes two."""
    return text if cell_len(text) <= width else set_cell_size(text, width - 1) + "~"


def _head(frame: Frame, choice: Choice, width: int) -> Iterator[Text]:
    state, seconds, total = frame.state, frame.interval.seconds, frame.interval.total()
    chosen = f"by {choice.group}, most {choice.sort} first"
    if choice.wanted:
        chosen += f", with {shown(choice.wanted)!r}"
    when = time.strftime("%H:%M:%S", time.localtime(frame.at))
    yield Text(_fit(f"collector {__version__}  {when}  {chosen}{'  PAUSED' if choice.paused else ''}", width), "bold")
    per = seconds or 1.0
    yield Text(
        _fit(
            f"requests  {count(total.requests / per)}/s, 4xx {_part(total.client_errors, total)}%, "
            f"errors {_part(total.errors, total)}%, p50 {_ms(total, 0.5)}, p95 {_ms(total, 0.95)}, p99 {_ms(total, 0.99)}",
            width,
        )
    )
    late = "-" if state.lag is None else f"{'>' if state.lag_open else '<'}{state.lag:g}s"
    yield Text(
        _fit(
            f"records   {count(state.delivered)}/s delivered, dropped {count(state.dropped)}/s, "
            f"marked {_part(total.marked, total)}%, lag p99 {late}, queue {size(state.queue)}",
            width,
        ),
        "red" if state.dropped else "",
    )
    yield Text(
        _fit(
            f"lost      events {count(state.events_lost)}/s, holes {count(state.holes)}/s; "
            f"not in these figures: {frame.lost}"
            + (f"; {state.words}" if state.words else ""),
            width,
        ),
        "red" if state.events_lost or state.words else "",
    )
    yield from _processes(state, width)


def _processes(state: State, width: int) -> Iterator[Text]:
    """CPU and memory of each process, in as many lines as it takes."""
    shards = [process for process in state.processes if process.name.startswith("shard-")]
    words = [f"{one.name} {one.cpu:.0f}% {size(one.memory)}" for one in state.processes if one not in shards]
    if len(shards) > _SHARDS_APART:
        cpu, memory = sum(one.cpu for one in shards), sum(one.memory for one in shards)
        words.insert(0, f"{len(shards)} shards {cpu:.0f}% {size(memory)}")
    else:
        words[:0] = [f"{one.name} {one.cpu:.0f}% {size(one.memory)}" for one in shards]
    row = "processes"
    for word in words:
        if cell_len(row) + len(word) + 2 > width:
            yield Text(_fit(row, width))
            row = " " * len("processes")
        row += " " + word + ("," if word is not words[-1] else "")
    yield Text(_fit(row, width))


def _row(figures: tuple[str, ...], name: str, width: int) -> str:
    text = " ".join(one.rjust(room) for one, room in zip(figures, _WIDTHS, strict=True))
    return _fit(f"{text} {shown(name)}", width)


def _figures(sums: Sums, seconds: float) -> tuple[str, ...]:
    return (
        count(sums.requests / seconds),
        _part(sums.client_errors, sums),
        _part(sums.errors, sums),
        _ms(sums, 0.5),
        _ms(sums, 0.95),
        _ms(sums, 0.99),
        size(sums.size / seconds),
    )


def _part(number: int, sums: Sums) -> str:
    """Percent of the requests."""
    if not number or not sums.requests:
        return "0"
    part = 100 * number / sums.requests
    return f"{part:.0f}" if part >= 9.95 else f"{part:.1f}" if part >= 0.05 else "<.1"


def _ms(sums: Sums, part: float) -> str:
    value = sums.percentile(part)
    return "-" if value is None else duration(value)


def _style(sums: Sums) -> str:
    return "red" if sums.errors else "yellow" if sums.client_errors else ""
