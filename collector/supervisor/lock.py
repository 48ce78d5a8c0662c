"""One collector per node.

Two locks, because each sees what the other does not: a file in the runtime directory (same file system), and the
root of tracefs (one object per kernel, whatever container or mount it is looked at from).
"""

from __future__ import annotations

import fcntl
import os
import shutil
from types import TracebackType

from collector.errors import ConfigError, LockedError

TRACEFS = ("/sys/kernel/tracing", "/sys/kernel/debug/tracing")


class NodeLock:
    """Held for the life of `collector run`; raises LockedError when another one runs, ConfigError when the runtime
    directory cannot be made. Makes the directory (0700) and clears what a killed collector left there.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._fds: list[int] = []

    def __enter__(self) -> NodeLock:
        try:
            os.makedirs(self._directory, mode=0o700, exist_ok=True)
            os.chmod(self._directory, 0o700)
            if os.geteuid() == 0:
                os.chown(self._directory, 0, 0)  # the children's own directory lies below: they cannot change this one
            self._take(os.open(os.path.join(self._directory, "lock"),
                               os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
        except OSError as error:
            raise ConfigError(f"COLLECTOR_RUNTIME_DIR={self._directory!r}: {error.strerror}") from None
        for path in TRACEFS:
            try:
                fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except OSError:
                continue
            self._take(fd)
            break
        for name in os.listdir(self._directory):
            if name.startswith("run-"):
                path = os.path.join(self._directory, name)
                if os.path.islink(path):
                    os.unlink(path)
                shutil.rmtree(path, ignore_errors=True)
        return self

    def _take(self, fd: int) -> None:
        self._fds.append(fd)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.__exit__(None, None, None)
            raise LockedError("another collector captures on this node") from None

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 trace: TracebackType | None) -> None:
        for fd in self._fds:
            os.close(fd)
        self._fds.clear()
