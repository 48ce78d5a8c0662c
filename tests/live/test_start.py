"""A start that finds its kernel programs compiled, and one that does not: what is captured is the same."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from collector.loader import program_cache
from tests.collector.test_compatibility import SCHEMA
from tests.live.harness import Collector, Nginx, Program

pytestmark = [pytest.mark.live, pytest.mark.timeout(180)]

COMPILED, KEPT = "kernel programs compiled", "kernel programs as compiled at an earlier start"
# of a record, but for what differs between two runs that see the same
FIELDS = set(SCHEMA["properties"]) - {
    *("ip", "destIp", "clientIp", "socket_id", "process_id", "recordId", "daemonset_id"),
    *("time", "startTimeMs", "firstByteMs", "durationMs"),
}
DATE = re.compile(r'"Date":"[^"]*",')


def exchanges(collector: Collector, server: Nginx, accepting: Program) -> list[dict[str, Any]]:
    """What is recorded of a few exchanges of several kinds, in an order that does not depend on when they were written."""
    base = f"http://127.0.0.1:{server.port}"
    for arguments in (
        [f"{base}/start/page?again=1", f"{base}/start/page?again=2"],
        ["-d", "x" * 3000, f"http://127.0.0.1:{accepting.port}/start/posted"],
        [f"http://127.0.0.1:{accepting.port}/start/accepted"],
    ):
        subprocess.run(["curl", "-s", *arguments], check=True, timeout=20, stdout=subprocess.DEVNULL)
    found = collector.wait_records("/start/", 8)
    return sorted(
        ({name: DATE.sub("", record[name]) for name in record if name in FIELDS} for record in found),
        key=lambda record: (record["path"], record["direction"]),
    )


def test_a_later_start_captures_what_the_first_did(live: None, tmp_path: Path) -> None:
    server = Nginx(tmp_path, f"location /start/ {{ return 200 '{'page ' * 500}'; }}")
    accepting = Program("echo")
    seen, held, lines = [], [], []
    try:
        for start in ("first", "second"):
            (tmp_path / start).mkdir()
            collector = Collector(tmp_path / start, COLLECTOR_PROGRAM_CACHE=str(tmp_path / "cache"))
            try:
                seen.append(exchanges(collector, server, accepting))
                held.append(in_kernel(collector))
            finally:
                assert collector.stop() == 0, collector.log()
            lines.append(collector.log())
            assert "COLLECTOR_PROGRAM_CACHE" not in collector.log(), "nothing is to be said of it"
    finally:
        server.close()
        accepting.close()
    assert COMPILED in lines[0] and KEPT in lines[1]
    assert [record["marks"] for record in seen[0]] == ["[]"] * 8
    assert seen[0] == seen[1]
    assert held[0] == held[1] and any(line.startswith("prog_type:\t5 ") for line in held[0])


def in_kernel(collector: Collector) -> list[str]:
    """The programs and maps that the collector holds: their types, digests and sizes as the kernel shows them."""
    out = set()
    for child in (collector.process.pid, *collector.children()):
        for number in os.listdir(f"/proc/{child}/fdinfo"):
            try:
                text = Path(f"/proc/{child}/fdinfo/{number}").read_text()
            except FileNotFoundError:
                continue
            wanted = ("prog_type", "verified_insns", "map_type", "key_size", "value_size", "max_entries", "map_flags")
            shown = [line for line in text.splitlines() if line.startswith(wanted)]
            if shown:
                out.add(" ".join(shown))
    return sorted(out)


@pytest.mark.parametrize("wrong", ["others may write the directory", "not a directory"])
def test_a_cache_that_cannot_be_used_stops_no_start(live: None, tmp_path: Path, wrong: str) -> None:
    cache = tmp_path / "cache"
    if wrong == "not a directory":
        cache.write_text("")
    else:
        (cache / program_cache.OWN_NAME).mkdir(parents=True)
        (cache / program_cache.OWN_NAME).chmod(0o777)
    collector = Collector(tmp_path, COLLECTOR_PROGRAM_CACHE=str(cache))
    assert collector.stop() == 0
    said = [
        line for line in collector.log().splitlines() if f"COLLECTOR_PROGRAM_CACHE={cache}: no programs are kept" in line
    ]
    assert len(said) == 1 and ("WARNING" in said[0]) == (wrong != "not a directory"), collector.log()
    assert COMPILED in collector.log()
