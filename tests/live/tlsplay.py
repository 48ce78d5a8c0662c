"""A program that uses OpenSSL (tlsplay.c), and what must be recorded of it."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from tests.live.harness import Collector
from tests.live.matrix import build

BODY = 65536  # of a body that is recorded, by default


class Player:
    """A run of tlsplay."""

    def __init__(self, folder: Path, scenario: str, libraries: Path | None = None) -> None:
        self.scenario = scenario
        self.process = subprocess.Popen(
            [*build.command("tlsplay"), folder / "cert.pem", folder / "key.pem", scenario],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **({"LD_LIBRARY_PATH": str(libraries)} if libraries else {})},
        )

    def go(self) -> None:
        """Begin, or go on."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def exchanges(self) -> dict[str, tuple[int, int]]:
        """What it has made until its end: path -> bytes of the answer, port of the client."""
        out, _err = self.process.communicate(timeout=60)
        *lines, last = out.splitlines()
        assert last == "done" and self.process.returncode == 0, out
        return {path: (int(size), int(port)) for path, size, port in map(str.split, lines)}


def attached(collector: Collector, library: str) -> bool:
    return re.search(rf"attached: library '[^']*/{re.escape(library)}'", collector.log()) is not None


def compare(collector: Collector, made: dict[str, tuple[int, int]], part: str) -> list[dict]:
    """Both sides of each exchange are recorded once, whole and with their ends."""
    records = collector.wait_records(part, 2 * len(made))
    for direction in ("1", "2"):
        assert sorted(r["path"] for r in records if r["direction"] == direction) == sorted(made)
    for record in records:
        size, port = made[record["path"]]
        assert (record["tls"], int(record["responseSize"]), len(record["responsePayload"])) == (
            "true",
            size,
            min(size, BODY),
        ), record
        # where descriptors are the identity, a server that accepts without asking for the address has it late
        known = [str(port), "0"] if "identity descriptor" in collector.log() else [str(port)]
        assert record["ip"].rpartition(":")[2] in known, (record["path"], record["ip"], port)
        assert record["tlsLibrary"].startswith("openssl-3."), record
        assert record["tlsVersion"] == ("1.2" if part == "/renegotiate/" else "1.3"), record
    return records
