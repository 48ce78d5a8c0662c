"""Reading strangers' files by children of the fork server: what a child may do, and that nobody waits for it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from collector.loader import locate
from collector.loader.forkserver import Job, Server
from collector.loader.probes import SOURCES
from collector.loader.probes.probe import SOCKET, TPX, Build, Found, Source, Unsupported, Uprobe
from tests.conftest import skip_or_fail
from tests.demo import build
from tests.demo.source import PLACES, SOURCE
from tests.live.confined import Cgroup
from tests.live.harness import wait_for

NOBODY = 65534
LIBRARIES = [source.name for source in SOURCES if type(source).locate is not Source.locate]
PROGRAMS = {
    source.name: [probe.program for probe in source.probes(Build(TPX, SOCKET)) if isinstance(probe.at, Uprobe)]
    for source in SOURCES
}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    if os.geteuid():
        skip_or_fail("needs root, for children to become somebody else")
    found = Server(["tests.demo.source", "tests.demo.hostile"], NOBODY)
    yield found
    found.close()


@pytest.fixture(scope="module")
def elf(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return build.library("demo", tmp_path_factory.mktemp("elf")).read_bytes()


def children(server: Server) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()]


def ended(job: Job) -> list[bytes]:
    lines: list[list[bytes]] = []

    def polled() -> bool:
        found = job.poll()
        if found is not None:
            lines.append(found)
        return found is not None

    wait_for(polled, 60)
    return lines[0]


def read(server: Server, data: bytes, sources: list[str]) -> tuple[dict[str, Found | Unsupported | None], Job]:
    file = os.memfd_create("file")
    os.write(file, data)
    try:
        job = server.read(file, sources)
        known = {**PROGRAMS, "demo": list(PLACES), "hostile": []}
        return dict(locate.read_line(line, known, len(data)) for line in ended(job)), job
    finally:
        os.close(file)


def hostile(server: Server, elf: bytes, word: str) -> str | None:
    answers, _job = read(server, elf + word.rjust(8, "-").encode(), ["hostile"])
    answer = answers.get("hostile")
    return answer.why if isinstance(answer, Unsupported) else None


def test_each_source_answers_for_itself(server: Server, elf: bytes, tmp_path: Path) -> None:
    answers, _job = read(server, elf, ["demo", "hostile", *LIBRARIES])
    with build.library("demo", tmp_path).open("rb") as file:
        assert answers["demo"] == SOURCE.locate(ELFFile(file))
    assert all(isinstance(answers[name], Unsupported) for name in ("hostile", *LIBRARIES))


def test_a_child_is_nobody_and_has_what_it_needs(server: Server, elf: bytes) -> None:
    # standard input, output and errors, its end of the pair, and the file
    why = hostile(server, elf, "who")
    assert why is not None and why.startswith(f"uid {NOBODY}, ") and len(why.split(", ")[1].split(",")) == 5
    assert hostile(server, elf, "fork") == "no child"
    assert hostile(server, elf, "murder") == why and not server.ended()
    assert hostile(server, elf, "open") == "the file could not be read: PermissionError"
    assert hostile(server, elf, "exec") is None and not server.ended()
    memory = hostile(server, elf, "memory")
    assert memory == "the file could not be read: MemoryError"


def test_a_child_that_dies_or_talks_too_much_has_no_answer(server: Server, elf: bytes) -> None:
    assert hostile(server, elf, "die") is None
    answers, job = read(server, elf + b"----talk", ["hostile"])
    assert answers.get("hostile") is None and job.overdue
    server.kill(job)
    wait_for(lambda: not children(server))


def test_a_child_that_takes_too_long_is_killed(server: Server, elf: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locate, "WAIT_SECONDS", 0.3)
    answers, job = read(server, elf + b"---sleep", ["hostile"])
    assert not answers and job.overdue and len(children(server)) == 1
    server.kill(job)
    wait_for(lambda: not children(server))
    assert not server.ended()


@pytest.mark.slow
def test_a_child_that_computes_for_ever_is_ended_by_the_kernel(server: Server, elf: bytes) -> None:
    assert hostile(server, elf, "spin") is None
    wait_for(lambda: not children(server))


def test_children_end_with_the_server_and_the_server_with_its_channel(elf: bytes) -> None:
    server = Server(["tests.demo.hostile"], None)
    file = os.memfd_create("file")
    os.write(file, elf + b"---sleep")
    job = server.read(file, ["hostile"])
    wait_for(lambda: len(children(server)) == 1)
    (child,) = children(server)
    began = time.monotonic()
    server.close()
    assert time.monotonic() - began < 1 and server.ended()
    wait_for(lambda: not os.path.exists(f"/proc/{child}"))
    job.close()
    os.close(file)


def test_a_server_that_cannot_begin(elf: bytes) -> None:
    server = Server(["no.such.module"], None)
    wait_for(server.ended)
    file = os.memfd_create("file")
    with pytest.raises(OSError, match=r".*"):
        server.read(file, ["demo"])
    os.close(file)
    server.close()


SEEDS = [Path("/usr/lib/x86_64-linux-gnu/libssl.so.3"), Path("/usr/lib/x86_64-linux-gnu/libgnutls.so.30")]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    seed=st.sampled_from([0, 1, 2]),
    changes=st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=8)), max_size=12),
    head=st.lists(st.tuples(st.integers(0, 63), st.integers(0, 255)), max_size=3),
    cut=st.floats(0.05, 1),
)
def test_damaged_files_of_libraries_never_hold_anybody_up(
    server: Server,
    elf: bytes,
    seed: int,
    changes: list[tuple[float, bytes]],
    head: list[tuple[int, int]],
    cut: float,
) -> None:
    """Bytes anywhere, in the header of the file, and its end: every source answers, or the child ends without."""
    data = bytearray(elf if seed == 2 or not SEEDS[seed].exists() else SEEDS[seed].read_bytes())
    tables = len(data) - 4096  # section headers and their like are at the end
    for number, (where, what) in enumerate(changes):
        at = tables + int(where * 4090) if number % 2 else int(where * (len(data) - 9))
        data[at : at + len(what)] = what
    for at, byte in head:
        data[at] = byte
    answers, job = read(server, bytes(data[: int(len(data) * cut)]), LIBRARIES)
    assert not job.overdue and set(answers) <= {*LIBRARIES}
    assert not server.ended()


def test_in_a_small_cgroup_a_file_that_takes_too_much_is_unreadable_and_nobody_is_killed(elf: bytes) -> None:
    if os.geteuid():
        skip_or_fail("needs root")
    cgroup = Cgroup(256 << 20)
    server = Server(["tests.demo.source", "tests.demo.hostile"], NOBODY)
    try:
        (cgroup.path / "cgroup.procs").write_text(str(server.pid))
        assert hostile(server, elf, "memory") == "the file could not be read: MemoryError"
        assert 0 < cgroup.peak < 128 << 20 and cgroup.oom_kills == 0
    finally:
        server.close()
        cgroup.close()
