"""The runtime directory, and one collector per node.

COLLECTOR_RUNTIME_DIR may be shared with others: a volume of Kubernetes, systemd's RuntimeDirectory, /run itself. All
that is ours lies in one directory below it (`OWN_NAME`, mode 0700), which is opened once and then named by its
descriptor, so that whoever renames it leads nobody astray. Nothing else is changed.

Two locks, because each sees what the other does not: a file in our directory (same file system), and the root of
tracefs (one object per kernel, whatever container or mount it is looked at from).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
from types import TracebackType

from collector import files
from collector.errors import ConfigError, LockedError

TRACEFS = ("/sys/kernel/tracing", "/sys/kernel/debug/tracing")
OWN_NAME = "ebpf-api-collector"
STATUS_SOCKET = "status.sock"
LOCK_FILE = "lock"


def replaceable(path: str) -> str:
    """The directory on the way to ``path`` (without links), itself included, in which others could replace the next name;
    "" for none.

    The sticky bit prevents that. A volume that was mounted there for us (Kubernetes makes its emptyDir with mode 0777) is
    shared only with those who have it mounted too: it does not count.
    """
    here = path
    while True:
        info = os.stat(here)
        others = files.writable_by_others(info) or (info.st_mode & stat.S_IWGRP and files.has_acl(here))
        if others and not info.st_mode & stat.S_ISVTX and not os.path.ismount(here):
            return here
        if here == "/":
            return ""
        here = os.path.dirname(here)


def _make(path: str) -> None:
    """The directory and those above it, where they are missing."""
    if not os.path.isdir(path):
        above = os.path.dirname(path)
        if not os.path.isdir(above):
            os.makedirs(above, mode=0o755, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700)


def open_own(directory: int) -> int:
    """A descriptor of the directory that is ours below ``directory``, whoever that belongs to. Raises OSError."""
    fd = os.open(OWN_NAME, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    info = os.fstat(fd)
    if info.st_uid != os.geteuid():
        os.close(fd)
        raise PermissionError(0, f"{OWN_NAME} in it belongs to user {info.st_uid}; remove it, or name another directory")
    return fd


def within(fd: int, name: str) -> str:
    """A path to ``name`` in the directory that ``fd`` is open on, short and right wherever that has been moved to."""
    return f"/proc/self/fd/{fd}/{name}"


class NodeLock:
    """Held for the life of `collector run`; raises LockedError when another one runs, ConfigError when the runtime
    directory cannot be used. Makes our directory in it and clears what a killed collector left there. ``fd`` is that
    directory.
    """

    def __init__(self, directory: str) -> None:
        self._directory = os.path.abspath(directory)
        self._fds: list[int] = []
        self.fd = -1

    def __enter__(self) -> NodeLock:
        try:
            self._enter()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def _enter(self) -> None:
        try:
            _make(self._directory)
            theirs = files.open_directory(self._directory)
            self._fds.append(theirs)
            bad = replaceable(os.readlink(f"/proc/self/fd/{theirs}"))
            if bad:
                raise PermissionError(0, f"others can replace what is in {bad}: they can write it, and it has no sticky bit")
            with contextlib.suppress(FileExistsError):
                os.mkdir(OWN_NAME, 0o700, dir_fd=theirs)
            self.fd = open_own(theirs)
            self._fds.append(self.fd)
            os.fchmod(self.fd, 0o700)
            lock = os.open(LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600, dir_fd=self.fd)
        except OSError as error:
            raise ConfigError(f"COLLECTOR_RUNTIME_DIR={self._directory!r}: {error.strerror}") from None
        self._take(lock)
        for path in TRACEFS:
            try:
                fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except OSError:
                continue
            self._take(fd)
            break
        for name in os.listdir(self.fd):
            if name.startswith("run-"):
                shutil.rmtree(name, ignore_errors=True, dir_fd=self.fd)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(STATUS_SOCKET, dir_fd=self.fd)

    def _take(self, fd: int) -> None:
        self._fds.append(fd)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LockedError("another collector captures on this node") from None

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        for fd in self._fds:
            os.close(fd)
        self._fds.clear()
