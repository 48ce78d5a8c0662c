"""JSON lines to a descriptor: standard output or a file. One write call a batch; flushed at once.

Every line in the output is whole, whatever happens to us: what another program, or another run, left in the middle of a line
is ended before anything is appended; what another life of this sink left there is cut off again, for its batch comes again;
and so is what we could not write to its end. Where nothing can be cut off (a pipe), a torn line is ended before the next.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import select
import stat
import time
from collections.abc import Callable
from typing import Protocol

from collector.sink.destination import Batch, Destination

log = logging.getLogger("sink")

_POLL_SECONDS, _CLOSING_POLLS = 0.5, 10  # of a full pipe; at the end it is waited for so often
_RETRY_SECONDS = 1.0
# What a life of the sink leaves to the next one, in shared memory: nothing was begun; the output ends with a whole line; a
# batch is being written.
UNTOUCHED, WHOLE, WRITING = 0, 1, 2


class Notes(Protocol):
    """Where the state of the output is kept (collector.counters.Counters)."""

    def __getitem__(self, name: str) -> int:
        """The value."""

    def __setitem__(self, name: str, value: int) -> None:
        """Set it."""


def _to_read(fd: int) -> int:
    """A descriptor of the same file that can be read: what a shell opened for us may be write-only. Else ``fd`` itself."""
    with contextlib.suppress(OSError):
        if stat.S_ISREG(os.fstat(fd).st_mode):
            return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    return fd


def repair(fd: int, read_fd: int | None = None) -> int:
    """Cut an unfinished last line off a regular file; returns the bytes removed. Raises OSError."""
    read_fd = fd if read_fd is None else read_fd
    info = os.fstat(fd)
    if not stat.S_ISREG(info.st_mode) or info.st_size == 0:
        return 0
    at = info.st_size
    while at > 0:
        start = max(0, at - 65536)
        newline = os.pread(read_fd, at - start, start).rfind(b"\n")
        if newline >= 0:
            at = start + newline + 1
            break
        at = start
    if at != info.st_size:
        os.ftruncate(fd, at)
        os.lseek(fd, at, os.SEEK_SET)  # for one that does not append by itself
    return info.st_size - at


def torn(fd: int) -> bool:
    """Does a regular file end in the middle of a line? Raises OSError."""
    info = os.fstat(fd)
    return stat.S_ISREG(info.st_mode) and info.st_size > 0 and os.pread(fd, 1, info.st_size - 1) != b"\n"


class JsonLines(Destination):
    """Writes to ``fd``, which stays the caller's, until `reopen` names another file."""

    def __init__(self, fd: int, *, lossless: bool, wake: Callable[[], None], notes: Notes) -> None:
        super().__init__(lossless=lossless, wake=wake)
        self._fd = fd
        self._read_fd = _to_read(fd)
        self._notes = notes
        self._next_fd = -1
        if notes["output_state"] == WRITING and self._cut_off():
            notes["output_state"] = WHOLE

    def reopen(self, fd: int) -> None:
        """Go on in another file, from the next batch on; the descriptor is ours from now on."""
        with self._lock:
            old, self._next_fd = self._next_fd, fd
            self._lock.notify()
        if old >= 0:
            os.close(old)

    def deliver_forever(self) -> None:
        """Write batch by batch; what cannot be written is tried again, unless nobody reads."""
        while not (self._closing and self.idle()) and not self.gone:
            batch = self._take(0.2)
            self._change_over()
            if batch is None:
                continue
            written, why = self._write(batch)
            self.totals.delivered += written
            self.totals.failed += batch.count - written
            self.gone = self.gone or why  # before the batch is done with: who finds us idle must know
            self._finished(batch)
            if why:
                self.give_up(why)
        if self._read_fd != self._fd:
            os.close(self._read_fd)

    def _write(self, batch: Batch) -> tuple[int, str]:
        """(records that were written, why it ended): all and "", unless the output is gone."""
        data = memoryview(batch.records)
        at, begun, blocked = 0, False, 0
        while at < len(data):
            try:
                if not begun:
                    self._begin()
                    begun = True
                at += os.write(self._fd, data[at:])
                self.up, blocked = True, 0
            except BlockingIOError as error:
                # a pipe that somebody has made non-blocking is full: its reader takes its time, as with any other
                blocked += 1
                if self._closing and blocked > _CLOSING_POLLS:
                    whole = bytes(data[:at]).rfind(b"\n") + 1
                    return bytes(data[:whole]).count(b"\n"), f"nobody reads the output ({error.strerror})"
                select.select([], [self._fd], [], _POLL_SECONDS)
            except OSError as error:
                self.totals.errors += 1
                self.up = False
                why = str(error.strerror)
                whole = bytes(data[:at]).rfind(b"\n") + 1
                if error.errno in (errno.EPIPE, errno.EBADF):
                    why = f"nobody reads the output ({why})"
                elif not self._closing:
                    log.warning("cannot write the output: %s; trying again", why)
                    time.sleep(_RETRY_SECONDS)
                    if self._change_over(torn=whole < at):
                        at, begun = whole, False  # a line is never in two files
                    continue
                if whole < at:
                    self._cut_off()
                return bytes(data[:whole]).count(b"\n"), why
        self._notes["output_state"] = WHOLE
        return batch.count, ""

    def _begin(self) -> None:
        """Before the first byte of a batch: the output must not stand in the middle of a line. Raises OSError."""
        state = self._notes["output_state"]
        if state == WRITING or state == UNTOUCHED and self._torn():
            os.write(self._fd, b"\n")
        self._notes["output_state"] = WRITING

    def _torn(self) -> bool:
        with contextlib.suppress(OSError):
            return torn(self._read_fd)
        return False

    def _cut_off(self) -> bool:
        """Take back the bytes of a line that was not written to its end. False where that cannot be done."""
        with contextlib.suppress(OSError):
            repair(self._fd, self._read_fd)
            return stat.S_ISREG(os.fstat(self._fd).st_mode)
        return False

    def _change_over(self, *, torn: bool = False) -> bool:
        """Begin to write to the file that `reopen` named, if it did; a ``torn`` line is cut off the old one."""
        with self._lock:
            fd, self._next_fd = self._next_fd, -1
        if fd < 0:
            return False
        if torn:
            self._cut_off()
        os.dup2(fd, self._fd, inheritable=False)
        if self._read_fd != self._fd:
            os.dup2(fd, self._read_fd, inheritable=False)
        os.close(fd)
        self._notes["output_state"] = UNTOUCHED
        log.info("the output was opened again")
        return True
