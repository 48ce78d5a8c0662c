"""Which processes are meant."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.loader.choice import Choice, in_container
from collector.loader.mapped import Proc

ID = "0123456789abcdef" * 4
POD = "pod12345678_1234_1234_1234_123456789abc"


@pytest.mark.parametrize(
    ("path", "container"),
    [
        (f"0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-{POD}.slice/cri-containerd-{ID}.scope", True),
        (f"0::/kubepods.slice/kubepods-{POD}.slice/crio-{ID}.scope/container", True),
        (f"0::/kubepods/besteffort/{POD}/{ID}", True),
        (f"0::/system.slice/containerd.service/kubepods-{POD}.slice:cri-containerd:{ID}", True),
        (f"0::/../../kubepods-{POD}.slice/cri-containerd-{ID}.scope", True),
        (f"0::/../{ID}", True),
        (f"12:pids:/docker/{ID}\n11:cpu:/docker/{ID}\n0::/", True),
        (f"0::/kubepods.slice/kubepods-{POD}.slice/crio-conmon-{ID}.scope", False),
        ("0::/system.slice/nginx.service", False),
        ("0::/user.slice/user-1000.slice/session-2.scope", False),
        (f"0::/a{ID}", False),
        ("0::/", False),
        ("", False),
    ],
)
def test_containers_by_their_ids(path: str, container: bool) -> None:
    assert in_container(path.encode()) == container


@given(st.binary())
def test_any_text_is_judged(data: bytes) -> None:
    in_container(data)


def test_names_are_those_of_the_process_or_of_its_file(tmp_path: Path) -> None:
    program = tmp_path / "A-Program-With-A-Long-Name"
    program.write_bytes(Path("/bin/sleep").read_bytes())
    program.chmod(0o755)
    with subprocess.Popen([program, "60"]) as process:
        try:
            for names, meant in (
                (["a-program-with-a-long-name"], True),
                (["A-PROGRAM-WITH-a-long-name", "other"], True),
                (["sleep"], False),
                (["a-program-with-x"], False),
                (["a-program-with-"], True),
            ):
                assert Choice.of(names, containers=True).takes(Proc(), process.pid) == meant, names
        finally:
            process.kill()


def test_names_come_before_containers(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Choice.of([], containers=False).everybody and not Choice.of([], containers=True).everybody
    proc = Proc()
    monkeypatch.setattr(proc, "cgroups", lambda _pid: f"0::/../{ID}\n".encode())
    assert Choice.of([], containers=True).takes(proc, os.getpid())
    monkeypatch.setattr(proc, "cgroups", lambda _pid: b"0::/\n")
    assert not Choice.of([], containers=True).takes(proc, os.getpid())
    assert Choice.of([Path(sys.executable).resolve().name], containers=True).takes(proc, os.getpid())


def test_nobody_who_is_gone_is_meant() -> None:
    assert not Choice.of(["python3"], containers=False).takes(Proc(), 1 << 22)
    assert not Choice.of([], containers=True).takes(Proc(), 1 << 22)
