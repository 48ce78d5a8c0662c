"""The thermostat: what follows from readings, and that the readings are true."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable
from typing import Any

import pytest

from collector import config
from collector.errors import ConfigError
from collector.settings import ALL_CONNECTIONS as ALL
from collector.settings import CpuSettings
from collector.supervisor.thermostat import LEAST, Meter, Reading, Thermostat
from tests.live.harness import wait_for


def course(thermostat: Thermostat, seconds: int, use: Callable[[float], tuple[float, float]], start: int = 0) -> list[int]:
    """The share after each second; ``use``: cores of the collector and of the host at a share between 0 and 1."""
    shares = []
    for second in range(start + 1, start + seconds + 1):
        thermostat.decide(float(second), Reading(*use(thermostat.share / ALL)))
        shares.append(thermostat.share)
    return shares


@pytest.mark.parametrize("need", [0.5, 1.5, 3.0, 10.0])
def test_the_collector_comes_to_use_no_more_than_its_limit_and_stays_there(need: float) -> None:
    """A need in cores for all connections; the cgroup gives no more than the limit."""
    thermostat = Thermostat(CpuSettings(limit=1.0))
    shares = course(thermostat, 120, lambda share: (min(1.0, need * share), 0.0))
    final = shares[60:]
    assert max(final) == min(final), "it settles, and does not swing"
    assert need * final[0] / ALL <= 0.9
    assert final[0] == ALL or need * final[0] / ALL >= 0.4


def test_all_connections_are_read_again_when_the_need_is_over(caplog: pytest.LogCaptureFixture) -> None:
    thermostat = Thermostat(CpuSettings(limit=1.0))
    assert course(thermostat, 60, lambda share: (min(1.0, 4 * share), 0.0))[-1] < ALL // 3
    assert course(thermostat, 60, lambda share: (0.2 * share, 0.0), 60)[-1] == ALL
    assert "% of the connections are read" in caplog.text and "all connections are read again" in caplog.text
    assert len(caplog.records) <= 4


def test_its_own_limit_never_makes_it_blind() -> None:
    thermostat = Thermostat(CpuSettings(limit=0.1))
    assert course(thermostat, 300, lambda _share: (0.1, 0.0))[-1] == LEAST > 0


def test_a_short_peak_changes_nothing() -> None:
    thermostat = Thermostat(CpuSettings(limit=1.0))
    course(thermostat, 10, lambda _share: (0.3, 0.0))
    assert course(thermostat, 1, lambda _share: (2.0, 0.0), 10) == [ALL]


def test_it_steps_back_when_the_host_is_short_of_cpu_and_returns() -> None:
    thermostat = Thermostat(CpuSettings(host_soft=3.0))
    shares = course(thermostat, 20, lambda _share: (0.2, 3.5))
    assert shares == sorted(shares, reverse=True) and shares[-1] == 0
    assert course(thermostat, 20, lambda _share: (0.0, 2.9), 20)[-1] == 0, "near the limit it waits"
    assert course(thermostat, 120, lambda _share: (0.1, 1.0), 40)[-1] == ALL


def test_the_hard_limit_of_the_host_is_confirmed() -> None:
    thermostat = Thermostat(CpuSettings(host_hard=3.0, host_hard_turns=3))
    peaks = iter([3.5, 3.5, 1.0, 3.5, 3.5, 3.5])
    assert course(thermostat, 6, lambda _share: (0.1, next(peaks))) == [ALL] * 5 + [0]


def test_limits_above_what_the_host_uses_at_the_start() -> None:
    thermostat = Thermostat(CpuSettings(host_soft_add=2.0, baseline_seconds=15.0))
    assert course(thermostat, 15, lambda _share: (0.1, 4.0))[-1] == ALL
    assert course(thermostat, 10, lambda _share: (0.1, 5.9), 15)[-1] == ALL
    assert course(thermostat, 5, lambda _share: (0.1, 6.1), 25)[-1] < ALL


def test_paused() -> None:
    thermostat = Thermostat(CpuSettings(paused=True, limit=1.0))
    assert thermostat.share == 0 and not thermostat.watches
    assert not thermostat.turn(1.0, lambda: [1]) and thermostat.share == 0


def test_without_a_limit_nothing_is_read_or_decided() -> None:
    assert not Thermostat(CpuSettings()).watches


def _burn() -> None:
    while True:
        pass


def test_the_meter_reads_what_is_used() -> None:
    """A process that computes uses a core, or what it gets of it; a process that has ended is no trouble."""
    burning = multiprocessing.get_context("spawn").Process(target=_burn, daemon=True)
    burning.start()
    gone = multiprocessing.get_context("spawn").Process(target=int, daemon=True)
    gone.start()
    gone.join()
    pids: list[Any] = [burning.pid, gone.pid]
    meter = Meter()
    try:
        assert meter.read(time.monotonic(), pids) is None
        used: list[Reading] = []

        def looks() -> bool:
            time.sleep(0.3)
            reading = meter.read(time.monotonic(), pids)
            assert reading is not None
            used.append(reading)
            return reading.own > 0.2

        wait_for(looks, 20)
        assert used[-1].own < 1.3 and used[-1].host >= used[-1].own * 0.5
    finally:
        burning.kill()
        burning.join()


def _burn_then_wait(ready: Any) -> None:
    while time.process_time() < 1.0:
        pass
    ready.set()
    time.sleep(600)


def test_what_a_process_has_used_in_its_life_is_not_used_when_it_ends() -> None:
    """Its times become those of its parent's children, and nobody has used a core for it."""
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    child = context.Process(target=_burn_then_wait, args=(ready,), daemon=True)
    child.start()
    meter = Meter()
    try:
        assert ready.wait(60)
        assert meter.read(1.0, [os.getpid(), child.pid or 0]) is None
    finally:
        child.kill()
        child.join()
    reading = meter.read(2.0, [os.getpid()])
    assert reading is not None and reading.own < 0.5


def test_settings() -> None:
    settings = CpuSettings.of(
        config.load(
            {
                "COLLECTOR_CPU_LIMIT": "0.5",
                "AKTO_SYSTEM_CPU_SOFT_ADD_CORES": "2",
                "AKTO_SYSTEM_CPU_HARD_CORES": "7.5",
                "AKTO_PAUSE_INGESTION": "true",
            }
        )
    )
    assert (settings.limit, settings.host_soft_add, settings.host_hard, settings.paused) == (0.5, 2.0, 7.5, True)
    with pytest.raises(ConfigError, match=r"COLLECTOR_CPU_LIMIT"):
        config.load({"COLLECTOR_CPU_LIMIT": "500m"})
