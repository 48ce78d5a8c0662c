"""What the log says of an exception nobody expected: its type and where it came from, and its words only if they are ours.

The words of others hold what they are about: `int()` quotes what is no number, a dictionary the key that it does not have.
In shards, sink and health child that is content of messages. Those of CollectorError are written here, those of OSError by
the system.
"""

from __future__ import annotations

import logging
import sys
import threading
import traceback
from types import TracebackType
from typing import Any

from collector.errors import CollectorError

_DEEPEST = 10  # exceptions that led to one another


def words(error: BaseException) -> str:
    """In a few words: `ValueError`, or what one of ours says."""
    if isinstance(error, OSError):
        named = f": {error.filename!r}" if error.filename is not None else ""
        return f"{type(error).__name__}: {error.strerror or 'without a reason'}{named}"
    if isinstance(error, CollectorError) and str(error):
        return str(error)
    return type(error).__name__


def text(error: BaseException | None) -> str:
    """The traceback: files, lines of code and functions, no values. Those that led to it come first."""
    out: list[str] = []
    while error is not None and len(out) < _DEEPEST:
        lines = "".join(traceback.format_tb(error.__traceback__))
        out.insert(0, f"Traceback (most recent call last):\n{lines}{words(error)}")
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return "\nwhich led to:\n".join(out)


def _hook(_kind: type[BaseException], error: BaseException, _trace: TracebackType | None) -> None:
    sys.stderr.write(text(error) + "\n")


def _in_thread(given: threading.ExceptHookArgs) -> None:
    sys.stderr.write(text(given.exc_value) + "\n")


def _format(_formatter: logging.Formatter, given: Any) -> str:
    return text(given[1])


def _ignored(given: sys.UnraisableHookArgs) -> None:
    sys.stderr.write(f"Exception ignored:\n{text(given.exc_value)}\n")


def hide_words() -> None:
    """From now on what Python writes of exceptions that nobody catches, and what the log says with one, is `text`."""
    logging.Formatter.formatException = _format  # type: ignore[assignment,method-assign]
    sys.excepthook, threading.excepthook, sys.unraisablehook = _hook, _in_thread, _ignored
