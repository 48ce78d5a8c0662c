"""The runtime directory, among others' files: what is ours lies in one private directory, and nothing else is changed."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from collector.errors import ConfigError, LockedError
from collector.status import NoAnswerError, ask
from collector.supervisor import lock
from collector.supervisor.lock import OWN_NAME, NodeLock
from tests.conftest import skip_or_fail

STRANGER = 54321


@pytest.fixture(autouse=True)
def only_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """A collector that runs on this host has the kernel's own lock."""
    monkeypatch.setattr(lock, "TRACEFS", ())


@pytest.fixture
def root() -> None:
    if os.geteuid() != 0:
        skip_or_fail("needs root, to make other users' files")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_missing_directory_is_made(tmp_path: Path) -> None:
    with NodeLock(str(tmp_path / "a" / "b")) as held:
        assert mode(tmp_path / "a" / "b") == mode(tmp_path / "a" / "b" / OWN_NAME) == 0o700
        assert os.path.samestat(os.fstat(held.fd), (tmp_path / "a" / "b" / OWN_NAME).stat())
    with NodeLock(str(tmp_path / "a" / "b")):
        pass


@pytest.mark.parametrize(("bits", "owner"), [(0o1777, 0), (0o755, 0), (0o755, STRANGER), (0o700, STRANGER), (0o770, 0)])
def test_a_directory_of_others_stays_as_it_is(root: None, tmp_path: Path, bits: int, owner: int) -> None:
    theirs = tmp_path / "theirs"
    (theirs / "run-42" / "data").mkdir(parents=True)
    (theirs / "run-42" / "data" / "file").write_text("precious")
    (theirs / "lock").write_text("theirs")
    os.chown(theirs, owner, 0)
    theirs.chmod(bits)
    with NodeLock(str(theirs)):
        assert mode(theirs / OWN_NAME) == 0o700 and (theirs / OWN_NAME).stat().st_uid == 0
    assert mode(theirs) == bits and theirs.stat().st_uid == owner
    assert (theirs / "run-42" / "data" / "file").read_text() == "precious" and (theirs / "lock").read_text() == "theirs"


@pytest.mark.parametrize("where", ["", "below"])
@pytest.mark.parametrize(("bits", "group"), [(0o777, 0), (0o775, STRANGER)])
def test_refused_where_others_could_replace_it(root: None, tmp_path: Path, bits: int, group: int, where: str) -> None:
    theirs = tmp_path / "theirs"
    (theirs / where).mkdir(parents=True)
    os.chown(theirs, 0, group)
    theirs.chmod(bits)
    with pytest.raises(ConfigError, match=r"others can replace what is in .*theirs"), NodeLock(str(theirs / where)):
        pass
    assert [p.name for p in theirs.rglob("*")] == ([where] if where else []) and mode(theirs) == bits


def test_a_volume_that_is_mounted_there_is_taken(root: None, tmp_path: Path) -> None:
    """Kubernetes makes an emptyDir with mode 0777."""
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=0777", "tmpfs", str(tmp_path)], check=False).returncode:
        skip_or_fail("cannot mount")
    try:
        with NodeLock(str(tmp_path)):
            assert mode(tmp_path) == 0o777 and mode(tmp_path / OWN_NAME) == 0o700
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_refused_where_somebody_was_first(root: None, tmp_path: Path) -> None:
    (tmp_path / OWN_NAME).mkdir(mode=0o777)
    os.chown(tmp_path / OWN_NAME, STRANGER, STRANGER)
    tmp_path.chmod(0o1777)
    with pytest.raises(ConfigError, match=f"belongs to user {STRANGER}"), NodeLock(str(tmp_path)):
        pass
    assert (tmp_path / OWN_NAME).stat().st_uid == STRANGER
    with pytest.raises(NoAnswerError, match=f"belongs to user {STRANGER}"):
        ask(str(tmp_path))


@pytest.mark.parametrize("link", ["", OWN_NAME])
def test_links_are_not_followed(tmp_path: Path, link: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    shared = tmp_path / "tmp"
    shared.mkdir()
    shared.chmod(0o1777)
    name = shared / "link" / link if link else shared / "link"
    name.parent.mkdir(exist_ok=True)
    name.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="link|Not a directory"), NodeLock(str(shared / "link")):
        pass
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize("path", ["/proc/nothing", "file", "file/below", "n" * 300])
def test_no_directory_can_be_made(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="COLLECTOR_RUNTIME_DIR="), NodeLock(str(tmp_path / path)):
        pass


def test_what_a_killed_collector_left_is_cleared_and_others_wait(tmp_path: Path) -> None:
    with NodeLock(str(tmp_path)):
        own = tmp_path / OWN_NAME
        (own / "run-1").mkdir()
        (own / "run-1" / "sink.sock").write_text("")
        (tmp_path / "elsewhere").mkdir()
        (own / "run-2").symlink_to(tmp_path / "elsewhere")
        (own / lock.STATUS_SOCKET).write_text("")
        with pytest.raises(LockedError), NodeLock(str(tmp_path)):
            pass
        assert (own / "run-1").exists()
    with NodeLock(str(tmp_path)):
        assert not (own / "run-1").exists() and not (own / lock.STATUS_SOCKET).exists()
    assert (tmp_path / "elsewhere").exists()


def test_renaming_our_directory_leads_us_nowhere_else(tmp_path: Path) -> None:
    with NodeLock(str(tmp_path)) as held:
        (tmp_path / OWN_NAME).rename(tmp_path / "moved")
        (tmp_path / OWN_NAME).mkdir()
        os.mkdir(lock.within(held.fd, "run-1"))
        assert (tmp_path / "moved" / "run-1").is_dir()


def test_two_runtime_directories_are_still_one_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tracefs").mkdir()
    monkeypatch.setattr(lock, "TRACEFS", (str(tmp_path / "missing"), str(tmp_path / "tracefs")))
    with NodeLock(str(tmp_path / "a")):
        with pytest.raises(LockedError, match="another collector"), NodeLock(str(tmp_path / "b")):
            pass
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.setattr(lock, "TRACEFS", (str(tmp_path / "elsewhere"),))  # another kernel
        with NodeLock(str(tmp_path / "b")):
            pass
    with NodeLock(str(tmp_path / "a")):  # nothing is left of one that was refused, nor of one that has ended
        pass


def test_a_lock_that_is_refused_leaves_nothing_open(tmp_path: Path) -> None:
    with NodeLock(str(tmp_path)):
        before = os.listdir("/proc/self/fd")
        for _ in range(3):
            with pytest.raises(LockedError), NodeLock(str(tmp_path)):
                pass
        assert os.listdir("/proc/self/fd") == before


def test_a_collector_that_was_killed_holds_no_lock(tmp_path: Path) -> None:
    code = (
        f"import time\nfrom collector.supervisor import lock\nlock.TRACEFS = ()\n"
        f"with lock.NodeLock({str(tmp_path)!r}):\n print(flush=True)\n time.sleep(1000)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline()
        with pytest.raises(LockedError), NodeLock(str(tmp_path)):
            pass
        holder.kill()
        holder.wait()
        with NodeLock(str(tmp_path)):
            pass


def test_nobody_answers(tmp_path: Path) -> None:
    with pytest.raises(NoAnswerError, match="no collector answers"):
        ask(str(tmp_path / "missing"))
    with NodeLock(str(tmp_path)), pytest.raises(NoAnswerError, match="no collector answers"):
        ask(str(tmp_path))
    assert NoAnswerError.exit_code == 3
