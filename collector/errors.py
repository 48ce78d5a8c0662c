"""What can go wrong in our environment. Bad traffic is never an exception: it is a mark or a counter.

``exit_code`` is what the process ends with when the error reaches the top. Codes follow sysexits.h where one fits; 3 is
Akto's "restart me, memory". A wrong command line is 2, argparse's code.
"""

from __future__ import annotations

EXIT_OK = 0
EXIT_FAILURE = 1
EXIT_MEMORY = 3
EXIT_NO_ANSWER = 3  # of `collector status`
EXIT_DAMAGED = 65
EXIT_CANNOT_CAPTURE = 69
EXIT_CHILD = 70
EXIT_LOCKED = 75
EXIT_CONFIG = 78


class CollectorError(Exception):
    """Base of all; ``exit_code`` is a class attribute."""

    exit_code = EXIT_FAILURE


class ConfigError(CollectorError):
    """A variable or option does not parse: names it, its value and the expected form."""

    exit_code = EXIT_CONFIG


class PreflightError(CollectorError):
    """Something that capture needs is missing on this host."""

    exit_code = EXIT_CANNOT_CAPTURE


class LockedError(CollectorError):
    """Another collector captures on this node."""

    exit_code = EXIT_LOCKED


class DamagedFileError(CollectorError):
    """A recorded file is not readable to its end; names the file and the offset."""

    exit_code = EXIT_DAMAGED


class ChildError(CollectorError):
    """A child process cannot start at all, or died for good."""

    exit_code = EXIT_CHILD


class ProtocolError(CollectorError):
    """A malformed inter-process message."""


class DestinationError(CollectorError):
    """A destination did not take a batch; `collector/sink/retry.py` decides what follows.

    ``retriable``: the same batch may be taken later. Otherwise the destination takes no record ever again.
    ``retry_seconds``: how long to wait before the next attempt.
    ``attempts_at_end``: how many further attempts in a row are worth it once the sink is to stop; None for as many as the
    time to stop allows.
    ``busy``: the destination is only slow to read: no failure, and not counted as one.
    """

    def __init__(
        self, text: str, *, retriable: bool, retry_seconds: float = 1.0, attempts_at_end: int | None = 0, busy: bool = False
    ) -> None:
        super().__init__(text)
        self.retriable = retriable
        self.retry_seconds = retry_seconds
        self.attempts_at_end = attempts_at_end
        self.busy = busy
