"""A probe source that does what a file may make a source do: the word at the end of the file says what."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence

from elftools.elf.elffile import ELFFile

from collector.loader.probes.probe import Build, Found, Probe, Program, Source, Unsupported


def _descriptors() -> str:
    found = []
    for number in range(1024):
        with contextlib.suppress(OSError):
            os.fstat(number)
            found.append(str(number))
    return ",".join(found)


class Hostile(Source):
    """See the module."""

    name = "hostile"

    def programs(self, build: Build) -> Sequence[Program]:
        """As Source."""
        return []

    def probes(self, build: Build) -> Sequence[Probe]:
        """As Source."""
        return []

    def locate(self, elf: ELFFile) -> Found | Unsupported:
        """As Source."""
        elf.stream.seek(-8, os.SEEK_END)
        word = elf.stream.read(8).decode(errors="replace").strip("-")
        if word == "memory":
            return Unsupported(f"has {len(bytes(2 << 30))} bytes")
        if word == "spin":
            while True:
                pass
        if word == "sleep":
            time.sleep(3600)
        if word == "fork":
            try:
                return Unsupported(f"has a child: {os.fork()}")
            except OSError:
                return Unsupported("no child")
        if word == "open":
            os.open("/proc/self/status", os.O_RDONLY)
        if word == "exec":
            os.execv("/bin/true", ["true"])
        if word == "die":
            os.kill(os.getpid(), 9)
        if word == "murder":
            with contextlib.suppress(PermissionError):
                os.kill(os.getppid(), 9)
        if word == "talk":
            for number in range(3, 16):
                with contextlib.suppress(OSError):
                    os.write(number, b"x" * (1 << 19))
        return Unsupported(f"uid {os.getuid()}, {_descriptors()}")


SOURCE = Hostile()
