"""`collector check`: what it says of this host, of one without privilege, and of a container."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from collector import errors
from collector.loader import kernel, preflight, program_cache
from collector.loader.preflight import FOUND, MISSING, NOTE, Row
from tests.conftest import skip_or_fail


def found() -> dict[str, Row]:
    return {row.need: row for row in preflight.rows()}


def elsewhere(code: str, *command: str) -> subprocess.CompletedProcess[str]:
    """Run in another process, as another one would be."""
    return subprocess.run([*command, sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_every_check_has_a_line_of_its_own_and_says_what_to_do() -> None:
    rows = preflight.rows()
    assert len(rows) == len(preflight.CHECKS) == len({row.need for row in rows})
    for row in rows:
        assert row.state in (FOUND, MISSING, NOTE) and row.detail
        assert row.todo or row.state != MISSING
        assert row.state == MISSING or not row.fatal


def test_the_table_is_aligned() -> None:
    text = preflight.table([Row("short", FOUND, "yes"), Row("a longer need", MISSING, "no", "do something", True)])
    assert text == (
        "NEED           STATE    DETAIL  WHAT TO DO\n"
        "short          found    yes     -\n"
        "a longer need  MISSING  no      do something\n"
    )


def test_the_exit_code_and_require_say_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    fatal = [row for row in preflight.rows() if row.fatal and row.state == MISSING]
    assert preflight.main() == (errors.EXIT_CANNOT_CAPTURE if fatal else errors.EXIT_OK)
    assert [line.split("  ")[0] for line in capsys.readouterr().out.splitlines()] == ["NEED", *found()]
    if fatal:
        with pytest.raises(errors.PreflightError):
            preflight.require()
    else:
        preflight.require()


def test_a_process_without_capabilities_cannot_capture() -> None:
    run = elsewhere(
        "import sys\nfrom collector import runtime\nfrom collector.loader import preflight\n"
        "runtime.drop_privileges(None)\nsys.exit(preflight.main())"
    )
    assert run.returncode == errors.EXIT_CANNOT_CAPTURE, run.stderr
    (line,) = [line for line in run.stdout.splitlines() if line.startswith("capabilities")]
    assert "MISSING" in line and "have none" in line and "CAP_BPF and CAP_PERFMON" in line
    run = elsewhere(
        "from collector import runtime\nfrom collector.loader import preflight\n"
        "runtime.drop_privileges(None)\npreflight.require()"
    )
    assert run.returncode == 1 and "capture is not possible on this host" in run.stderr and "MISSING" in run.stderr


def test_root_has_what_is_needed_of_privileges() -> None:
    if os.geteuid() != 0:
        skip_or_fail("needs root")
    try:
        os.close(kernel.create_ring(4096))
    except OSError as error:
        skip_or_fail(f"cannot use bpf(2): {error}")
    rows = found()
    assert rows["BPF ring buffer"].state == rows["tracefs"].state == FOUND
    assert rows["capabilities"].state in (FOUND, NOTE)


def test_a_container_without_the_nodes_process_ids_is_told_so() -> None:
    code = (
        "from collector.loader import preflight\n"
        "print(preflight.own_pid_namespace())\nprint(preflight._pid_namespace().state)"
    )
    if elsewhere("", "unshare", "--pid", "--fork", "--mount-proc").returncode:
        skip_or_fail("cannot make a pid namespace")
    run = elsewhere(code, "unshare", "--pid", "--fork", "--mount-proc")
    numbers, state = run.stdout.splitlines()
    assert numbers != "None" and state == NOTE, run.stderr


def test_pid_namespaces(tmp_path: Path) -> None:
    inode = os.stat("/proc/self/ns/pid").st_ino
    assert (preflight.own_pid_namespace() is None) == (inode == 0xEFFFFFFC)
    other = tmp_path / "namespace"
    other.touch()
    info = other.stat()
    device = os.major(info.st_dev) << 20 | os.minor(info.st_dev)  # MKDEV of include/linux/kdev_t.h
    assert preflight.own_pid_namespace(str(other)) == (device, info.st_ino)
    with pytest.raises(FileNotFoundError):
        preflight.own_pid_namespace(str(tmp_path / "missing"))


def test_whether_the_next_start_finds_its_programs_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def said() -> tuple[str, str]:
        row = found()["programs kept between starts"]
        assert not row.fatal
        return row.state, row.detail

    monkeypatch.setenv("COLLECTOR_PROGRAM_CACHE", str(tmp_path))
    own = tmp_path / program_cache.OWN_NAME
    assert said() == (FOUND, f"0 of at most 16 in {own}") and not own.exists()
    own.mkdir()
    (own / f"{'a' * 64}.programs").write_bytes(b"")
    assert said() == (FOUND, f"1 of at most 16 in {own}")
    own.chmod(0o777)
    assert said() == (NOTE, f"{tmp_path}: others may write it; every start compiles them")
    monkeypatch.setenv("COLLECTOR_PROGRAM_CACHE", "off")
    assert said() == (NOTE, "none: COLLECTOR_PROGRAM_CACHE=off; every start compiles them")


def test_the_identity_that_was_asked_for_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLLECTOR_IDENTITY", "descriptor")
    row = found()["identity of connections"]
    assert row.state == NOTE and row.detail == "descriptor: as COLLECTOR_IDENTITY says" and not row.fatal
