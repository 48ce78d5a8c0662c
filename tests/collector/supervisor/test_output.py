"""The sink's descriptor: when files change that it is made of, at SIGHUP, and when its file has reached its size."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from collector import config, files
from collector.counters import Counters
from collector.errors import ConfigError
from collector.rotation import Rotation
from collector.settings import ReplaySettings, ShardSettings, SinkSettings, SupervisorSettings
from collector.supervisor.output import LOOK_SECONDS, ROTATE_AGAIN_SECONDS, Output
from collector.supervisor.starting import Plan


class Numbers(Counters):
    """Counters without shared memory."""

    def __init__(self, **numbers: int) -> None:
        self.numbers = numbers

    def __getitem__(self, name: str) -> int:
        return self.numbers[name]

    def __setitem__(self, name: str, value: int) -> None:
        self.numbers[name] = value

    def add(self, name: str, amount: int = 1) -> None:
        self.numbers[name] = self.numbers.get(name, 0) + amount


class Told:
    """The output of a supervisor, and the sink that hears of it: ``told`` are number and file of each message."""

    def __init__(
        self,
        fd: int | None,
        reopen: Callable[[], int | None] | None,
        *,
        made_of: Path | None = None,
        rotation: Rotation | None = None,
    ) -> None:
        loaded = config.load({})
        self.notes, self.own = Numbers(output_number=0), Numbers()
        self.told: list[tuple[int, int]] = []
        self.output = Output(
            Plan(
                supervisor=SupervisorSettings.of(loaded),
                shard=ShardSettings.of(loaded),
                loader=ReplaySettings(files=()),
                sink=SinkSettings(kind="null", options={}),
                directory="",
                output_fd=fd,
                reopen=reopen,
                made_of={str(made_of): files.signature(str(made_of))} if made_of else {},
                rotation=rotation,
            ),
            self.notes,
            self.own,
            lambda message, fd: self.told.append((message["number"], os.fstat(fd).st_ino)),
        )

    def close(self) -> None:
        for _number, fd in self.output._open:
            os.close(fd)


@pytest.fixture
def told() -> Iterator[Callable[..., Told]]:
    """Makes `Told`, whose descriptors are closed at the end."""
    with contextlib.ExitStack() as stack:

        def make(*arguments: Any, **more: Any) -> Told:
            one = Told(*arguments, **more)
            stack.callback(one.close)
            return one

        yield make


def memory(name: str) -> int:
    return os.memfd_create(name)


def test_a_change_is_noticed_once_and_not_asked_about_all_the_time(
    told: Callable[..., Told], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "ca.pem"
    path.write_text("one")
    one = told(None, lambda: memory("new"), made_of=path)
    path.write_text("other")
    now = one.output._next_look
    one.output.turn(now - 0.01)
    asked = 0
    signature = files.signature

    def counted(name: str) -> files.Signature:
        nonlocal asked
        asked += 1
        return signature(name)

    monkeypatch.setattr(files, "signature", counted)
    assert not one.told
    one.output.turn(now)
    one.output.turn(now)
    assert asked == len(one.told) == 1
    one.output.turn(now + LOOK_SECONDS)
    assert asked == 2 and len(one.told) == 1
    path.unlink()
    one.output.turn(now + 2 * LOOK_SECONDS)
    assert [number for number, _inode in one.told] == [1, 2]


def test_a_change_before_the_first_look_is_noticed(told: Callable[..., Told], tmp_path: Path) -> None:
    """What the descriptor was made of is known from before it was made."""
    path = tmp_path / "ca.pem"
    one = told(None, lambda: memory("new"), made_of=path)
    path.write_text("one")
    one.output.turn(one.output._next_look)
    assert len(one.told) == 1


def test_what_cannot_be_opened_again_leaves_what_there_is(
    told: Callable[..., Told], caplog: pytest.LogCaptureFixture
) -> None:
    def fails() -> int:
        raise ConfigError("the private key does not belong to this certificate")

    kept = memory("kept")
    one = told(kept, fails)
    assert not one.output.open_again("files have changed") and one.output.fds() == [kept] and not one.told
    assert "files have changed: the private key does not belong to this certificate; continuing" in caplog.text
    os.fstat(kept)


def test_the_old_one_stays_open_until_the_sink_has_gone_over(told: Callable[..., Told]) -> None:
    first = memory("first")
    one = told(first, lambda: memory("next"))
    assert one.output.open_again("SIGHUP") and one.output.open_again("SIGHUP")
    (_, skipped), (_, newest) = one.told
    assert one.output.fds() == [first]  # a sink that was killed begins where it was
    one.output.sink_started()
    assert one.told[2:] == [(2, newest)]  # and goes over to the newest
    one.notes.numbers["output_number"] = 1
    assert [os.fstat(fd).st_ino for fd in one.output.fds()] == [skipped]
    one.notes.numbers["output_number"] = 2
    assert [os.fstat(fd).st_ino for fd in one.output.fds()] == [newest] and len(one.output._open) == 1
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(first)
    one.output.sink_started()
    assert len(one.told) == 3


def test_a_sink_that_does_not_answer_costs_a_bounded_number_of_descriptors(told: Callable[..., Told]) -> None:
    first = memory("first")
    one = told(first, lambda: memory("next"))
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(100):
        assert one.output.open_again("SIGHUP")
    assert len(os.listdir("/proc/self/fd")) - before < 20
    assert one.output.fds() == [first] and one.told[-1][0] == one.output._open[-1][0] == 100


def rotated(told: Callable[..., Told], path: Path) -> Told:
    """A file of ten bytes at most, of which two old ones are kept."""

    def opened() -> int | None:
        return files.open_for_records(str(path), os.O_RDWR | os.O_APPEND, "output")

    return told(opened(), opened, rotation=Rotation(str(path), 10, 2))


def test_at_its_size_a_file_is_rotated_once_and_again_when_the_sink_has_gone_over(
    told: Callable[..., Told], tmp_path: Path
) -> None:
    path = tmp_path / "o"
    one = rotated(told, path)
    os.write(one.output.fds()[0], b"123456789")
    one.output.turn(0)
    assert not one.told and not (tmp_path / "o.1").exists()
    os.write(one.output.fds()[0], b"0")
    one.output.turn(0)
    assert (tmp_path / "o.1").read_bytes() == b"1234567890" and path.read_bytes() == b""
    assert one.told == [(1, path.stat().st_ino)] and one.own.numbers == {"output_rotations": 1}
    os.write(one.output.fds()[0], b"more")  # the sink has not heard yet
    one.output.turn(0)
    assert (tmp_path / "o.1").read_bytes() == b"1234567890more" and len(one.told) == 1
    one.notes.numbers["output_number"] = 1
    os.write(one.output.fds()[0], b"next line\n")
    one.output.turn(0)
    assert (tmp_path / "o.2").read_bytes() == b"1234567890more" and (tmp_path / "o.1").read_bytes() == b"next line\n"
    assert len(one.told) == one.own.numbers["output_rotations"] == 2


def test_a_file_that_another_program_has_renamed_is_opened_again_and_not_renamed(
    told: Callable[..., Told], tmp_path: Path
) -> None:
    path = tmp_path / "o"
    one = rotated(told, path)
    os.write(one.output.fds()[0], b"1234567890")
    path.rename(tmp_path / "o-20260101")
    one.output.turn(0)
    assert one.told == [(1, path.stat().st_ino)] and one.own.numbers == {}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["o", "o-20260101"]


def test_a_rotation_that_fails_is_said_once_and_tried_again(
    told: Callable[..., Told], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "o"
    one = rotated(told, path)
    os.write(one.output.fds()[0], b"1234567890")
    (tmp_path / "o.1").mkdir()
    for now in (0, 1, ROTATE_AGAIN_SECONDS, ROTATE_AGAIN_SECONDS + 1):
        one.output.turn(now)
    assert caplog.text.count(f"cannot rotate {path}: 'o.1' is in the way: no file; it grows") == 1
    assert one.own.numbers == {"output_rotation_errors": 2} and not one.told
    (tmp_path / "o.1").rmdir()
    one.output.turn(2 * ROTATE_AGAIN_SECONDS)
    assert len(one.told) == 1 and (tmp_path / "o.1").read_bytes() == b"1234567890"


def test_a_new_file_that_cannot_be_made_takes_the_renaming_back(
    told: Callable[..., Told], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "o"
    one = rotated(told, path)
    os.write(one.output.fds()[0], b"1234567890")
    (tmp_path / "o.1").write_bytes(b"old")
    opens = one.output._reopen

    def fails() -> int | None:
        assert not path.exists()
        raise OSError(28, "No space left on device")

    one.output._reopen = fails
    one.output.turn(0)
    assert "No space left on device; continuing with what is open" in caplog.text and not one.told
    assert path.read_bytes() == b"1234567890" and (tmp_path / "o.2").read_bytes() == b"old"
    one.output._reopen = opens
    one.output.turn(ROTATE_AGAIN_SECONDS)
    assert (tmp_path / "o.1").read_bytes() == b"1234567890" and (tmp_path / "o.2").read_bytes() == b"old"
    assert one.told == [(1, path.stat().st_ino)]
