"""The spool's directory: each start takes over what the one before has left, and nothing that somebody has planted."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from collector import files
from collector.errors import LockedError
from collector.sink import spool_directory
from collector.sink.spool import Spool
from tests.conftest import skip_or_fail


@pytest.fixture
def user() -> int:
    if os.geteuid() != 0:
        skip_or_fail("becoming another user needs root")
    return 2_100_000_001


AS_USER = """
import os, sys
from collector.sink.spool import Spool
os.setresgid(*[int(sys.argv[2])] * 3)
os.setresuid(*[int(sys.argv[2])] * 3)
box = Spool(int(sys.argv[1]), limit_bytes=1 << 20, segment_bytes=400)
n = 0
while (one := box.peek()) is not None:
    box.release(one)
    n += one.count
for number in range(5):
    box.append(b"x" * 100, b"", b"", "jsonlines", 1)
box.close()
print(n)
"""


def live_as(fd: int, user: int) -> int:
    """A life of a sink as that user; the number of records that it found."""
    done = subprocess.run(
        [sys.executable, "-c", AS_USER, str(fd), str(user)],
        pass_fds=[fd],
        stdout=subprocess.PIPE,
        check=True,
        timeout=60,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    return int(done.stdout)


def test_each_start_takes_over_what_the_one_before_has_left(tmp_path: Path, user: int) -> None:
    for number in range(3):
        fd = spool_directory.prepare(str(tmp_path / "some" / "where"), user + number, user + number)
        try:
            info = os.fstat(fd)
            assert (info.st_uid, info.st_gid, stat.S_IMODE(info.st_mode)) == (user + number, user + number, 0o700)
            assert live_as(fd, user + number) == (5 if number else 0)
        finally:
            os.close(fd)
    own = tmp_path / "some" / "where" / spool_directory.OWN_NAME
    assert (own.stat().st_uid, stat.S_IMODE(own.stat().st_mode)) == (0, 0o700)
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in (own / "spool").iterdir())


def test_without_privilege_it_is_our_own(tmp_path: Path) -> None:
    for number in range(2):
        fd = spool_directory.prepare(str(tmp_path))
        box = Spool(fd, limit_bytes=1 << 20)
        assert box.records == 2 * number
        box.append(b"record\n", b"index", b"", "jsonlines", 2)
        box.close()
        os.close(fd)


def test_what_an_earlier_sink_has_planted_is_not_given_to_the_next(
    tmp_path: Path, user: int, caplog: pytest.LogCaptureFixture
) -> None:
    os.close(spool_directory.prepare(str(tmp_path), user, user))
    inside = tmp_path / spool_directory.OWN_NAME / "spool"
    secret = tmp_path / "secret"
    secret.write_bytes(b"s")
    os.link(secret, inside / f"{1:016x}.segment")
    (inside / f"{2:016x}.segment").symlink_to(secret)
    os.mkfifo(inside / f"{3:016x}.segment")
    (inside / "more").write_bytes(b"")
    fd = spool_directory.prepare(str(tmp_path), user + 1, user + 1)
    try:
        assert live_as(fd, user + 1) == 0
    finally:
        os.close(fd)
    assert [(inside / f"{n:016x}.segment").lstat().st_uid for n in (1, 2, 3)] == [0, 0, 0]
    assert secret.stat().st_uid == 0 and secret.read_bytes() == b"s"
    assert len([one for one in caplog.records if "refused" in one.getMessage()]) == 3


def test_files_of_strangers_in_a_directory_that_all_could_write(tmp_path: Path, user: int) -> None:
    os.close(spool_directory.prepare(str(tmp_path), user, user))
    inside = tmp_path / spool_directory.OWN_NAME / "spool"
    inside.chmod(0o777)
    for number, owner in ((1, user), (2, user + 7)):
        path = inside / f"{number:016x}.segment"
        path.write_bytes(b"x")
        os.chown(path, owner, owner)
    os.close(spool_directory.prepare(str(tmp_path), user + 1, user + 1))
    assert [(inside / f"{n:016x}.segment").stat().st_uid for n in (1, 2)] == [user + 1, user + 7]
    assert stat.S_IMODE(inside.stat().st_mode) == 0o700


def test_a_directory_of_another_user_is_refused(tmp_path: Path, user: int) -> None:
    tmp_path.chmod(0o1777)
    (tmp_path / spool_directory.OWN_NAME).mkdir()
    os.chown(tmp_path / spool_directory.OWN_NAME, user, user)
    with pytest.raises(files.UnsafeFileError, match=f"belongs to user {user}"):
        spool_directory.prepare(str(tmp_path), user, user)


def test_links_in_place_of_the_directories_are_refused(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for above in (tmp_path / "a", tmp_path / "b" / spool_directory.OWN_NAME):
        above.mkdir(parents=True)
    (tmp_path / "a" / spool_directory.OWN_NAME).symlink_to(elsewhere)
    (tmp_path / "b" / spool_directory.OWN_NAME / "spool").symlink_to(elsewhere)
    for name in "ab":
        with pytest.raises(files.UnsafeFileError, match="no directory"):
            spool_directory.prepare(str(tmp_path / name))
    assert list(elsewhere.iterdir()) == []


def test_a_directory_whose_names_anybody_can_change_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(files.UnsafeFileError, match="sticky"):
        spool_directory.prepare(str(tmp_path))
    tmp_path.chmod(0o1777)
    os.close(spool_directory.prepare(str(tmp_path)))


def test_a_spool_in_use_is_not_given_to_another_user(tmp_path: Path) -> None:
    fd = spool_directory.prepare(str(tmp_path))
    box = Spool(fd, limit_bytes=1 << 20)
    with pytest.raises(LockedError):
        spool_directory.prepare(str(tmp_path))
    box.close()
    os.close(fd)
    above = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    os.close(spool_directory.prepare(above))
    os.close(above)
