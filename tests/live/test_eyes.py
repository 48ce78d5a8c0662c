"""`collector tail` and `collector top`, beside a collector that delivers: what they show; delivery does not notice."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from collector.viewing import MOST_VIEWERS
from tests.conftest import skip_or_fail
from tests.live.harness import Collector, Nginx, wait_for

pytestmark = [pytest.mark.live, pytest.mark.timeout(180)]

LOCATIONS = """
location /users/ { return 200 '{"user":"u","token":"0123456789"}'; }
location /missing { return 404; }
location /broken { return 503; }
location /steer { return 200 "\x1b[2J\x07gone"; }
"""


@pytest.fixture(scope="module")
def nginx(live: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    made = Nginx(tmp_path_factory.mktemp("nginx"), LOCATIONS)
    yield made
    made.close()


@pytest.fixture(scope="module")
def collector(nginx: Nginx, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    made = Collector(tmp_path_factory.mktemp("collector"), "--port", str(nginx.port))
    yield made
    assert made.stop() == 0


def environment(collector: Collector, **more: str) -> dict[str, str]:
    return {**os.environ, "COLLECTOR_RUNTIME_DIR": str(collector.directory / "run"), **more}


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "collector", *arguments]


class Viewer:
    """`collector tail` or `top` with its output in a pipe, connected. ``alive``: all that have not ended."""

    alive: ClassVar[list[Viewer]] = []

    def __init__(self, collector: Collector, *arguments: str) -> None:
        wait_for(lambda: looks(collector) == len(self.alive))  # those that have ended are no longer counted
        self.process = subprocess.Popen(
            command(*arguments),
            env=environment(collector),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
        )
        self.alive.append(self)
        wait_for(lambda: looks(collector) == len(self.alive) or self.process.poll() is not None)

    def end(self, number: int = 0) -> tuple[bytes, str, int]:
        """(output, what it said, exit code)."""
        if number:
            self.process.send_signal(number)
        out, said = self.process.communicate(timeout=30)
        self.alive.remove(self)
        return out, said.decode(), self.process.returncode


def ask(nginx: Nginx, *paths: str, host: str = "shop.example") -> None:
    for path in paths:
        subprocess.run(
            ["curl", "-s", "-o", "/dev/null", "-H", f"Host: {host}", f"http://127.0.0.1:{nginx.port}{path}"],
            check=True,
            timeout=20,
        )


def load(nginx: Nginx, requests: int, name: str) -> None:
    """So many requests over ten connections, as fast as they go."""
    subprocess.run(
        ["h2load", "--h1", "-n", str(requests), "-c", "10", "-t", "1", f"http://127.0.0.1:{nginx.port}/users/{name}"],
        check=True,
        capture_output=True,
        timeout=120,
    )


def looks(collector: Collector) -> float:
    """How many look; -1 while the supervisor and the two shards do not agree on it."""
    count = collector.metric("collector_viewers")
    return count if collector.metric("collector_viewer_connections") == 2 * count else -1


def nobody_looks(collector: Collector) -> bool:
    return looks(collector) == 0


def test_whole_records_are_those_that_are_delivered(collector: Collector, nginx: Nginx) -> None:
    name = uuid.uuid4().hex
    viewer = Viewer(collector, "tail", "--json", "--path", f"/users/{name}*", "--count", "4")
    ask(nginx, f"/users/{name}?n=1", "/users/other", f"/users/{name}?n=2")
    out, said, code = viewer.end()
    assert code == 0 and said == ""
    lines = out.splitlines()
    assert len(lines) == 4  # two exchanges, each seen on both sides
    collector.wait_records(name, 4)
    assert sorted(lines) == sorted(line for line in collector.output.read_bytes().splitlines() if name.encode() in line)


def test_lines_and_filters(collector: Collector, nginx: Nginx) -> None:
    viewer = Viewer(collector, "tail", "--status", "5xx,404", "--direction", "inbound", "--process", "ng*", "--count", "2")
    ask(nginx, "/users/1", "/missing?x=1", "/users/2", "/broken")
    out, _said, code = viewer.end()
    first, second = sorted(out.decode().splitlines(), key=lambda line: "/broken" in line)  # two shards may show them
    line = r"\d\d:\d\d:\d\d\.\d{3} in  nginx/\d+ GET shop\.example%s %d [0-9.]+ms 0/\S+"
    assert code == 0
    assert re.fullmatch(line % (r"/missing\?x=1", 404), first), first
    assert re.fullmatch(line % ("/broken", 503), second), second


def test_bodies_do_not_steer_the_terminal(collector: Collector, nginx: Nginx) -> None:
    viewer = Viewer(collector, "tail", "--bodies", "--path", "/steer", "--host", "SHOP.*", "--count", "1")
    ask(nginx, "/steer")
    out, _said, code = viewer.end()
    assert code == 0 and b"\x1b" not in out and b"\x07" not in out
    assert out.decode().splitlines()[1] == r"    < \x1b[2J\x07gone"


def test_it_ends_with_its_reader_and_with_ctrl_c(collector: Collector, nginx: Nginx) -> None:
    wait_for(lambda: nobody_looks(collector))
    piped = subprocess.Popen(
        ["bash", "-c", f"{shlex.join(command('tail'))} | head -1; exit ${{PIPESTATUS[0]}}"],
        env=environment(collector),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    wait_for(lambda: looks(collector) == 1)
    ask(nginx, "/users/1")
    out, said = piped.communicate(timeout=30)
    assert piped.returncode == 0 and out.count(b"\n") == 1 and said == b""
    wait_for(lambda: nobody_looks(collector))
    viewer = Viewer(collector, "tail")
    assert viewer.end(signal.SIGINT) == (b"", "", 0)
    wait_for(lambda: nobody_looks(collector))


def test_a_viewer_that_is_stopped_loses_lines_and_nothing_else_is_lost(collector: Collector, nginx: Nginx) -> None:
    name, requests = uuid.uuid4().hex, 20_000
    before = collector.metric("collector_viewer_lost_records_total")
    viewer = Viewer(collector, "tail", "--json", "--path", f"*{name}")
    viewer.process.send_signal(signal.SIGSTOP)
    load(nginx, requests, name)
    wait_for(lambda: collector.output.read_bytes().count(name.encode()) >= 2 * requests, 60)
    lost = collector.metric("collector_viewer_lost_records_total") - before
    assert lost > 0
    viewer.process.send_signal(signal.SIGCONT)
    shown = 0
    assert viewer.process.stdout is not None
    while shown < 2 * requests - lost:
        line = viewer.process.stdout.readline()
        assert name.encode() in line
        shown += 1
    time.sleep(0.5)
    out, said, code = viewer.end(signal.SIGINT)
    assert (out, code) == (b"", 0)
    assert said == f"collector: {lost:.0f} records were not shown: this reader was too slow; they were delivered\n"
    assert collector.output.read_bytes().count(name.encode()) == 2 * requests


def test_delivery_is_the_same_with_viewers(collector: Collector, nginx: Nginx) -> None:
    name, requests = uuid.uuid4().hex, 10_000
    viewers = [Viewer(collector, "tail", "--status", "5xx"), Viewer(collector, "top", "--batch")]
    load(nginx, requests, name)
    wait_for(lambda: collector.output.read_bytes().count(name.encode()) >= 2 * requests, 60)
    output, figures = viewers[1].process.stdout, b""
    assert output is not None
    while b"/users/{id}" not in figures:  # they come once a second
        figures += output.readline()
    _figures, _said, code = viewers[1].end(signal.SIGINT)
    assert code == 0 and viewers[0].end(signal.SIGINT) == (b"", "", 0)
    assert collector.output.read_bytes().count(name.encode()) == 2 * requests
    assert collector.metric("collector_sink_dropped_records_total") == 0


def test_a_viewer_that_is_killed_leaves_nothing_switched_on(collector: Collector, nginx: Nginx) -> None:
    wait_for(lambda: nobody_looks(collector))
    records = collector.metric("collector_viewer_records_total")
    viewers = [Viewer(collector, "tail"), Viewer(collector, "top", "-b")]
    for viewer in viewers:
        viewer.end(signal.SIGKILL)
    wait_for(lambda: nobody_looks(collector))
    time.sleep(0.5)  # more than the fifth of a second in which a shard finds out by itself
    ask(nginx, "/users/1")
    assert collector.metric("collector_viewer_records_total") == records


def test_eight_may_look(collector: Collector) -> None:
    wait_for(lambda: nobody_looks(collector))
    viewers = [Viewer(collector, "tail") for _ in range(MOST_VIEWERS)]
    out, said, code = Viewer(collector, "tail").end()
    assert (out, said, code) == (b"", "collector: the collector refuses: 8 viewers are there already\n", 1)
    assert {viewer.end(signal.SIGINT) for viewer in viewers} == {(b"", "", 0)}


def test_a_shard_that_was_started_again_is_looked_at_again(collector: Collector, nginx: Nginx) -> None:
    viewer = Viewer(collector, "tail", "--path", "/users/again", "--direction", "inbound")
    for pid in collector.children():
        if "collector.shards.process" in Path(f"/proc/{pid}/cmdline").read_text():
            os.kill(pid, signal.SIGKILL)
    wait_for(lambda: collector.metric("collector_restarts_total") >= 2)
    wait_for(lambda: collector.page("readyz") == "ok\n", 30)
    ask(nginx, *["/users/again"] * 20)
    wait_for(lambda: collector.metric("collector_viewer_records_total") > 0)
    collector.wait_records("/users/again", 40)
    out, _said, code = viewer.end(signal.SIGINT)
    assert code == 0 and out.count(b"/users/again") == 20


class Tmux:
    """A terminal of 80 columns and 24 lines, by a server of its own."""

    def __init__(self, collector: Collector, *arguments: str, columns: int = 80, lines: int = 24, **more: str) -> None:
        self.name = f"eyes-{uuid.uuid4().hex[:8]}"
        settings = [f"{name}={value}" for name, value in environment_of(collector, more).items()]
        shell = shlex.join(["env", *settings, *command(*arguments)])
        self.run(
            "-f", "/dev/null", "new-session", "-d", "-x", str(columns), "-y", str(lines), f"{shell}; echo ended $?; cat"
        )

    def run(self, *arguments: str) -> str:
        done = subprocess.run(["tmux", "-L", self.name, *arguments], capture_output=True, text=True, check=True, timeout=20)
        return done.stdout

    def screen(self) -> list[str]:
        return self.run("capture-pane", "-p").split("\n")[:-1]

    def colours(self) -> str:
        return self.run("capture-pane", "-p", "-e")

    def press(self, *keys: str) -> None:
        self.run("send-keys", *keys)

    def wait(self, text: str, seconds: float = 60) -> list[str]:
        wait_for(lambda: any(text in line for line in self.screen()), seconds, quiet=True)
        found = self.screen()
        assert any(text in line for line in found), found
        return found

    def close(self) -> None:
        self.run("kill-server")


def environment_of(collector: Collector, more: dict[str, str]) -> dict[str, str]:
    return {"COLLECTOR_RUNTIME_DIR": str(collector.directory / "run"), "LANG": "C.UTF-8", **more}


@pytest.fixture
def busy(nginx: Nginx) -> Iterator[None]:
    """Requests without end, some of them answered with errors."""
    script = nginx.root / "mixed.lua"
    script.write_text("""
local number = 0
request = function()
  number = number + 1
  if number % 100 == 0 then return wrk.format("GET", "/broken") end
  if number % 10 == 0 then return wrk.format("GET", "/missing?" .. number) end
  return wrk.format("GET", "/users/" .. number)
end
""")
    process = subprocess.Popen(
        ["wrk", "-t1", "-c4", "-d120", "-s", str(script), "-H", "Host: shop.example", f"http://127.0.0.1:{nginx.port}"],
        stdout=subprocess.DEVNULL,
    )
    yield
    process.kill()
    process.wait()


@pytest.fixture
def tmux(collector: Collector, request: pytest.FixtureRequest) -> Iterator[Tmux]:
    if shutil.which("tmux") is None:
        skip_or_fail("needs tmux: scripts/setup --test")
    made = Tmux(
        collector,
        *getattr(request, "param", {}).get("arguments", ("top", "-d", "1")),
        **{name: value for name, value in getattr(request, "param", {}).items() if name != "arguments"},
    )
    yield made
    made.close()


def test_the_screen(busy: None, tmux: Tmux) -> None:
    screen = tmux.wait("GET shop.example/users/{id}")
    assert len(screen) == 24 and all(len(line) <= 80 for line in screen)
    assert screen[0].startswith("collector ") and "by endpoint, most requests first" in screen[0]
    assert re.match(r"requests  [0-9.]+/s, 4xx [0-9.]+%, errors [0-9.]+%, p50 \S+, p95 \S+, p99 \S+", screen[1])
    assert screen[2].startswith("records   ") and screen[3].startswith("lost      events ")
    text = "\n".join(screen)
    for process in ("supervisor", "loader", "shard-0", "shard-1", "sink", "health"):
        assert re.search(rf"{process} \d+% \d+(\.\d)?M", text), text
    assert screen[-1].startswith("q quit")
    (row,) = [line for line in screen if line.endswith("GET shop.example/users/{id}")]
    assert float(row.split()[0]) > 0 and row.split()[1:3] == ["0", "0"]
    (row,) = [line for line in screen if line.endswith("GET shop.example/missing")]
    assert row.split()[1:3] == ["100", "0"]
    (row,) = [line for line in screen if line.endswith("GET shop.example/broken")]
    assert row.split()[1:3] == ["0", "100"]
    tmux.press("g")
    tmux.wait("by host")
    tmux.press("g")
    screen = tmux.wait("by process")
    names = {" ".join(line.split()[7:]) for line in screen if re.match(r" *\d", line)}
    assert {"nginx in", "wrk out"} <= names, names
    tmux.press("s")
    tmux.wait("most errors first")
    tmux.press("/", "w", "r", "k", "Enter")
    screen = tmux.wait("with 'wrk'")
    assert not any(line.endswith("nginx in") for line in screen)
    tmux.press("Space")
    stopped = tmux.wait("PAUSED")
    time.sleep(2.5)
    assert tmux.screen() == stopped
    tmux.press("Space", "Escape")
    tmux.wait("nginx in")
    tmux.press("q")
    tmux.wait("ended 0")


def test_the_screen_follows_the_size_of_the_terminal(busy: None, tmux: Tmux) -> None:
    tmux.wait("GET shop.example/users/{id}")
    tmux.run("resize-window", "-x", "60", "-y", "12")
    tmux.wait("GET shop.exam~")
    screen = tmux.screen()
    assert len(screen) == 12 and screen[0].startswith("collector ") and screen[-1].startswith("q quit")
    tmux.run("resize-window", "-x", "140", "-y", "40")
    tmux.wait("queue")
    wait_for(lambda: len(tmux.screen()) == 40 and tmux.screen()[-1].startswith("q quit"))
    tmux.press("q")
    tmux.wait("ended 0")


@pytest.mark.parametrize("tmux", [{"TERM": "vt100"}, {"NO_COLOR": "1"}], indirect=True, ids=["vt100", "NO_COLOR"])
def test_without_colours(busy: None, tmux: Tmux) -> None:
    tmux.wait("GET shop.example/broken")
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", tmux.colours())
    tmux.press("q")
    tmux.wait("ended 0")


@pytest.mark.parametrize("tmux", [{"TERM": "dumb"}], indirect=True)
def test_a_terminal_that_can_do_nothing_gets_one_screen_after_the_other(busy: None, tmux: Tmux) -> None:
    tmux.wait("GET shop.example/broken")
    tmux.press("q")
    tmux.wait("ended 0")


@pytest.mark.parametrize("tmux", [{"arguments": ("tail", "--status", "404")}], indirect=True)
def test_tail_on_a_terminal(busy: None, tmux: Tmux) -> None:
    screen = tmux.wait("GET shop.example/missing?")
    assert all("/missing?" in line for line in screen[2:10] if " GET " in line)
    tmux.press("C-c")
    tmux.wait("ended 0")


def test_once_is_plain_text(busy: None, collector: Collector) -> None:
    done = subprocess.run(
        command("top", "--once", "--by", "process"), env=environment(collector), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0 and done.stderr == "" and "\x1b" not in done.stdout
    assert "nginx in" in done.stdout and "q quit" not in done.stdout


def test_a_collector_that_ends_ends_its_viewers(collector: Collector) -> None:
    viewer = Viewer(collector, "tail")
    assert collector.stop() == 0
    assert viewer.end() == (b"", "collector: the collector has ended\n", 3)
    done = subprocess.run(command("tail"), env=environment(collector), capture_output=True, text=True, timeout=60)
    assert done.returncode == 3 and "no collector answers" in done.stderr
