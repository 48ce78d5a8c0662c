"""Owners: what /proc says of a process, whatever its name is, and never of another process with its number."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector import abi
from collector.attribution.owners import Owner, ProcessProvider, Provider, parse_stat

TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
REST = b"S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 %d 1000 1 18446744073709551615\n"


def named(name: bytes) -> subprocess.Popen[bytes]:
    """A process that has given itself this name."""
    code = (
        f"import ctypes, sys; ctypes.CDLL(None).prctl(15, {name!r}, 0, 0, 0); "
        "sys.stdout.write('x'); sys.stdout.flush(); sys.stdin.read()"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.read(1) == b"x"
    return process


@pytest.mark.parametrize("name", [b"nginx", b"a b) S 1 (c", b"caf\xc3\xa9\xff", b"", b"(", b")", b"exactly15bytes!"])
def test_a_process_owns_itself(name: bytes) -> None:
    with named(name) as process:
        provider: Provider = ProcessProvider()
        owner = provider.owner(process.pid)
        assert owner is not None
        assert (owner.tgid, owner.name, owner.selected, owner.fields) == (process.pid, name, True, b"")
        assert 0 < owner.start_ns <= time.clock_gettime_ns(time.CLOCK_BOOTTIME) and owner.start_ns % TICK == 0
        assert provider.owner(process.pid, owner.start_ns) == provider.owner(process.pid, owner.start_ns + 1) == owner
        assert provider.owner(process.pid, owner.start_ns - TICK) is None  # somebody else had this number
        assert provider.owner(process.pid, owner.start_ns + TICK) is None
        process.kill()
    assert provider.owner(process.pid) is None


def test_no_process() -> None:
    assert ProcessProvider().owner(2**22 + 1) is None and ProcessProvider("/nonexistent").owner(1) is None


def test_the_event_names_the_process_in_its_ring() -> None:
    [event] = abi.walk(Owner(7, 123 * TICK, True, b"nginx").event(ts_ns=5, ring=3))
    assert (event["type"], event["conn"][1], event["comm"], event["ts_ns"], event["ring"]) == (
        abi.PROCESS,
        7,
        b"nginx",
        5,
        3,
    )


@given(name=st.binary(max_size=15), ticks=st.integers(0, 2**50))
def test_any_name_is_read(name: bytes, ticks: int) -> None:
    assert parse_stat(b"7 (" + name + b") " + REST % ticks) == (name, ticks * TICK)


@given(st.one_of(st.binary(max_size=300), st.integers(0, 90).map(lambda n: (b"7 (x) " + REST % 5)[:n])))
def test_any_bytes_are_read_or_are_none(text: bytes) -> None:
    found = parse_stat(text)
    assert found is None or len(found[0]) <= 15 and found[1] >= 0


def test_of_every_process_here(tmp_path: Path) -> None:
    provider = ProcessProvider()
    known = [provider.owner(int(entry.name)) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    assert any(owner is not None and owner.tgid == os.getpid() for owner in known)
