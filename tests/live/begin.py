"""Begin in a cgroup: `python -m tests.live.begin CGROUP MODULE ARGUMENT...`. Nothing of this is left in the program."""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    with open(f"{sys.argv[1]}/cgroup.procs", "w", encoding="ascii") as file:
        file.write(str(os.getpid()))
    os.execv(sys.executable, [sys.executable, "-m", *sys.argv[2:]])
