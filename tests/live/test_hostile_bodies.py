"""Bodies that cost more than they weigh, at rates that once stopped a shard: whoever else is there loses nothing."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import brotli
import pytest
import zstandard

from tests.live.harness import HERE, Collector, wait_for
from tests.properties.test_decoding import CONTROLS, EMPTY_FRAMES, brotli_bomb

pytestmark = [pytest.mark.live, pytest.mark.timeout(120)]
SECONDS = 4


def packed(times: int) -> bytes:
    body = brotli_bomb(256, 256, 65000)
    for _ in range(times):
        body = brotli.compress(body)
    return body


def talk(rate: int, connections: int, path: str, coding: str, body: Path) -> subprocess.Popen[bytes]:
    with body.open("rb") as file:
        numbers = map(str, (rate, SECONDS, connections))
        return subprocess.Popen(
            [sys.executable, str(HERE / "paced.py"), *numbers, path, coding], stdin=file, stdout=subprocess.PIPE
        )


@pytest.mark.parametrize(
    ("rate", "coding", "body"),
    [
        (1000, "br, br, br, br", packed(3)),
        (3000, "zstd, zstd", zstandard.compress(EMPTY_FRAMES)),
        (3000, "gzip", CONTROLS),
        (1000, "br, gzip", gzip.compress(packed(0), mtime=0)),
    ],
    ids=["br", "zstd", "controls", "br in gzip"],
)
def test_a_victim_on_the_same_shard_loses_nothing(live: None, tmp_path: Path, rate: int, coding: str, body: bytes) -> None:
    collector = Collector(tmp_path, COLLECTOR_SHARDS="1")
    counts: dict[tuple[str, str], int] = {}
    marked = 0
    (tmp_path / "victim").write_bytes(b"v" * 200)
    (tmp_path / "hostile").write_bytes(body)
    try:
        talks = [talk(1000, 1, "/victim", "", tmp_path / "victim"), talk(rate, 20, "/hostile", coding, tmp_path / "hostile")]
        assert [int(t.communicate()[0]) for t in talks] == [1000 * SECONDS, rate * SECONDS]
        wait_for(lambda: collector.metric("collector_records_total") >= 2 * (1000 + rate) * SECONDS, quiet=True)
        assert collector.metric("collector_refused_bodies_total") > 0
        assert collector.metric("collector_kernel_dropped_events_total") == 0
    finally:
        collector.stop()
    with collector.output.open("rb") as lines:
        for record in map(json.loads, lines):  # too many to be validated
            key = record["path"], record["direction"]
            if record["path"] != "/metrics":
                counts[key] = counts.get(key, 0) + 1
            marked += record["path"] == "/victim" and record["marks"] != "[]"
    assert counts == {(path, side): n * SECONDS for path, n in (("/victim", 1000), ("/hostile", rate)) for side in "12"}
    assert marked == 0
