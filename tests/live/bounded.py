"""Run a module of Python as root with some of root's capabilities only, as a container without `privileged` has it.

python -m tests.live.bounded BPF,PERFMON,... MODULE [ARGUMENT...]
"""

from __future__ import annotations

import ctypes
import os
import sys

_NUMBERS = {  # linux/capability.h
    "CHOWN": 0,
    "DAC_OVERRIDE": 1,
    "DAC_READ_SEARCH": 2,
    "KILL": 5,
    "SETGID": 6,
    "SETUID": 7,
    "SETPCAP": 8,
    "SYS_PTRACE": 19,
    "SYS_ADMIN": 21,
    "SYS_RESOURCE": 24,
    "PERFMON": 38,
    "BPF": 39,
    "CHECKPOINT_RESTORE": 40,
}
_PR_CAPBSET_READ, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 23, 24, 38


def main(kept: set[int], command: list[str]) -> None:
    """Does not return."""
    libc = ctypes.CDLL(None, use_errno=True)
    number = 0
    while libc.prctl(_PR_CAPBSET_READ, number, 0, 0, 0) >= 0:
        if number not in kept:
            libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0)
        number += 1
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)  # allowPrivilegeEscalation: false
    os.execv(sys.executable, [sys.executable, "-m", *command])


if __name__ == "__main__":
    main({_NUMBERS[name] for name in sys.argv[1].split(",")}, sys.argv[2:])
