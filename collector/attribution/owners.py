"""Who a process belongs to. A provider answers for one kind of owner; there is one so far, the process itself.

An answer travels as an event in the stream of its connections (bpf/abi/event.h), like an address that is learnt late:
never is anybody asked from the path of a byte. A change of owner is another event. The kernel programs tell the name of
a process by themselves (EVENT_PROCESS); what is here answers where they cannot, or when a new shard must be told again.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Protocol

from collector import abi

_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")  # what /proc counts time in


@dataclass(frozen=True, slots=True)
class Owner:
    """What is known of process ``tgid``.

    ``start_ns``: CLOCK_BOOTTIME when it began, rounded down to a clock tick; a number may belong to another process
    later. ``selected``: is its traffic to be recorded? ``name``: as the kernel has it, at most 15 bytes. ``fields``: a
    fragment of JSON, `"name":"value",...`, for its records; empty when the name is all.
    """

    tgid: int
    start_ns: int
    selected: bool
    name: bytes
    fields: bytes = b""

    def event(self, *, ts_ns: int, ring: int) -> bytes:
        """The ring record that tells a shard: for the stream of ring ``ring``, at CLOCK_MONOTONIC ``ts_ns``."""
        return abi.pack_process(self.tgid, self.name, ts_ns=ts_ns, ring=ring)


class Provider(Protocol):
    """Answers for processes of one kind of owner."""

    def owner(self, tgid: int, start_ns: int = 0) -> Owner | None:
        """Whose process that is; None when it has gone, when this provider does not know it, or when the number belongs to
        another process by now: one that did not begin at ``start_ns`` (exact, or rounded as Owner's; 0 for any).
        """


class ProcessProvider:
    """The process itself, by /proc: everyone's own owner, and always selected."""

    def __init__(self, proc: str = "/proc") -> None:
        self._proc = proc

    def owner(self, tgid: int, start_ns: int = 0) -> Owner | None:
        """See `Provider`."""
        try:
            with open(f"{self._proc}/{tgid}/stat", "rb") as file:
                found = parse_stat(file.read())
        except OSError:
            return None
        if found is None:
            return None
        name, began_ns = found
        if start_ns and not began_at(start_ns, began_ns):
            return None
        return Owner(tgid, began_ns, True, name)


def began_at(start_ns: int, began_ns: int) -> bool:
    """Are these the same time? One of them, or both, may be rounded down to a clock tick."""
    return start_ns // _TICK_NS == began_ns // _TICK_NS


def parse_stat(text: bytes) -> tuple[bytes, int] | None:
    """(name, start in ns) of /proc/PID/stat (proc_pid_stat(5): fields 2 and 22); None when it is none. The name may hold
    anything, blanks and brackets too.
    """
    before, opening, rest = text.partition(b"(")
    name, closing, after = rest.rpartition(b")")
    fields = after.split()
    if not opening or not closing or not before.strip().isdigit() or len(fields) < 20 or not fields[19].isdigit():
        return None
    return name[:15], int(fields[19]) * _TICK_NS
