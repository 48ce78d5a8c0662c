"""Memory shared between processes: a descriptor of fresh memory whose size is sealed."""

from __future__ import annotations

import fcntl
import os

_SIZE = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW


def create(name: str, size: int) -> int:
    """A descriptor of ``size`` zero bytes, closed on exec; the caller closes it. Nobody can change the size any more: who
    made it shorter would end the others with SIGBUS. Mode 0600: a process with a read-only descriptor cannot open it
    again to write. Raises OSError.
    """
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.fchmod(fd, 0o600)
        os.ftruncate(fd, size)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SIZE | fcntl.F_SEAL_SEAL)
    except OSError:
        os.close(fd)
        raise
    return fd


def holding(name: str, data: bytes) -> int:
    """A descriptor of memory with ``data`` that nobody can change, closed on exec; the caller closes it. Raises OSError."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.fchmod(fd, 0o600)
        left = memoryview(data)
        while left:
            left = left[os.write(fd, left) :]
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SIZE | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL)
    except OSError:
        os.close(fd)
        raise
    return fd
