"""A relay between two ends of a channel, on real sockets, that loses what it is told to lose.

It stands for what a stream socket may do at worst: bytes that one side has written never come, and the connection is reset.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import threading

SENDER, RECEIVER = 0, 1  # whose bytes


class Proxy:
    """Accepts on ``listen`` and connects to ``target`` (paths of Unix sockets); a thread relays until `close`."""

    def __init__(self, listen: str, target: str) -> None:
        self._target = target
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(listen)
        self._listener.listen()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._wake_read, self._wake_write = os.pipe()
        self._selector.register(self._wake_read, selectors.EVENT_READ)
        self._swallow: set[int] = set()
        self._links: dict[socket.socket, tuple[socket.socket, int]] = {}
        self._stopping = self._reset = False
        self._was_reset = threading.Event()
        self.resets = 0
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def swallow(self, whose: int) -> None:
        """Lose what this side sends next, and reset the link."""
        self._swallow.add(whose)

    def reset(self) -> None:
        """Reset the link now, and wait until it is."""
        self._was_reset.clear()
        self._reset = True
        os.write(self._wake_write, b"x")
        self._was_reset.wait()

    def close(self) -> None:
        """End the thread and close everything."""
        self._stopping = True
        os.write(self._wake_write, b"x")
        self._thread.join()
        self._close_links()
        self._selector.close()
        self._listener.close()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _run(self) -> None:
        while not self._stopping:
            for key, _events in self._selector.select():
                if key.fileobj is self._listener:
                    self._accept()
                elif key.fd == self._wake_read:
                    os.read(self._wake_read, 4096)
                elif key.fileobj in self._links:
                    self._relay(key.fileobj)
            if self._reset:
                self._reset = False
                self._close_links()
                self.resets += 1
                self._was_reset.set()

    def _accept(self) -> None:
        near, _ = self._listener.accept()
        far = socket.socket(socket.AF_UNIX)
        try:
            far.connect(self._target)
        except OSError:  # the receiver is between two lives: the sender tries again
            near.close()
            far.close()
            return
        for sock, other, whose in ((near, far, SENDER), (far, near, RECEIVER)):
            self._links[sock] = other, whose
            self._selector.register(sock, selectors.EVENT_READ)

    def _relay(self, sock: socket.socket) -> None:
        other, whose = self._links[sock]
        data = b""
        with contextlib.suppress(OSError):
            data = sock.recv(1 << 20)
        if data and whose in self._swallow:
            self._swallow.discard(whose)
            self.resets += 1
            data = b""
        try:
            if data:
                other.sendall(data)
                return
        except OSError:
            pass
        self._close(sock, other)

    def _close_links(self) -> None:
        while self._links:
            sock, (other, _whose) = next(iter(self._links.items()))
            self._close(sock, other)

    def _close(self, *sockets: socket.socket) -> None:
        for sock in sockets:
            del self._links[sock]
            self._selector.unregister(sock)
            sock.close()
