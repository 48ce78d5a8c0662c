"""A collector with further probe sources, and with no others of libraries: `python -m tests.demo SOURCE-MODULE[,...] UPROBES
run ...`.
"""

from __future__ import annotations

import importlib
import sys

from collector.__main__ import main

if __name__ == "__main__":
    modules = tuple(sys.argv[1].split(","))
    names = tuple(importlib.import_module(module).SOURCE.name for module in modules)
    raise SystemExit(main(sys.argv[3:], {"sources": modules, "uprobes": sys.argv[2].strip("-"), "libraries": names}))
