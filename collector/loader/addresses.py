"""What user space must find out about a descriptor that the kernel programs met in its middle.

Last resort for connections older than the collector, or passed on, or accepted without asking: is it a socket at all,
and which ends has it? `pidfd_getfd` gives a duplicate for some microseconds; while it is held the program's close()
would send no FIN, so the number of look-ups per second is bounded.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass

from collector.loader import kernel

PER_SECOND = 500


@dataclass(frozen=True, slots=True)
class Ends:
    """A stream socket's ends: (address text, port); family is AF_INET, AF_INET6 or AF_UNIX. Text "" is unknown."""

    family: int
    local: tuple[str, int]
    remote: tuple[str, int]


def is_socket(pid: int, fd: int) -> bool | None:
    """None when it is gone."""
    try:
        return os.readlink(f"/proc/{pid}/fd/{fd}").startswith("socket:")
    except OSError:
        return None


def ends(pid: int, fd: int) -> Ends | None:
    """Ask the socket itself; None when that is not possible (any more), or when it is no stream socket."""
    try:
        copy = kernel.pidfd_getfd(pid, fd)
    except OSError:
        return None
    try:
        named = socket.socket(fileno=copy)
    except OSError:
        os.close(copy)
        return Ends(0, ("", 0), ("", 0))  # it became something else meanwhile
    try:
        with named as sock:
            if sock.type != socket.SOCK_STREAM:
                return Ends(0, ("", 0), ("", 0))
            if sock.family == socket.AF_UNIX:
                return Ends(socket.AF_UNIX, ("", 0), ("", 0))
            if sock.family not in (socket.AF_INET, socket.AF_INET6):
                return Ends(0, ("", 0), ("", 0))
            local = sock.getsockname()
            try:
                remote = sock.getpeername()
            except OSError:
                remote = ("", 0)
            return Ends(sock.family, _plain(local), _plain(remote))
    except OSError:
        return None


def _plain(name: tuple[object, ...]) -> tuple[str, int]:
    host, port = str(name[0]).partition("%")[0], int(str(name[1]))
    return host, port


class Limiter:
    """At most PER_SECOND look-ups a second."""

    def __init__(self) -> None:
        self._second = 0
        self._used = 0

    def allow(self, now_seconds: float) -> bool:
        """May one more be made now?"""
        if int(now_seconds) != self._second:
            self._second, self._used = int(now_seconds), 0
        self._used += 1
        return self._used <= PER_SECOND
