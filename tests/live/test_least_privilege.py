"""The capabilities of deploy/daemonset-least-privilege.yaml are enough: a collector that has no others captures, in clear
and inside TLS, replaces a process that hangs, and ends as it should.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.bench.tls import certificate
from tests.conftest import ROOT
from tests.live.harness import Collector, Nginx, wait_for
from tests.live.test_adversity import replaced
from tests.live.tlsplay import attached

pytestmark = [pytest.mark.live, pytest.mark.timeout(180)]

MANIFEST = yaml.safe_load((ROOT / "deploy" / "daemonset-least-privilege.yaml").read_text())
CAPABILITIES = MANIFEST["spec"]["template"]["spec"]["containers"][0]["securityContext"]["capabilities"]["add"]


class Bounded(Collector):
    """A collector with these capabilities only."""

    program = ("tests.live.bounded", ",".join(CAPABILITIES), "collector")


def effective(pid: int) -> int:
    """Its capabilities, as a number."""
    found = re.search(r"^CapEff:\s*(\w+)", Path(f"/proc/{pid}/status").read_text(), re.M)
    assert found
    return int(found[1], 16)


def get(nginx: Nginx, path: str) -> None:
    """By a program that ends at once; its server stays."""
    subprocess.run(["curl", "-sk", "-o", "/dev/null", f"{nginx.scheme}://127.0.0.1:{nginx.port}{path}"], check=True)


def test_capture_with_the_capabilities_of_the_manifest(live: None, tmp_path: Path) -> None:
    certificate(tmp_path)
    for name in ("plain", "tls", "collector"):
        (tmp_path / name).mkdir()
    os.chmod(tmp_path, 0o755)
    plain = Nginx(tmp_path / "plain", "location / { return 200 '{}'; }")
    inside = Nginx(tmp_path / "tls", "location / { return 200 '{}'; }", tls=(tmp_path / "cert.pem", tmp_path / "key.pem"))
    collector = Bounded(tmp_path / "collector")
    try:
        assert effective(collector.process.pid).bit_count() == len(CAPABILITIES)
        wait_for(lambda: attached(collector, "libssl.so.3"), 60)
        get(plain, "/in-clear")
        get(inside, "/inside-tls")
        wait_for(lambda: [one for one in collector.records("/inside-tls") if one["direction"] == "1"], 20)
        served = [one for path in ("/in-clear", "/inside-tls") for one in collector.records(path) if one["direction"] == "1"]
        assert [(one["statusCode"], one["tls"], one["mark"]) for one in served] == [
            ("200", "false", []),
            ("200", "true", []),
        ]
        shard = collector.child("shards.process")
        assert effective(shard) == 0 and os.stat(f"/proc/{shard}").st_uid != 0
        os.kill(shard, signal.SIGSTOP)  # the supervisor ends what does not answer, though it is another user's
        wait_for(lambda: replaced(collector, "shards.process", shard), 60)
        get(plain, "/afterwards")
        collector.wait_records("/afterwards", 2)
    finally:
        plain.close()
        inside.close()
        code = collector.stop()
    assert code == 0, collector.log()
    assert not [line for line in collector.log().splitlines() if "no capability" in line or "Permission" in line]
