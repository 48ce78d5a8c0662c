"""Messages of gRPC as JSON: what both ends' own library has logged, in the record of each side."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from collector.descriptor_sets import VARIABLE
from tests.live.harness import Collector
from tests.protobuf import RICH, descriptor_set

pytestmark = [pytest.mark.live, pytest.mark.timeout(180)]


def test_grpcio(live: None, tmp_path: Path) -> None:
    (tmp_path / "set").write_bytes(descriptor_set(*RICH))
    collector = Collector(tmp_path, **{VARIABLE: str(tmp_path / "set")})
    try:
        done = subprocess.run(
            [sys.executable, "-m", "tests.live.grpcio"], check=True, timeout=100, stdout=subprocess.PIPE, text=True
        )
        logged: dict[tuple[str, str], list[Any]] = {}
        for call, side, message in map(json.loads, done.stdout.splitlines()):
            logged.setdefault((call, side), []).append(message)
        assert [len(logged[key]) for key in sorted(logged)] == [10, 20, 20, 20]
        unary, streams = collector.wait_records("/rich.v1.Rich/One", 40), collector.wait_records("/rich.v1.Rich/Many", 2)
        for side in ("request", "response"):
            for direction in "12":
                of_side = [record for record in unary if record["direction"] == direction]
                each = [json.loads(record[f"{side}MessagesJson"]) for record in of_side]
                assert sorted(each, key=repr) == sorted([[message] for message in logged["One", side]], key=repr)
            for record in streams:
                assert json.loads(record[f"{side}MessagesJson"]) == logged["Many", side] and not record["mark"]
        assert collector.metric("collector_grpc_messages_transcoded_total") == 40 * 2 + 2 * 30
        assert collector.metric("collector_grpc_messages_not_transcoded_total") == 0
    finally:
        assert collector.stop() == 0, collector.log()
    assert "set: 1 service" in collector.log()
