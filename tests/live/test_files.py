"""Recordings, output files and signals of a live collector; what it leaves out of its own traffic; pid namespaces."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from collector import capturefile
from collector.loader import preflight
from tests.collector.test_files import read_capture, replay
from tests.conftest import skip_or_fail
from tests.live.harness import Collector, Program, wait_for
from tests.live.test_adversity import Load, replaced
from tests.live.test_capture import curl, http

pytestmark = [pytest.mark.live, pytest.mark.timeout(180)]


@pytest.fixture
def echo(live: None) -> Iterator[Program]:
    server = Program("echo")
    yield server
    server.close()


def exchanges(port: int, path: str, count: int = 10) -> None:
    with socket.create_connection(("127.0.0.1", port)) as sock:
        for n in range(count):
            http(sock, b"GET %s/%d HTTP/1.1\r\nHost: h\r\n\r\n" % (path.encode(), n))


def paths(text: str, part: str) -> list[tuple[str, str, str]]:
    records = [json.loads(line) for line in text.splitlines()]
    return sorted((r["direction"], r["path"], r["recordId"]) for r in records if part in r["path"])


def test_a_recording_survives_kill_9_of_the_loader(echo: Program, tmp_path: Path) -> None:
    path = tmp_path / "a.cap"
    c = Collector(tmp_path, "--record", str(path))
    try:
        exchanges(echo.port, "/recorded/before")
        c.wait_records("/recorded/before", 20)
        victim = c.child("loader.process")
        os.kill(victim, signal.SIGKILL)
        wait_for(lambda: replaced(c, "loader.process", victim), 20)
        exchanges(echo.port, "/recorded/after")
        c.wait_records("/recorded/after", 20)
    finally:
        code = c.stop()
    assert code == 0, c.log()
    assert read_capture(path)[1] == ""
    done = replay(str(path))
    assert done.returncode == 0, done.stderr
    live = c.output.read_text()
    for part in ("/recorded/before", "/recorded/after"):
        assert len(paths(done.stdout, part)) == 20
        assert paths(done.stdout, part) == paths(live, part)  # recordId and all


def test_a_recording_of_a_killed_collector_is_readable_and_its_end_is_missing(echo: Program, tmp_path: Path) -> None:
    path = tmp_path / "a.cap"
    c = Collector(tmp_path, "--record", str(path))
    load = Load(echo.port, "/cut", threads=2)
    try:
        c_records = lambda: len(c.records("/cut"))  # noqa: E731
        wait_for(lambda: c_records() > 200, 20)
    finally:
        os.kill(c.process.pid, signal.SIGKILL)
        c.process.wait()
        load.stop()
    wait_for(lambda: b"killed" in str(read_capture(path)[1]).encode() or "inside a block" in read_capture(path)[1], 10)
    spans, damage = read_capture(path)
    assert spans and f"{path}: offset " in damage
    done = replay(str(path))
    assert done.returncode == 65 and damage in done.stderr
    assert len(paths(done.stdout, "/cut")) > 200


def test_a_recording_that_cannot_be_written_is_said_and_capture_goes_on(echo: Program, tmp_path: Path) -> None:
    c = Collector(tmp_path, "--record", "/dev/full")
    try:
        exchanges(echo.port, "/unrecorded")
        c.wait_records("/unrecorded", 20)
        wait_for(lambda: c.metric("collector_record_file_skipped_bytes_total") > 1000)
        assert c.metric("collector_record_file_bytes_total") == 0
    finally:
        code = c.stop()
    assert code == 1
    assert c.log().count("--record: No space left on device") == 2  # in the log, and at the end
    assert len(c.records("/unrecorded")) == 20 and "0 dropped, 0 failed;" in c.log()


def test_a_recording_that_reaches_its_limit_is_whole_and_says_what_was_left_out(
    echo: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.cap"
    program = (
        "import sys, collector.capturefile as c; c.DEFAULT_LIMIT_BYTES = 4000; "
        "from collector.__main__ import main; sys.exit(main(sys.argv[1:]))"
    )
    stderr = tmp_path / "stderr.txt"
    with stderr.open("wb") as err:
        process = subprocess.Popen(
            [sys.executable, "-c", program, "run", "--output", str(tmp_path / "out"), "--record", str(path)],
            stderr=err,
            env={**os.environ, "COLLECTOR_RUNTIME_DIR": str(tmp_path / "run"), "COLLECTOR_HEALTH_ADDRESS": "127.0.0.1:0"},
        )
    wait_for(lambda: b"capturing" in stderr.read_bytes() or process.poll() is not None, 60)
    exchanges(echo.port, "/limited", 100)
    wait_for(lambda: (tmp_path / "out").read_bytes().count(b"/limited") >= 200)
    process.terminate()
    assert process.wait(40) == 0
    assert "the limit of 4000 bytes is reached" in stderr.read_text()
    recording = capturefile.Recording(str(path))
    assert list(recording.spans()) is not None and recording.left_out_bytes > 0 and path.stat().st_size <= 4000


def test_rotation_and_statistics_under_load(echo: Program, tmp_path: Path) -> None:
    """SIGHUP and SIGUSR1 to the collector, its group and its children: nobody ends, no record is lost or torn."""
    c = Collector(tmp_path)
    load = Load(echo.port, "/rotated", threads=2, pause=0.001)
    old = []
    try:
        children = c.children()
        for n in range(5):
            time.sleep(0.2)
            old.append(tmp_path / f"records.{n}")
            c.output.rename(old[-1])
            c.process.send_signal(signal.SIGHUP)
            wait_for(c.output.exists)
            for pid in c.children():
                os.kill(pid, signal.SIGHUP)
                os.kill(pid, signal.SIGUSR1)
        c.process.send_signal(signal.SIGUSR1)
        wait_for(lambda: "statistics: {" in c.log())
        stacks = ("in run_process", "shards/process.py", "sink/delivery.py", "loader/process.py")
        wait_for(lambda: all(line in c.log() for line in stacks))
        victim = c.child("sink.process")
        os.kill(victim, signal.SIGKILL)  # its next life writes to the new file
        wait_for(lambda: replaced(c, "sink.process", victim), 20)
    finally:
        answered = load.stop()
        code = c.stop()
    assert code == 0, c.log()
    assert [pid for pid in children if pid != victim] and c.log().count("ended with") == 1
    assert c.output.stat().st_mode & 0o777 == 0o600
    lines = [line for path in (*old, c.output) for line in path.read_bytes().split(b"\n")[:-1]]
    found = {(r["direction"], r["path"]) for r in map(json.loads, lines) if "/rotated" in r["path"]}
    assert len(found) == 2 * answered
    assert all(path.read_bytes().endswith(b"\n") for path in (*old, c.output) if path.stat().st_size)
    assert all(path.stat().st_size for path in (*old, c.output))


def output_files(c: Collector) -> list[Path]:
    """The output and the old ones that rotation by size has made, oldest first."""
    old = [path for path in c.output.parent.glob(c.output.name + ".*") if path.suffix[1:].isdigit()]
    return [*sorted(old, key=lambda path: -int(path.suffix[1:])), c.output]


def written(directory: Path, path: str) -> int:
    """Records of that path, in all files, while the collector runs."""
    count = 0
    for file in (*directory.glob("records.jsonl*"), *directory.glob("moved.*")):
        with contextlib.suppress(FileNotFoundError):  # just renamed
            count += file.read_bytes().count(f'"path":"{path}/'.encode())
    return count


def lines_of(files: list[Path], part: str) -> list[tuple[str, str]]:
    """Direction and path of each record; every file ends with a whole line."""
    found = []
    for path in files:
        data = path.read_bytes()
        assert data.endswith(b"\n") or not data, path
        found += [(r["direction"], r["path"]) for r in map(json.loads, data.splitlines()) if part in r["path"]]
    return found


def test_rotation_by_size_loses_splits_and_doubles_no_record(echo: Program, tmp_path: Path) -> None:
    """Under load, while another program rotates the same file; and at kill -9 of the sink, whose last batch comes again."""
    c = Collector(tmp_path, COLLECTOR_OUTPUT_MAX_BYTES="65536", COLLECTOR_OUTPUT_FILES="999")
    rotations = lambda: c.metric("collector_output_rotations_total")  # noqa: E731
    moved = []
    load = Load(echo.port, "/sized", threads=2, pause=0.001)
    try:
        for n in range(4):
            before = rotations()
            wait_for(lambda: rotations() > before + 1)  # noqa: B023 - asked at once
            moved.append(tmp_path / f"moved.{n}")
            with contextlib.suppress(FileNotFoundError):  # just renamed by the collector
                c.output.rename(moved[-1])
            c.process.send_signal(signal.SIGHUP)
        answered = load.stop()
        wait_for(lambda: written(tmp_path, "/sized") >= 2 * answered)
        load = Load(echo.port, "/killed", threads=2, pause=0.001)
        for _ in range(3):
            before, victim = rotations(), c.child("sink.process")
            wait_for(lambda: rotations() > before)  # noqa: B023
            os.kill(victim, signal.SIGKILL)
            wait_for(lambda: replaced(c, "sink.process", victim), 20)  # noqa: B023
    finally:
        killed = load.stop()
        code = c.stop()
    assert code == 0, c.log()
    files = output_files(c)
    assert len(files) > 10
    everything = [*files, *(path for path in moved if path.exists())]
    sized = lines_of(everything, "/sized")
    assert len(sized) == len(set(sized)) == 2 * answered
    assert len(set(lines_of(everything, "/killed"))) == 2 * killed
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in everything)
    numbers = [int(path.rsplit("/", 1)[1]) for way, path in lines_of(files, "/killed/0/") if way == "1"]
    first = {n: at for at, n in reversed(list(enumerate(numbers)))}
    assert [first[n] for n in sorted(first)] == sorted(first.values())  # FILE.1 is the newest


def test_only_so_many_old_files_are_kept(echo: Program, tmp_path: Path) -> None:
    c = Collector(tmp_path, COLLECTOR_OUTPUT_MAX_BYTES="65536", COLLECTOR_OUTPUT_FILES="2")
    load = Load(echo.port, "/kept", threads=2, pause=0.001)
    try:
        wait_for(lambda: c.metric("collector_output_rotations_total") >= 3, 20)
    finally:
        load.stop()
        code = c.stop()
    assert code == 0, c.log()
    files = output_files(c)
    assert [path.name for path in files] == ["records.jsonl.2", "records.jsonl.1", "records.jsonl"]
    assert all(path.stat().st_size >= 65536 for path in files[:-1])
    lines_of(files, "")


def test_a_directory_that_cannot_be_written_and_a_full_disk(echo: Program, tmp_path: Path) -> None:
    """The first: the file grows, and the log says why. The second: records wait."""
    way = tmp_path / "disk"
    way.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(way)], check=True)
    mounted = 1
    try:
        out = way / "records.jsonl"
        c = Collector(tmp_path, "--output", str(out), COLLECTOR_OUTPUT_MAX_BYTES="65536", COLLECTOR_OUTPUT_FILES="2")
        c.output = out
        try:
            subprocess.run(["mount", "--bind", str(way), str(way)], check=True)
            mounted = 2
            subprocess.run(["mount", "-o", "remount,bind,ro", str(way)], check=True)
            for n in range(8):
                exchanges(echo.port, f"/grows/{n}")
            wait_for(lambda: out.stat().st_size > 65536)
            wait_for(lambda: f"cannot rotate {out}: Read-only file system" in c.log())
            for n in range(8, 12):
                exchanges(echo.port, f"/grows/{n}")
            c.wait_records("/grows/", 240)
            subprocess.run(["umount", str(way)], check=True)
            mounted = 1
            with (way / "filler").open("wb", buffering=0) as filler, contextlib.suppress(OSError):
                while filler.write(b"x" * 4096):
                    pass
            for n in range(12):
                exchanges(echo.port, f"/waits/{n}")
            wait_for(lambda: "cannot write the output: No space left on device; retrying" in c.log())
            (way / "filler").unlink()
            wait_for(lambda: written(way, "/waits") >= 240)
        finally:
            code = c.stop()
        assert code == 0, c.log()
        files = output_files(c)
        assert len(lines_of(files, "/grows")) == len(lines_of(files, "/waits")) == 240
        assert "0 dropped, 0 failed;" in c.log()
    finally:
        for _ in range(mounted):
            subprocess.run(["umount", str(way)], check=True)


def test_kill_9_of_the_sink_leaves_no_torn_line_and_anothers_torn_line_stays(echo: Program, tmp_path: Path) -> None:
    (tmp_path / "records.jsonl").write_bytes(b'{"of somebody')
    c = Collector(tmp_path)
    load = Load(echo.port, "/killed/" + "x" * 5000, threads=2, pause=0.001)
    try:
        for _ in range(3):
            time.sleep(0.7)
            victim = c.child("sink.process")
            os.kill(victim, signal.SIGKILL)
            wait_for(lambda: replaced(c, "sink.process", victim), 20)  # noqa: B023 - asked at once
    finally:
        answered = load.stop()
        code = c.stop()
    assert code == 0, c.log()
    first, *lines = c.output.read_bytes().split(b"\n")
    assert first == b'{"of somebody' and lines.pop() == b""
    found = {(r["direction"], r["path"]) for r in map(json.loads, lines) if "/killed" in r["path"]}
    assert len(found) == 2 * answered


def test_sighup_with_an_output_that_cannot_be_opened_goes_on(echo: Program, tmp_path: Path) -> None:
    c = Collector(tmp_path)
    old = tmp_path / "old"
    try:
        c.output.rename(old)
        c.output.mkdir()
        c.process.send_signal(signal.SIGHUP)
        wait_for(lambda: "continuing with what is open" in c.log())
        exchanges(echo.port, "/still")
        wait_for(lambda: len(paths(old.read_text(), "/still")) == 20)
    finally:
        code = c.stop()
    assert code == 0


def test_our_own_health_server_is_never_recorded(live: None, tmp_path: Path) -> None:
    c = Collector(tmp_path)

    def ask(part: str) -> None:
        for page in ("healthz", "readyz", "metrics"):
            curl(f"http://127.0.0.1:{c.port}/{page}?{part}")

    try:
        ask("first")
        c.wait_records("?first", 3)
        for module in ("loader.process", "shards.process", "sink.process"):
            victim = c.child(module)
            os.kill(victim, signal.SIGKILL)
            ask("during")
            wait_for(lambda: replaced(c, module, victim), 20)  # noqa: B023 - asked at once
            ask(module)
            wait_for(lambda: len(c.records("?" + module)) >= 3)  # noqa: B023
    finally:
        code = c.stop()
    assert code == 0
    assert {r["direction"] for r in c.records()} == {"2"}


@pytest.mark.parametrize("hooks", ["tpx", "raw"])
def test_in_a_pid_namespace_of_its_own(echo: Program, tmp_path: Path, hooks: str) -> None:
    """The kernel's process ids are not ours: our health server is left out all the same, nobody else is, and it is said."""
    out, stderr, port = tmp_path / "out", tmp_path / "stderr.txt", Program("echo")
    port.close()
    nested = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    with stderr.open("wb") as err:
        process = subprocess.Popen(
            [*nested, sys.executable, "-m", "collector", "run", "--output", str(out)],
            stderr=err,
            env={
                **os.environ,
                "COLLECTOR_RUNTIME_DIR": str(tmp_path / "run"),
                "COLLECTOR_HOOKS": hooks,
                "COLLECTOR_HEALTH_ADDRESS": f"127.0.0.1:{port.port}",
            },
        )
    try:
        wait_for(lambda: b"capturing" in stderr.read_bytes() or process.poll() is not None, 60)
        curl(f"http://127.0.0.1:{port.port}/metrics?nested")
        exchanges(echo.port, "/nested")
        wait_for(lambda: out.exists() and sum(b"/nested/" in line for line in out.read_bytes().splitlines()) >= 20)
        (inside,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(inside), signal.SIGTERM)
        process.wait(60)
    finally:
        process.kill()  # and with it the collector inside
    assert process.wait() == 0, stderr.read_text()
    assert "a pid namespace of its own" in stderr.read_text()
    records = [json.loads(line) for line in out.read_text().splitlines()]
    assert [r["direction"] for r in records if "?nested" in r["path"]] == ["2"]
    served = [r for r in records if "/nested/" in r["path"] and r["direction"] == "1"]
    assert len(served) == 10 and {r["process_id"] for r in served} == {str(echo.process.pid)}
    done = subprocess.run([*nested, sys.executable, "-m", "collector", "check"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "hostPID" in done.stdout


def test_outside_of_one_nothing_is_said(live: None) -> None:
    if preflight.own_pid_namespace() is not None:
        skip_or_fail("this is a pid namespace of its own")
    done = subprocess.run([sys.executable, "-m", "collector", "check"], capture_output=True, text=True, timeout=60)
    assert "the initial pid namespace" in done.stdout


def test_75_for_a_second_collector_and_78_for_what_cannot_be_used(live: None, tmp_path: Path) -> None:
    c = Collector(tmp_path)

    def start(**changes: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "collector", "run", "--output", "null", "--duration", "1"],
            capture_output=True,
            text=True,
            timeout=60,
            env={
                **os.environ,
                "COLLECTOR_RUNTIME_DIR": str(tmp_path / "other"),
                "COLLECTOR_HEALTH_ADDRESS": "127.0.0.1:0",
                **changes,
            },
        )

    try:
        done = start()
        assert done.returncode == 75 and "another collector captures on this node" in done.stderr
    finally:
        c.stop()
    (tmp_path / "file").write_text("")
    for changes in (
        {"COLLECTOR_RUNTIME_DIR": str(tmp_path / "file")},
        {"COLLECTOR_RUNTIME_DIR": "/proc/nothing"},
        {"COLLECTOR_HEALTH_ADDRESS": "1.2.3.4:80"},
    ):
        done = start(**changes)
        assert done.returncode == 78 and next(iter(changes)) in done.stderr, done.stderr
