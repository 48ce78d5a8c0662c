"""What a collector would leave on its node."""

from __future__ import annotations

from pathlib import Path

from tests.live.test_adversity import loaded_programs


def processes() -> set[int]:
    """Processes of any collector, by their command lines."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if any(word.startswith(b"collector.") or word.endswith(b"/bin/collector") for word in words[:5]):
            found.add(int(path.parts[2]))
    return found


def traces() -> tuple[set[int], int]:
    """Processes, and how many programs the kernel has."""
    return processes(), loaded_programs()
