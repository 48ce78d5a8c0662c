"""A collector with further probe sources: `python -m tests.demo SOURCE-MODULE[,...] UPROBES run ...`."""

from __future__ import annotations

import sys

from collector.__main__ import main

if __name__ == "__main__":
    raise SystemExit(main(sys.argv[3:], {"sources": tuple(sys.argv[1].split(",")), "uprobes": sys.argv[2].strip("-")}))
