"""A collector with perf events instead of links: `python -m tests.live.golang.perf run ...`."""

from __future__ import annotations

import sys

from collector.__main__ import main

if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:], {"uprobes": "perf"}))
