"""One log path for all processes.

A child writes each record as one JSON line to its standard error, a pipe of its own that it never waits for: when
the pipe is full the line is dropped and counted. The supervisor reads the pipes and owns the only handlers. So a
child that is killed while it logs can harm nobody: there is no lock between the processes.

The supervisor's handlers are wrapped by multiprocessing-logging, whose queue and thread keep a slow reader of our
standard error from stopping the supervisor's loop. That is the place where its known fault - a process killed while
it holds the queue's lock silences its siblings - cannot occur, for the queue has one process (docs/decisions/0004).
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import time

from collector import recent

LEVELS = {
    "DEBUG": logging.DEBUG,
    "INFO": logging.INFO,
    "WARN": logging.WARNING,
    "ERROR": logging.ERROR,
    "OFF": logging.CRITICAL + 10,
}
_BURST, _PERIOD = 20, 10.0


class RateLimit(logging.Filter):
    """At most _BURST records per message template and _PERIOD seconds; the next one says how many were left out."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[str, tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Is this record still within the rate?"""
        key = f"{record.name}:{record.msg}"[:200]
        since, count = self._seen.get(key, (record.created, 0))
        if record.created - since >= _PERIOD:
            if count > _BURST:
                record.msg = f"{record.msg} ({count - _BURST} more like this were left out)"
            since, count = record.created, 0
        if len(self._seen) > 1000:
            self._seen.clear()
        self._seen[key] = (since, count + 1)
        return count < _BURST


class PipeHandler(logging.Handler):
    """A child's handler: JSON lines to a non-blocking pipe."""

    def __init__(self, fd: int) -> None:
        super().__init__()
        os.set_blocking(fd, False)
        self._fd = fd
        self.dropped = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line; what the pipe does not take is counted."""
        message = record.getMessage()
        if record.exc_info:
            message += "\n" + logging.Formatter().formatException(record.exc_info)
        line = (
            json.dumps(
                {"t": record.created, "level": record.levelname, "name": record.name, "message": message[:3000]}
            ).encode()
            + b"\n"
        )
        # a pipe write of at most PIPE_BUF (4096) bytes is whole or not at all
        try:
            os.write(self._fd, line[:4095] + b"\n" if len(line) > 4096 else line)
        except OSError:
            self.dropped += 1


def dropped_lines() -> int:
    """Lines that this child could not get rid of."""
    return sum(handler.dropped for handler in logging.getLogger().handlers if isinstance(handler, PipeHandler))


class _TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        text = f"{stamp}.{int(record.msecs):03d}Z {record.levelname:<7} {record.name}: {record.getMessage()}"
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return text


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        out = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            out["exception"] = self.formatException(record.exc_info)
        return json.dumps(out)


def set_up_child(level: str) -> None:
    """Logging of a child process: everything to fd 2 as JSON lines."""
    root = logging.getLogger()
    root.handlers[:] = [PipeHandler(2)]
    root.setLevel(LEVELS[level])
    root.handlers[0].addFilter(RateLimit())
    logging.getLogger("kafka").setLevel(max(LEVELS[level], logging.ERROR))


def set_up_supervisor(level: str, form: str) -> None:
    """Logging of the supervisor and of short-lived commands: to standard error."""
    import multiprocessing_logging

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter() if form == "json" else _TextFormatter())
    handler.addFilter(RateLimit())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(LEVELS[level])
    multiprocessing_logging.install_mp_handler(root)
    with contextlib.suppress(OSError):
        root.addHandler(recent.Handler(_TextFormatter()))


def last_lines() -> recent.Handler | None:
    """Where the supervisor keeps the last lines of the log; None where there is no memory for that, or no supervisor."""
    return next((handler for handler in logging.getLogger().handlers if isinstance(handler, recent.Handler)), None)


def say(text: str) -> None:
    """A line on standard error that is no log line. Nobody reading there is no reason to stop."""
    if (lines := last_lines()) is not None:
        lines.say(text)
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(text + "\n")
        sys.stderr.flush()


def keep_standard_descriptors() -> set[int]:
    """Open /dev/null where standard input, output or error is closed, or the next file that is opened would take its
    place. Returns the numbers of those.
    """
    closed = set()
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            closed.add(fd)
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
    if 1 in closed:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115 - for the life of the process
    if 2 in closed:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
    return closed


def shut_down() -> None:
    """Write out what is queued; what nobody reads any more is no failure."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            with open(os.devnull, "wb") as nowhere:  # what is still in the buffer goes there at exit
                os.dup2(nowhere.fileno(), stream.fileno())


class ChildLines:
    """The supervisor's end of one child's pipe: bytes in, log records out. Lines that are no record (a traceback, a
    library's print) are logged as errors of that child.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """Handle what was read from the pipe."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > 65536:
            lines.append(self._rest)
            self._rest = b""
        foreign: list[str] = []
        for line in lines:
            if line.strip() and not self._record(line):
                foreign.append(line.decode("utf-8", "replace"))
        if foreign:
            self._log(logging.ERROR, "\n".join(foreign))

    def _record(self, line: bytes) -> bool:
        try:
            item = json.loads(line)
            level, message = int(logging.getLevelName(item["level"])), str(item["message"])
        except (ValueError, KeyError, TypeError, RecursionError):
            return False
        self._log(level, message)
        return True

    def _log(self, level: int, message: str) -> None:
        logger = logging.getLogger(self._name)
        if logger.isEnabledFor(level):
            logger.handle(logger.makeRecord(self._name, level, "", 0, message, (), None))
