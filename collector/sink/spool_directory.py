"""The spool's directory: who may use it, and how it passes from the user of one start to that of the next.

DIRECTORY                          anybody's, named by the user
DIRECTORY/ebpf-api-collector       ours, as privileged as we are, mode 0700
DIRECTORY/ebpf-api-collector/spool the sink's, mode 0700: the files of `spool.py`
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import stat

from collector import files
from collector.errors import LockedError

log = logging.getLogger("sink")

OWN_NAME, SPOOL_NAME = "ebpf-api-collector", "spool"
UNFINISHED = "unfinished"
SEGMENT_NAME = re.compile(r"(0[0-9a-f]{15})\.segment")
DAMAGED_NAME = re.compile(r"(0[0-9a-f]{15})\.damaged")
VERSION_NAME = re.compile(r"(0[0-9a-f]{15})\.version-([0-9]{1,10})")


def lock(directory: int) -> int:
    """A descriptor of the directory of our own, locked for its life. Raises LockedError, OSError."""
    fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        if isinstance(error, BlockingIOError):
            raise LockedError("another process uses the spool's directory") from None
        raise
    return fd


def foreign(info: os.stat_result) -> str:
    """Why that is no file of ours; "" for one that is."""
    if not stat.S_ISREG(info.st_mode):
        return "is no regular file"
    if info.st_nlink != 1:
        return "has further names (hard links)"
    return "" if info.st_uid == os.geteuid() else f"belongs to user {info.st_uid}"


def prepare(directory: int | str, uid: int | None = None, gid: int | None = None) -> int:
    """A descriptor of the directory for a `Spool`: mode 0700, of the user that the sink will be, with the files of earlier
    starts, whose users were others. ``uid`` None: the user that we are.

    ``directory`` may be anybody's, and be shared; one that a path names is made. In it there is one that is ours, as
    privileged as we are: nobody else gets past it to the spool below, so whatever lies there an earlier sink has written.
    Even that sink is not trusted with more than it had: links, devices and files with further names are left alone, and a
    warning names them. Raises files.UnsafeFileError, other OSError; LockedError while another process uses the spool.
    """
    if isinstance(directory, str):
        os.makedirs(directory, mode=0o755, exist_ok=True)
        above = files.open_directory(directory)
        try:
            return _prepare(above, uid, gid)
        finally:
            os.close(above)
    return _prepare(directory, uid, gid)


def _prepare(above: int, uid: int | None, gid: int | None) -> int:
    info, outside = os.fstat(above), os.stat("..", dir_fd=above)
    mounted = info.st_dev != outside.st_dev  # shared only with those who have it mounted, as a volume of Kubernetes
    others = files.writable_by_others(info) or (info.st_mode & stat.S_IWGRP and files.has_acl(f"/proc/self/fd/{above}"))
    if others and not info.st_mode & stat.S_ISVTX and not mounted:
        raise files.UnsafeFileError("others can replace what is in it: they can write it, and it has no sticky bit")
    own = _open_directory(above, OWN_NAME)
    try:
        if os.fstat(own).st_uid != os.geteuid():
            raise files.UnsafeFileError(f"{OWN_NAME} in it belongs to user {os.fstat(own).st_uid}")
        os.fchmod(own, 0o700)
        fd = _open_directory(own, SPOOL_NAME)
    finally:
        os.close(own)
    try:
        os.close(lock(fd))  # only asks: the sink takes it for its life
        _take_over(fd, uid, gid)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _open_directory(above: int, name: str) -> int:
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=above)
    try:
        return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
    except NotADirectoryError:  # a link is none either
        raise files.UnsafeFileError(f"{name} in it is no directory") from None


def _take_over(directory: int, uid: int | None, gid: int | None) -> None:
    found = os.fstat(directory)
    if uid is not None:
        os.fchown(directory, os.geteuid(), os.getegid())  # while we look, whoever it belonged to cannot change a name
    os.fchmod(directory, 0o700)
    for name in os.listdir(directory):
        if not _is_ours(name):
            continue
        fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
        try:
            why = _refusal(os.fstat(fd), found)
            if why:
                log.warning("spool: %r %s: refused", name, why)
            elif uid is not None:
                os.chown(f"/proc/self/fd/{fd}", uid, -1 if gid is None else gid)  # the very file that was looked at
        finally:
            os.close(fd)
    if uid is not None:
        os.fchown(directory, uid, -1 if gid is None else gid)


def _refusal(info: os.stat_result, directory: os.stat_result) -> str:
    """Why a file is not taken over."""
    if not stat.S_ISREG(info.st_mode):
        return "is no regular file"
    if info.st_nlink != 1:
        return "has further names (hard links)"
    if directory.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and info.st_uid not in (0, os.geteuid(), directory.st_uid):
        return f"belongs to user {info.st_uid}, and others could write the directory"
    return ""


def _is_ours(name: str) -> bool:
    return name == UNFINISHED or any(p.fullmatch(name) for p in (SEGMENT_NAME, DAMAGED_NAME, VERSION_NAME))
