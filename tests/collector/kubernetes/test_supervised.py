"""The process that follows the API server, as the supervisor has it: its token, and the sockets to the loader."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from collector.counter_names import LOADER_NAMES, SUPERVISOR_NAMES
from collector.counters import CounterMemory, Counters
from collector.settings import KubernetesSettings
from collector.supervisor.child import ChildProcess
from collector.supervisor.following import Following
from tests.collector.kubernetes.api_server import ApiServer, running

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def followed(tmp_path: Path) -> Iterator[tuple[ApiServer, Following, Counters, Path]]:
    token = tmp_path / "token"
    token.write_text("token-1\n")
    memory = CounterMemory(2)
    own = Counters(memory.block(0), SUPERVISOR_NAMES)
    loader = ChildProcess("loader", "loader", "none", 1, Counters(memory.block(1), LOADER_NAMES))
    with running(str(token)) as (api, server):
        settings = KubernetesSettings(
            host="127.0.0.1", port=server.port, token_path=str(token), ca_path="", node="n1", tls=False
        )
        following = Following(settings, loader, own)
        following.start("INFO", None)
        yield api, following, own, token
        following.child.kill()
        while not following.child.reap():
            time.sleep(0.01)
        following.child.read_logs()
        following.close()


def until(following: Following, what: Callable[[], object], now: float = 0.0) -> None:
    """What the supervisor's loop does, until it is true."""
    deadline = time.monotonic() + 30
    while not what():
        assert time.monotonic() < deadline
        for message, _fds in following.child.said():
            if message["kind"] == "followed":
                following.heard(message)
            following.child.ready |= message["kind"] == "ready"
        following.turn(now)
        time.sleep(0.02)


def test_a_token_that_is_renewed(followed: tuple[ApiServer, Following, Counters, Path]) -> None:
    api, following, own, token = followed
    api.change("ADDED", "1")
    until(following, lambda: own["kubernetes_pods"] == 1 and not own["kubernetes_behind"])
    api.token = "token-2"
    api.disturb("cut")
    until(following, lambda: own["kubernetes_behind"])
    token.write_text("token-2\n")
    api.change("ADDED", "2")
    until(following, lambda: own["kubernetes_pods"] == 2 and not own["kubernetes_behind"], now=time.monotonic() + 100)
    assert {asked["authorization"] for asked in api.asked[-2:]} == {"Bearer token-2"}


def test_a_token_that_is_gone_for_a_moment(
    followed: tuple[ApiServer, Following, Counters, Path], caplog: pytest.LogCaptureFixture
) -> None:
    api, following, own, token = followed
    api.change("ADDED", "1")
    until(following, lambda: own["kubernetes_pods"] == 1)
    token.unlink()
    following.turn(time.monotonic() + 100)
    assert "No such file" in caplog.text
    api.change("ADDED", "2")
    until(following, lambda: own["kubernetes_pods"] == 2)
