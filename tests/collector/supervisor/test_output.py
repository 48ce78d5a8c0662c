"""The sink's descriptor when files change that it is made of."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from collector import config, files
from collector.errors import ConfigError
from collector.settings import ReplaySettings, ShardSettings, SinkSettings, SupervisorSettings
from collector.supervisor.output import LOOK_SECONDS, Output
from collector.supervisor.starting import Plan


def output(path: Path, reopen: Callable[[], int | None] | None, fd: int | None = None) -> Output:
    loaded = config.load({})
    return Output(
        Plan(
            supervisor=SupervisorSettings.of(loaded),
            shard=ShardSettings.of(loaded),
            loader=ReplaySettings(files=()),
            sink=SinkSettings(kind="null", options={}),
            directory="",
            output_fd=fd,
            reopen=reopen,
            made_of={str(path): files.signature(str(path))},
        )
    )


def test_a_change_is_noticed_once_and_not_asked_about_all_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "ca.pem"
    path.write_text("one")
    one = output(path, None)
    path.write_text("other")
    now = one._next_look
    assert not one.changed(now - 0.01)
    asked = 0
    signature = files.signature

    def counted(name: str) -> files.Signature:
        nonlocal asked
        asked += 1
        return signature(name)

    monkeypatch.setattr(files, "signature", counted)
    assert one.changed(now) and not one.changed(now) and asked == 1
    assert not one.changed(now + LOOK_SECONDS) and asked == 2
    path.unlink()
    assert one.changed(now + 2 * LOOK_SECONDS)


def test_a_change_before_the_first_look_is_noticed(tmp_path: Path) -> None:
    """What the descriptor was made of is known from before it was made."""
    path = tmp_path / "ca.pem"
    one = output(path, None)
    path.write_text("one")
    assert one.changed(one._next_look)


def test_what_cannot_be_opened_again_leaves_what_there_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def fails() -> int:
        raise ConfigError("the private key does not belong to this certificate")

    kept = os.memfd_create("kept")
    one = output(tmp_path / "a", fails, kept)
    assert one.open_again("files have changed") is None and one.fd == kept
    assert "files have changed: the private key does not belong to this certificate; continuing" in caplog.text
    os.fstat(kept)
    other = os.memfd_create("other")
    one._reopen = lambda: other
    assert one.open_again("files have changed") == other == one.fd
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(kept)
    os.close(other)
