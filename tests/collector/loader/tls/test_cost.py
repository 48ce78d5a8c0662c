"""What a probe costs here: measured on code of our own."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import pytest

from collector.loader import kernel
from collector.loader.tls import cost


@pytest.mark.skipif(platform.machine() != "x86_64", reason="measured on x86-64 only")
def test_a_trap_is_measured_without_any_right(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(instructions: bytes, *, multi: bool) -> int:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(kernel, "load_uprobe", refused)
    found = cost.measure()
    assert found.cpuid_ns is not None and found.cpuid_ns > 5
    assert found.emulated_ns is None and "Operation not permitted" in found.why


@pytest.mark.live
@pytest.mark.skipif(platform.machine() != "x86_64", reason="measured on x86-64 only")
def test_probes_are_measured_and_nothing_stays(live: None) -> None:
    before = os.listdir("/proc/self/fd")
    found = cost.measure()
    assert found.why == ""
    assert found.emulated_ns is not None and found.stepped_ns is not None
    assert 50 < found.emulated_ns < found.stepped_ns
    assert len(os.listdir("/proc/self/fd")) == len(before)
    assert "collector-self-test" not in Path("/proc/self/maps").read_text()


def test_other_machines_are_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert cost.measure() == cost.Cost(why="measured on x86-64 only")
