"""The terminal of `collector top`: keys as they are pressed, and a screen that is given back as it was."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import termios
import tty
from collections.abc import Iterator, Sequence

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

_WITHOUT_COLOUR = re.compile(r"vt[0-9]+|.*-m|.*-mono")  # rich takes every terminal for one with colours
_SEQUENCE = re.compile(r"\x1b[\[O][0-9;]*[A-Za-z~]")  # an arrow and the like: none of our keys


class Terminal:
    """Standard input and output. ``moves``: can it draw over what it has drawn? Else screens follow one another."""

    def __init__(self) -> None:
        plain = _WITHOUT_COLOUR.fullmatch(os.environ.get("TERM", "")) is not None
        self._console = Console(highlight=False, markup=False, emoji=False, color_system=None if plain else "auto")
        self.moves = self._console.is_terminal and not self._console.is_dumb_terminal
        self.keys_fd = 0 if os.isatty(0) else None
        self._live: Live | None = None

    def size(self) -> tuple[int, int]:
        """(columns, lines) now."""
        return self._console.size

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        """The screen is ours, and keys come at once."""
        with contextlib.ExitStack() as stack:
            if self.keys_fd is not None:
                old = termios.tcgetattr(self.keys_fd)
                stack.callback(termios.tcsetattr, self.keys_fd, termios.TCSADRAIN, old)
                tty.setcbreak(self.keys_fd)
            if self.moves:
                self._live = stack.enter_context(Live(console=self._console, screen=True, auto_refresh=False))
            yield

    def draw(self, lines: Sequence[Text]) -> None:
        """Show these lines in place of those before, or below them."""
        for line in lines:
            line.no_wrap = True
        if self._live is not None:
            self._live.update(Group(*lines), refresh=True)
        else:
            self.say(lines)

    @staticmethod
    def say(lines: Sequence[Text]) -> None:
        """Lines of plain text, and an empty one."""
        text = "".join(line.plain.rstrip() + "\n" for line in lines) + "\n"
        sys.stdout.buffer.write(text.encode(sys.stdout.encoding or "utf-8", "backslashreplace"))
        sys.stdout.buffer.flush()

    def keys(self) -> list[str]:
        """Those that were pressed; at the end of the input, `q`."""
        assert self.keys_fd is not None
        data = os.read(self.keys_fd, 1024)
        return list(_SEQUENCE.sub("", data.decode("utf-8", "replace"))) if data else ["q"]
