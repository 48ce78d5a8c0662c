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
import re
import select
import stat
import threading
from typing import Any, Self

from collector import files
from collector.config import Config
from collector.errors import ConfigError, DestinationError
from collector.rotation import Rotation
from collector.router import batches
from collector.sink.batch import Batch
from collector.sink.destination import Destination, Notes, Settled

log = logging.getLogger("sink")

_POLL_SECONDS, _POLLS_AT_END = 0.5, 10  # of a full pipe; once the sink is to stop it is waited for so often
_RETRY_SECONDS = 1.0
# What a life of the sink leaves to the next one, in shared memory: nothing was begun; the output ends with a whole line; a
# batch is being written.
UNTOUCHED, WHOLE, WRITING = 0, 1, 2
_STANDARD_OUTPUT = ("-", "/dev/stdout")


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
    """Writes to ``fd``, which stays the caller's, until `reopen` names another file. ``batch.at`` counts bytes."""

    kind = "jsonlines"
    metavar = "-|FILE"
    accepts = frozenset({batches.JSON_LINES})

    def __init__(self, fd: int, *, notes: Notes, settled: Settled) -> None:
        super().__init__(settled)
        self._fd = fd
        self._read_fd = _to_read(fd)
        self._notes = notes
        self._lock = threading.Lock()
        self._next_fd, self._next_number = -1, 0  # what `reopen` named
        self._begun: Batch | None = None  # the batch whose first byte may have been written
        if notes["output_state"] == WRITING and self._cut_off():
            notes["output_state"] = WHOLE

    @classmethod
    def claims(cls, output: str) -> bool:
        """Whatever is no other destination's name is a file's."""
        return True

    @classmethod
    def default(cls, config: Config) -> str:
        """Standard output, when nothing else is set."""
        return "-"

    @classmethod
    def check(cls, output: str, config: Config, named: str) -> None:
        """A file's name must not look like an address."""
        scheme = re.match(r"[a-z][a-z0-9+.-]*://", output, re.IGNORECASE)
        if scheme:
            raise ConfigError(
                f"output {output!r}: not a file"
                + (
                    "; brokers are named by AKTO_KAFKA_BROKER_MAL=HOST:PORT[,HOST:PORT...], the topic by "
                    "COLLECTOR_KAFKA_TOPIC, and the output is then `kafka`"
                    if scheme[0].lower().startswith("kafka")
                    else f"; a file of that name: ./{output}"
                )
            )

    @classmethod
    def describe(cls, output: str, config: Config) -> str:
        """For the start line."""
        return "standard output" if output in _STANDARD_OUTPUT else f"file {output}"

    @classmethod
    def open_output(cls, output: str, config: Config, *, shared: bool) -> int | None:
        """The file, or a duplicate of standard output. Raises ConfigError."""
        return files.open_for_records(output, os.O_RDWR | os.O_APPEND, "output", shared=shared)

    @classmethod
    def reopens(cls, output: str, config: Config) -> bool:
        """A file may have been renamed (log rotation)."""
        return output not in _STANDARD_OUTPUT

    @classmethod
    def rotation(cls, output: str, config: Config, *, shared: bool) -> Rotation | None:
        """A file that has a name of its own, by COLLECTOR_OUTPUT_MAX_BYTES."""
        if not config.COLLECTOR_OUTPUT_MAX_BYTES or files.is_own_descriptor(output):
            return None
        return Rotation(output, config.COLLECTOR_OUTPUT_MAX_BYTES, config.COLLECTOR_OUTPUT_FILES, shared=shared)

    @classmethod
    def make(cls, options: dict[str, Any], *, fd: int | None, notes: Notes, settled: Settled) -> Self:
        """See the base class."""
        assert fd is not None
        return cls(fd, notes=notes, settled=settled)

    def reopen(self, fd: int, number: int) -> None:
        """Go on in another file, from the next batch on; the descriptor is ours from now on."""
        with self._lock:
            old, self._next_fd, self._next_number = self._next_fd, fd, number
        if old >= 0:
            os.close(old)

    def _writable(self) -> bool:
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        return bool(poll.poll(_POLL_SECONDS * 1000))

    def deliver(self, batch: Batch) -> None:
        """One write call, or more when the output takes less. What an error leaves half-written is gone on with."""
        self._change_over()
        data = memoryview(batch.records)
        try:
            while batch.at < len(data):
                try:
                    if self._begun is not batch:
                        self._begin()
                        self._begun = batch
                    batch.at += os.write(self._fd, data[batch.at :])
                except BlockingIOError as error:
                    # a pipe that somebody has made non-blocking is full: its reader takes its time, as with any other
                    if not self._writable():
                        raise DestinationError(
                            f"output not read by its reader ({error.strerror})",
                            retriable=True,
                            retry_seconds=0,
                            attempts_at_end=_POLLS_AT_END,
                            busy=True,
                        ) from None
        except OSError as error:
            if error.errno in (errno.EPIPE, errno.EBADF):
                raise DestinationError(f"output closed by its reader ({error.strerror})", retriable=False) from None
            raise DestinationError(
                f"cannot write the output: {error.strerror}", retriable=True, retry_seconds=_RETRY_SECONDS
            ) from None
        self._notes["output_state"] = WHOLE
        self._begun = None
        self.settled(batch, batch.count, 0)

    def give_up(self, batch: Batch) -> None:
        """Whole lines were delivered; one that was begun is taken back, where that can be done."""
        written = self._whole_lines(batch)
        self._begun = None
        self.settled(batch, written, batch.left - written)

    def idle(self) -> None:
        """Let go of a file that was renamed, even when nothing comes."""
        self._change_over()

    def close(self) -> None:
        """The descriptors that are ours."""
        self._change_over()
        if self._read_fd != self._fd:
            os.close(self._read_fd)

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

    def _whole_lines(self, batch: Batch) -> int:
        """Go back to the end of the last whole line that was written of a batch; returns their number."""
        written = bytes(memoryview(batch.records)[: batch.at])
        whole = written.rfind(b"\n") + 1
        if whole < batch.at:
            self._cut_off()
        batch.at = whole
        return min(written.count(b"\n"), batch.left)

    def _cut_off(self) -> bool:
        """Take back the bytes of a line that was not written to its end. False where that cannot be done."""
        with contextlib.suppress(OSError):
            repair(self._fd, self._read_fd)
            return stat.S_ISREG(os.fstat(self._fd).st_mode)
        return False

    def _change_over(self) -> None:
        """Begin to write to the file that `reopen` named, if it did. A line is never in two files."""
        with self._lock:
            fd, number, self._next_fd = self._next_fd, self._next_number, -1
        if fd < 0:
            return
        if self._begun is not None:
            self._whole_lines(self._begun)
            self._begun = None
        os.dup2(fd, self._fd, inheritable=False)
        if self._read_fd != self._fd:
            os.dup2(fd, self._read_fd, inheritable=False)
        os.close(fd)
        self._notes["output_state"] = UNTOUCHED
        self._notes["output_number"] = (
            number  # after the state: killed in between, we begin with the old file, which is whole
        )
        log.info("output reopened")
