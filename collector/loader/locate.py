"""A child that reads one ELF file for one probe source, without privileges, and ends.

    python -m collector.loader.locate UID SOURCE [MODULE...]     the file is standard input

Prints one line of JSON: {"sites": [[program, offset], ...], "library": name, "values": [number, ...]} or
{"unsupported": why}. The file is anybody's, and who made it
may be hostile: the child becomes another user (UID, or -1: it only loses its capabilities) before it reads a byte, and is
bounded in memory and time. Whatever else it does instead of an answer means that nothing is attached.
"""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from collector import cgroups, cores, runtime
from collector.confine import READER, limit_calls, limit_files
from collector.loader import decode
from collector.loader.probes import sources
from collector.loader.probes.probe import LIBRARY_BYTES, VALUES, Found, Site, Source, Unsupported

MEMORY_BYTES = 1 << 30
CGROUP_PART = (
    6  # and no more than this part of what the cgroup may use: it reads beside all others, and two may read at once
)
CPU_SECONDS = 10
WAIT_SECONDS = 30.0
ANSWER_BYTES = 1 << 18
SITES = 4096  # of one file


def answer(source: Source, file: int) -> dict[str, object]:
    """What the child prints for the ELF file behind this descriptor."""
    from elftools.elf.elffile import ELFFile

    with open(file, "rb", closefd=False) as stream:
        found = source.locate(ELFFile(stream))
    if isinstance(found, Unsupported):
        return {"unsupported": found.why[:200]}
    return {
        "sites": [[site.program, site.offset] for site in found.sites],
        "library": found.library,
        "values": list(found.values),
    }


def read_answer(data: bytes, programs: Sequence[str], file_bytes: int) -> Found | Unsupported:
    """The answer as the parent believes it: known programs, offsets inside the file, a name of printable ASCII. Anything
    else is Unsupported.
    """
    try:
        message = json.loads(data)
    except (ValueError, RecursionError):
        return Unsupported("the file could not be read")
    return _believed(message, programs, file_bytes)


def _believed(message: Any, programs: Sequence[str], file_bytes: int) -> Found | Unsupported:
    try:
        if "unsupported" in message:
            return Unsupported(str(message["unsupported"]))
        sites = [Site(program, offset) for program, offset in message["sites"]]
        library, values = message["library"], message["values"]
        twice = len(set(sites)) != len(sites)
    except (ValueError, TypeError, KeyError, RecursionError):
        return Unsupported("the file could not be read")
    if len(sites) > SITES or twice:
        return Unsupported("too many places, or one of them twice")
    for site in sites:
        if site.program not in programs or type(site.offset) is not int or not 0 <= site.offset < file_bytes:
            return Unsupported("places that cannot be")
    if not isinstance(library, str) or not 0 < len(library) <= LIBRARY_BYTES or not re.fullmatch("[!-~]+", library):
        return Unsupported("a name that cannot be")
    if not isinstance(values, list) or len(values) > VALUES or any(type(n) is not int or n >> 64 for n in values):
        return Unsupported("values that cannot be")
    return Found(tuple(sites), library, tuple(values))


def read_line(line: bytes, programs: Mapping[str, Sequence[str]], file_bytes: int) -> tuple[str, Found | Unsupported | None]:
    """The source and its answer in a line of a child that asks several of them (forkserver.py): None when nobody was asked
    under that name, or it is no answer.
    """
    try:
        name, answer = json.loads(line)
        known = programs[name]
    except (ValueError, TypeError, KeyError, RecursionError):
        return "", None
    return name, _believed(answer, known, file_bytes)


def _data_bytes() -> int:
    """What this process has now, and what it may take for a file (RLIMIT_DATA): too large a file is then unreadable, and
    nobody is killed for want of memory.
    """
    limit = cgroups.memory_limit()
    if limit is None:
        return MEMORY_BYTES
    with open("/proc/self/statm", encoding="ascii") as file:
        pages = int(file.read().split()[5])
    return min(MEMORY_BYTES, pages * resource.getpagesize() + limit // CGROUP_PART)


def confine(uid: int | None) -> None:
    """To be called in the child, before it reads a byte: give up what it does not need. ``uid``: the user that it becomes;
    None: it only loses its capabilities. Raises OSError.
    """
    runtime.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    cores.forbid()
    for limit, value in (
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_AS, MEMORY_BYTES),
        (resource.RLIMIT_DATA, _data_bytes()),
        (resource.RLIMIT_CPU, CPU_SECONDS),
        (resource.RLIMIT_NOFILE, 16),
        (resource.RLIMIT_NPROC, 0),
    ):
        resource.setrlimit(limit, (value, value))
    runtime.drop_privileges(uid)
    limit_files(())
    limit_calls(READER)


class Job:
    """One such child, as its parent sees it. ``file``: a descriptor, which the caller keeps. Raises OSError."""

    def __init__(self, source: str, modules: Sequence[str], file: int, uid: int | None) -> None:
        self._deadline = time.monotonic() + WAIT_SECONDS
        self._data = b""
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "collector.loader.locate", str(-1 if uid is None else uid), source, *modules],
            stdin=file,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)

    def poll(self) -> bytes | None:
        """Its answer once it has ended, empty when it has none. Never blocks."""
        assert self._process.stdout is not None
        ended = self._process.poll() is not None
        while len(self._data) <= ANSWER_BYTES:
            try:
                piece = os.read(self._process.stdout.fileno(), 65536)
            except BlockingIOError:
                break
            if not piece:
                break
            self._data += piece
        if not ended and (len(self._data) > ANSWER_BYTES or time.monotonic() > self._deadline):
            self._process.kill()
            return None
        if not ended:
            return None
        self._process.stdout.close()
        return self._data if self._process.returncode == 0 and len(self._data) <= ANSWER_BYTES else b""

    def kill(self) -> None:
        """End it without an answer."""
        self._process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()


def main() -> int:
    """Entry of the child process."""
    runtime.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    uid = int(sys.argv[1])
    source = next(source for source in sources(sys.argv[3:]) if source.name == sys.argv[2])
    import elftools.elf.elffile  # noqa: F401  (while files can be opened)
    import elftools.elf.sections  # noqa: F401

    decode.decoder()  # the same

    confine(None if uid < 0 else uid)
    sys.stdout.write(json.dumps(answer(source, 0)) + "\n")
    sys.stdout.flush()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
