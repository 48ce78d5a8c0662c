"""Opening the files that the user names for records, as root, among neighbours who may mean harm.

A link, another user's file or a second name (hard link) of a file could lead records, which hold secrets, to somebody
else, or have us write into a file of the system. So the way to a file is walked name by name (`open_directory`), and the
file itself is looked at before it is opened for good (`open_file`).
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from collections import deque

from collector.errors import ConfigError

_MOST_LINKS = 40  # as the kernel's own limit
_LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_STANDARD = {"-": 1, "/dev/stdout": 1, "/dev/stderr": 2}
_OWN_DESCRIPTOR = re.compile(r"(?:/dev/fd|/proc/(?:self|thread-self)/fd)/([0-9]{1,6})")
_HINT = "--shared-files takes it as it is"


class UnsafeFileError(OSError):
    """A path that could lead somewhere else than it says; ``strerror`` says why."""

    def __init__(self, why: str) -> None:
        super().__init__(errno.EPERM, why)


def _trusted(uid: int) -> bool:
    return uid in (0, os.geteuid())


def writable_by_others(info: os.stat_result) -> bool:
    """Can users other than its owner and root make and rename entries in that directory?"""
    return bool(info.st_mode & stat.S_IWOTH) or bool(info.st_mode & stat.S_IWGRP and info.st_gid not in (0, os.getegid()))


def _others_make_entries(info: os.stat_result) -> bool:
    """Can users other than ourselves and root, the owner included?"""
    return writable_by_others(info) or not _trusted(info.st_uid)


Signature = tuple[int, int, int, int, int] | None


def signature(path: str) -> Signature:
    """Differs when a file was written to or replaced, also at the end of links; None when it is not there."""
    try:
        info = os.stat(path)
    except (OSError, ValueError):
        return None
    return info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns


def has_acl(path: str) -> bool:
    """Has it an access list? Then the group's bits are only the most that anybody in the list may do."""
    try:
        os.getxattr(path, "system.posix_acl_access")
    except OSError:
        return False
    return True


def open_directory(path: str) -> int:
    """A descriptor (O_PATH) of a directory. Links on the way are followed only where nobody but root and we could have
    made them. Raises OSError.
    """
    names = deque(path.split("/"))
    here = os.open("/" if path.startswith("/") else ".", _LOOK | os.O_DIRECTORY)
    proc = os.stat("/proc").st_dev
    links = 0
    try:
        while names:
            name = names.popleft()
            if name in ("", "."):
                continue
            there = os.open(name, _LOOK, dir_fd=here)
            if stat.S_ISLNK(os.fstat(there).st_mode):
                target = os.readlink("", dir_fd=there)
                os.close(there)
                info = os.fstat(here)
                if _others_make_entries(info) or (info.st_mode & stat.S_IWGRP and has_acl(f"/proc/self/fd/{here}")):
                    raise UnsafeFileError(f"{name!r} on the way is a link in a directory that others can write")
                links += 1
                if links > _MOST_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                if info.st_dev == proc:  # not a text: the kernel knows where it leads
                    there = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=here)
                else:
                    names.extendleft(reversed(target.split("/")))
                    there = os.open(
                        "/" if target.startswith("/") else ".",
                        _LOOK | os.O_DIRECTORY,
                        dir_fd=None if target.startswith("/") else here,
                    )
            elif not stat.S_ISDIR(os.fstat(there).st_mode):
                os.close(there)
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            os.close(here)
            here = there
    except BaseException:
        os.close(here)
        raise
    return here


def _check(info: os.stat_result, directory: os.stat_result) -> None:
    """May records go there? Raises UnsafeFileError."""
    if stat.S_ISLNK(info.st_mode):
        raise UnsafeFileError("is a link")
    if stat.S_ISDIR(info.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if stat.S_ISREG(info.st_mode):
        if info.st_uid != os.geteuid():
            raise UnsafeFileError(f"belongs to user {info.st_uid}")
        if info.st_nlink != 1:
            raise UnsafeFileError("has further names (hard links), or none any more")
    elif not _trusted(info.st_uid) and _others_make_entries(directory):
        raise UnsafeFileError(f"is no file, and was made by user {info.st_uid}")


def open_file(path: str, flags: int, *, shared: bool = False) -> int:
    """Open for writing; ``flags`` are those of open(2) besides O_CREAT. Raises OSError, UnsafeFileError.

    A new file is made with mode 0600. An existing one must be ours alone, and its mode becomes 0600; named pipes and
    devices are taken as they are. With ``shared``, whatever there is.
    """
    flags |= os.O_CLOEXEC | os.O_NOCTTY
    truncate, flags = flags & os.O_TRUNC, flags & ~os.O_TRUNC
    if shared:
        fd = _open_existing(path, flags) if os.path.exists(path) else os.open(path, flags | os.O_CREAT, 0o600)
    else:
        directory_name, _, name = path.rpartition("/")
        directory = open_directory(directory_name or ("/" if path.startswith("/") else "."))
        try:
            fd = _open_unshared(directory, name, flags)
        finally:
            os.close(directory)
    try:
        if stat.S_ISREG(os.fstat(fd).st_mode):
            if truncate:
                os.ftruncate(fd, 0)
            if not shared:
                os.fchmod(fd, 0o600)
    except OSError:
        os.close(fd)
        raise
    return fd


def _open_existing(path: str, flags: int) -> int:
    """A named pipe for writing only, lest we are our own reader and never hear that the other one has gone."""
    if not stat.S_ISFIFO(os.stat(path).st_mode):
        return os.open(path, flags)
    try:
        fd = os.open(path, flags & ~os.O_ACCMODE | os.O_WRONLY | os.O_NONBLOCK)
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise OSError(errno.ENXIO, "a pipe that nobody reads") from None
        raise
    os.set_blocking(fd, True)
    return fd


def _open_unshared(directory: int, name: str, flags: int) -> int:
    if name in ("", ".", ".."):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    for _ in range(10):  # somebody else makes and removes it all the time
        try:
            found = os.open(name, _LOOK, dir_fd=directory)
        except FileNotFoundError:
            with contextlib.suppress(FileExistsError):
                return os.open(name, flags | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=directory)
            continue
        try:
            info, where = os.fstat(found), os.fstat(directory)
            if stat.S_ISLNK(info.st_mode) and where.st_dev == os.stat("/proc").st_dev and _trusted(where.st_uid):
                os.close(found)  # another process's descriptor: /proc/1/fd/1
                found = os.open(name, os.O_PATH | os.O_CLOEXEC, dir_fd=directory)
                info = os.fstat(found)
            _check(info, where)
            return _open_existing(f"/proc/self/fd/{found}", flags)  # the very file that was looked at
        finally:
            os.close(found)
    raise UnsafeFileError("is made and removed by somebody else")


def is_own_descriptor(path: str) -> bool:
    """Does it mean a descriptor that the collector was started with?"""
    return path in _STANDARD or _OWN_DESCRIPTOR.fullmatch(path) is not None


def open_for_records(path: str, flags: int, what: str, *, shared: bool = False) -> int:
    """The descriptor that the user means by ``path``: one that the collector was started with (`/dev/stdout`,
    `/proc/self/fd/3`), or `open_file`. ``what`` names the option in errors. Raises ConfigError.
    """
    own = _OWN_DESCRIPTOR.fullmatch(path)
    try:
        if path in _STANDARD or own:
            return os.dup(_STANDARD[path] if path in _STANDARD else int(own[1]) if own else -1)
        return open_file(path, flags, shared=shared)
    except UnsafeFileError as error:
        raise ConfigError(f"{what} {path!r}: {error.strerror}: refused ({_HINT})") from None
    except (OSError, ValueError) as error:  # ValueError: a zero byte in it
        raise ConfigError(f"{what} {path!r}: {getattr(error, 'strerror', None) or error}") from None
