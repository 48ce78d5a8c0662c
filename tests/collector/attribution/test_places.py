"""The number of a process's control group, as kernels from 6.13 on say it."""

from __future__ import annotations

import os
import subprocess

from collector.attribution.places import kernel_says
from tests.conftest import skip_or_fail
from tests.live import cgroup


def test_a_process_in_a_group_of_its_own() -> None:
    if cgroup.tree() is None or os.geteuid() != 0:
        skip_or_fail("no groups of version 2 can be made")
    with cgroup.group("collector-places") as directory:
        process = cgroup.start(directory, ["sleep", "60"])
        try:
            while not (directory / "cgroup.procs").read_text():
                assert process.poll() is None
            assert kernel_says(process.pid) in (None, directory.stat().st_ino)
            assert kernel_says(os.getpid()) != directory.stat().st_ino
        finally:
            process.kill()
            process.wait()


def test_a_process_that_has_ended() -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    assert kernel_says(process.pid) is None
