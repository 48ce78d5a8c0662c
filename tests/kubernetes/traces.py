"""What a collector would leave on its node."""

from __future__ import annotations

from pathlib import Path

from tests.live.harness import wait_for
from tests.live.test_adversity import loaded_programs


def processes() -> set[int]:
    """Processes of collectors in pods: by their command lines and control groups."""
    found = set()
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes().split(b"\0")
            ours = any(word.startswith(b"collector.") or word.endswith(b"/bin/collector") for word in words[:5])
            if ours and "kubepods" in (path / "cgroup").read_text():
                found.add(int(path.name))
        except OSError:
            continue
    return found


def nothing_is_left(programs: int, seconds: float = 30) -> bool:
    """No process, and no more programs in the kernel than the number that there was before."""
    return wait_for(lambda: not processes() and loaded_programs() <= programs, seconds, quiet=True)
