"""A cgroup with a memory limit, and a program that begins in it.

python -m tests.live.confined CGROUP MODULE ARGUMENT...
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from collector import cgroups
from tests.conftest import skip_or_fail

_SERIAL = iter(range(1 << 30))


class Cgroup:
    """A new cgroup below our own, or below the root, version 2 or 1, with a memory limit in bytes. Removed by ``close``."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.path = Path()
        name = f"collector-test-{os.getpid()}-{next(_SERIAL)}"
        for parent in cgroups._cgroup_dirs("memory"):
            if self._make(Path(parent), name, limit):
                return
        skip_or_fail("no cgroup with a memory limit can be made")

    def _make(self, parent: Path, name: str, limit: int) -> bool:
        self.path = parent / name
        try:
            self.path.mkdir()
        except OSError:
            return False
        self.version = 2 if (self.path / "cgroup.type").exists() else 1
        try:
            if not (self.path / "cgroup.procs").exists():
                raise OSError("an ordinary directory")
            if self.version == 2 and not (self.path / "memory.max").exists():
                (parent / "cgroup.subtree_control").write_text("+memory")
            (self.path / ("memory.max" if self.version == 2 else "memory.limit_in_bytes")).write_text(str(limit))
        except OSError:
            self.path.rmdir()
            return False
        return True

    def _number(self, name: str, key: str) -> int:
        for line in (self.path / name).read_text().splitlines():
            words = line.split()
            if words[0] == key:
                return int(words[1])
        raise AssertionError(f"no {key} in {name}")

    @property
    def oom_kills(self) -> int:
        """Processes in it that the kernel has killed."""
        return self._number("memory.events" if self.version == 2 else "memory.oom_control", "oom_kill")

    @property
    def used(self) -> int:
        """Bytes in use, page cache included."""
        return int((self.path / ("memory.current" if self.version == 2 else "memory.usage_in_bytes")).read_text())

    @property
    def peak(self) -> int:
        """Most bytes that were ever in use, page cache included; 0 where the kernel does not say."""
        with contextlib.suppress(OSError):
            return int((self.path / ("memory.peak" if self.version == 2 else "memory.max_usage_in_bytes")).read_text())
        return 0

    def close(self) -> None:
        """Remove it; its processes have ended."""
        self.path.rmdir()
