"""Rotation of a file by its size, with the names that logrotate and Python's RotatingFileHandler use: FILE becomes FILE.1,
the newest old one, FILE.1 becomes FILE.2, and so on; the oldest is deleted.

Renaming needs rights over the directory, so the supervisor does it. Whoever has the file open goes on writing to it under
its new name until told of another. Nothing but the oldest is ever deleted, not even when another program rotates the same
file at the same moment: every rename refuses a name that is taken.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
from collections.abc import Iterator

from collector import files
from collector.files import UnsafeFileError

_RENAME_NOREPLACE = 1
_libc = ctypes.CDLL(None, use_errno=True)


def _rename(directory: int, old: str, new: str) -> None:
    """Rename within a directory, never over something. Raises OSError, FileExistsError where the name is taken."""
    if _libc.renameat2(directory, os.fsencode(old), directory, os.fsencode(new), ctypes.c_uint(_RENAME_NOREPLACE)) == 0:
        return
    number = ctypes.get_errno()
    if number not in (errno.EINVAL, errno.ENOSYS):
        raise OSError(number, os.strerror(number))
    with contextlib.suppress(FileNotFoundError):  # a file system (NFS) that cannot refuse by itself
        os.stat(new, dir_fd=directory, follow_symlinks=False)
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
    os.rename(old, new, src_dir_fd=directory, dst_dir_fd=directory)


class Rotation:
    """Of the file ``path``: it is due at ``max_bytes`` bytes, and ``keep`` old files stay (1 or more). With ``shared``, the
    directory, links on the way to it and the old files are taken as they are, as by `files.open_file`.
    """

    def __init__(self, path: str, max_bytes: int, keep: int, *, shared: bool = False) -> None:
        self.path = path
        self._directory, _, self._name = (os.path.realpath(path) if shared else os.path.abspath(path)).rpartition("/")
        self._max_bytes = max_bytes
        self._keep = keep
        self._shared = shared

    def due(self, fd: int) -> bool:
        """Has the file reached its size? A pipe or a device never does. Raises OSError."""
        info = os.fstat(fd)
        return stat.S_ISREG(info.st_mode) and info.st_size >= self._max_bytes

    def rename(self, fd: int) -> bool:
        """Make room for a new FILE, if that is still the file that ``fd`` is open on; False when it is not, because another
        program has renamed or replaced it, and nothing was done. Raises OSError; the old files are in order then, too.
        """
        with self._opened() as directory:
            if not self._is(directory, self._name, fd):
                return False
            free = 1
            while free <= self._keep and self._taken(directory, free):
                free += 1
            if free > self._keep:
                free = self._keep
                os.unlink(self._old(free), dir_fd=directory)
            for number in range(free, 1, -1):
                _rename(directory, self._old(number - 1), self._old(number))
            try:
                _rename(directory, self._name, self._old(1))
            except FileNotFoundError:  # another program was quicker
                return False
            return True

    def undo(self, fd: int) -> None:
        """There is no new FILE: what ``fd`` is open on gets its name back, where that can be done."""
        with contextlib.suppress(OSError), self._opened() as directory:
            if self._is(directory, self._old(1), fd):
                _rename(directory, self._old(1), self._name)

    @contextlib.contextmanager
    def _opened(self) -> Iterator[int]:
        way = self._directory or "/"
        fd = os.open(way, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) if self._shared else files.open_directory(way)
        try:
            yield fd
        finally:
            os.close(fd)

    def _old(self, number: int) -> str:
        return f"{self._name}.{number}"

    def _taken(self, directory: int, number: int) -> bool:
        """Is there an old file of that number? One that we can not have made is in the way: UnsafeFileError."""
        name = self._old(number)
        try:
            info = os.stat(name, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            return False
        if not stat.S_ISREG(info.st_mode):
            raise UnsafeFileError(f"{name!r} is in the way: no file")
        if not self._shared and info.st_uid != os.geteuid():
            raise UnsafeFileError(f"{name!r} is in the way: belongs to user {info.st_uid}")
        return True

    @staticmethod
    def _is(directory: int, name: str, fd: int) -> bool:
        try:
            return os.path.samestat(os.stat(name, dir_fd=directory, follow_symlinks=False), os.fstat(fd))
        except FileNotFoundError:
            return False
