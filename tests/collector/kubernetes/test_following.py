"""A list that is followed through all that an API server does, by a server that really speaks its protocol."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from collector.kubernetes.api import ApiError, Server
from collector.kubernetes.following import Follower
from tests.collector.kubernetes.api_server import PATH, ApiServer, running


class Known:
    """The names that are known, and how often all of them came at once."""

    def __init__(self) -> None:
        self.uids: dict[str, Mapping[str, Any]] = {}
        self.lists = 0

    def replace(self, items: list[Mapping[str, Any]]) -> None:
        self.uids = {item["metadata"]["uid"]: item for item in items}
        self.lists += 1

    def put(self, item: Mapping[str, Any]) -> None:
        self.uids[item["metadata"]["uid"]] = item

    def remove(self, item: Mapping[str, Any]) -> None:
        self.uids.pop(item["metadata"]["uid"], None)


def wait_for(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "that did not happen"
        time.sleep(0.01)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[ApiServer, Server, Path]]:
    token = tmp_path / "token"
    token.write_text("token-1\n")
    with running(str(token)) as (api, server):
        yield api, server, token


@pytest.fixture
def followed(served: tuple[ApiServer, Server, Path]) -> Iterator[tuple[ApiServer, Known, Follower]]:
    api, server, _token = served
    known = Known()
    follower = Follower(server, PATH, {"fieldSelector": "spec.nodeName=a"}, known, first_delay=0.05)
    thread = threading.Thread(target=follower.run)
    thread.start()
    yield api, known, follower
    follower.stop.set()
    for _ in range(100):  # one may just have begun
        api.disturb("end")
        thread.join(0.2)
        if not thread.is_alive():
            return
    raise AssertionError("it does not end")


def same(api: ApiServer, known: Known) -> bool:
    return known.uids == api.pods


def test_a_list_in_pages(served: tuple[ApiServer, Server, Path]) -> None:
    api, server, _token = served
    for number in range(25):
        api.change("ADDED", str(number))
    items, version = server.list(PATH, {})
    assert [item["metadata"]["uid"] for item in items] == [str(number) for number in range(25)]
    assert version == str(api.version) and len(api.asked) == 3


def test_what_changes_is_told(followed: tuple[ApiServer, Known, Follower]) -> None:
    api, known, follower = followed
    wait_for(lambda: known.lists == 1)
    api.change("ADDED", "a")
    api.change("ADDED", "b")
    api.change("MODIFIED", "a", phase="Running")
    api.change("DELETED", "b")
    wait_for(lambda: same(api, known) and follower.counts.events == 4)
    assert known.uids["a"]["status"] == {"phase": "Running"} and follower.counts.lists == 1


@pytest.mark.parametrize("how", ["cut", "end"])
def test_it_goes_on_from_where_it_was(how: str, followed: tuple[ApiServer, Known, Follower]) -> None:
    api, known, follower = followed
    wait_for(lambda: known.lists == 1)
    for number in range(5):
        api.change("ADDED", str(number))
        wait_for(lambda: same(api, known))
        api.disturb(how)
    api.change("ADDED", "last")
    wait_for(lambda: same(api, known))
    assert follower.counts.lists == 1 and follower.counts.watches > 5


def test_a_bookmark_is_a_version_to_go_on_from(followed: tuple[ApiServer, Known, Follower]) -> None:
    api, known, follower = followed
    wait_for(lambda: follower.counts.watches == 1)
    for _ in range(3):
        api.change("BOOKMARK", "")
    wait_for(lambda: follower.counts.events == 3)
    with api.changed:
        api.compacted = api.version  # what was before the bookmark is too old; the bookmark is not
    api.disturb("end")
    api.change("ADDED", "a")
    wait_for(lambda: same(api, known))
    assert follower.counts.lists == 1


def test_a_version_that_is_too_old_is_answered_by_a_new_list(followed: tuple[ApiServer, Known, Follower]) -> None:
    api, known, follower = followed
    wait_for(lambda: known.lists == 1)
    api.change("ADDED", "a")
    wait_for(lambda: same(api, known))
    with api.changed:
        for uid in ("b", "c"):
            api.change("ADDED", uid)
        api.change("DELETED", "a")
        api.compact()
    wait_for(lambda: same(api, known) and known.lists >= 1 and set(known.uids) == {"b", "c"})


def test_a_server_that_is_away_leaves_what_is_known(
    followed: tuple[ApiServer, Known, Follower], caplog: pytest.LogCaptureFixture
) -> None:
    api, known, follower = followed
    api.change("ADDED", "a")
    wait_for(lambda: same(api, known))
    with caplog.at_level(logging.INFO, logger="kubernetes"):
        api.refuses = 503
        api.disturb("cut")
        wait_for(lambda: follower.counts.errors > 3)
        assert set(known.uids) == {"a"} and follower.counts.behind
        api.refuses = 0
        api.change("ADDED", "b")
        wait_for(lambda: same(api, known) and not follower.counts.behind)
    said = [record.getMessage() for record in caplog.records]
    assert len([line for line in said if "trying again" in line]) == 1 and "Kubernetes API: back" in said


def test_a_token_is_read_anew(served: tuple[ApiServer, Server, Path]) -> None:
    api, server, token = served
    server.list(PATH, {})
    api.token = "token-2"
    with pytest.raises(ApiError, match="401"):
        server.list(PATH, {})
    token.write_text("token-2\n")
    server.list(PATH, {})


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(ApiError, match=r"127\.0\.0\.1:1: "):
        Server("127.0.0.1", 1, tls=False).list(PATH, {})
    with pytest.raises(ApiError, match="No such file"):
        Server("127.0.0.1", 1, str(tmp_path / "none"), tls=False).list(PATH, {})


def test_watches_that_end_at_once_are_not_asked_for_over_and_over(followed: tuple[ApiServer, Known, Follower]) -> None:
    api, _known, follower = followed
    wait_for(lambda: follower.counts.watches >= 1)
    api.ends_at_once = True
    api.disturb("end")
    before = follower.counts.watches
    time.sleep(1.0)
    assert follower.counts.watches - before < 30


def test_inside_of_a_cluster_and_outside() -> None:
    found = Server.inside({"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"})
    assert found is not None and (found.host, found.port, found.tls) == ("10.96.0.1", 443, True)
    assert (
        Server.inside({}) is None and Server.inside({"KUBERNETES_SERVICE_HOST": "a", "KUBERNETES_SERVICE_PORT": "x"}) is None
    )


@pytest.mark.slow
def test_churn_with_everything_that_goes_wrong(followed: tuple[ApiServer, Known, Follower]) -> None:
    api, known, _follower = followed
    rng = random.Random(7)
    for number in range(2000):
        if number % 10 == 0:
            time.sleep(0.01)  # it is to be there while things change
        what = rng.random()
        uid = str(rng.randrange(300))
        if what < 0.5:
            api.change("MODIFIED" if uid in api.pods else "ADDED", uid, number=number)
        elif what < 0.8 and uid in api.pods:
            api.change("DELETED", uid)
        elif what < 0.9:
            api.change("BOOKMARK", "")
        elif what < 0.96:
            api.disturb(rng.choice(["cut", "end"]))
        elif what < 0.97:
            api.compact()
    assert known.lists > 1
    wait_for(lambda: same(api, known), 60)
