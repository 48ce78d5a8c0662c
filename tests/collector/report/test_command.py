"""`collector report` where no collector runs; with one that does: tests/live/test_report.py."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from collector import errors
from collector.report import command
from collector.supervisor.lock import LOCK_FILE, OWN_NAME


def report(directory: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "collector", "report", *arguments],
        env={**os.environ, "COLLECTOR_RUNTIME_DIR": str(directory / "run"), **environment},
        cwd=directory,
        capture_output=True,
        text=True,
    )


def contents(path: Path) -> dict[str, str]:
    found = {}
    with tarfile.open(path) as tar:
        for entry in tar.getmembers():
            file = tar.extractfile(entry)
            assert file is not None
            found[Path(entry.name).name] = file.read().decode()
    return found


def test_without_a_collector_there_is_the_rest(tmp_path: Path) -> None:
    done = report(
        tmp_path, PYTHONPATH=str(Path.cwd()), AKTO_KAFKA_BROKER_MAL="kafka.example.com:9092", KAFKA_PASSWORD="canary-1"
    )
    assert done.returncode == errors.EXIT_OK, done.stderr
    assert "no collector runs here" in done.stdout
    (path,) = tmp_path.glob("collector-report-*.tar.gz")
    assert path.stat().st_mode & 0o777 == 0o600 and done.stdout.endswith(f"{path.name}\n")
    found = contents(path)
    assert "of this shell" in found["config.txt"] and "<host-1>:9092" in found["config.txt"]
    assert "no collector answers" in found["status.json"] and "no collector runs" in found["processes.txt"]
    assert "kernel" in found["versions.txt"] and "NEED" in found["check.txt"]
    assert "canary" not in "".join(found.values()) and "kafka.example.com" not in "".join(found.values())
    assert all(name in done.stdout for name in found if name not in ("CONTENTS", "README"))


def test_addresses_when_they_are_asked_for(tmp_path: Path) -> None:
    done = report(tmp_path, "--with-addresses", "--output", "r.tar.gz", AKTO_KAFKA_BROKER_MAL="10.1.2.3:9092")
    assert done.returncode == errors.EXIT_OK and "--with-addresses" in done.stdout
    assert "10.1.2.3:9092" in contents(tmp_path / "r.tar.gz")["config.txt"]


def test_settings_that_do_not_parse_are_said_in_it(tmp_path: Path) -> None:
    done = report(tmp_path, "--output", "r.tar.gz", COLLECTOR_SHARDS="many")
    assert done.returncode == errors.EXIT_OK
    assert "COLLECTOR_SHARDS='many': expected" in contents(tmp_path / "r.tar.gz")["config.txt"]
    assert str(tmp_path / "run") in contents(tmp_path / "r.tar.gz")["status.json"]


@pytest.mark.parametrize("output", ["no/such/directory", "."])
def test_a_file_that_cannot_be_made_is_an_error(tmp_path: Path, output: str) -> None:
    done = report(tmp_path, "--output", output)
    assert done.returncode == errors.EXIT_CONFIG and "--output" in done.stderr


def test_a_full_disk_is_an_error(tmp_path: Path) -> None:
    done = report(tmp_path, "--output", "/dev/full")
    assert done.returncode == errors.EXIT_FAILURE and "No space left" in done.stderr


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Path]:
    """A runtime directory as a collector leaves it, named after a process that is none."""
    directory = tmp_path / "run" / OWN_NAME
    directory.mkdir(parents=True)
    directory.chmod(0o700)
    (directory / LOCK_FILE).touch()
    with subprocess.Popen(["sleep", "60"]) as stranger:
        (directory / f"run-{stranger.pid}").mkdir()
        yield directory
        stranger.kill()


def found(own: Path) -> int | None:
    return command.Report(str(own.parent)).supervisor


def test_a_process_with_the_number_of_a_dead_collector_is_left_alone(own: Path) -> None:
    assert found(own) is None


def test_who_holds_the_lock_is_the_collector(own: Path) -> None:
    (own / f"run-{os.getpid()}").mkdir()
    with (own / LOCK_FILE).open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert found(own) == os.getpid()
    assert found(own) is None


def test_names_of_hosts_are_those_of_brokers_and_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AKTO_KAFKA_BROKER_MAL", "one:9092,[2001:db8::1]:9093")
    made = command.Report(str(tmp_path))
    assert {"one", "2001:db8::1"} <= set(made.hosts())


def test_the_time_is_in_the_name_of_the_file(tmp_path: Path) -> None:
    before = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    assert report(tmp_path).returncode == errors.EXIT_OK
    (path,) = tmp_path.glob("*.tar.gz")
    assert path.name.removeprefix("collector-report-") >= before
