"""Libraries in the images of containers: one file under many numbers, copies under one; and files that go or are replaced.

Each mount is in the mount namespace of a program of the test, and ends with it: the collector sees none of them.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import skip_or_fail
from tests.demo import build, source
from tests.live.harness import wait_for
from tests.live.test_libraries import SIZES, Player, WithSources, breakpoints, no_player_left  # noqa: F401 - a fixture

pytestmark = [pytest.mark.live, pytest.mark.timeout(240)]
FUNCTIONS = {name for program in source.ALWAYS for name in source.PLACES[program][0]}
MOUNT = """
mkdir -p "$2"
mount -t overlay overlay -o "lowerdir=$1,upperdir=$2-upper,workdir=$2-work" "$2" || exit
shift 2
exec "$@"
"""


class Image:
    """A directory with a library, below all containers."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.lower = directory / "image"
        self.lower.mkdir()
        build.library("demo", self.lower)

    def library(self, container: str) -> Path:
        """Its path in a container."""
        return self.directory / container / "libdemo.so"

    def run(self, container: str, *before: str) -> Player:
        """A program in a container of its own; ``before``: a command that executes it there."""
        for part in ("upper", "work"):
            (self.directory / f"{container}-{part}").mkdir()
        mount = ("unshare", "--mount", "sh", "-c", MOUNT, "sh", str(self.lower), str(self.directory / container))
        return Player(self.library(container), "memory", *mount, *before)


@pytest.fixture
def image(live: None, tmp_path: Path) -> Image:
    tmp_path.chmod(0o755)
    found = Image(tmp_path)
    for part in ("a", "a-upper", "a-work"):
        (tmp_path / part).mkdir()
    try:
        subprocess.run(["unshare", "--mount", "sh", "-c", MOUNT, "sh", found.lower, tmp_path / "a", "true"], check=True)
    except (OSError, subprocess.CalledProcessError):
        skip_or_fail("cannot mount an overlay here")
    for part in ("a-upper", "a-work", "a"):
        subprocess.run(["rm", "-r", tmp_path / part], check=True)
    return found


@pytest.fixture(params=["-", "perf"])
def collector(image: Image, request: pytest.FixtureRequest) -> Iterator[WithSources]:
    found = WithSources(image.directory, "tests.demo.source", request.param)
    try:
        yield found
    finally:
        code = found.stop(seconds=120)
    assert code == 0, found.log()


def covered(player: Player) -> bool:
    return breakpoints(player.process.pid, player.library, source.SOURCE, source.ALWAYS) == len(FUNCTIONS)


def attached(collector: WithSources) -> int:
    return collector.log().count("attached: library ")


def plays(collector: WithSources, *players: Player) -> None:
    """Each exchange is recorded once."""
    before = len(collector.records("/memory"))
    for player in players:
        player.play(collector)
    collector.wait_records("/memory", before + len(players) * len(SIZES))


def copy_up(player: Player) -> None:
    """In the container of a program, the library is written to: a copy is made."""
    inside = ["nsenter", "--mount", f"--target={player.process.pid}", "chmod", "700", str(player.library)]
    subprocess.run(inside, check=True)


def test_two_containers_of_one_image_have_the_library_once(image: Image, collector: WithSources) -> None:
    first = image.run("a")
    wait_for(lambda: covered(first) and attached(collector) == 1)
    second = image.run("b")
    assert covered(second), "from its first instruction"
    plays(collector, first, second)
    first.close()
    log = len(collector.log())
    third = image.run("c")
    # the library is known by the first container's number, and stays as long as there is any: until another one is released
    other = Player(build.library("demo", image.directory), "memory")
    wait_for(lambda: attached(collector) == 2)
    other.close()
    wait_for(lambda: "released: library" in collector.log()[log:], 30)
    plays(collector, third)
    assert collector.log().count("released: library") == 1 and attached(collector) == 2
    for player in (second, third):
        player.close()
    wait_for(lambda: collector.log().count("released: library") == 2, 30)


def test_a_container_with_a_copy_of_its_own(image: Image, collector: WithSources) -> None:
    first = image.run("a")
    wait_for(lambda: covered(first) and attached(collector) == 1)
    second = image.run("b", "sh", "-c", f'chmod 700 "{image.library("b")}" && exec "$@"', "sh")
    assert (
        os.stat(f"/proc/{first.process.pid}/root{first.library}").st_ino
        == os.stat(f"/proc/{second.process.pid}/root{second.library}").st_ino
    )
    wait_for(lambda: covered(second) and attached(collector) == 2)
    plays(collector, first, second)
    for player in (first, second):
        player.close()
    wait_for(lambda: collector.log().count("released: library") == 2, 30)


def test_a_copy_that_is_made_while_the_library_is_mapped(image: Image, collector: WithSources) -> None:
    first = image.run("a")
    wait_for(lambda: covered(first) and attached(collector) == 1)
    copy_up(first)
    second = Player(first.library, "memory", "nsenter", "--mount", f"--target={first.process.pid}")
    wait_for(lambda: covered(second) and attached(collector) == 2)
    assert covered(first) and "a copy by now" in collector.log()
    plays(collector, first, second)
    first.close()
    plays_on = Player(first.library, "memory", "nsenter", "--mount", f"--target={second.process.pid}")
    assert covered(plays_on)
    plays(collector, plays_on)
    for player in (second, plays_on):
        player.close()
    wait_for(lambda: collector.log().count("released: library") == 2, 30)


def test_a_new_loader_knows_both_the_image_and_the_copy(image: Image, collector: WithSources) -> None:
    first = image.run("a")
    wait_for(lambda: covered(first) and attached(collector) == 1)
    copy_up(first)
    second = Player(first.library, "memory", "nsenter", "--mount", f"--target={first.process.pid}")
    third = image.run("c")
    wait_for(lambda: covered(second) and attached(collector) == 2)
    victim = collector.child("loader.process")
    os.kill(victim, 9)
    wait_for(lambda: collector.child("loader.process") not in (0, victim), 30)
    # both are read again; meanwhile nobody's probes are gone
    wait_for(lambda: attached(collector) == 4, 30)
    assert all(map(covered, (first, second, third))) and "changed in place" not in collector.log()
    plays(collector, first, second, third)
    for player in (first, second, third):
        player.close()
    wait_for(lambda: collector.log().count("released: library") == 2, 30)


def test_a_library_that_was_deleted(image: Image, collector: WithSources) -> None:
    library = build.library("demo", image.directory)
    player = Player(library, "memory")
    library.unlink()
    wait_for(lambda: attached(collector) == 1)
    plays(collector, player)
    player.close()


def test_a_library_that_is_replaced(image: Image, collector: WithSources) -> None:
    library = build.library("demo", image.directory)
    player = Player(library, "memory")
    wait_for(lambda: attached(collector) == 1)
    os.replace(image.lower / "libdemo.so", library)
    later = Player(library, "memory")
    wait_for(lambda: covered(later) and attached(collector) == 2)
    plays(collector, player, later)
    for one in (player, later):
        one.close()
