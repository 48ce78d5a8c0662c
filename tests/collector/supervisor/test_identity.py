"""User ids of our own: from where they may be taken, and what is done where there are none."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.supervisor import identity
from tests.collector.test_files import CONN, exchange, write_capture
from tests.conftest import skip_or_fail

spans = st.tuples(st.integers(0, 2**32 - 1), st.integers(1, 2**32 - 1))


@given(st.lists(st.lists(spans, max_size=4), max_size=3), spans)
def test_candidates_are_what_all_maps_have(maps: list[list[tuple[int, int]]], within: tuple[int, int]) -> None:
    wanted = range(within[0], within[0] + within[1])
    parts = identity.candidates(maps, wanted)
    for part in parts:
        assert part
        for number in (part.start, part.stop - 1):
            assert number in wanted
            assert all(any(first <= number < first + count for first, count in one) for one in maps)
    assert identity.candidates([[(0, 2**33)]], wanted) == [wanted]


@given(st.integers(1, 3), st.sets(st.integers(0, 9)), st.integers(0, 9), st.integers(0, 9))
def test_taken_and_reserved_ids_are_left_alone(count: int, taken: set[int], first: int, last: int) -> None:
    free = set(range(10)) - taken - set(range(first, last))
    found = identity.pick([range(4), range(4, 10)], count, taken, [range(first, last)])
    assert len(set(found)) == len(found) == min(count, len(free)) and set(found) <= free


def test_nothing_to_pick_from() -> None:
    assert identity.pick([], 2, set(), []) == []


@given(st.text(max_size=200))
def test_any_text_is_a_map_or_an_error_of_a_number(text: str) -> None:
    try:
        for row in identity.parse_map(text):
            assert len(row) == 2
    except ValueError:
        pass


def test_the_ids_of_processes_are_seen() -> None:
    assert os.geteuid() in identity.ids_in_use()


def test_two_starts_have_ids_of_their_own() -> None:
    if os.geteuid() != 0:
        assert identity.choose(2).ids == () and "not root" in identity.choose(2).why
        return
    if identity.parse_map(Path("/proc/self/uid_map").read_text()) != [(0, 2**32 - 1)]:
        skip_or_fail("needs the first user namespace")
    ids = [*identity.choose(2).ids, *identity.choose(2).ids]
    assert len(set(ids)) == 4 and all(number in identity.HIGH for number in ids)


# What the children become, in the words of /proc/self/status. Run in a user namespace of its own.
CODE = """
import json, os, sys
from pathlib import Path
from collector import runtime
from collector.supervisor import identity
choice = identity.choose(2)
if os.fork() == 0:
    runtime.drop_privileges(next(iter(choice.ids), None))
    status = dict(line.split(":\\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\\t" in line)
    print(json.dumps([choice.ids, choice.why, os.getresuid(), status["CapEff"], status["CapPrm"], status["NoNewPrivs"]]))
    sys.exit(0)
os.wait()
"""


def in_namespace(ids: int, *command: str) -> subprocess.CompletedProcess[str]:
    """Run as root of a user namespace with so many ids."""
    if os.geteuid() != 0:
        skip_or_fail("needs root, to map ids")
    waiting = subprocess.Popen(
        ["unshare", "--user", "sh", "-c", 'echo; read x; exec "$@"', "sh", *command],
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with waiting:
        assert waiting.stdout is not None
        if not waiting.stdout.readline():
            skip_or_fail("no user namespace can be made here")
        for name in ("uid_map", "gid_map"):
            Path(f"/proc/{waiting.pid}/{name}").write_text(f"0 0 {ids}\n")
        out, err = waiting.communicate("go\n", timeout=60)
    return subprocess.CompletedProcess(command, waiting.returncode, out, err)


@pytest.mark.parametrize("mapped", [1, 65536])
def test_a_user_namespace_with_few_ids(mapped: int) -> None:
    done = in_namespace(mapped, sys.executable, "-c", CODE)
    assert done.returncode == 0, done.stderr
    ids, why, became, effective, permitted, no_new = json.loads(done.stdout)
    if mapped > 1:
        assert all(number in identity.LOW for number in ids) and became == [ids[0]] * 3
    else:
        assert ids == [] and "no ids to spare" in why and became == [0] * 3
    assert int(effective, 16) == int(permitted, 16) == 0 and no_new == "1"


def test_replay_as_root_of_a_small_user_namespace(tmp_path: Path) -> None:
    write_capture(tmp_path / "a.cap", [exchange(CONN)])
    done = in_namespace(
        1, "env", "AKTO_LOG_LEVEL=INFO", sys.executable, "-m", "collector", "replay", str(tmp_path / "a.cap")
    )
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 1, done.stderr
    assert "the children keep user 0" in done.stderr


def test_replay_without_root() -> None:
    """An ordinary user's children have only capabilities to lose."""
    user = {"user": 54321, "group": 54321, "extra_groups": []} if os.geteuid() == 0 else {}
    run = functools.partial(subprocess.run, capture_output=True, text=True, timeout=60, cwd="/", **user)
    try:
        run([sys.executable, "-c", "import collector"], check=True)
    except (OSError, subprocess.CalledProcessError):
        skip_or_fail("other users cannot read this checkout")
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "a.cap"
        write_capture(path, [exchange(CONN)])
        path.parent.chmod(0o755)
        path.chmod(0o644)
        done = run([sys.executable, "-m", "collector", "replay", str(path)])
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 1, done.stderr
    assert "WARNING" not in done.stderr
