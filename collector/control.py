"""The control channel between the supervisor and a child: whole messages (JSON) with descriptors.

A SOCK_SEQPACKET pair; the child finds its end as the number in its first argument. Its end of file means that the
other side is gone: a child without a supervisor ends.
"""

from __future__ import annotations

import array
import json
import socket
from collections.abc import Sequence
from typing import Any

_LIMIT = 1 << 17
_MAX_FDS = 200  # SCM_MAX_FD is 253


def pair() -> tuple[socket.socket, socket.socket]:
    """(ours, the child's). Both are closed on exec; the child's is passed on by number."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send(channel: socket.socket, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
    """Send one message; raises OSError when the other side is gone, ValueError when it is too long."""
    data = json.dumps(message).encode()
    if len(data) > _LIMIT or len(fds) > _MAX_FDS:
        raise ValueError("control message too long")
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    channel.sendmsg([data], ancillary)


def receive(channel: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """The next message and its descriptors; None at the end. Blocks like the socket does."""
    data, ancillary, _flags, _address = channel.recvmsg(
        _LIMIT, socket.CMSG_SPACE(_MAX_FDS * 4), socket.MSG_CMSG_CLOEXEC)
    fds: list[int] = []
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            numbers = array.array("i")
            numbers.frombytes(payload[: len(payload) - len(payload) % numbers.itemsize])
            fds.extend(numbers)
    if not data:
        return None
    message = json.loads(data)
    if not isinstance(message, dict):
        raise ValueError("control message is not an object")
    return message, fds
