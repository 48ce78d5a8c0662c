"""Who looks at the collector, and which shards know."""

from __future__ import annotations

import array
import json
import os
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from collector import viewing
from collector.counter_names import SUPERVISOR_NAMES
from collector.counters import Counters
from collector.eyes.connection import Connection, EndedError, RefusedError
from collector.status import NoAnswerError
from collector.supervisor.child import ChildProcess
from collector.supervisor.lock import OWN_NAME
from collector.supervisor.viewers import ASK_SECONDS, Viewers
from collector.viewing import MOST_VIEWERS, VIEW_SOCKET, Request


class Shard(ChildProcess):
    """A shard's place in the supervisor, without a process: what it is told is kept."""

    def __init__(self, number: int) -> None:
        super().__init__(f"shard-{number}", "shard", "", number, Counters(memoryview(array.array("Q", [0] * 128)), ()))
        self.lives = 1
        self.alive = True
        self.reachable = True
        self.heard: list[dict[str, Any]] = []
        self.sockets: list[socket.socket] = []

    @property
    def pid(self) -> int | None:
        return 1 if self.alive else None

    def tell(self, message: dict[str, Any], fds: Sequence[int] = ()) -> bool:
        if self.reachable:
            self.heard.append(message)
            self.sockets += [socket.socket(fileno=os.dup(fd)) for fd in fds]
        return self.reachable


class Rig:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / OWN_NAME).mkdir(mode=0o700)
        self.fd = os.open(directory / OWN_NAME, os.O_RDONLY | os.O_DIRECTORY)
        self.own = Counters(memoryview(array.array("Q", [0] * 128)), SUPERVISOR_NAMES)
        self.shards = [Shard(0), Shard(1)]
        self.viewers = Viewers(self.fd, self.shards, self.own)
        self.viewers.open()
        self.now = 0.0
        self.ends: list[socket.socket] = []

    def connect(self, data: bytes = b"") -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.ends.append(sock)
        sock.connect(str(self.directory / OWN_NAME / VIEW_SOCKET))
        sock.settimeout(5)
        if data:
            sock.sendall(data)
        return sock

    def come(self, request: Request | None = None) -> tuple[socket.socket, dict[str, Any]]:
        sock = self.connect(json.dumps((request or Request()).to_message()).encode())
        self.turn()
        return sock, viewing.unpack(sock.recv(1 << 16))[0]

    def turn(self) -> None:
        self.viewers.turn(self.now)

    def close(self) -> None:
        self.viewers.close()
        for sock in (*self.ends, *(sock for shard in self.shards for sock in shard.sockets)):
            sock.close()
        os.close(self.fd)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.close()


def test_only_our_user_reaches_the_socket(rig: Rig) -> None:
    assert (rig.directory / OWN_NAME / VIEW_SOCKET).stat().st_mode & 0o777 == 0o600


def test_every_shard_is_told_once_in_each_life(rig: Rig) -> None:
    sock, answer = rig.come(Request(path="/x"))
    assert answer["shards"] == 2 and "refused" not in answer
    rig.turn()
    for shard in rig.shards:
        (message,) = shard.heard
        assert message["kind"] == "view" and Request.from_message(message["request"]) == Request(path="/x")
    rig.shards[1].lives = 2
    rig.turn()
    rig.turn()
    assert [len(shard.heard) for shard in rig.shards] == [1, 2]
    rig.shards[1].sockets[1].send(viewing.pack({"shard": 1}, b"hello"))  # the new life speaks to the viewer itself
    assert viewing.unpack(sock.recv(1000)) == ({"shard": 1}, b"hello")


def test_one_that_cannot_be_reached_is_told_later(rig: Rig) -> None:
    rig.shards[0].reachable = False
    rig.shards[1].alive = False
    rig.come()
    assert [shard.heard for shard in rig.shards] == [[], []]
    rig.shards[0].reachable = rig.shards[1].alive = True
    rig.turn()
    assert [len(shard.heard) for shard in rig.shards] == [1, 1]


def test_one_that_has_gone_is_forgotten(rig: Rig) -> None:
    sock, _answer = rig.come()
    other, _answer = rig.come()
    assert rig.own["viewers"] == 2
    sock.close()
    rig.turn()
    assert rig.own["viewers"] == 1
    other.sendall(b"more than was asked")
    rig.turn()
    assert rig.own["viewers"] == 0
    for shard in rig.shards:
        shard.lives = 2
    rig.turn()
    assert all(len(shard.heard) == 2 for shard in rig.shards)


def test_eight_may_look(rig: Rig) -> None:
    answers = [rig.come()[1] for _ in range(MOST_VIEWERS + 1)]
    assert ["refused" in answer for answer in answers] == [False] * MOST_VIEWERS + [True]
    assert rig.own["viewers_refused"] == 1 and rig.own["viewers"] == MOST_VIEWERS
    rig.ends[0].close()
    rig.turn()
    assert "refused" not in rig.come()[1]


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\r\n\r\n", b"[]", b"{}" * 5000, b'{"figures": 1}', b'{"status": ["x"]}', b"[" * 8000]
)
def test_what_is_no_request_is_refused_with_the_reason(rig: Rig, data: bytes) -> None:
    sock = rig.connect(data)
    rig.turn()
    assert "cannot be read" in viewing.unpack(sock.recv(1 << 16))[0]["refused"]
    assert sock.recv(1) == b"" and rig.own["viewers"] == 0 and not rig.shards[0].heard


def test_one_that_says_nothing_has_five_seconds(rig: Rig) -> None:
    sock = rig.connect()
    rig.turn()
    rig.now = ASK_SECONDS - 0.1
    rig.turn()
    assert len(rig.viewers.sockets()) == 2
    rig.now = ASK_SECONDS
    rig.turn()
    assert len(rig.viewers.sockets()) == 1 and sock.recv(1) == b""


def test_without_a_directory_nobody_can_look() -> None:
    viewers = Viewers(None, [], Counters(memoryview(array.array("Q", [0] * 128)), SUPERVISOR_NAMES))
    viewers.open()
    viewers.turn(0.0)
    assert viewers.sockets() == []
    viewers.close()


def test_a_socket_that_a_killed_collector_left_is_in_nobodys_way(rig: Rig) -> None:
    again = Viewers(rig.fd, [], rig.own)
    again.open()
    assert len(again.sockets()) == 1
    again.close()


def test_the_command_is_told_why_nobody_answers(tmp_path: Path) -> None:
    with pytest.raises(NoAnswerError, match="no collector answers at"):
        Connection(str(tmp_path), Request())
    (tmp_path / OWN_NAME).mkdir()
    with pytest.raises(NoAnswerError, match="No such file"):
        Connection(str(tmp_path), Request())


class Answers:
    """A collector's end of a connection, for the viewer's side."""

    def __init__(self, directory: Path, answer: bytes) -> None:
        (directory / OWN_NAME).mkdir(mode=0o700)
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(str(directory / OWN_NAME / VIEW_SOCKET))
        self.listener.listen(1)
        self.answer = answer
        self.sock = self.listener

    def accept(self) -> None:
        self.sock, _address = self.listener.accept()
        self.sock.recv(1 << 16)
        self.sock.send(self.answer)


def test_the_viewer_counts_what_each_life_of_each_shard_has_lost(tmp_path: Path) -> None:
    import threading

    answers = Answers(tmp_path, viewing.pack({"shards": 2}))
    thread = threading.Thread(target=answers.accept)
    thread.start()
    connection = Connection(str(tmp_path), Request())
    thread.join()
    for shard, lost in ((0, 5), (1, 1), (0, 7), (0, 2), (1, 1)):  # a new life of shard 0 begins at zero
        answers.sock.send(viewing.pack({"shard": shard, "lost": lost}, b"x"))
    answers.sock.send(b"nonsense")
    assert len(list(connection.receive())) == 5 and connection.lost == 10
    answers.sock.close()
    with pytest.raises(EndedError):
        list(connection.receive())
    connection.close()
    answers.listener.close()


def test_the_viewer_says_why_it_is_refused(tmp_path: Path) -> None:
    import threading

    answers = Answers(tmp_path, viewing.pack({"refused": "8 viewers are there already"}))
    thread = threading.Thread(target=answers.accept)
    thread.start()
    with pytest.raises(RefusedError, match="8 viewers"):
        Connection(str(tmp_path), Request())
    thread.join()
    answers.sock.close()
    answers.listener.close()
