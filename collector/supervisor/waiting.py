"""Until something may have happened: a message, a log line, an end, a signal, a viewer."""

from __future__ import annotations

import os
import selectors
import socket
from collections.abc import Iterable

from collector.supervisor.child import ChildProcess


def wait(wake: int, children: Iterable[ChildProcess], others: Iterable[socket.socket], seconds: float) -> None:
    """At most so long. ``wake`` is the reading end of the pipe that signals write to; what is in it is read away."""
    with selectors.DefaultSelector() as selector:
        selector.register(wake, selectors.EVENT_READ)
        for sock in others:
            selector.register(sock, selectors.EVENT_READ)
        for child in children:
            if child.channel is not None:
                selector.register(child.channel, selectors.EVENT_READ)
            if child.log_pipe is not None:
                selector.register(child.log_pipe, selectors.EVENT_READ)
        selector.select(seconds)
    try:
        while os.read(wake, 4096):
            pass
    except BlockingIOError:
        pass
