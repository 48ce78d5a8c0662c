"""scripts/bench: pipeline, core, hostile, overhead, tls, spool, day, start, image, websocket, pods, sizing."""

from __future__ import annotations

import importlib
import sys

NAMES = ("pipeline", "core", "hostile", "overhead", "tls", "spool", "day", "start", "image", "websocket", "pods", "sizing")

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in NAMES:
        sys.exit(f"usage: scripts/bench {{{','.join(NAMES)}}} [options]; --help after the name")
    importlib.import_module(f"tests.bench.{sys.argv[1]}").main(sys.argv[2:])
