"""What can go wrong in our environment. Bad traffic is never an exception: it is a mark or a counter.

``exit_code`` is what the process ends with when the error reaches the top; ``retriable`` says whether trying the
same again later makes sense. Codes follow sysexits.h where one fits; 3 is Akto's "restart me, memory".
"""

from __future__ import annotations

EXIT_OK = 0
EXIT_FAILURE = 1
EXIT_USAGE = 2
EXIT_MEMORY = 3
EXIT_NO_ANSWER = 3  # of `collector status`
EXIT_DAMAGED = 65
EXIT_CANNOT_CAPTURE = 69
EXIT_CHILD = 70
EXIT_LOCKED = 75
EXIT_CONFIG = 78


class CollectorError(Exception):
    """Base of all; ``exit_code`` and ``retriable`` are class attributes."""

    exit_code = EXIT_FAILURE
    retriable = False


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
    """A message between our own processes is not what it must be."""


class DestinationError(CollectorError):
    """The destination refused or is away."""

    retriable = True
