"""JSON lines to a descriptor: standard output or a file. One write call a batch; flushed at once.

A regular file that another life of the sink left in the middle of a line is cut back to its last whole line: the
batch comes again.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat
import time
from collections.abc import Callable

from collector.sink.destination import Destination

log = logging.getLogger("sink")

_RETRY_SECONDS = 1.0


def repair(fd: int) -> int:
    """Cut an unfinished last line off a regular file; returns the bytes removed."""
    info = os.fstat(fd)
    if not stat.S_ISREG(info.st_mode) or info.st_size == 0:
        return 0
    at = info.st_size
    while at > 0:
        start = max(0, at - 65536)
        piece = os.pread(fd, at - start, start)
        newline = piece.rfind(b"\n")
        if newline >= 0:
            at = start + newline + 1
            break
        at = start
    if at != info.st_size:
        os.ftruncate(fd, at)
    return info.st_size - at


class JsonLines(Destination):
    """Writes to ``fd``, which stays the caller's."""

    def __init__(self, fd: int, *, lossless: bool, wake: Callable[[], None], first_life: bool) -> None:
        super().__init__(lossless=lossless, wake=wake)
        self._fd = fd
        if not first_life:
            with contextlib.suppress(OSError):  # write-only or not seekable: nothing to repair
                repair(fd)

    def deliver_forever(self) -> None:
        """Write batch by batch; what cannot be written is tried again, unless nobody reads."""
        while not (self._closing and self.idle()) and not self.gone:
            batch = self._take(0.2)
            if batch is None:
                continue
            view = memoryview(batch.records)
            while view and not self.gone:
                try:
                    view = view[os.write(self._fd, view) :]
                    self.up = True
                except OSError as error:
                    self.totals.errors += 1
                    self.up = False
                    if error.errno in (errno.EPIPE, errno.EBADF):
                        self.gone = f"nobody reads the output ({error.strerror})"
                        break
                    log.warning("cannot write the output: %s; trying again", error.strerror)
                    if self._closing:
                        self.gone = str(error.strerror)
                        break
                    time.sleep(_RETRY_SECONDS)
            if not self.gone:
                self.totals.delivered += batch.count
            else:
                self.totals.failed += batch.count
            self._finished(batch)
