"""The policy in force: read again, handed on, and kept where the file cannot be used."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from collector import config
from collector.policy import wire
from collector.policy.source import Source
from collector.supervisor.child import ChildProcess
from collector.supervisor.policy_file import LOOK_SECONDS, PolicyFile
from tests.collector.supervisor.test_output import Numbers


class Shard:
    """One that hears, or cannot be reached."""

    def __init__(self, *, reached: bool = True) -> None:
        self.name, self.pid = "shard-0", 1
        self.reached, self.killed = reached, False
        self.heard: list[str] = []

    def tell(self, message: dict[str, Any], fds: list[int]) -> bool:
        assert message == {"kind": "policy"}
        if self.reached:
            self.heard.append(wire.received(os.dup(fds[0]))[0].name)
        return self.reached

    def kill(self) -> None:
        self.killed = True


class Run:
    """A policy in a mounted folder, as Kubernetes makes them: the file is a link by way of `..data`."""

    def __init__(self, folder: Path, shards: list[Shard]) -> None:
        self.folder = folder
        self.path = folder / "policy.yaml"
        self.versions = 0
        self.swap("version: 1\nname: first")
        self.path.symlink_to("..data/policy.yaml")
        self.own, self.shards = Numbers(policy_reload_success_seconds=0), shards
        source = Source.of(config.load({"COLLECTOR_POLICY": str(self.path)}))
        self.file = PolicyFile(source, self.own, cast(list[ChildProcess], shards))
        self.now = 100.0

    def swap(self, text: str) -> None:
        self.versions += 1
        version = self.folder / f"..{self.versions}"
        version.mkdir()
        (version / "policy.yaml").write_text(text)
        (self.folder / "..new").symlink_to(version.name)
        (self.folder / "..new").rename(self.folder / "..data")

    def turn(self) -> None:
        self.now += LOOK_SECONDS
        self.file.turn(self.now)

    def in_force(self) -> str:
        return wire.received(os.dup(self.file.fd))[0].name


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    one = Run(tmp_path, [Shard(), Shard()])
    yield one
    one.file.close()


def test_a_mounted_file_that_changes_is_in_force_in_all_shards(run: Run) -> None:
    run.turn()
    assert run.in_force() == "first" and run.own.numbers.get("policy_reloads") is None
    run.swap("version: 1\nname: second")
    run.turn()
    assert run.in_force() == "second" and [shard.heard for shard in run.shards] == [["second"]] * 2
    assert run.file.policy["name"] == "second" and run.own["policy_reloads"] == 1


def test_between_two_looks_nothing_is_asked(run: Run) -> None:
    run.turn()
    run.swap("version: 1\nname: second")
    run.file.turn(run.now + LOOK_SECONDS / 2)
    assert run.in_force() == "first"


@pytest.mark.parametrize("text", ["version: 2", "", "version: 1\nrules: [{exclude: {paths: ['x']}}]"])
def test_one_that_cannot_be_used_changes_nothing_and_is_said_once(
    run: Run, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    run.swap(text)
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            run.turn()
    assert run.in_force() == "first" and run.own["policy_reload_failures"] == 1
    assert len(caplog.records) == 1 and "policy first stays in force" in caplog.text and "policy.yaml" in caplog.text
    run.swap("version: 1\nname: mended")
    run.turn()
    assert run.in_force() == "mended" and run.own["policy_reloads"] == 1


def test_a_file_that_is_gone_changes_nothing(run: Run) -> None:
    run.path.unlink()
    run.turn()
    run.turn()
    assert run.in_force() == "first" and run.own["policy_reload_failures"] == 1
    run.path.write_text("version: 1\nname: again")
    run.turn()
    assert run.in_force() == "again"


def test_at_sighup_it_is_read_whether_it_has_changed_or_not(run: Run) -> None:
    run.file.read_again("SIGHUP")
    assert run.own["policy_reloads"] == 1 and [shard.heard for shard in run.shards] == [[], []]  # the same
    run.swap("version: 1\nname: second")
    run.file.read_again("SIGHUP")
    run.turn()
    assert run.own["policy_reloads"] == 2 and run.shards[0].heard == ["second"]


def test_a_change_before_the_supervisor_begins_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text("version: 1\nname: first")
    source = Source.of(config.load({"COLLECTOR_POLICY": str(path)}))
    path.write_text("version: 1\nname: second")
    file = PolicyFile(source, Numbers(), [])
    file.turn(1.0)
    assert file.policy["name"] == "second"
    file.close()


def test_a_shard_that_cannot_be_told_is_killed(tmp_path: Path) -> None:
    shards = [Shard(reached=False), Shard()]
    run = Run(tmp_path, shards)
    run.swap("version: 1\nname: second")
    run.turn()
    assert shards[0].killed and not shards[1].killed and shards[1].heard == ["second"]
    run.file.close()


def test_a_built_in_policy_has_nothing_to_read(caplog: pytest.LogCaptureFixture) -> None:
    file = PolicyFile(Source.of(config.load({"COLLECTOR_POLICY": "strict"})), Numbers(), [])
    with caplog.at_level(logging.INFO):
        file.read_again("SIGHUP")
        file.turn(1.0)
    assert "nothing to read" in caplog.text and file.policy["name"] == "strict"
    file.close()


def test_a_policy_that_redacts_nothing_does_not_come_into_force_where_redaction_is_relied_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "p.yaml"
    path.write_text("version: 1\nname: first\nredaction: {builtin: secrets}")
    own = Numbers()
    file = PolicyFile(Source.of(config.load({"COLLECTOR_POLICY": str(path)}), redacts_for="--redact"), own, [])
    for text in ("", "\nredaction: {rules: [{header: X-A, keep: true}]}"):
        path.write_text(f"version: 1\nname: second{text}")
        file.read_again("SIGHUP")
    assert file.policy["name"] == "first" and own["policy_reload_failures"] == 2
    assert "SIGHUP: --redact: the policy 'second' redacts nothing" in caplog.text
    path.write_text("version: 1\nname: third\nredaction: {rules: [{header: X-A, kind: a}]}")
    file.read_again("SIGHUP")
    assert file.policy["name"] == "third"
    file.close()
