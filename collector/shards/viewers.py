"""Those who look at a shard: `collector tail` and `collector top`, each with its socket.

The supervisor hands over a socket for each viewer that comes (supervisor/viewers.py); what the viewer wants is collected by
the Tap (eyes/tap.pyx) and written here, without ever waiting. The queue is the socket's buffer in the kernel: when that is
full, lines are lost to the viewer, counted, and told to it as soon as there is room. Records do not notice. A viewer that
has gone is found at the next look, at most a fifth of a second later; with the last one the Tap goes, too.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
from collections.abc import Iterator, Sequence
from typing import Any

from collector import viewing
from collector.counters import Counters
from collector.errors import ProtocolError
from collector.shards.eyes.tap import Tap
from collector.viewing import Request

log = logging.getLogger("shard")

_FLAGS = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
_NS = 1_000_000_000


class _Viewer:
    """One of them. ``lost``: what could not be handed over, from the beginning; ``told``: how much of it it knows."""

    def __init__(self, sock: socket.socket, request: Request) -> None:
        self.sock = sock
        self.request = request
        self.lost = 0
        self.told = 0


class Viewers:
    """``tap`` is None while nobody looks."""

    def __init__(self, shard: int, counters: Counters) -> None:
        self._shard = shard
        self._counters = counters
        self._viewers: dict[int, _Viewer] = {}
        self._figures_at = 0  # ns of CLOCK_MONOTONIC: when figures were sent last
        self.tap: Tap | None = None

    def add(self, message: dict[str, Any], now: int) -> None:
        """The supervisor's message about a viewer, with its socket; ``now`` in ns of CLOCK_MONOTONIC."""
        fds = message["fds"]
        try:
            request = Request.from_message(message["request"])
            number = int(message["number"])
        except (KeyError, ProtocolError, ValueError) as error:
            log.error("a viewer that cannot be read: %s", error)
            for fd in fds:
                os.close(fd)
            return
        self.tap = self.tap or Tap()
        self._viewers[number] = _Viewer(socket.socket(fileno=fds[0]), request)
        self._counters["viewer_connections"] = len(self._viewers)
        if not request.figures:
            self.tap.watch(number, request)
        elif not self._anybody_for_figures():
            self._figures_at = now
            self.tap.count_figures(True)

    def _anybody_for_figures(self) -> bool:
        """Is one of them already counted for?"""
        return sum(viewer.request.figures for viewer in self._viewers.values()) > 1

    def batch_taken(self) -> None:
        """Send what the batch that was just taken has for each viewer."""
        if self.tap is None:
            return
        for number, viewer in list(self._viewers.items()):
            if viewer.request.figures:
                continue
            lines, count, lost = self.tap.lines(number)
            viewer.lost += lost
            if count:
                self._counters.add("viewer_lines", count)
                if len(lines) <= viewing.MESSAGE_BYTES:
                    parts: Sequence[tuple[bytes, int]] = [(lines, count)]
                else:
                    parts = [*_portions((line, 1) for line in lines.splitlines(keepends=True))]
                self._send(number, "lines", parts)
            if lost:
                self._counters.add("viewer_lost_lines", lost)

    def turn(self, now: int) -> None:
        """Look who has gone, and send the figures when their second is over. ``now`` as in `add`."""
        if self.tap is None:
            return
        for number, viewer in list(self._viewers.items()):
            if _has_gone(viewer.sock):
                self._forget(number)
            elif viewer.lost != viewer.told:
                self._send(number, "lines", [(b"", 0)])
        if self.tap is not None and now - self._figures_at >= viewing.FIGURES_SECONDS * _NS:
            seconds = (now - self._figures_at) / _NS
            self._figures_at = now
            parts = list(_portions(self.tap.figures())) or [(b"", 0)]
            for number, viewer in list(self._viewers.items()):
                if viewer.request.figures:
                    self._send(number, "figures", parts, seconds)

    def _send(self, number: int, kind: str, parts: Sequence[tuple[bytes, int]], seconds: float = 0.0) -> None:
        """Messages for one viewer, each with how many records it is about; those that find no room are lost to it.
        ``seconds`` that figures are about stand in the first one.
        """
        viewer = self._viewers[number]
        for body, count in parts:
            lost = viewer.lost
            head = {"shard": self._shard, "kind": kind, "lost": lost, "seconds": round(seconds, 3)}
            try:
                viewer.sock.send(viewing.pack(head, body), _FLAGS)
            except BlockingIOError:
                self._lose(viewer, count)
            except OSError as error:
                if error.errno not in _TOO_LONG:
                    self._forget(number)
                    return
                self._lose(viewer, count)
            else:
                viewer.told = lost
                seconds = 0.0

    def _lose(self, viewer: _Viewer, count: int) -> None:
        viewer.lost += count
        self._counters.add("viewer_lost_lines", count)

    def _forget(self, number: int) -> None:
        viewer = self._viewers.pop(number)
        viewer.sock.close()
        self._counters["viewer_connections"] = len(self._viewers)
        assert self.tap is not None
        self.tap.forget(number)
        if not self._viewers:
            self.tap = None
        elif not any(viewer.request.figures for viewer in self._viewers.values()):
            self.tap.count_figures(False)

    def close(self) -> None:
        """Let go of all."""
        for number in list(self._viewers):
            self._forget(number)


_TOO_LONG = (errno.EMSGSIZE, errno.ENOBUFS, errno.ENOMEM)


def _has_gone(sock: socket.socket) -> bool:
    try:
        return not sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True


def _portions(lines: Iterator[tuple[bytes, int]] | Sequence[tuple[bytes, int]]) -> Iterator[tuple[bytes, int]]:
    """Lines put together to messages of about viewing.MESSAGE_BYTES, with the sum of what they are about."""
    together: list[bytes] = []
    size = count = 0
    for line, about in lines:
        if together and size + len(line) > viewing.MESSAGE_BYTES:
            yield b"".join(together), count
            together, size, count = [], 0, 0
        together.append(line)
        size += len(line)
        count += about
    if together:
        yield b"".join(together), count
