"""What shards are told of owners: by what is asked, by what the API server says, and when that changes."""

from __future__ import annotations

import json
import mmap
import os
import socket
import struct
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from collector import abi
from collector.attribution.containers import Place
from collector.attribution.hostfiles import HostFiles
from collector.attribution.places import Places
from collector.kubernetes import wire
from collector.kubernetes.pods import Container, Pod
from collector.loader import selecting
from collector.loader.mapped import Proc
from collector.loader.owning import NO_RING, QUESTION, RING_BYTES, Owning
from collector.loader.ringbuffer import Ring
from collector.loader.selecting import OwnedSelection
from collector.loader.selection import WORDS
from collector.settings import OwnerSettings

UID, CONTAINER = "0d5c6c4e-7b1b-4a54-9a51-0c3f8f1e2d3c", "c0ffee" * 10 + "beef"
GROUPS = f"0::/kubepods/besteffort/pod{UID}/{CONTAINER}\n"
POD = Pod(UID, "shop", "cart-0", {"app": "cart"}, node="n1", containers={CONTAINER: Container("app", "cart:1")})


class World:
    """A ring to ask in, processes that are files, and a socket of the API server's follower."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        self.directory = directory
        (directory / "proc").mkdir()
        (directory / "tree").mkdir()
        (directory / "tree/cgroup.procs").touch()
        self._fd = os.memfd_create("ring")
        os.truncate(self._fd, 2 * 4096 + RING_BYTES)
        self.memory = mmap.mmap(self._fd, 2 * 4096 + RING_BYTES)
        self._at = 0
        self.owning = Owning(
            Ring(self._fd, RING_BYTES, memfd=True),
            OwnerSettings(node="n1", kubernetes=True, **settings),
            Places(str(directory / "proc"), trees=(str(directory / "tree"),), mounted=(str(directory / "tree"),)),
            HostFiles(roots=(str(directory / "host"),)),
        )
        self.follower, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.owning.listen(theirs.detach())
        self.now = 100.0

    def close(self) -> None:
        """Everything that is open."""
        self.owning.close()
        self.follower.close()
        self.memory.close()
        os.close(self._fd)

    def process(self, tgid: int, groups: str, state: str = "S", ticks: int = 0) -> None:
        """Its files."""
        place = self.directory / "proc" / str(tgid)
        place.mkdir(exist_ok=True)
        (place / "cgroup").write_text(groups)
        (place / "stat").write_text(f"{tgid} (x) {state} " + " ".join(["0"] * 18) + f" {ticks or tgid} 0")

    def group(self, path: str) -> int:
        """The number of a group of version 2, which is made if it is not there."""
        place = self.directory / "tree" / path.strip("/")
        place.mkdir(parents=True, exist_ok=True)
        return place.stat().st_ino

    def ask(self, tgid: int, ring: int = 0, group: int = 0, start: int = 0) -> None:
        """As bpf/owners.h does."""
        entry = struct.pack("=II", QUESTION.size, 0) + QUESTION.pack(group, start, tgid, ring)
        start = 2 * 4096 + self._at % RING_BYTES
        self.memory[start : start + len(entry)] = entry
        self._at += len(entry)
        self.memory[4096:4104] = struct.pack("=Q", self._at)

    def say(self, *messages: bytes) -> None:
        """As kubernetes/process.py does."""
        for message in messages:
            self.follower.send(message)
        self.owning.hear()

    def told(self) -> list[tuple[int, dict[str, Any], int]]:
        """(process, fields, flags) of the events that are due."""
        self.now += 1.0
        events = [*self.owning.answers(self.now, 7), *self.owning.changes(self.now, 7)]
        out = []
        for _ring, event in events:
            length, _page = struct.unpack_from("=II", event)
            (tgid,) = struct.unpack_from("=I", event, 8 + 24)
            out.append((tgid, json.loads(b"{" + event[8 + 56 : 8 + length] + b"}"), event[8 + 46]))
        return out


@pytest.fixture
def world(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[World]:
    found = World(tmp_path, **getattr(request, "param", {}))
    yield found
    found.close()


ALL, DONE = b'{"kind":"all"}', b'{"kind":"done"}'


def pod(selected: bool = True, pod: Pod = POD) -> bytes:
    """A message."""
    told = wire.Told(pod, dict.fromkeys(pod.containers, selected), selected, wire.labels_text(pod.labels))
    return wire.pack(told)


def gone(uid: str = UID) -> bytes:
    """A message."""
    return json.dumps({"kind": "gone", "uid": uid}).encode()


def test_a_pod_that_is_known(world: World) -> None:
    world.process(7, GROUPS)
    world.say(ALL, pod(), DONE)
    world.ask(7)
    ((tgid, fields, flags),) = world.told()
    assert (tgid, flags) == (7, 0)
    assert fields == {
        "namespace": "shop",
        "pod": "cart-0",
        "container": "app",
        "node": "n1",
        "image": "cart:1",
        "tag": '{"app":"cart"}',
    }


def test_a_pod_that_comes_later(world: World) -> None:
    world.process(7, GROUPS)
    world.ask(7)
    (found,) = [*world.owning.answers(100.0, 7)]
    assert found[1][8 + 46] == abi.F_PENDING
    world.say(pod())
    ((_tgid, fields, flags),) = world.told()
    assert (fields["pod"], flags) == ("cart-0", 0)
    assert world.told() == []


def test_a_pod_that_never_comes(world: World) -> None:
    world.process(7, GROUPS)
    world.ask(7)
    assert [*world.owning.answers(100.0, 7)][0][1][8 + 46] == abi.F_PENDING
    assert world.told() == []  # the shard waits no longer than it was told


def test_the_kubelets_files_name_what_the_server_does_not(world: World) -> None:
    logs = world.directory / "host/var/log"
    (logs / f"pods/shop_cart-0_{UID}").mkdir(parents=True)
    (logs / "containers").mkdir()
    (logs / f"containers/cart-0_shop_app-{CONTAINER}.log").touch()
    (logs / "containers/nonsense.log").touch()
    files = HostFiles(roots=(str(world.directory / "nowhere"), str(world.directory / "host")))
    assert files.pod(UID, (CONTAINER,), 5.0) == {"namespace": "shop", "pod": "cart-0", "container": "app"}
    assert files.pod("other", ("f" * 64,), 6.0) == {}


def test_docker_names_its_containers(world: World) -> None:
    directory = world.directory / f"host/var/lib/docker/containers/{CONTAINER}"
    directory.mkdir(parents=True)
    (directory / "config.v2.json").write_text(json.dumps({"Name": "/web", "Config": {"Image": "nginx:1"}}))
    files = HostFiles(roots=(str(world.directory / "host"),))
    assert files.docker((CONTAINER,)) == {"container": "web", "image": "nginx:1"}
    (directory / "config.v2.json").write_text("[")
    assert HostFiles(roots=(str(world.directory / "host"),)).docker((CONTAINER,)) == {}


def test_a_service_of_systemd(world: World) -> None:
    world.process(7, "0::/system.slice/nginx.service\n")
    world.ask(7)
    assert world.told() == [(7, {"node": "n1", "workload": "Unit/nginx.service"}, 0)]


def test_labels_that_change_are_told_again(world: World) -> None:
    world.process(7, GROUPS)
    world.process(8, GROUPS)
    world.say(ALL, pod(), DONE)
    world.ask(7, ring=1)
    world.ask(8, ring=2)
    assert len(world.told()) == 2
    world.say(pod(pod=Pod(UID, "shop", "cart-0", {"app": "new"}, containers=POD.containers)))
    assert {(tgid, fields["tag"]) for tgid, fields, _flags in world.told()} == {(7, '{"app":"new"}'), (8, '{"app":"new"}')}


def test_a_pod_that_is_not_captured_any_more(world: World) -> None:
    world.process(7, GROUPS)
    world.say(ALL, pod(), DONE)
    world.ask(7)
    world.told()
    world.say(pod(selected=False))
    assert [flags for _tgid, _fields, flags in world.told()] == [abi.F_UNSELECTED]
    assert world.owning.moved
    world.say(pod())
    assert [flags for _tgid, _fields, flags in world.told()] == [0]


def test_only_selection_is_asked_for_at_the_beginning_of_a_program(world: World) -> None:
    world.process(7, GROUPS)
    world.say(ALL, pod(selected=False), DONE)
    world.ask(7, ring=NO_RING)
    decided: dict[int, bool] = {}
    assert [*world.owning.answers(100.0, 7, decided.__setitem__)] == []
    assert decided == {7: False}


@pytest.mark.parametrize("world", [{"host_processes": False}], indirect=True)
def test_host_processes_are_left_alone_when_that_is_said(world: World) -> None:
    world.process(7, "0::/user.slice\n")
    world.ask(7)
    assert [flags for _tgid, _fields, flags in world.told()] == [abi.F_UNSELECTED]
    assert not world.owning.default


def test_a_pod_that_is_gone_is_remembered(world: World) -> None:
    world.process(7, GROUPS)
    world.say(ALL, pod(), DONE)
    world.say(gone())
    world.ask(7)
    assert world.told()[0][1]["pod"] == "cart-0"


def test_what_did_not_come_again_is_gone(world: World) -> None:
    """The follower was started anew."""
    other = Pod("1", "shop", "other-0", addresses=("10.0.0.9",))
    world.say(ALL, pod(), pod(pod=other), DONE)
    assert len(world.owning.peers(7)) == 1
    world.say(ALL, pod(), DONE)
    (event,) = world.owning.peers(7)
    assert struct.unpack_from("=I", event, 8 + 40)[0] == 0, "nobody has that address any more"


def test_addresses_are_told_once_and_again_to_who_is_new(world: World) -> None:
    world.say(ALL, pod(pod=Pod(UID, "shop", "cart-0", addresses=("10.0.0.1", "fd00::1", "nonsense"))), DONE)
    assert len(world.owning.peers(7)) == 2 and world.owning.peers(7) == []
    assert len(world.owning.all_peers(7)) == 2


@pytest.mark.parametrize(
    "message",
    [
        b"{",
        b"[]",
        b'{"kind":"x"}',
        b'{"kind":"pod"}',
        pod().replace(b'"uid":"', b'"uid":1,"x":"'),
        pod().replace(b"true", b"1"),
        pod().replace(b'["app"', b'[["app"]'),
    ],
)
def test_messages_that_are_none_change_nothing(world: World, message: bytes, caplog: pytest.LogCaptureFixture) -> None:
    world.process(7, GROUPS)
    world.say(ALL, pod(), DONE, message)
    assert "that is none" in caplog.text
    world.ask(7)
    assert world.told()[0][1]["pod"] == "cart-0"


def test_a_process_that_has_ended(world: World) -> None:
    """Its group is known by number, as another process was in it."""
    world.process(7, GROUPS)
    world.say(ALL, pod(), DONE)
    its = world.group(GROUPS.strip().removeprefix("0::"))
    world.ask(7, group=its)
    world.ask(9, group=its)
    world.ask(10, group=world.group("other"))
    told = world.told()
    assert [fields.get("pod") for _tgid, fields, _flags in told] == ["cart-0", "cart-0", None]
    assert world.owning.unknown == 1


@pytest.mark.parametrize("selected", [True, False])
def test_processes_that_had_ended_wait_for_the_next_look_at_all_groups(world: World, selected: bool) -> None:
    """Which is not made for each of them: what they said must not go out meanwhile."""
    world.say(ALL, pod(selected=selected), DONE)
    world.ask(8, group=world.group("other"))
    assert [*world.owning.answers(100.0, 7)]
    its = world.group(GROUPS.strip().removeprefix("0::"))
    world.ask(9, group=its)
    ((_ring, event),) = world.owning.answers(100.001, 7)
    assert event[8 + 46] == abi.F_PENDING
    (found,) = [one for one in world.told() if one[0] == 9]
    assert found[1]["pod"] == "cart-0" and found[2] == (0 if selected else abi.F_UNSELECTED)
    assert world.owning.unknown == 1, "the other one"


def test_a_process_that_was_moved_and_has_ended_is_not_where_it_was_seen(world: World) -> None:
    world.say(ALL, pod(selected=False), DONE)
    world.process(9, "0::/system.slice/x.service\n")
    world.ask(9, ring=NO_RING, group=world.group("system.slice/x.service"))
    assert not world.told()
    world.process(9, "", state="Z")
    world.ask(9, group=world.group(GROUPS.strip().removeprefix("0::")))
    assert [(fields.get("pod"), flags) for _tgid, fields, flags in world.told()][-1] == ("cart-0", abi.F_UNSELECTED)
    world.ask(9, group=world.group("other"))
    assert [(fields.get("pod"), flags) for _tgid, fields, flags in world.told()][-1] == (None, abi.F_UNSELECTED)


def test_a_process_that_was_looked_at_before_it_was_put_into_its_container(world: World) -> None:
    world.say(ALL, pod(selected=False), DONE)
    world.process(9, "0::/user.slice\n")
    assert world.owning.look(9, 100.0)
    world.process(9, "", state="Z")
    world.ask(9, group=world.group("gone"))
    assert [flags for _tgid, _fields, flags in world.told()][-1] == abi.F_UNSELECTED


def test_after_questions_that_found_no_room_all_are_told_of_all(world: World) -> None:
    for tgid in (7, 8):
        world.process(tgid, GROUPS)
    world.say(ALL, pod(), DONE)
    for _ in range(RING_BYTES // 32):
        world.ask(7)
    assert [*world.owning.answers(100.0, 7)] and world.owning.overflowed
    told = {struct.unpack_from("=I", event, 8 + 24)[0]: event for event in world.owning.everybody([8], [0, 1], 100.0, 7)}
    assert set(told) == {7, 8} and all(b'"pod":"cart-0"' in event for event in told.values())
    world.say(pod(selected=False))
    assert sorted((tgid, flags) for tgid, _fields, flags in world.told()) == [(7, 2), (7, 2), (8, 2), (8, 2)], "in each ring"


def test_what_nobody_can_say_whose_it_is_is_left_out_where_a_pod_is(world: World) -> None:
    world.say(ALL, pod(), DONE)
    world.ask(8, group=world.group("other"))
    assert [flags for _tgid, _fields, flags in world.told()] == [0]
    world.say(pod(selected=False))
    assert [(tgid, flags) for tgid, _fields, flags in world.told()] == [(8, abi.F_UNSELECTED)]
    world.ask(9, group=world.group("another"))
    assert [(tgid, flags) for tgid, _fields, flags in world.told()] == [(9, abi.F_UNSELECTED)]


def test_a_container_is_chosen_by_the_name_that_files_give_it(tmp_path: Path) -> None:
    """Its status comes seconds later."""
    logs = tmp_path / "host/var/log/containers"
    logs.mkdir(parents=True)
    (logs / f"cart-0_shop_app-{CONTAINER}.log").touch()
    (tmp_path / f"host/var/log/pods/shop_cart-0_{UID}/app").mkdir(parents=True)
    world = World(tmp_path)
    try:
        early = Pod(UID, "shop", "cart-0", node="n1", names=("app", "istio-proxy"))
        world.process(7, GROUPS)
        world.process(8, GROUPS.replace(CONTAINER, "2" * 64))
        world.say(ALL, wire.pack(wire.Told(early, {}, False, "", {"app": True, "istio-proxy": False})), DONE)
        world.ask(7)
        world.ask(8)
        told = {tgid: (fields.get("container"), flags) for tgid, fields, flags in world.told()}
        assert told == {7: ("app", 0), 8: (None, abi.F_UNSELECTED)}
    finally:
        world.close()


def test_a_group_is_not_known_by_a_process_that_has_left_it(world: World) -> None:
    """It asked while it was in a group of the host, and is in the pod's when that is looked at."""
    world.process(7, GROUPS)
    world.process(8, "0::/system.slice/x.service\n")
    world.say(ALL, pod(), DONE)
    service = world.group("system.slice/x.service")
    world.group(GROUPS.strip().removeprefix("0::"))
    for tgid in (7, 8, 9):
        world.ask(tgid, group=service)
    told = [(fields.get("pod"), fields.get("workload")) for _tgid, fields, _flags in world.told()]
    assert told == [("cart-0", None), (None, "Unit/x.service"), (None, "Unit/x.service")]


def test_groups_as_a_control_group_namespace_shows_them(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    ours, theirs = tree / "kubepods/podours/c", tree / f"kubepods/pod{UID}/{CONTAINER}"
    for directory in (ours, theirs):
        directory.mkdir(parents=True)
    for directory in (tree, ours):
        (directory / "cgroup.procs").touch()
    places = Places(str(tmp_path / "proc"), trees=(str(tree),), mounted=(str(ours),))
    for tgid, path in ((7, f"/../../pod{UID}/{CONTAINER}"), (8, "/")):
        place = tmp_path / "proc" / str(tgid)
        place.mkdir(parents=True)
        (place / "cgroup").write_text(f"0::{path}\n")
        (place / "stat").write_text(f"{tgid} (x) S " + " ".join(["0"] * 18) + " 1 0")
    assert places.find(7, 0, theirs.stat().st_ino, 100.0)[0] == Place(UID, (CONTAINER,))
    assert places.of_group(theirs.stat().st_ino) == Place(UID, (CONTAINER,))
    places.find(8, 0, ours.stat().st_ino, 100.0)
    assert places.of_group(ours.stat().st_ino) == Place()
    places.find(8, 0, theirs.parent.stat().st_ino, 100.0)
    assert places.of_group(theirs.parent.stat().st_ino) is None


def test_where_only_version_1_sorts_containers_groups_are_not_taken_for_each_other(world: World) -> None:
    shared = "0::/system.slice/containerd.service\n"
    world.process(7, f"4:memory:/kubepods/pod{UID}/{CONTAINER}\n{shared}")
    world.process(8, f"4:memory:/kubepods/pod{UID.replace('0', '1')}/{'1' * 64}\n{shared}")
    world.say(ALL, pod(), DONE)
    shared_group = world.group("system.slice/containerd.service")
    world.ask(7, group=shared_group)
    world.ask(8, group=shared_group)
    told = {tgid: fields.get("pod") for tgid, fields, _flags in world.told()}
    assert told[7] == "cart-0" and told[8] is None


def test_a_process_that_is_moved_is_told_of_wherever_it_was_asked_for(world: World) -> None:
    world.process(7, "0::/user.slice\n")
    world.say(ALL, pod(), DONE)
    world.ask(7, ring=1)
    assert [fields.get("pod") for _tgid, fields, _flags in world.told()] == [None]
    world.process(7, GROUPS)
    world.ask(7, ring=2)
    assert [fields.get("pod") for _tgid, fields, _flags in world.told()] == ["cart-0"] * 3, "the answer, and both rings"
    world.say(pod(pod=Pod(UID, "shop", "cart-0", {"app": "new"}, containers=POD.containers)))
    assert [fields["tag"] for _tgid, fields, _flags in world.told()] == ['{"app":"new"}'] * 2


def test_one_that_has_ended_is_not_where_it_seems_to_be(world: World) -> None:
    """In version 1 it is in the root."""
    world.process(7, "4:memory:/\n", state="Z")
    world.ask(7)
    assert world.told() == [(7, {"node": "n1"}, 0)] and world.owning.unknown == 1


def test_a_number_that_is_used_again(world: World) -> None:
    """By a process of which nobody can say where it was, behind a look at all processes."""
    world.process(7, GROUPS)
    world.say(ALL, pod(), DONE)
    assert world.owning.look(7, 100.0)
    world.process(7, "", ticks=9000)
    world.ask(7, start=9000 * 10_000_000)
    assert world.told() == [(7, {"node": "n1"}, 0)] and world.owning.unknown == 1


def test_what_changes_is_told_wherever_it_was_asked_for(world: World) -> None:
    """Even if it is asked for once more before that is noticed."""
    world.process(7, GROUPS)
    world.say(ALL, pod(), DONE)
    world.ask(7, ring=1)
    world.told()
    world.say(pod(selected=False))
    world.ask(7, ring=2)
    assert [flags for _tgid, _fields, flags in world.told()] == [abi.F_UNSELECTED] * 3, "the answer, and both rings"
    world.say(pod())
    assert world.owning.look(7, 300.0)
    assert [flags for _tgid, _fields, flags in world.told()] == [0, 0]


@pytest.mark.parametrize("world", [{"everything": False}], indirect=True)
def test_a_pod_that_is_not_known_yet_is_not_captured(world: World) -> None:
    world.process(7, GROUPS)
    world.ask(7)
    (found,) = [*world.owning.answers(100.0, 7)]
    assert found[1][8 + 46] == abi.F_PENDING | abi.F_UNSELECTED
    world.say(ALL, pod(), DONE)
    assert [flags for _tgid, _fields, flags in world.told()] == [0]


@pytest.mark.parametrize("world", [{"everything": False}], indirect=True)
def test_a_loader_behind_another_one_lets_its_choice_stand_until_it_knows_better(world: World) -> None:
    """What begins in a control group that the other one had not decided on was not chosen by anybody: it is held for a
    moment, in which the API server's word may come, and left alone then.
    """
    its = world.group(GROUPS.strip().removeprefix("0::"))
    world.owning.before = frozenset({its})
    for tgid, groups in ((7, GROUPS), (8, GROUPS), (9, GROUPS.replace(CONTAINER, "1" * 64))):
        world.process(tgid, groups)
    assert world.owning.look(7, 100.0) and world.owning.waits()
    decided: dict[int, bool] = {}
    world.ask(8, ring=NO_RING, group=its)
    world.ask(9, ring=NO_RING, group=world.group("new"))
    world.ask(9, ring=0)
    events = [*world.owning.answers(100.0, 7, decided.__setitem__)]
    assert decided == {8: True, 9: True}
    assert [event[8 + 46] for _ring, event in events] == [abi.F_PENDING]
    assert [(tgid, flags) for tgid, _fields, flags in world.told()] == [(9, abi.F_PENDING | abi.F_UNSELECTED)]
    assert world.owning.moved == {9}
    world.say(ALL, DONE)
    assert not world.owning.waits() and not world.owning.look(7, 200.0)


def test_the_text_of_a_container_is_kept_once(world: World) -> None:
    long = Pod(UID, "shop", "cart-0", {}, node="n1", containers={CONTAINER: Container("app", "cart:" + "1" * 8192)})
    for tgid in range(10, 1010):
        world.process(tgid, GROUPS)
    world.say(ALL, pod(pod=long), DONE)
    tracemalloc.start()
    try:
        for tgid in range(10, 1010):
            assert len(world.owning.introduce(tgid, 0, 100.0, 7)) > 8192
        assert tracemalloc.get_traced_memory()[0] < 2 << 20
    finally:
        tracemalloc.stop()
    world.say(pod(pod=long, selected=False))
    assert not world.owning.look(10, 100.0), "what is known is not kept longer than it is true"


def test_a_shard_that_is_new(world: World) -> None:
    """It is told of processes with open connections, and of what changes later."""
    world.process(7, GROUPS)
    world.say(ALL, pod(), DONE)
    assert b'"pod":"cart-0"' in world.owning.introduce(7, 3, 100.0, 7)
    world.say(pod(selected=False))
    assert [flags for _tgid, _fields, flags in world.told()] == [abi.F_UNSELECTED]


@pytest.mark.parametrize("world", [{"fields": False}], indirect=True)
def test_selection_without_names(world: World) -> None:
    world.process(7, GROUPS)
    world.say(ALL, pod(selected=False), DONE)
    world.ask(7)
    assert world.told() == [(7, {}, abi.F_UNSELECTED)]


def test_groups_of_which_the_tree_says_nothing(tmp_path: Path) -> None:
    """Where version 1 sorts containers, what version 2 has is a service that they share."""
    tree = tmp_path / "tree"
    service, container = tree / "system.slice/containerd.service", tree / f"kubepods/pod{UID}/{CONTAINER}"
    for directory in (service, container):
        directory.mkdir(parents=True)
    (tree / "cgroup.procs").touch()
    places = Places(str(tmp_path / "proc"), trees=(str(tree),))
    assert places.find(7, 0, container.stat().st_ino, 100.0)[0] == Place(UID, (CONTAINER,))
    assert places.find(7, 0, service.stat().st_ino, 200.0)[0] is None


class Crowd(Proc):
    """A node with many processes: 7, and others that are none of a pod."""

    def pids(self) -> list[int]:
        """Of all, and 7 would be the last to be looked at."""
        return [7, *range(1000, 2000)]


@pytest.mark.parametrize("world", [{"everything": False, "host_processes": False}], indirect=True)
def test_who_has_changed_is_looked_at_first(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many others there are. The time is such that a turn looks at one process."""
    ticks = iter(range(1_000_000))
    monkeypatch.setattr("collector.loader.selecting.time.monotonic", lambda: next(ticks) * selecting.SLICE_SECONDS * 0.6)
    bits = os.memfd_create("bits")
    os.truncate(bits, WORDS * 8)
    selection = OwnedSelection(bits, -1, world.owning, Crowd())
    os.close(bits)
    selection.begin()
    world.process(7, GROUPS)
    world.say(ALL, pod(selected=False), DONE)
    world.ask(7)
    world.told()
    for turn in range(3):
        selection.turn(100.0 + turn)
    for selected in (True, False, True):
        world.say(pod(selected=selected))
        world.told()
        selection.turn(world.now)
        assert selection.captures(7) == selected
        selection.turn(world.now)  # and another one in its turn
