"""`collector top`: requests a second, errors, latency and bytes, live."""

from __future__ import annotations

import contextlib
import os
import select
import time
from typing import Any

from collector import errors, status
from collector.eyes import health, screen
from collector.eyes.connection import Connection
from collector.eyes.figures import Interval
from collector.eyes.health import State
from collector.eyes.screen import Choice, Frame
from collector.eyes.terminal import Terminal
from collector.viewing import FIGURES_SECONDS, Request

_STATUS_SECONDS = 1.0  # the header can do without an answer
_LOOK_SECONDS = 0.25  # has the size of the terminal changed?
_BATCH_WIDTH = 160  # of lines that no terminal shows


class Top:
    """``seconds`` from one screen to the next; ``screens``: how many, None for no end."""

    def __init__(self, directory: str, seconds: float, screens: int | None, choice: Choice) -> None:
        self._directory = directory
        self._seconds = seconds
        self._screens = screens
        self._choice = choice
        self._connection = Connection(directory, Request(figures=True))
        self._interval = Interval()
        self._told: tuple[float, dict[str, Any]] | None = None
        self._frame = Frame(Interval(), State(), 0, time.time())
        self._ask()

    def close(self) -> None:
        """Go."""
        self._connection.close()

    def batch(self) -> None:
        """Screens as plain text, with all rows. Raises EndedError."""
        due = time.monotonic() + self._seconds
        while self._screens is None or self._screens > 0:
            self._receive(due)
            due += self._seconds
            self._turn()
            width = int(os.environ["COLUMNS"]) if os.environ.get("COLUMNS", "").isdecimal() else _BATCH_WIDTH
            Terminal.say(screen.lines(self._frame, self._choice, width, None))
            if self._screens is not None:
                self._screens -= 1

    def live(self, terminal: Terminal) -> None:
        """On a terminal, until `q`. Raises EndedError."""
        poll = select.poll()
        poll.register(self._connection.sock, select.POLLIN)
        if terminal.keys_fd is not None:
            poll.register(terminal.keys_fd, select.POLLIN)
        due = time.monotonic() + min(self._seconds, FIGURES_SECONDS + 0.3)  # the first figures soon
        drawn: object = None
        while True:
            ready = [fd for fd, _event in poll.poll(1000 * max(0.0, min(_LOOK_SECONDS, due - time.monotonic())))]
            if terminal.keys_fd in ready and not all(map(self._choice.key, terminal.keys())):
                return
            self._take()
            if time.monotonic() >= due:
                due = time.monotonic() + self._seconds
                self._turn()
                if self._screens is not None:
                    self._screens -= 1
            shown = (self._frame.at, repr(self._choice), terminal.size())
            if shown != drawn and (terminal.moves or drawn is None or shown[0] != drawn[0]):  # type: ignore[index]
                drawn = shown
                terminal.draw(screen.lines(self._frame, self._choice, *terminal.size()))
            if self._screens == 0:
                return

    def _receive(self, until: float) -> None:
        """Take what comes until then."""
        poll = select.poll()
        poll.register(self._connection.sock, select.POLLIN)
        poll.register(1, 0)
        while (left := until - time.monotonic()) > 0:
            if any(fd == 1 for fd, _event in poll.poll(1000 * left)):
                raise BrokenPipeError
            self._take()

    def _take(self) -> None:
        for head, body in self._connection.receive():
            if head.get("kind") == "figures":
                with contextlib.suppress(ValueError, KeyError, TypeError):  # whatever a shard says, it is not our end
                    self._interval.add(int(head["shard"]), float(head["seconds"]), body)

    def _turn(self) -> None:
        """An interval is over."""
        interval, self._interval = self._interval, Interval()
        state = self._ask()
        if not self._choice.paused:
            if not interval.seconds:
                interval = self._frame.interval  # no shard has spoken: what was there stays
            self._frame = Frame(interval, state, self._connection.lost, time.time())

    def _ask(self) -> State:
        """How the collector is."""
        before = self._told
        try:
            self._told = (time.monotonic(), status.ask(self._directory, _STATUS_SECONDS))
            if before is None:
                return State(words="")
            return health.between(before[1], self._told[1], max(0.001, self._told[0] - before[0]))
        except status.NoAnswerError:
            self._told = None
            return State()
        except (KeyError, TypeError, AttributeError):
            self._told = None
            return State(words="its answer cannot be read: another version?")


def main(directory: str, *, seconds: float, screens: int | None, batch: bool, choice: Choice) -> int:
    """Returns the exit code: 0 after `q`, Ctrl-C, the last screen, or when nobody reads any more. Raises CollectorError."""
    top = Top(directory, seconds, screens, choice)
    terminal = Terminal()
    try:
        if batch or not os.isatty(1):
            top.batch()
        else:
            with terminal.taken():
                top.live(terminal)
    except KeyboardInterrupt:
        pass
    except BrokenPipeError:
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    finally:
        top.close()
    return errors.EXIT_OK
