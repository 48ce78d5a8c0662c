"""Those who look at this collector, `collector tail` and `collector top`: who comes, and which shards know of them.

A viewer connects to a Unix socket in the runtime directory, and says once what it wants. Its socket goes to every shard, in
each of its lives; shards write into it, and find out by themselves when it has gone. Nothing that they write passes through
here, and nothing here waits for a viewer: docs/decisions/0034.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
from collections.abc import Sequence
from typing import Any

from collector import __version__, viewing
from collector.counters import Counters
from collector.errors import ProtocolError
from collector.supervisor.child import ChildProcess
from collector.supervisor.lock import within
from collector.viewing import MOST_VIEWERS, REQUEST_BYTES, VIEW_SOCKET, Request

log = logging.getLogger("supervisor")

ASK_SECONDS = 5.0  # from the connection to the request
MOST_ASKING = 16
_SO_SNDBUFFORCE = 32  # as SO_SNDBUF, beyond the limit of the system (CAP_NET_ADMIN)
_FLAGS = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL


class _Viewer:
    """One that has asked. ``told``: by shard, the life that knows of it."""

    def __init__(self, number: int, sock: socket.socket, request: Request) -> None:
        self.number = number
        self.sock = sock
        self.request = request
        self.told: dict[int, int] = {}


class Viewers:
    """``directory`` is a descriptor of the directory for the socket; None for no viewers at all."""

    def __init__(self, directory: int | None, shards: Sequence[ChildProcess], own: Counters) -> None:
        self._directory = directory
        self._shards = shards
        self._own = own
        self._listener: socket.socket | None = None
        self._asking: dict[socket.socket, float] = {}  # and until when they may
        self._viewers: list[_Viewer] = []
        self._last_number = 0

    def open(self) -> None:
        """Begin to listen. Without success the log says so, and capture goes on."""
        if self._directory is None:
            return
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(VIEW_SOCKET, dir_fd=self._directory)  # a killed collector's
            path = within(self._directory, VIEW_SOCKET)
            listener.bind(path)
            os.chmod(path, 0o600)
            listener.listen(MOST_ASKING)
        except OSError as error:
            log.error("`collector tail` and `collector top` will not work: %s: %s", VIEW_SOCKET, error.strerror)
            listener.close()
            return
        self._listener = listener

    def sockets(self) -> list[socket.socket]:
        """Those at which something may happen."""
        listener = [self._listener] if self._listener is not None else []
        return [*listener, *self._asking, *(viewer.sock for viewer in self._viewers)]

    def turn(self, now: float) -> None:
        """Every turn of the supervisor's loop: who has come or gone, and which shards do not know yet."""
        self._accept(now)
        for sock in list(self._asking):
            self._hear(sock, now)
        for viewer in list(self._viewers):
            if _has_ended(viewer.sock):
                viewer.sock.close()
                self._viewers.remove(viewer)
                self._own["viewers"] = len(self._viewers)
            else:
                self._tell_shards(viewer)

    def _accept(self, now: float) -> None:
        while self._listener is not None and len(self._asking) < MOST_ASKING:
            try:
                sock, _address = self._listener.accept()
            except OSError:  # nobody waits any more; a lack of descriptors passes
                return
            sock.setblocking(False)
            self._asking[sock] = now + ASK_SECONDS

    def _hear(self, sock: socket.socket, now: float) -> None:
        try:
            data = sock.recv(REQUEST_BYTES + 1)
        except BlockingIOError:
            if now < self._asking[sock]:
                return
            data = b""
        except OSError:
            data = b""
        del self._asking[sock]
        if data:
            self._admit(sock, data)
        else:
            sock.close()

    def _admit(self, sock: socket.socket, data: bytes) -> None:
        """Answer its request."""
        why = ""
        request = Request()
        try:
            if len(data) > REQUEST_BYTES:
                raise ValueError("too long")
            request = Request.from_message(json.loads(data))
            request.check()
        except (ValueError, RecursionError, TypeError, AttributeError, ProtocolError) as error:
            why = f"the request cannot be read: {error}"
        if not why and len(self._viewers) >= MOST_VIEWERS:
            why = f"{MOST_VIEWERS} viewers are there already"
        answer: dict[str, Any] = {"version": __version__, "shards": len(self._shards)}
        if why:
            answer["refused"] = why
            self._own.add("viewers_refused")
        with contextlib.suppress(OSError):
            sock.send(viewing.pack(answer), _FLAGS)
        if why:
            sock.close()
            return
        _enlarge(sock)
        self._last_number += 1
        self._viewers.append(_Viewer(self._last_number, sock, request))
        self._own["viewers"] = len(self._viewers)

    def _tell_shards(self, viewer: _Viewer) -> None:
        """Each life of each shard, once. One that cannot be reached now is tried again in the next turn."""
        for shard in self._shards:
            if shard.pid is None or viewer.told.get(shard.block) == shard.lives:
                continue
            message = {"kind": "view", "number": viewer.number, "request": viewer.request.to_message()}
            if shard.tell(message, [viewer.sock.fileno()]):
                viewer.told[shard.block] = shard.lives

    def close(self) -> None:
        """Let go of all; a viewer sees the end once the shards have ended, too."""
        for sock in self.sockets():
            sock.close()
        if self._listener is not None and self._directory is not None:
            with contextlib.suppress(OSError):
                os.unlink(VIEW_SOCKET, dir_fd=self._directory)
        self._listener = None
        self._asking.clear()
        self._viewers.clear()


def _has_ended(sock: socket.socket) -> bool:
    """Is the other side gone? So must be one that says more than its request."""
    try:
        sock.recv(1)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


def _enlarge(sock: socket.socket) -> None:
    """Its buffer is the queue: viewing.QUEUE_BYTES, or as much as the system allows."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, viewing.QUEUE_BYTES)
    except OSError:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, viewing.QUEUE_BYTES)
