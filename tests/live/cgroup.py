"""Control groups of version 2 that look like those of pods, with real processes in them: what a container runtime makes, by
hand.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

TREES = (Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup"))


def tree() -> Path | None:
    """Where version 2 is mounted, if groups can be made there."""
    return next((path for path in TREES if (path / "cgroup.procs").exists() and os.access(path, os.W_OK)), None)


@contextlib.contextmanager
def group(path: str) -> Iterator[Path]:
    """The group ``path``, below the root; removed at the end, with those above it that are empty then."""
    root = tree()
    assert root is not None, "no cgroup version 2"
    directory = root / path
    directory.mkdir(parents=True)
    try:
        yield directory
    finally:
        for one in (directory, *directory.parents):
            if one == root:
                break
            _remove(one)


def _remove(directory: Path) -> None:
    for _ in range(100):  # the last process is gone a moment after its end was waited for
        try:
            directory.rmdir()
            return
        except FileNotFoundError:
            return
        except OSError:
            if any(entry.is_dir() for entry in directory.iterdir()):
                return  # another one's
            time.sleep(0.02)


_ENTER = "import os, sys; open(sys.argv[1] + '/cgroup.procs', 'w').write('0'); os.execvp(sys.argv[2], sys.argv[2:])"


def start(directory: Path, command: Sequence[str]) -> subprocess.Popen[bytes]:
    """A program that begins in that group, as a runtime begins a container's."""
    return subprocess.Popen(
        [sys.executable, "-c", _ENTER, str(directory), *command], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )


def kill(pid: int) -> None:
    """Another one's child, which nobody waits for."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
