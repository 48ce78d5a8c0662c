"""Which files records may be written to: links, other users' files, further names, directories of others."""

from __future__ import annotations

import os
import socket
import stat
import struct
import subprocess
from pathlib import Path

import pytest

from collector import files
from collector.errors import ConfigError
from tests.conftest import skip_or_fail

STRANGER = 54321
APPEND = os.O_RDWR | os.O_APPEND


def opened(path: object, *, shared: bool = False, flags: int = APPEND) -> Path:
    """Writes a line there and says which file got it."""
    fd = files.open_for_records(str(path), flags, "output", shared=shared)
    try:
        os.write(fd, b"record\n")
        return Path(os.readlink(f"/proc/self/fd/{fd}"))
    finally:
        os.close(fd)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def shared_directory(tmp_path: Path) -> Path:
    """As /tmp."""
    path = tmp_path / "tmp"
    path.mkdir()
    path.chmod(0o1777)
    return path


@pytest.fixture
def root() -> None:
    if os.geteuid() != 0:
        skip_or_fail("needs root, to make other users' files")


def test_a_new_file_is_private_and_ours_whatever_the_umask(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        opened(tmp_path / "new")
    finally:
        os.umask(old)
    assert mode(tmp_path / "new") == 0o600 and (tmp_path / "new").stat().st_uid == os.geteuid()


def test_an_existing_file_becomes_private_and_is_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "old"
    path.write_text("before\n")
    path.chmod(0o644)
    opened(path)
    assert path.read_text() == "before\nrecord\n" and mode(path) == 0o600
    path.chmod(0o644)
    opened(path, shared=True)
    assert mode(path) == 0o644
    opened(path, flags=os.O_RDWR | os.O_TRUNC)
    assert path.read_text() == "record\n"


def test_relative_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a")
    assert opened("x") == tmp_path / "a" / "x"
    assert opened("b/../../y") == tmp_path / "y"
    assert opened(f"{tmp_path}//a/./b//z") == tmp_path / "a" / "b" / "z"


@pytest.mark.parametrize("directory", ["", "own/"])
def test_a_link_is_not_followed(shared_directory: Path, directory: str) -> None:
    (shared_directory / "own").mkdir()
    victim = shared_directory / "own" / "victim"
    victim.write_text("precious\n")
    link = shared_directory / f"{directory}link"
    link.symlink_to(victim)
    for flags in (APPEND, os.O_RDWR | os.O_TRUNC):
        with pytest.raises(ConfigError, match="is a link: refused.*--shared-files"):
            opened(link, flags=flags)
    assert victim.read_text() == "precious\n"
    assert opened(link, shared=True) == victim


def test_a_link_to_nothing_makes_no_file(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "made")
    with pytest.raises(ConfigError, match="is a link"):
        opened(tmp_path / "link")
    assert not (tmp_path / "made").exists()


def test_links_of_directories_only_where_nobody_else_can_make_them(tmp_path: Path, shared_directory: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "trusted").symlink_to("logs")
    (tmp_path / "twice").symlink_to(tmp_path / "trusted")
    (shared_directory / "planted").symlink_to(tmp_path / "logs")
    (tmp_path / "through").symlink_to("tmp/planted")  # trusted itself, and leads through one that is not
    assert opened(tmp_path / "twice" / "x") == tmp_path / "logs" / "x"
    for name in ("tmp/planted", "through"):
        with pytest.raises(ConfigError, match="'planted' on the way is a link in a directory that others can write"):
            opened(tmp_path / name / "y")
    assert not (tmp_path / "logs" / "y").exists()
    assert opened(shared_directory / "planted" / "y", shared=True) == tmp_path / "logs" / "y"


def test_links_in_a_circle(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(ConfigError, match="Too many levels"):
        opened(tmp_path / "a" / "x")


def test_a_file_of_another_user(root: None, shared_directory: Path) -> None:
    path = shared_directory / "theirs"
    path.write_text("")
    os.chown(path, STRANGER, STRANGER)
    path.chmod(0o666)
    with pytest.raises(ConfigError, match=f"belongs to user {STRANGER}: refused"):
        opened(path)
    assert path.read_text() == "" and mode(path) == 0o666
    opened(path, shared=True)
    assert path.read_text() == "record\n" and mode(path) == 0o666


def test_links_in_a_directory_of_another_user(root: None, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "logs").mkdir()
    assert opened(home / "logs" / "x") == home / "logs" / "x"
    os.chown(home, STRANGER, STRANGER)
    (home / "link").symlink_to("/etc")
    with pytest.raises(ConfigError, match="on the way is a link"):
        opened(home / "link" / "x")
    opened(home / "new")
    assert mode(home / "new") == 0o600 and (home / "new").stat().st_uid == 0


def test_a_file_with_further_names(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious\n")
    os.link(tmp_path / "victim", tmp_path / "name")
    with pytest.raises(ConfigError, match="further names"):
        opened(tmp_path / "name", flags=os.O_RDWR | os.O_TRUNC)
    assert (tmp_path / "victim").read_text() == "precious\n"
    opened(tmp_path / "name", shared=True)


def test_pipes_and_devices_stay_what_they_are(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o644)
    with pytest.raises(ConfigError, match="nobody reads"):
        opened(tmp_path / "fifo")
    reader = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    assert opened(tmp_path / "fifo") == tmp_path / "fifo" and mode(tmp_path / "fifo") == 0o644
    os.close(reader)
    before = os.stat("/dev/null").st_mode
    assert opened("/dev/null", flags=os.O_RDWR | os.O_TRUNC) == Path("/dev/null")
    assert os.stat("/dev/null").st_mode == before


def test_an_access_list_makes_entries_of_others(root: None, tmp_path: Path) -> None:
    """user:1000:rwx shows as the group's bits, whatever the group."""
    directory = tmp_path / "listed"
    directory.mkdir(0o770)
    nobody = 0xFFFFFFFF
    entries = ((0x01, 7, nobody), (0x02, 7, STRANGER), (0x04, 0, nobody), (0x10, 7, nobody), (0x20, 0, nobody))
    try:
        os.setxattr(
            directory,
            "system.posix_acl_access",
            struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries),
        )
    except OSError:
        skip_or_fail("the file system has no access lists")
    (tmp_path / "elsewhere").mkdir()
    (directory / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="is a link in a directory that others can write"):
        opened(directory / "link" / "file")


def test_a_pipe_that_another_user_planted(root: None, shared_directory: Path) -> None:
    os.mkfifo(shared_directory / "fifo")
    os.chown(shared_directory / "fifo", STRANGER, STRANGER)
    with pytest.raises(ConfigError, match=f"was made by user {STRANGER}"):
        opened(shared_directory / "fifo")


@pytest.mark.parametrize("path", ["/dev/stdout", "/dev/fd/{}", "/proc/self/fd/{}", "/proc/thread-self/fd/{}"])
def test_our_own_descriptors_are_taken_as_they_are(path: str, tmp_path: Path) -> None:
    """Also a pipe, a file without a name, another user's file: it was opened by whoever started us."""
    code = (
        "import os, sys; from collector import files; "
        "os.write(files.open_for_records(sys.argv[1], os.O_RDWR | os.O_APPEND, 'output'), b'record\\n')"
    )
    shown = path.format(1)
    done = subprocess.run([os.sys.executable, "-c", code, shown], stdout=subprocess.PIPE, check=True)  # type: ignore[attr-defined]
    assert done.stdout == b"record\n"
    target = tmp_path / "target"
    target.write_text("before\n")
    with target.open("a") as file:
        subprocess.run([os.sys.executable, "-c", code, shown], stdout=file, check=True)  # type: ignore[attr-defined]
    assert target.read_text() == "before\nrecord\n" and mode(target) == 0o644


def test_the_descriptor_of_another_process(tmp_path: Path) -> None:
    """A container's programs write to /proc/1/fd/1."""
    read, write = os.pipe()
    with subprocess.Popen(["sleep", "60"], stdout=write) as process:
        os.close(write)
        fd = files.open_for_records(f"/proc/{process.pid}/fd/1", APPEND, "output")
        os.write(fd, b"record\n")
        os.close(fd)
        process.kill()
    assert os.read(read, 100) == b"record\n"
    os.close(read)


@pytest.mark.parametrize(
    "bad", ["", "/", "x/", ".", "..", "missing/x", "file/x", "socket", "/dev/fd/999999", "\0", "n" * 300]
)
def test_what_cannot_be_opened_is_a_clear_error(bad: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind("socket")
        with pytest.raises(ConfigError, match="output"):
            opened(bad)


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    before = os.listdir("/proc/self/fd")
    (tmp_path / "link").symlink_to("x")
    (tmp_path / "hard").write_text("")
    os.link(tmp_path / "hard", tmp_path / "again")
    opened(tmp_path / "new")
    for name in ("link", "hard", "missing/x", "link/x", "new/x", "", "/"):
        with pytest.raises(ConfigError):
            opened(tmp_path / name)
    assert os.listdir("/proc/self/fd") == before
