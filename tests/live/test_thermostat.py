"""The thermostat at work: more traffic than the collector may use CPU for."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from collector.settings import ALL_CONNECTIONS as ALL
from tests.events import validate
from tests.live.harness import Collector, Nginx, wait_for

pytestmark = [pytest.mark.live, pytest.mark.timeout(180)]

LIMIT = 0.25  # cores
DOUBT = {"joined_mid_stream", "pairing_uncertain", "request_framing_uncertain", "response_framing_uncertain"}


def lines(collector: Collector, path: str, every: int = 1) -> list[dict[str, Any]]:
    """The records of a path, or one in so many: there are more than can be looked at."""
    with collector.output.open("rb") as file:
        found = [line for line in file if f'"path":"{path}"'.encode() in line[:100]]
    return [validate(json.loads(line)) for line in found[::every]]


def test_whole_connections_give_way_and_come_back(live: None, tmp_path: Path) -> None:
    nginx = Nginx(tmp_path, 'location / { return 200 "{\\"answer\\": 42}"; }')
    collector = Collector(tmp_path, COLLECTOR_CPU_LIMIT=str(LIMIT))
    try:
        load = subprocess.Popen(
            ["wrk", "-t1", "-c100", "-d12", f"http://127.0.0.1:{nginx.port}/busy"], stdout=subprocess.DEVNULL
        )
        wait_for(lambda: collector.metric("collector_left_out_connections_total") > 20, 20)
        assert collector.metric("collector_left_out_bytes_total") > 0
        wait_for(lambda: load.poll() is not None, 40)
        shares = collector.metric("collector_share")
        print(f"share {shares / ALL:.3f}, {collector.metric('collector_left_out_connections_total'):.0f} left out")  # noqa: T201
        assert shares < ALL
        wait_for(lambda: collector.metric("collector_share") == ALL, 60)
        subprocess.run(
            ["ab", "-q", "-n", "200", f"http://127.0.0.1:{nginx.port}/after"], stdout=subprocess.DEVNULL, check=True
        )
        wait_for(lambda: len(lines(collector, "/after")) >= 400, 20)  # both sides
        assert not any(record["mark"] for record in lines(collector, "/after"))
        log = collector.log()
        assert "% of the connections are read" in log and "all connections are read again" in log
    finally:
        collector.stop()
        nginx.close()
    busy = lines(collector, "/busy", 100)
    assert busy
    # when its time is over, the client leaves without the answers that are on their way
    left = [record for record in busy if record["direction"] == "2" and record["words"] == {"no_response"}]
    assert len(left) <= 2
    wrong = [
        record["words"]
        for record in busy
        if record not in left and (record["words"] - DOUBT or record["responsePayload"] != '{"answer": 42}')
    ]
    assert not wrong, wrong[:5]
