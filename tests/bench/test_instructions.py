"""The cost of the shard's path, in instructions: they repeat exactly for the same build, whatever else the machine does.

INSTRUCTIONS holds what was last agreed on (gcc 12, x86-64); a change that costs more than a twentieth more must say so
here, and one that saves as much should too. The kernel programs have the same guard in tests/bpf/test_programs.py.
"""

from __future__ import annotations

import platform
import shutil

import pytest

from tests.bench import core
from tests.conftest import skip_or_fail

# body bytes, gzip response, further open connections, HTTP/2, policy -> instructions per exchange
INSTRUCTIONS = {
    (200, False, 0, False, "off"): 15_470,
    (1024, False, 0, False, "off"): 22_020,
    (200, False, 30_000, False, "off"): 15_450,
    (1024, False, 0, True, "off"): 36_680,
    (1024, False, 0, False, "secrets"): 43_470,
}
TOLERANCE = 0.05


@pytest.fixture(scope="module")
def counted() -> dict[tuple[int, bool, int, bool, str], float]:
    if shutil.which("valgrind") is None or platform.machine() != "x86_64":
        skip_or_fail("needs valgrind on x86-64")
    return {case: core.instructions(*case) for case in INSTRUCTIONS}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_instructions_of_the_shards_path(counted: dict[tuple[int, bool, int, bool, str], float]) -> None:
    for case, agreed in INSTRUCTIONS.items():
        assert counted[case] <= agreed * (1 + TOLERANCE), (case, counted[case])
        assert counted[case] >= agreed * (1 - TOLERANCE), ("cheaper now: say so in INSTRUCTIONS", case, counted[case])


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_cost_does_not_depend_on_the_number_of_open_connections(
    counted: dict[tuple[int, bool, int, bool, str], float],
) -> None:
    few, many = counted[200, False, 0, False, "off"], counted[200, False, 30_000, False, "off"]
    assert abs(many - few) <= few * TOLERANCE
