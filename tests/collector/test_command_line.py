"""Exit codes as documented, standard descriptors that are closed, and signals, of the real command."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from collector.__main__ import EPILOG
from tests.collector.test_files import HEAD, data, replay, stream_lines
from tests.conftest import skip_or_fail
from tests.events import GET
from tests.live.harness import wait_for
from tests.live.kafka_broker import free_port

COLLECTOR = [sys.executable, "-m", "collector"]
BIG = b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n" + b"x" * 60000


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COLLECTOR, *arguments], capture_output=True, text=True, timeout=60, env={**os.environ, **environment}
    )


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """Eight exchanges, more than a pipe takes."""
    path = tmp_path / "a.streams.jsonl"
    path.write_text(stream_lines(HEAD, *(line for n in range(8) for line in (data("c2s", n, GET), data("s2c", n, BIG)))))
    return path


class Blocked:
    """A replay whose output nobody reads yet."""

    def __init__(self, path: Path) -> None:
        self.errors = path.parent / "stderr.txt"
        with self.errors.open("wb") as stderr:
            self.process = subprocess.Popen(
                [*COLLECTOR, "replay", str(path), "--shards", "1"],
                stdout=subprocess.PIPE,
                stderr=stderr,
                start_new_session=True,
            )
        assert self.process.stdout is not None
        self.process.stdout.read(1)  # the sink delivers now

    def children(self) -> dict[str, int]:
        """Module -> pid."""
        return children(self.process.pid)

    def said(self) -> str:
        return self.errors.read_text()

    def finish(self) -> tuple[int, list[bytes]]:
        """Read everything: (exit code, lines)."""
        assert self.process.stdout is not None
        lines = (b"{" + self.process.stdout.read()).splitlines()
        return self.process.wait(30), lines


@pytest.fixture
def blocked(recorded: Path) -> Iterator[Blocked]:
    one = Blocked(recorded)
    yield one
    if one.process.poll() is None:
        one.process.kill()
        one.process.wait()
    assert one.process.stdout is not None
    one.process.stdout.close()


def test_every_exit_code_is_documented_in_both_places() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "troubleshooting.md").read_text()
    documented = re.findall(r"^\| ([0-9]+) \|", page.partition("## Exit codes")[2], re.MULTILINE)
    assert documented == re.findall(r"^  ([0-9]+) ", EPILOG, re.MULTILINE)
    assert documented == ["0", "1", "2", "3", "65", "69", "70", "75", "78"]


def test_0_at_the_end_of_the_files(recorded: Path) -> None:
    done = replay(str(recorded))
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 8


def test_1_when_nobody_reads_and_what_was_not_written_is_counted(recorded: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([*COLLECTOR, "replay", str(recorded)], stdout=write, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(write)
    assert done.returncode == 1 and "output closed by its reader" in done.stderr
    assert "8 records (0 marked), 0 delivered, 0 dropped, 8 failed" in done.stderr


def test_1_when_the_disk_is_full_and_what_was_not_written_is_counted(recorded: Path) -> None:
    done = replay(str(recorded), "--output", "/dev/full")
    assert done.returncode == 1
    assert "No space left" in done.stderr and "8 records (0 marked), 0 delivered, 0 dropped, 8 failed" in done.stderr


def test_1_when_the_records_cannot_be_brought_into_order(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        skip_or_fail("needs root to mount a small file system")
    path = tmp_path / "large.streams.jsonl"
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 32768\r\n\r\n"
    path.write_text(
        stream_lines(
            HEAD, *(line for n in range(1000) for line in (data("c2s", n, GET), data("s2c", n, answer + os.urandom(32768))))
        )
    )
    done = subprocess.run(
        [
            "unshare",
            "--mount",
            "sh",
            "-c",
            'mount -t tmpfs -o size=1m none /var/tmp && exec "$@"',
            "sh",
            *COLLECTOR,
            "replay",
            str(path),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        env={**os.environ, "TMPDIR": "/var/tmp"},
    )
    assert done.returncode == 1, done.stderr
    assert "cannot bring the records into order in /var/tmp: No space left" in done.stderr and "TMPDIR" in done.stderr
    totals = re.search(r"([0-9]+) records .*, 0 delivered, 0 dropped, ([0-9]+) failed", done.stderr)
    assert totals and totals[1] == totals[2], done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["run", "--port", "0"],
        ["run", "--pid", "x"],
        ["replay"],
        ["run", "--duration", "-1"],
        ["run", "--redact"],
    ],
)
def test_2_for_a_wrong_command_line(arguments: list[str]) -> None:
    assert run(*arguments).returncode == 2


def test_65_for_a_damaged_file(recorded: Path) -> None:
    recorded.write_bytes(recorded.read_bytes()[:-3])
    done = replay(str(recorded))
    assert done.returncode == 65 and f"{recorded}: line 17, offset" in done.stderr
    assert len(done.stdout.splitlines()) == 8  # the last one without its answer


def test_69_where_nothing_can_be_captured() -> None:
    unprivileged = {"user": 65532, "group": 65532, "extra_groups": []} if os.geteuid() == 0 else {}
    done = subprocess.run([*COLLECTOR, "check"], capture_output=True, text=True, timeout=60, **unprivileged)  # type: ignore[call-overload]
    assert done.returncode == 69, done.stderr
    assert "MISSING" in done.stdout


def children(pid: int) -> dict[str, int]:
    """Module -> pid."""
    found = {}
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        command = Path(f"/proc/{child}/cmdline").read_text().split("\0")
        if "-m" in command:
            found[command[command.index("-m") + 1]] = int(child)
    return found


def test_70_when_a_child_of_a_replay_dies(recorded: Path) -> None:
    """It cannot end without its shard, so as soon as there is one it is killed."""
    process = subprocess.Popen(
        [*COLLECTOR, "replay", str(recorded), "--shards", "1"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    wait_for(lambda: "collector.shards.process" in children(process.pid))
    os.kill(children(process.pid)["collector.shards.process"], signal.SIGKILL)
    _out, err = process.communicate(timeout=30)
    assert process.returncode == 70 and "shard-0 ended with -9; the replay is not complete" in err


def test_1_when_the_sink_dies_while_it_delivers(blocked: Blocked) -> None:
    os.kill(blocked.children()["collector.sink.process"], signal.SIGKILL)
    code, _lines = blocked.finish()
    assert code == 1 and "sink ended with -9 while stopping" in blocked.said()
    assert "8 records (0 marked), 0 delivered, 0 dropped, 0 failed, 8 not delivered" in blocked.said()


@pytest.mark.parametrize(
    ("arguments", "environment", "words"),
    [
        (["replay", "/nonexistent"], {}, "no such file"),
        (["replay", __file__, "--shards", "300"], {}, "1 to 64"),
        (["replay", __file__, "--output", __file__, "--shared-files"], {}, "is one of the recordings"),
        (["replay", __file__, "--output", "kafka"], {}, "needs AKTO_KAFKA_BROKER_MAL"),
        (["replay", __file__, "--output", "kafka://broker:9092"], {}, "AKTO_KAFKA_BROKER_MAL=HOST:PORT"),
        (["replay", __file__, "--output", "KAFKA://broker:9092/topic"], {}, "COLLECTOR_KAFKA_TOPIC"),
        (["replay", __file__], {"COLLECTOR_OUTPUT": "kafka://broker:9092"}, "AKTO_KAFKA_BROKER_MAL=HOST:PORT"),
        (["replay", __file__, "--output", "file:///tmp/x"], {}, "not a file"),
        (["replay", __file__, "--output", "/nonexistent/x"], {}, "No such file or directory"),
        (["replay", __file__, "--output", "/"], {}, "Is a directory"),
        (["config"], {"COLLECTOR_SHARDS": "many"}, "COLLECTOR_SHARDS"),
        (["config"], {"AKTO_MODULE_DISCOVERY_CONFIG": "{"}, "AKTO_MODULE_DISCOVERY_CONFIG"),
    ],
)
def test_78_for_a_bad_value(arguments: list[str], environment: dict[str, str], words: str) -> None:
    done = run(*arguments, **environment)
    assert done.returncode == 78 and words in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_1_when_a_replay_is_told_to_stop_while_its_destination_is_away(recorded: Path) -> None:
    """It would wait for an hour otherwise."""
    process = subprocess.Popen(
        [*COLLECTOR, "replay", str(recorded)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "AKTO_KAFKA_BROKER_MAL": f"127.0.0.1:{free_port()}"},
    )
    wait_for(lambda: len(children(process.pid)) > 2)  # the sink is the first to start, and the last to end
    wait_for(lambda: list(children(process.pid)) == ["collector.sink.process"])
    process.send_signal(signal.SIGTERM)
    _out, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "8 records (0 marked), 0 delivered, 0 dropped, 8 failed" in err


def test_128_and_the_number_of_a_second_signal(blocked: Blocked) -> None:
    blocked.process.send_signal(signal.SIGTERM)
    wait_for(lambda: not {"collector.shards.process", "collector.loader.replay"} & blocked.children().keys())
    left = blocked.children().values()
    time.sleep(1)  # two signals at the same moment are heard in the order of their numbers
    blocked.process.send_signal(signal.SIGINT)
    assert blocked.process.wait(20) == 128 + signal.SIGINT
    wait_for(lambda: not [pid for pid in left if os.path.exists(f"/proc/{pid}")])


@pytest.mark.parametrize("redirection", ["2>&-", "<&-", "<&- 2>&-"])
def test_closed_standard_descriptors_take_nothing_from_the_records(recorded: Path, redirection: str) -> None:
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {redirection}', "sh", *COLLECTOR, "replay", str(recorded)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        timeout=60,
    )
    assert done.returncode == 0
    assert [json.loads(line)["statusCode"] for line in done.stdout.splitlines()] == ["200"] * 8


def test_closed_standard_output_is_refused_when_it_is_the_output(recorded: Path, tmp_path: Path) -> None:
    for option, code in (("-", 78), (str(tmp_path / "out"), 0)):
        done = subprocess.run(
            ["sh", "-c", 'exec "$@" >&-', "sh", *COLLECTOR, "replay", str(recorded), "--output", option],
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )
        assert done.returncode == code, done.stderr
    assert "standard output is closed" in done.stderr or len((tmp_path / "out").read_bytes().splitlines()) == 8


@pytest.mark.parametrize(("arguments", "code"), [(["config"], 0), (["replay", "/nonexistent"], 78)])
def test_nobody_reads_standard_error(arguments: list[str], code: int) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([*COLLECTOR, *arguments], stdout=subprocess.DEVNULL, stderr=write, timeout=60)
    os.close(write)
    assert done.returncode == code


def test_nobody_reads_standard_error_of_a_replay(recorded: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    with recorded.open("a") as file:
        file.write("damage\n")
    done = subprocess.run([*COLLECTOR, "replay", str(recorded)], stdout=subprocess.PIPE, stderr=write, timeout=60)
    os.close(write)
    assert done.returncode == 65 and len(done.stdout.splitlines()) == 8


def test_nobody_reads_the_table_of_settings() -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([*COLLECTOR, "config"], stdout=write, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(write)
    assert done.returncode == 1 and done.stderr == ""


def test_sighup_and_sigusr1_end_nobody(blocked: Blocked) -> None:
    for number in (signal.SIGHUP, signal.SIGUSR1):
        for pid in (blocked.process.pid, *blocked.children().values()):
            os.kill(pid, number)
        os.killpg(blocked.process.pid, number)
    wait_for(lambda: "statistics: {" in blocked.said())
    line = next(line for line in blocked.said().splitlines() if "statistics: {" in line)
    statistics = json.loads(line.partition("statistics: ")[2])
    assert statistics["records"] == 8 and statistics["sink_records"] == 8
    assert set(statistics["processes"]) == {"sink", "shard-0", "loader"}
    code, lines = blocked.finish()
    assert code == 0 and len([json.loads(line) for line in lines]) == 8


def test_sighup_opens_the_output_file_again(recorded: Path, tmp_path: Path) -> None:
    """A pipe with a name stands for a slow disk: the replay waits in the first file while it is renamed."""
    path, old = tmp_path / "out", tmp_path / "out.1"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    process = subprocess.Popen(
        [*COLLECTOR, "replay", str(recorded), "--output", str(path)], stderr=subprocess.PIPE, text=True
    )
    wait_for(lambda: read_some(reader))
    path.rename(old)
    process.send_signal(signal.SIGHUP)
    wait_for(path.exists)
    rest = b""

    def ended() -> bool:
        nonlocal rest
        rest += read_some(reader)
        return process.poll() is not None

    wait_for(ended, 30)
    os.close(reader)
    assert process.stderr is not None
    with process.stderr as stderr:
        assert process.returncode == 0, stderr.read()
    assert path.stat().st_mode & 0o777 == 0o600


def read_some(fd: int) -> bytes:
    try:
        return os.read(fd, 65536)
    except BlockingIOError:
        return b""


def test_a_full_pipe_that_does_not_block_is_waited_for(recorded: Path) -> None:
    """Whoever shares the pipe may have made it so (node, ssh, some shells): its reader only takes its time."""
    read, write = os.pipe2(os.O_NONBLOCK)
    os.set_blocking(read, True)
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
    process = subprocess.Popen(
        [*COLLECTOR, "replay", *[str(recorded)] * 3, "--output", "-"], stdout=write, stderr=subprocess.DEVNULL
    )
    os.close(write)
    data = b""
    while piece := os.read(read, 1000):
        data += piece
        time.sleep(0.001)
    os.close(read)
    assert process.wait(30) == 0 and len(data) > 100 * 4096
    assert data.endswith(b"\n") and all(json.loads(line) for line in data.splitlines())
