"""Core files: there are none, for memory holds traffic and keys (docs/decisions/0035).

A limit of 0 (RLIMIT_CORE) is no limit for a core_pattern that is a pipe. A limit of 1 byte is: the kernel takes it for a
program of such a pipe that crashes itself, and starts no other; and a file of 1 byte is too short for any core, so that none
is made either (fs/coredump.c, core(5)). The limit is inherited, and where the hard limit is 1 as well only CAP_SYS_RESOURCE
raises it again.

COLLECTOR_CORE_DUMPS=true leaves the limit as it is, for who looks for a fault of compiled code. It is read from the
environment, which children have it from, too: some have children of their own.
"""

from __future__ import annotations

import mmap
import os
import resource

from collector.config_values import parse_bool

VARIABLE = "COLLECTOR_CORE_DUMPS"
_LIMIT = 1  # byte


def wanted() -> bool:
    """Does COLLECTOR_CORE_DUMPS ask for them?"""
    text = os.environ.get(VARIABLE, "").strip()
    return bool(text) and parse_bool(text)


def forbid() -> None:
    """No core file of this process and of those that it starts, unless they are asked for."""
    if wanted():
        return
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (_LIMIT, _LIMIT))
    except (OSError, ValueError):  # it was 0, and we may not raise it: then programs of pipes decide
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def leave_out(memory: mmap.mmap) -> None:
    """What is mapped there is in no core file, however that is made. Raises OSError."""
    memory.madvise(mmap.MADV_DONTDUMP)
