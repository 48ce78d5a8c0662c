"""Which connections count as not seen, from what the kernel's table says at each look."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from collector import control
from collector.loader import blindspots, compiler, entries, kernel
from collector.loader.blindspots import LOOK_SECONDS, SOON_SECONDS, Blindspots
from collector.loader.mapped import Mapping
from collector.loader.tls import processes

NUMBERS = [name for name, at in compiler.UNSEEN.items() if at < compiler.UNSEEN["comm"]]


class Table:
    """The kernel's table: a row a process; the loader deletes those of processes that are gone."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rows: dict[int, dict[str, Any]] = {}
        monkeypatch.setattr(entries, "unseen", lambda _table: [dict(row) for row in self.rows.values()])
        monkeypatch.setattr(kernel, "map_delete", lambda _table, key: self.rows.pop(int.from_bytes(key, sys.byteorder)))

    def count(self, pid: int, **numbers: int) -> None:
        row = self.rows.setdefault(
            pid,
            {"pid": pid, "name": "thread"} | dict.fromkeys(NUMBERS, 0),
        )
        for name, number in numbers.items():
            row[name] += number


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Table:
    return Table(monkeypatch)


@pytest.fixture
def process() -> Iterator[subprocess.Popen[str]]:
    code = "import ssl, sys; print('ready', flush=True); sys.stdin.read()"
    running = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert running.stdout is not None and running.stdout.readline()
    yield running
    running.communicate("")


class Watch:
    """A Blindspots with a clock of its own. ``rows``: what it said of each process last."""

    def __init__(self, probed: set[str] | None = None, *, proc: bool = True) -> None:
        self.probed = probed or set()
        self.spots = Blindspots(-1, lambda: self.probed, None, proc=proc)
        self.now = 100.0
        self.left_out = 0
        self.rows: dict[int, dict[str, Any]] = {}
        self.messages: list[dict[str, Any]] = []

    def turn(self, seconds: float = LOOK_SECONDS, *, new: bool = False) -> list[dict[str, Any]]:
        """A look after so many seconds, and all that follows; the rows that were told."""
        self.now += seconds
        self.left_out += new
        told: list[dict[str, Any]] = []
        deadline = time.monotonic() + 20
        while True:
            for message in self.spots.turn(self.now, self.left_out):
                self.messages.append(message)
                if message["kind"] == "unsupported":
                    told += message["rows"]
            if not self.spots.busy():
                break
            assert time.monotonic() < deadline
            time.sleep(0.005)
        self.rows.update({row["pid"]: row for row in told if not row.get("gone")})
        return told


def test_what_is_not_bound_a_look_later_is_not_seen(table: Table, process: subprocess.Popen[str]) -> None:
    watch = Watch()
    table.count(process.pid, tls=5, tls_bound=2)
    assert watch.turn() == []  # they may be in their handshake
    table.count(process.pid, tls=4, tls_bound=1)
    (row,) = watch.turn()
    assert (row["tls"], row["library"], row["probed"]) == (2, "openssl", False)
    assert row["process"] == Path(f"/proc/{process.pid}/comm").read_text().strip()  # not that of a thread
    table.count(process.pid, tls_bound=6)  # all of them now: a bit late, but what was told stays
    assert watch.turn() == [] and watch.rows[process.pid]["tls"] == 2
    watch.spots.close()


def test_a_process_that_ends_is_told_whole_and_its_row_is_deleted(table: Table, process: subprocess.Popen[str]) -> None:
    watch = Watch()
    table.count(process.pid, tls=5)
    assert watch.turn() == []
    table.count(process.pid, tls=2)
    process.communicate("")
    row, gone = watch.turn()
    assert (row["tls"], row["library"], gone) == (7, "openssl", {"pid": process.pid, "gone": True})
    assert table.rows == {}
    assert watch.turn() == []


def test_a_process_that_nobody_could_look_at_has_no_library(table: Table) -> None:
    done = subprocess.Popen(["true"])
    done.wait()
    watch = Watch()
    table.count(done.pid, tls=3)
    row, gone = watch.turn()
    assert (row["tls"], row["library"], row["process"]) == (3, "unknown", "thread") and gone["gone"]


def test_a_row_that_says_more_stays(table: Table) -> None:
    done = subprocess.Popen(["true"])
    done.wait()
    watch = Watch()
    table.count(done.pid, tls=3, compat=1)
    assert len(watch.turn()) == 2 and done.pid in table.rows
    assert watch.turn() == []
    assert [message["kind"] for message in watch.messages] == ["unseen", "unsupported"]
    numbers = {"rings": 0, "operations": 0, "compat": 1, "quic": 0}
    assert watch.messages[0]["rows"] == [{"pid": done.pid, "name": "thread", **numbers}]


def test_connections_of_quic_are_told_at_once_by_role(table: Table, process: subprocess.Popen[str]) -> None:
    watch = Watch()
    table.count(process.pid, quic_client=5, quic_server=2)
    name = Path(f"/proc/{process.pid}/comm").read_text().strip()
    assert watch.turn() == [{"pid": process.pid, "process": name, "quic": (5, 2)}]
    assert watch.messages[0]["kind"] == "unseen" and watch.messages[0]["rows"][0]["quic"] == 7
    assert watch.turn() == []
    assert watch.spots._known[process.pid].files == []  # nobody asks for its libraries
    table.count(process.pid, quic_client=1)
    assert [row["quic"] for row in watch.turn(SOON_SECONDS, new=True)] == [(6, 2)]
    process.communicate("")
    table.count(process.pid, quic_server=1)
    told = watch.turn()
    assert [row["quic"] for row in told[:1]] == [(6, 3)] and told[1:] == [{"pid": process.pid, "gone": True}]
    assert table.rows == {}


def test_a_process_with_tls_and_quic(table: Table, process: subprocess.Popen[str]) -> None:
    watch = Watch()
    table.count(process.pid, tls=3, quic_client=1)
    assert [row["quic"] for row in watch.turn()] == [(1, 0)]
    (row,) = watch.turn()
    assert (row["tls"], row["library"]) == (3, "openssl")
    del table.rows[process.pid]
    table.count(process.pid, tls=3)  # another one has its number
    assert watch.turn() == [{"pid": process.pid, "gone": True}]


def test_numbers_that_fall_are_those_of_another_process(table: Table, process: subprocess.Popen[str]) -> None:
    watch = Watch()
    table.count(process.pid, tls=5)
    assert watch.turn() == [] and [row["tls"] for row in watch.turn()] == [5]
    del table.rows[process.pid]
    table.count(process.pid, tls=2)
    assert watch.turn() == [{"pid": process.pid, "gone": True}]
    assert [row["tls"] for row in watch.turn()] == [2]


def test_a_process_with_a_probed_library_says_so(table: Table, process: subprocess.Popen[str]) -> None:
    lines = Path(f"/proc/{process.pid}/maps").read_text().splitlines()
    path = next(line.split() for line in lines if "/libssl.so" in line)
    watch = Watch({f"{path[3]}:{path[4]}"})
    table.count(process.pid, tls=3)
    watch.turn()
    (row,) = watch.turn()
    assert (row["probed"], row["tls"]) == (True, 3)


def test_new_connections_are_looked_at_soon_but_not_settled(table: Table, process: subprocess.Popen[str]) -> None:
    watch = Watch()
    watch.turn()
    table.count(process.pid, tls=1)
    assert watch.turn(SOON_SECONDS / 2, new=True) == []
    assert watch.turn(SOON_SECONDS / 2) == [] and watch.spots._known
    assert watch.turn(SOON_SECONDS) == []


def test_without_the_nodes_process_ids_only_names_are_known(table: Table) -> None:
    watch = Watch(proc=False)
    table.count(os.getpid(), tls=1)
    watch.turn()
    (row,) = watch.turn()
    assert (row["library"], row["process"]) == ("unknown", "thread")
    assert table.rows


def test_a_message_is_never_too_long(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [processes.File((Mapping("1-2", "1", 1, "/", 0),), "/" + "\udcff" * 255, True)]
    monkeypatch.setattr(processes, "files_of", lambda _pid, _proc: files)
    monkeypatch.setattr(Blindspots, "_name", lambda _self, _pid: "\ufffd" * 15)
    watch = Watch()
    for pid in range(1, 1000):
        table.count(pid, tls=2**63, quic_client=2**63, quic_server=2**63 - 1, compat=2**63)
    watch.turn()
    watch.turn()
    for message in watch.messages:
        assert len(json.dumps(message)) < control.LIMIT
    assert len(watch.rows) > 100


def test_many_processes_come_in_several_messages(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blindspots, "ROWS", 3)
    watch = Watch(proc=False)
    for pid in range(1, 9):
        table.count(pid, tls=1)
    told = watch.turn() + watch.turn() + watch.turn() + watch.turn()
    assert sorted(row["pid"] for row in told) == list(range(1, 9))
    assert all(len(message["rows"]) <= 3 for message in watch.messages)
