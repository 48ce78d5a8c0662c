"""The commands go by the policy, and say which it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from collector import errors
from collector.loader import preflight
from tests.collector.test_files import HEAD, data, stream_lines
from tests.events import OK

BAD = "version: 1\nrules:\n- exclude: {host: [a]}\n"


def collector(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "collector", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **environment},
    )


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "shop.yaml"
    path.write_text("version: 1\nrules:\n- exclude: {paths: [/left/*]}\n")
    return path


def test_a_replay_goes_by_it(policy: Path, tmp_path: Path) -> None:
    recorded = tmp_path / "a.streams.jsonl"
    requests = [f"GET {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode() for path in ("/left/1", "/kept/2", "/left/3", "/kept/4")]
    recorded.write_text(
        stream_lines(HEAD, *(line for n, get in enumerate(requests) for line in (data("c2s", n, get), data("s2c", n, OK))))
    )
    for variables, paths in (
        ({}, ["/left/1", "/kept/2", "/left/3", "/kept/4"]),
        ({"COLLECTOR_POLICY": str(policy)}, ["/kept/2", "/kept/4"]),
    ):
        done = collector("replay", str(recorded), "--output", "-", COLLECTOR_OUTPUT="", **variables)
        assert done.returncode == 0, done.stderr
        assert [json.loads(line)["path"] for line in done.stdout.splitlines()] == paths


def test_one_that_cannot_be_used_refuses(policy: Path, tmp_path: Path) -> None:
    policy.write_text(BAD)
    (tmp_path / "a.streams.jsonl").write_text(stream_lines(HEAD))
    for command in (["replay", str(tmp_path / "a.streams.jsonl")], ["config", "--policy"]):
        done = collector(*command, COLLECTOR_POLICY=str(policy))
        assert done.returncode == errors.EXIT_CONFIG and done.stdout == ""
        assert f"COLLECTOR_POLICY: {policy}:3:13: rules[0].exclude.host: unknown key; did you mean hosts?" in done.stderr


def test_config_prints_it(policy: Path) -> None:
    done = collector("config", "--policy", COLLECTOR_POLICY=str(policy), COLLECTOR_REDACTION_KEY="0123456789abcdef")
    assert done.returncode == 0 and "policy     shop, digest " in done.stdout and "exclude  paths /left/*" in done.stdout
    assert "0123456789abcdef" not in done.stdout
    assert "0123456789abcdef" not in collector("config", COLLECTOR_REDACTION_KEY="0123456789abcdef").stdout


def test_check_says_which_it_is(policy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLLECTOR_POLICY", str(policy))
    row = next(check for check in preflight.CHECKS if check.__name__ == "_policy")()
    assert row.state == preflight.FOUND and row.detail.startswith("shop (") and "1 rule of what is recorded" in row.detail
    policy.write_text(BAD)
    row = next(check for check in preflight.CHECKS if check.__name__ == "_policy")()
    assert row.state == preflight.MISSING and row.fatal and "did you mean hosts?" in row.detail


def test_a_redacted_recording_needs_a_policy_that_redacts(policy: Path, tmp_path: Path) -> None:
    path = tmp_path / "capture"
    for name, variables in (("off", {}), ("off", {"COLLECTOR_POLICY": "off"}), ("shop", {"COLLECTOR_POLICY": str(policy)})):
        done = collector("run", "--record", str(path), "--redact", **variables)
        assert done.returncode == errors.EXIT_CONFIG and not path.exists()
        assert f"collector: --redact: the policy '{name}' redacts nothing; set COLLECTOR_POLICY to secrets," in done.stderr
    done = collector("run", "--redact", COLLECTOR_POLICY="secrets")
    assert done.returncode == 2 and "--redact: needs --record FILE" in done.stderr
