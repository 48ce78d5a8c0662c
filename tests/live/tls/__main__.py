"""`python -m tests.live.tls logs [PAIR...]` runs pairs of the TLS matrix without a collector and compares their logs;
`python -m tests.live.tls table` prints what the tests wrote down as Markdown."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.live.tls import bed
from tests.live.tls.comparing import log_problems
from tests.live.tls.exchanges import all_exchanges
from tests.live.tls.programs import PAIRS, ROWS
from tests.live.tls.running import run

SIDES = ("client", "server", "proxy's client", "server behind")
COLUMNS = {
    "pair": "pair",
    "role": "side",
    "program": "program",
    "version": "version",
    "library": "TLS library",
    "exchanges": "exchanges",
    "records": "records",
    "lost": "lost",
    "wrong": "wrong",
    "no_peer": "no peer",
    "doubtful": "in doubt",
    "doubled": "twice",
}


def logs(names: list[str]) -> int:
    """Run pairs, all by default; 1 when a log differs from the plan."""
    failed = False
    with tempfile.TemporaryDirectory(prefix="tls-matrix-") as root:
        made = bed.make(Path(root))
        for pair in PAIRS:
            if names and pair.name not in names:
                continue
            directory = Path(root) / pair.name
            directory.mkdir()
            began = time.monotonic()
            done = run(pair, made, directory, int(os.environ.get("TLS_EXCHANGES", "1000")))
            problems = log_problems(done)
            failed |= bool(problems)
            count = len(all_exchanges(done.connections))
            print(f"{pair.name}: {count} exchanges, {time.monotonic() - began:.1f} s, {len(problems)} problems")
            print("".join(f"    {problem}\n" for problem in problems[:10]), end="")
    return int(failed)


def table() -> str:
    """All rows that tests have written, in the order of the matrix."""
    order = {pair.name: place for place, pair in enumerate(PAIRS)}
    found: list[dict[str, Any]] = [json.loads(file.read_text()) for file in ROWS.glob("*.json")]
    rows = sorted((r for r in found if r["pair"] in order), key=lambda r: (order[r["pair"]], SIDES.index(r["role"])))
    lines = [list(COLUMNS.values()), ["---"] * len(COLUMNS), *([str(row[key]) for key in COLUMNS] for row in rows)]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def main() -> int:
    """The command."""
    verb, *names = sys.argv[1:]
    if verb == "logs":
        return logs(names)
    print(table(), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
