"""Questions about descriptors, asked of real sockets of this process."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from collector.loader import addresses
from collector.loader.addresses import Ends

NOBODY = 2**22 - 1  # no process has this number: pid_max is at most 4194304
CLOSED = 1000  # a descriptor that we do not have


def test_ends_of_tcp() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as client:
        server, _ = listener.accept()
        with server:
            here, there = client.getsockname(), client.getpeername()
            assert addresses.ends(os.getpid(), client.fileno()) == Ends(socket.AF_INET, here, there)
            assert addresses.ends(os.getpid(), server.fileno()) == Ends(socket.AF_INET, there, here)
            assert addresses.ends(os.getpid(), listener.fileno()) == Ends(socket.AF_INET, there, ("", 0))
            assert client.getpeername() == there  # the descriptor that was duplicated still works


def test_ends_of_tcp_over_ipv6() -> None:
    try:
        listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        listener = socket.create_server(("::", 0), family=socket.AF_INET6)
    with listener:
        found = addresses.ends(os.getpid(), listener.fileno())
        assert found == Ends(socket.AF_INET6, listener.getsockname()[:2], ("", 0))


def test_what_is_no_stream_socket_has_no_ends(tmp_path: Path) -> None:
    a, b = socket.socketpair()
    with a, b:
        assert addresses.ends(os.getpid(), a.fileno()) == Ends(socket.AF_UNIX, ("", 0), ("", 0))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        assert addresses.ends(os.getpid(), datagrams.fileno()) == Ends(0, ("", 0), ("", 0))
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW) as netlink:
        assert addresses.ends(os.getpid(), netlink.fileno()) == Ends(0, ("", 0), ("", 0))
    with (tmp_path / "file").open("w") as file:
        assert addresses.ends(os.getpid(), file.fileno()) == Ends(0, ("", 0), ("", 0))
        assert addresses.is_socket(os.getpid(), file.fileno()) is False


def test_nothing_is_left_open() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        before = os.listdir("/proc/self/fd")
        for _ in range(3):
            addresses.ends(os.getpid(), listener.fileno())
            addresses.ends(os.getpid(), 0)
            addresses.ends(os.getpid(), CLOSED)
        assert os.listdir("/proc/self/fd") == before


def test_who_is_gone_is_not_known() -> None:
    with socket.socket() as sock:
        assert addresses.is_socket(os.getpid(), sock.fileno()) is True
    assert addresses.is_socket(os.getpid(), CLOSED) is None
    assert addresses.is_socket(NOBODY, 0) is None
    assert addresses.ends(os.getpid(), CLOSED) is None
    assert addresses.ends(NOBODY, 0) is None


def test_look_ups_are_limited_by_the_second() -> None:
    limiter = addresses.Limiter()
    allowed = [limiter.allow(100 + n / (4 * addresses.PER_SECOND)) for n in range(4 * addresses.PER_SECOND)]
    assert allowed == [True] * addresses.PER_SECOND + [False] * 3 * addresses.PER_SECOND
    assert limiter.allow(101.0) and limiter.allow(200.5)
