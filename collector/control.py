"""The control channel between the supervisor and a child: whole messages (JSON) with descriptors.

A SOCK_SEQPACKET pair; the child finds its end as the number in its first argument. Its end of file means that the
other side is gone: a child without a supervisor ends.
"""

from __future__ import annotations

import array
import json
import os
import select
import socket
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

LIMIT = 1 << 17
MAX_FDS = 100  # of one message; the kernel takes 253 (SCM_MAX_FD). More go in several: see `batches`


def pair() -> tuple[socket.socket, socket.socket]:
    """(ours, the child's). Both are closed on exec; the child's is passed on by number."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send(channel: socket.socket, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
    """Send one message; raises OSError when the other side is gone, ValueError when it is too long or has more than MAX_FDS
    descriptors.
    """
    data = json.dumps(message).encode()
    if len(data) > LIMIT or len(fds) > MAX_FDS:
        raise ValueError("control message too long")
    socket.send_fds(channel, [data], list(fds))


def receive(channel: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """The next message and its descriptors; None at the end. Blocks like the socket does. Raises ValueError when it is no
    message, or did not arrive whole: descriptors are missing when this process may have no more of them.
    """
    # not socket.recv_fds: up to Python 3.12 it forgets its flags, and the descriptors would leak into our children
    data, ancillary, flags, _address = channel.recvmsg(LIMIT, socket.CMSG_SPACE(MAX_FDS * 4), socket.MSG_CMSG_CLOEXEC)
    fds = array.array("i")
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
    try:
        if flags & (socket.MSG_CTRUNC | socket.MSG_TRUNC):
            raise ValueError("control message cut off")
        if not data:
            return None
        message = json.loads(data)
        if not isinstance(message, dict):
            raise ValueError("control message is not an object")
    except (ValueError, RecursionError):
        for fd in fds:
            os.close(fd)
        raise
    return message, list(fds)


def readable(channel: socket.socket, seconds: float | None) -> bool:
    """Is there something to receive, or has the other side closed it, within ``seconds`` (None: however long it takes)?
    Descriptors may have any number: those of select(2) end at 1,023, and a loader holds one for each probe.
    """
    poll = select.poll()
    poll.register(channel, select.POLLIN)
    return bool(poll.poll(None if seconds is None else seconds * 1000))


def batches(named: Mapping[str, int]) -> Iterator[tuple[list[str], list[int]]]:
    """Descriptors with their names, in portions for one message each."""
    names = list(named)
    for first in range(0, len(names), MAX_FDS):
        part = names[first : first + MAX_FDS]
        yield part, [named[name] for name in part]
