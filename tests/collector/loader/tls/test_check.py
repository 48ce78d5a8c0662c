"""`collector check --tls`, of processes that are there for it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from collector import errors
from collector.__main__ import main
from collector.loader.tls import check, cost
from collector.loader.tls.check import ATTACHED, CAN_BE, CANNOT, Row
from collector.loader.tls.cost import Cost
from tests.conftest import ROOT
from tests.demo import build

ROW = Row(7, "app", "openssl", "3.0.19", "/usr/bin/app", CAN_BE, "openssl", (4, 1))


@pytest.fixture
def users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, int]]:
    """Processes of a library that tests/demo/source.py knows, and of OpenSSL."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    library = build.library("demo", tmp_path)
    wait = "; print('ready', flush=True); import sys; sys.stdin.read()"
    running = {
        name: subprocess.Popen([sys.executable, "-c", code + wait], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for name, code in {"demo": f"import ctypes; ctypes.CDLL({str(library)!r})", "ssl": "import ssl"}.items()
    }
    for process in running.values():
        assert process.stdout is not None and process.stdout.readline()
    yield {name: process.pid for name, process in running.items()}
    for process in running.values():
        process.communicate("")


def test_processes_are_listed_with_what_a_source_finds(users: dict[str, int]) -> None:
    rows, _hidden = check.survey(None, ["tests.demo.source"])
    (demo,) = [row for row in rows if row.pid == users["demo"]]
    assert (demo.library, demo.state, demo.source) == ("demo", CAN_BE, "demo") and demo.file.endswith("/libdemo.so")
    assert sum(demo.places) == 6  # functions
    openssl = next(row for row in rows if row.pid == users["ssl"] and not row.file.endswith("abi3.so"))
    assert openssl.library == "openssl" and openssl.version and "/libssl" in openssl.file
    assert {row.state for row in rows} <= {ATTACHED, CAN_BE, CANNOT}
    assert all(row.why for row in rows if row.state == CANNOT)


def test_a_source_that_finds_nothing_says_why(users: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.demo.source import Demo

    monkeypatch.setattr(Demo, "wants", lambda _self, path: "/libssl" in path)
    rows, _hidden = check.survey(None, ["tests.demo.source"])
    assert not [row for row in rows if row.pid == users["demo"]]
    openssl = next(row for row in rows if row.pid == users["ssl"] and "/libssl" in row.file)
    assert openssl.state != CANNOT or "demo: not the demo library" in openssl.why


def test_instructions_are_told_apart() -> None:
    push, push_r12, nop, call, je = b"\x55", b"\x41\x54", b"\x90", b"\xe8\0\0\0\0", b"\x74\x05"
    assert check.places([code.ljust(16, b"\xcc") for code in (push, push_r12, nop, call, je)]) == (5, 0)
    sub, ret, endbr64 = b"\x48\x83\xec\x08", b"\xc3", b"\xf3\x0f\x1e\xfa"
    assert check.places([sub, ret, endbr64, b""]) == (0, 4)


def test_the_table_says_costs_and_reasons_and_has_no_line_breaks_of_others() -> None:
    costs = Cost(cpuid_ns=5600, emulated_ns=400, stepped_ns=13400)
    text = check.table([ROW, Row(8, "a\nb", "jsse", "", "/x\x1b[31m", CANNOT, why="Java")], costs)
    lines = text.splitlines()
    assert [line.split()[0] for line in lines] == ["PID", "7", "8"]
    assert "openssl: probes on 4 emulated (0.4 us a hit), 1 single-stepped (13.4 us a hit)" in lines[1]
    assert "a?b" in lines[2] and "Java" in lines[2] and "\x1b" not in text
    assert "4 emulated, 1 single-stepped" in check.table([ROW], Cost(why="not root"))
    assert "5600 ns" in check.footer(costs, 0) and "13400 ns" in check.footer(costs, 0)
    assert "not root" in check.footer(Cost(why="not root"), 3) and ": 3" in check.footer(Cost(), 3)


def test_the_command(users: dict[str, int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(cost, "measure", lambda: Cost(cpuid_ns=1.5, why="not tried"))
    assert main(["check", "--tls", "--json"]) == errors.EXIT_OK
    said = json.loads(capsys.readouterr().out)
    assert users["ssl"] in [row["pid"] for row in said["processes"]]
    assert (said["cpuid_ns"], said["emulated_probe_ns"], said["not_measured"]) == (1.5, None, "not tried")
    assert main(["check", "--tls"]) == errors.EXIT_OK
    out = capsys.readouterr().out
    assert out.startswith("PID") and f"\n{users['ssl']} " in out


def test_check_has_json_too(capsys: pytest.CaptureFixture[str]) -> None:
    main(["check", "--json"])
    checks = json.loads(capsys.readouterr().out)["checks"]
    assert {"need", "state", "detail", "todo", "fatal"} == set(checks[0])
