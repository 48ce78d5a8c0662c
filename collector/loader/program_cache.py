"""Compiled programs (images.py) kept between starts: a file for each key, in a directory of our own.

DIRECTORY                       anybody's, named by COLLECTOR_PROGRAM_CACHE
DIRECTORY/ebpf-api-collector    ours, mode 0700: KEY.programs

What is in a file is loaded into the kernel, so one is believed only when nobody but us can have written it: file and
directory belong to the user that we are, nobody else may write them, and no link leads there. All of that is asked of what
has been opened, not of a path. Whatever is wrong with a file, its programs are compiled as if there were none, and it is
replaced.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from collector import files
from collector.loader.images import MOST_BYTES, Image, Tool, from_bytes, to_bytes

OWN_NAME, SUFFIX = "ebpf-api-collector", ".programs"
MOST_FILES = 16  # of which one start uses one; those used last are kept
_UNFINISHED = re.compile(r"\.[0-9a-f]{64}\.[0-9]+")
_ABANDONED_SECONDS = 600  # after that nobody is still writing an unfinished file
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # not blocking: it could be a FIFO
_TOOLS = re.compile(r"/lib(?:bcc|LLVM|clang|bpf|elf)[^/]*\.so[^/]*$")
_ENVIRONMENT = re.compile(r"BCC_|ARCH$|CPATH$|C_INCLUDE_PATH$")  # what bcc and clang look at


def key(parts: Mapping[str, Any]) -> str:
    """The name of an image, of everything that decides what it is; ``parts`` is JSON."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def platform_parts() -> dict[str, Any]:
    """What the machine, the kernel and the environment have to do with the result. bcc asks the running kernel what it has,
    so an image is for one build of it.
    """
    name = os.uname()
    try:
        notes = Path("/sys/kernel/notes").read_bytes()  # with the identity of the build
    except OSError:
        notes = b""
    return {
        "machine": platform.machine(),
        "kernel": [name.sysname, name.release, name.version],
        "build": hashlib.sha256(notes).hexdigest(),
        "environment": {name: value for name, value in sorted(os.environ.items()) if _ENVIRONMENT.match(name)},
    }


def directory_digest(directory: Path) -> str:
    """Of every file in a directory: names and contents."""
    parts = {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }
    return key(parts)


def tools_in_use() -> tuple[Tool, ...]:
    """The compiler's libraries that this process has loaded."""
    paths = {line.split(None, 5)[5] for line in Path("/proc/self/maps").read_text().splitlines() if _TOOLS.search(line)}
    return tuple(tool for tool in map(tool_at, sorted(paths)) if tool is not None)


def tool_at(path: str) -> Tool | None:
    """A file of the compiler as it is now; None when it is not there."""
    try:
        info = os.stat(path)
    except OSError:
        return None
    return Tool(path, info.st_size, info.st_mtime_ns)


class ProgramCache:
    """The files below ``directory``; without one, nothing is kept. No method raises OSError: `notes` says, in words, why
    something could not be read or kept, and `suspicious` whether somebody else may be the reason.
    """

    def __init__(self, directory: str = "") -> None:
        self.notes: list[str] = []
        self.suspicious = False
        self._directory = directory
        self._own = -1  # descriptor of our own directory, once it was opened
        if directory:
            try:
                self._own = _open_own(directory)
            except OSError as error:
                self._note("no programs are kept", error)

    def close(self) -> None:
        """Let the directory go."""
        if self._own >= 0:
            os.close(self._own)
            self._own = -1

    def _note(self, what: str, error: OSError | ValueError) -> None:
        self.suspicious = self.suspicious or isinstance(error, (files.UnsafeFileError, ValueError))
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        self.notes.append(f"COLLECTOR_PROGRAM_CACHE={self._directory}: {what}: {why}")

    def read(self, name: str) -> Image | None:
        """The image of a key, if it is there, ours and whole, and the compiler that made it is still the same."""
        if self._own < 0:
            return None
        try:
            image = self._read(name)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            self._note(f"{name}{SUFFIX} is not used", error)
            return None
        return image if all(tool_at(tool.path) == tool for tool in image.tools) else None

    def _read(self, name: str) -> Image:
        fd = os.open(name + SUFFIX, _READ, dir_fd=self._own)
        with open(fd, "rb") as file:
            info = os.fstat(fd)
            _check_ours(info)
            if not stat.S_ISREG(info.st_mode) or info.st_nlink != 1:
                raise files.UnsafeFileError("it is no file of its own")
            if info.st_size > MOST_BYTES:
                raise ValueError("it is too large")
            image = from_bytes(name, file.read(MOST_BYTES))
            with contextlib.suppress(OSError):
                os.utime(fd)  # so that it is not the first to go
        return image

    def write(self, name: str, image: Image) -> None:
        """Keep an image, in one step: who reads meanwhile has the file before or this one, whole."""
        if self._own < 0:
            return
        unfinished = f".{name}.{os.getpid()}"
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(unfinished, dir_fd=self._own)
            with open(os.open(unfinished, _WRITE, 0o600, dir_fd=self._own), "wb") as file:
                file.write(to_bytes(name, image))
                file.flush()
                now = os.fstat(file.fileno()).st_mtime
            os.rename(unfinished, name + SUFFIX, src_dir_fd=self._own, dst_dir_fd=self._own)
            self._remove_old(now)
        except OSError as error:
            self._note("the programs are not kept", error)
            with contextlib.suppress(OSError):
                os.unlink(unfinished, dir_fd=self._own)

    def _remove_old(self, now: float) -> None:
        kept: list[tuple[float, str]] = []
        for name in os.listdir(self._own):
            modified = os.stat(name, dir_fd=self._own, follow_symlinks=False).st_mtime
            if name.endswith(SUFFIX):
                kept.append((modified, name))
            elif _UNFINISHED.fullmatch(name) and modified < now - _ABANDONED_SECONDS:
                os.unlink(name, dir_fd=self._own)
        for _modified, name in sorted(kept, reverse=True)[MOST_FILES:]:
            os.unlink(name, dir_fd=self._own)


def _check_ours(info: os.stat_result) -> None:
    """Raises UnsafeFileError unless only we can have written it. An access list shows in the group's bits."""
    if info.st_uid != os.geteuid():
        raise files.UnsafeFileError(f"it belongs to user {info.st_uid}")
    if info.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise files.UnsafeFileError("others may write it")


def look(directory: str) -> tuple[int, str]:
    """How many images are kept in a directory, and why none are or will be ("" if all is well). Nothing is made."""
    try:
        own = _open_own(directory, make=False)
    except FileNotFoundError:
        return 0, ""
    except OSError as error:
        return 0, error.strerror or str(error)
    try:
        number = sum(name.endswith(SUFFIX) for name in os.listdir(own))
        return number, "" if os.access(".", os.W_OK, dir_fd=own) else "it cannot be written"
    finally:
        os.close(own)


def _open_own(directory: str, *, make: bool = True) -> int:
    """A descriptor of our own directory in it; both are made. Raises OSError."""
    if make:
        os.makedirs(directory, mode=0o755, exist_ok=True)
    above = files.open_directory(directory)
    try:
        if make:
            with contextlib.suppress(FileExistsError):
                os.mkdir(OWN_NAME, 0o700, dir_fd=above)
        own = os.open(OWN_NAME, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
    finally:
        os.close(above)
    try:
        _check_ours(os.fstat(own))
    except BaseException:
        os.close(own)
        raise
    return own
