"""Fixtures for all tests, and the rule about live tests: where they cannot run they are skipped with the reason, and
with COLLECTOR_REQUIRE_LIVE (CI) such a skip is a failure."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import hypothesis
import pytest

# No test is about how long it takes: a machine may be busy, a build may have sanitizers.
hypothesis.settings.register_profile("collector", deadline=None)
hypothesis.settings.load_profile("collector")

ROOT = Path(__file__).resolve().parents[1]
REQUIRE = bool(os.environ.get("COLLECTOR_REQUIRE_LIVE"))
# Every collector under test finds the kernel programs that one before it has compiled, in this session or another.
os.environ.setdefault("COLLECTOR_PROGRAM_CACHE", str(ROOT / "build" / "programs"))

# They need a cluster, which scripts/test-kubernetes brings up.
collect_ignore = [] if os.environ.get("K8S_LAB") else ["kubernetes"]


def skip_or_fail(reason: str) -> None:
    """Skip this test, unless everything must run."""
    if REQUIRE:
        pytest.fail(reason)
    pytest.skip(reason)


def _live_problem() -> str:
    if os.geteuid() != 0:
        return "needs root"
    from collector.loader import kernel

    if kernel.find_tracefs() is None:
        return "needs tracefs"
    for program in ("curl", "nginx", "node"):
        if shutil.which(program) is None and not (program == "nginx" and os.path.exists("/usr/sbin/nginx")):
            return f"needs {program}"
    return ""


@pytest.fixture(scope="session")
def live() -> None:
    """This host can be captured."""
    problem = _live_problem()
    if problem:
        skip_or_fail(problem)


@pytest.fixture(scope="session")
def corpora() -> Path:
    """The folder of test data, named by COLLECTOR_CORPORA."""
    path = Path(os.environ.get("COLLECTOR_CORPORA", ROOT.parent / "shared" / "corpora"))
    if not path.is_dir():
        skip_or_fail("COLLECTOR_CORPORA does not name the folder of test data")
    return path


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings of the shell never leak into a test."""
    for name in list(os.environ):
        if name.startswith(("AKTO_", "TRAFFIC_", "COLLECTOR_")) and name not in (
            "COLLECTOR_CORPORA",
            "COLLECTOR_REQUIRE_LIVE",
            "COLLECTOR_DEBUG",
            "COLLECTOR_PROGRAM_CACHE",
            "COLLECTOR_SECCOMP",
        ):
            monkeypatch.delenv(name)
