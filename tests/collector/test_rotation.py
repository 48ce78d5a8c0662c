"""Which file gets which name, and what is in the way."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from collector import rotation
from collector.files import UnsafeFileError
from collector.rotation import Rotation
from tests.conftest import skip_or_fail


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    """The file o, open."""
    number = os.open(tmp_path / "o", os.O_RDWR | os.O_CREAT, 0o600)
    os.write(number, b"0")
    yield number
    os.close(number)


def there(directory: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in directory.iterdir() if path.is_file()}


def test_old_files_move_up_and_the_oldest_goes(tmp_path: Path, fd: int) -> None:
    for number in (1, 2, 3):
        (tmp_path / f"o.{number}").write_text(str(number))
    (tmp_path / "o.4").write_text("of an earlier setting")
    (tmp_path / "o.1.gz").write_text("another's")
    assert Rotation(str(tmp_path / "o"), 1, 3).rename(fd)
    assert there(tmp_path) == {
        "o.1": "0", "o.2": "1", "o.3": "2", "o.4": "of an earlier setting", "o.1.gz": "another's",
    }  # fmt: skip


def test_a_name_that_is_free_costs_no_old_file(tmp_path: Path, fd: int) -> None:
    """As a rotation that was interrupted leaves them."""
    for number in (1, 3, 4):
        (tmp_path / f"o.{number}").write_text(str(number))
    assert Rotation(str(tmp_path / "o"), 1, 4).rename(fd)
    assert there(tmp_path) == {"o.1": "0", "o.2": "1", "o.3": "3", "o.4": "4"}


def test_due_at_its_size_and_never_for_what_is_no_file(tmp_path: Path, fd: int) -> None:
    assert Rotation(str(tmp_path / "o"), 1, 1).due(fd) and not Rotation(str(tmp_path / "o"), 2, 1).due(fd)
    read, write = os.pipe()
    assert not Rotation(str(tmp_path / "o"), 0, 1).due(write)
    os.close(read)
    os.close(write)


def test_a_file_that_is_no_longer_ours_stays(tmp_path: Path, fd: int) -> None:
    one = Rotation(str(tmp_path / "o"), 1, 2)
    (tmp_path / "o").rename(tmp_path / "o.1")
    assert not one.rename(fd) and there(tmp_path) == {"o.1": "0"}
    (tmp_path / "o").write_text("another")
    assert not one.rename(fd) and there(tmp_path) == {"o": "another", "o.1": "0"}
    (tmp_path / "o").unlink()
    (tmp_path / "o").symlink_to("o.1")
    assert not one.rename(fd)


@pytest.mark.parametrize("keep", [1, 2])
def test_what_cannot_be_an_old_file_is_in_the_way_and_nothing_moves(tmp_path: Path, fd: int, keep: int) -> None:
    one = Rotation(str(tmp_path / "o"), 1, keep)
    if keep == 2:
        (tmp_path / "o.1").write_text("1")
    blocked = tmp_path / f"o.{keep}"
    before = there(tmp_path)
    blocked.symlink_to("elsewhere")
    with pytest.raises(UnsafeFileError, match="in the way: no file"):
        one.rename(fd)
    blocked.unlink()
    if os.geteuid() == 0:
        blocked.write_text("of another user")
        os.chown(blocked, 12345, 12345)
        with pytest.raises(UnsafeFileError, match="in the way: belongs to user 12345"):
            one.rename(fd)
        before[blocked.name] = "of another user"
        assert there(tmp_path) == before
        assert Rotation(str(tmp_path / "o"), 1, keep, shared=True).rename(fd)


def test_a_link_on_the_way_is_followed_only_where_that_is_wanted(tmp_path: Path, fd: int) -> None:
    if os.geteuid() != 0:
        skip_or_fail("not root: no other user to be")
    way = tmp_path / "open"
    way.mkdir()
    way.chmod(0o777)
    (way / "link").symlink_to(tmp_path)
    with pytest.raises(UnsafeFileError):
        Rotation(str(way / "link" / "o"), 1, 1).rename(fd)
    (way / "o").symlink_to(tmp_path / "o")
    assert Rotation(str(way / "o"), 1, 1, shared=True).rename(fd)
    assert there(tmp_path) == {"o.1": "0"}


def test_undone_when_there_is_no_new_file(tmp_path: Path, fd: int) -> None:
    one = Rotation(str(tmp_path / "o"), 1, 2)
    assert one.rename(fd)
    one.undo(fd)
    assert there(tmp_path) == {"o": "0"}
    assert one.rename(fd)
    (tmp_path / "o").write_text("another has made one")
    one.undo(fd)
    assert there(tmp_path) == {"o": "another has made one", "o.1": "0"}


@pytest.mark.parametrize("known", [True, False])
def test_a_rename_never_replaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: bool) -> None:
    """Neither by the kernel's own word nor on a file system that does not know how to refuse."""
    if not known:

        class Without:
            @staticmethod
            def renameat2(*_arguments: object) -> int:
                ctypes.set_errno(errno.EINVAL)
                return -1

        monkeypatch.setattr(rotation, "_libc", Without)
    for name in "ab":
        (tmp_path / name).write_text(name)
    directory = os.open(tmp_path, os.O_PATH)
    with pytest.raises(FileExistsError):
        rotation._rename(directory, "a", "b")
    assert there(tmp_path) == {"a": "a", "b": "b"}
    with pytest.raises(FileNotFoundError):
        rotation._rename(directory, "c", "d")
    rotation._rename(directory, "a", "c")
    assert there(tmp_path) == {"b": "b", "c": "a"}
    os.close(directory)


def test_no_descriptor_is_left_open(tmp_path: Path, fd: int) -> None:
    one = Rotation(str(tmp_path / "o"), 1, 2)
    before = len(os.listdir("/proc/self/fd"))
    one.rename(fd)
    one.undo(fd)
    (tmp_path / "o.1").mkdir()
    with pytest.raises(UnsafeFileError):
        one.rename(fd)
    assert len(os.listdir("/proc/self/fd")) == before
