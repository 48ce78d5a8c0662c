"""A policy that is changed while a collector captures: by SIGHUP, by the link of a mounted ConfigMap, and with a shard that
is killed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from collector import errors
from tests.live.harness import Collector, Program, wait_for
from tests.live.test_adversity import replaced
from tests.live.test_files import exchanges

pytestmark = [pytest.mark.live, pytest.mark.timeout(180)]


@pytest.fixture
def echo(live: None) -> Iterator[Program]:
    server = Program("echo")
    yield server
    server.close()


def excluding(name: str, *paths: str) -> str:
    """A policy that leaves these out."""
    return json.dumps({"version": 1, "name": name, "rules": [{"exclude": {"paths": list(paths)}}]})


def mount(folder: Path, text: str) -> Path:
    """As the kubelet writes a ConfigMap: the file is a link by way of `..data`, which is swapped."""
    version = folder / f"..{len(list(folder.iterdir()))}"
    version.mkdir()
    (version / "policy.yaml").write_text(text)
    (folder / "..new").symlink_to(version.name)
    (folder / "..new").rename(folder / "..data")
    path = folder / "policy.yaml"
    if not path.is_symlink():
        path.symlink_to("..data/policy.yaml")
    return path


def in_force(c: Collector, name: str) -> bool:
    return f'policy="{name}"' in c.page("metrics")


def passes(c: Collector, port: int, kept: str, left_out: str, count: int = 10) -> None:
    """Exchanges of both kinds, the ones to be left out first, and records of one."""
    exchanges(port, left_out, count)
    exchanges(port, kept, count)
    c.wait_records(kept, 2 * count)  # of the client and of the server
    assert c.records(left_out) == []


def test_it_is_read_again_and_survives_a_shard(echo: Program, tmp_path: Path) -> None:
    folder = tmp_path / "mounted"
    folder.mkdir()
    path = mount(folder, excluding("first", "/a/*"))
    c = Collector(tmp_path, COLLECTOR_POLICY=str(path), COLLECTOR_SHARDS="1")
    try:
        assert "policy first (" in c.log()
        passes(c, echo.port, "/b/1", "/a/1")
        mount(folder, excluding("second", "/b/*"))  # nobody says so
        assert wait_for(lambda: in_force(c, "second"))
        passes(c, echo.port, "/a/2", "/b/2")

        mount(folder, excluding("broken", "b"))
        assert wait_for(lambda: c.metric('collector_policy_reloads_total{result="failure"}') == 1)
        passes(c, echo.port, "/a/3", "/b/3")
        assert "did you mean /b?; policy second stays in force" in c.log()

        victim = c.child("shards.process")
        os.kill(victim, signal.SIGKILL)
        assert wait_for(lambda: replaced(c, "shards.process", victim), 20)
        passes(c, echo.port, "/a/4", "/b/4")

        mount(folder, excluding("third", "/c/*"))
        c.process.send_signal(signal.SIGHUP)
        assert wait_for(lambda: in_force(c, "third"))
        passes(c, echo.port, "/b/5", "/c/5")
        status = subprocess.run(
            [sys.executable, "-m", "collector", "status"],
            env={**os.environ, "COLLECTOR_RUNTIME_DIR": str(c.directory / "run")},
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert "policy    third (" in status.stdout
        assert c.metric('collector_filtered_total{reason="policy",shard="0"}') >= 40
    finally:
        code = c.stop()
    assert code == 0, c.log()


def test_one_that_cannot_be_used_refuses_to_start(live: None, tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text("version: 1\nrules:\n- exclude: {host: [a]}\n")
    done = subprocess.run(
        [sys.executable, "-m", "collector", "run", "--output", "null"],
        env={**os.environ, "COLLECTOR_POLICY": str(path)},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == errors.EXIT_CONFIG
    assert f"COLLECTOR_POLICY: {path}:3:13: rules[0].exclude.host: unknown key; did you mean hosts?" in done.stderr
