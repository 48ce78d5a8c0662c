"""Which processes are meant by their names or by where they run: PROBE_PROCESS_NAMES, PROBE_ALL_PID, TRACE_COMMS."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass

from collector.loader.mapped import DELETED, Proc

COMM_BYTES = 15  # of a process's name, as the kernel keeps it
# A container's cgroup ends in its id; conmon is the process that looks after it
_CONTAINER = re.compile(rb"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
_MONITOR = re.compile(rb"/crio-conmon-[^/\n]*")


def in_container(cgroups: bytes) -> bool:
    """By the text of /proc/PID/cgroup: is there the id of a container?"""
    return _CONTAINER.search(_MONITOR.sub(b"", cgroups)) is not None


@dataclass(frozen=True, slots=True)
class Choice:
    """Whose libraries get probes. ``names``: of programs, in lower case, unless it is empty; ``containers``: those in
    containers only. Names come first: then it does not matter where a program runs. ``captured``: of those, the processes
    that are captured at all; None for each.
    """

    names: frozenset[str] = frozenset()
    containers: bool = False
    captured: Callable[[int], bool] | None = None

    @classmethod
    def of(cls, names: Collection[str], *, containers: bool, captured: Callable[[int], bool] | None = None) -> Choice:
        """Names in any case."""
        return cls(frozenset(name.lower() for name in names), containers and not names, captured)

    @property
    def everybody(self) -> bool:
        """Is nobody left out?"""
        return not self.names and not self.containers and self.captured is None

    def takes(self, proc: Proc, pid: int) -> bool:
        """Is this process meant?"""
        if self.captured is not None and not self.captured(pid):
            return False
        if self.names:
            program, comm = proc.program(pid).removesuffix(DELETED).rpartition("/")[2].lower(), proc.comm(pid).lower()
            if program in self.names or comm in self.names:
                return True
            # of a long name the kernel keeps the beginning only; if it is the file's, that has all of it
            return program[:COMM_BYTES] != comm and comm in {name[:COMM_BYTES] for name in self.names}
        return not self.containers or in_container(proc.cgroups(pid))
