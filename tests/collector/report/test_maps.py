"""How full maps are, of real ones that this process has."""

from __future__ import annotations

import os
import struct
import subprocess

import pytest

from collector.loader import kernel
from collector.report import maps

HASH, ARRAY = 1, 2


@pytest.mark.live
def test_maps_are_counted_and_their_contents_are_not_shown(live: None) -> None:
    secret = b"canary!!"
    made = [
        kernel.create_map(HASH, 8, 8, 100, name="connections_of_all"),
        kernel.create_array(8, 4),
        kernel.create_ring(8192),
        kernel.create_map(HASH, 8, 8, 10, name="empty"),
    ]
    try:
        for number in range(7):
            kernel.map_update(made[0], struct.pack("=Q", number), secret)
        text = maps.table(os.getpid())
    finally:
        for fd in made:
            os.close(fd)
    rows = {tuple(line.split()[1:3]): line for line in text.splitlines()[1:]}
    assert rows["hash", "connections_of_"].endswith("  7 (7 %)")
    assert rows["hash", "empty"].endswith("  0 (0 %)")
    assert any(line.split()[1:2] == ["array"] and line.endswith("  -") for line in text.splitlines())
    assert any(line.split()[1:2] == ["ringbuf"] and line.endswith("  0 bytes (0 %)") for line in text.splitlines())
    assert "canary" not in text


def test_a_process_without_maps_has_none() -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        assert maps.table(other.pid).count("\n") == 1
        other.kill()
