"""The control channel: whole messages or none, descriptors in portions."""

from __future__ import annotations

import fcntl
import os
import resource
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector import control


def test_a_message_and_its_descriptors() -> None:
    ours, theirs = control.pair()
    read, write = os.pipe()
    with ours, theirs:
        control.send(ours, {"kind": "x", "text": "\u2013"}, [read, write])
        received = control.receive(theirs)
        assert received is not None
        message, fds = received
        assert message == {"kind": "x", "text": "\u2013"} and len(fds) == 2
        assert not any(os.get_inheritable(fd) for fd in fds)
        os.write(fds[1], b"!")
        assert os.read(read, 1) == b"!"
        for fd in (read, write, *fds):
            os.close(fd)
        control.send(ours, {})
        assert control.receive(theirs) == ({}, [])
        ours.close()
        assert control.receive(theirs) is None


@given(st.binary(max_size=300))
def test_what_is_no_message_is_refused(data: bytes) -> None:
    ours, theirs = control.pair()
    with ours, theirs:
        ours.send(data)
        theirs.setblocking(False)
        try:
            received = control.receive(theirs)
        except ValueError:
            return
        assert received is None and not data or received is not None and isinstance(received[0], dict)


def test_deep_nesting_is_refused() -> None:
    ours, theirs = control.pair()
    with ours, theirs:
        ours.send(b"[" * 100_000)
        with pytest.raises((ValueError, RecursionError)):
            control.receive(theirs)


def test_a_message_without_all_its_descriptors_is_refused_and_leaks_none() -> None:
    """This process may have no more of them: the kernel cuts the list off (MSG_CTRUNC)."""
    ours, theirs = control.pair()
    with ours, theirs:
        control.send(ours, {"kind": "held"}, [ours.fileno()] * control.MAX_FDS)
        before = set(os.listdir("/proc/self/fd"))
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (control.MAX_FDS // 2, hard))
        try:
            with pytest.raises(ValueError, match="cut off"):
                control.receive(theirs)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert set(os.listdir("/proc/self/fd")) == before


def test_more_descriptors_than_a_message_takes_are_refused_by_the_sender() -> None:
    ours, theirs = control.pair()
    with ours, theirs, pytest.raises(ValueError, match="too long"):
        control.send(ours, {}, [ours.fileno()] * (control.MAX_FDS + 1))


@given(st.dictionaries(st.text(max_size=8), st.integers(0, 1 << 20), max_size=350))
def test_batches_are_everything_in_order_and_no_more_than_a_message_takes(named: dict[str, int]) -> None:
    portions = list(control.batches(named))
    assert all(0 < len(names) == len(fds) <= control.MAX_FDS for names, fds in portions)
    assert [pair for names, fds in portions for pair in zip(names, fds, strict=True)] == list(named.items())


def test_the_pair_keeps_messages_apart() -> None:
    ours, theirs = control.pair()
    with ours, theirs:
        assert ours.type == socket.SOCK_SEQPACKET
        for number in range(3):
            control.send(ours, {"number": number})
        assert [(control.receive(theirs) or ({}, []))[0]["number"] for _ in range(3)] == [0, 1, 2]


def test_descriptors_may_have_any_number() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    ours, theirs = control.pair()
    try:
        with ours, theirs, socket.socket(fileno=fcntl.fcntl(ours, fcntl.F_DUPFD_CLOEXEC, 2000)) as high:
            assert not control.readable(high, 0)
            control.send(theirs, {"number": 1})
            assert control.readable(high, None)
            control.receive(high)
            theirs.close()
            assert control.readable(high, 5), "closed by the other side"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
