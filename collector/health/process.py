"""The health child: answers on a TCP port and on a Unix socket, without privilege.

Every local user can reach the port, and not all mean well. So: one thread; a bounded number of connections, of which the
oldest gives way when a new one comes; one deadline from accept to the last byte; one request a connection; no log line
that a client causes; and after each turn of the loop a pause of twice what it cost, so that no storm of connections takes
more than a third of a CPU. The sockets that listen are the supervisor's: a new child goes on where the old one was.
"""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import selectors
import socket
import struct
import time
from collections.abc import Callable

from collector import confine, faults
from collector.counter_names import HEALTH_NAMES
from collector.counters import CounterMemory
from collector.health.http import Answer, Conversation
from collector.health.pages import Pages
from collector.recent import Reader
from collector.runtime import Child, run_process
from collector.settings import HealthStart

log = logging.getLogger("health")

MAX_CONNECTIONS = 256  # of the port; the Unix socket has its own table
MAX_LOCAL_CONNECTIONS = 32
DEADLINE_SECONDS = 5.0
ACCEPTS_A_TURN = 64
RECEIVE_BYTES = 8192
MAX_IGNORED_BYTES = 65536  # what a client may send behind its request
TURN_SECONDS, STOPPED_SECONDS = 0.5, 2.5
MAX_PAUSE_SECONDS = 0.1
_RESET = struct.pack("=ii", 1, 0)  # SO_LINGER: closing answers with a reset and leaves nothing behind


class Connection:
    """One client."""

    __slots__ = ("sock", "deadline", "http", "out", "answered", "ignored")

    def __init__(self, sock: socket.socket, deadline: float, http: Conversation) -> None:
        self.sock = sock
        self.deadline = deadline
        self.http = http
        self.out = memoryview(b"")
        self.answered = False
        self.ignored = 0


class Listener:
    """A socket that listens, and its connections, the oldest first. ``page`` makes its answers."""

    def __init__(self, sock: socket.socket, page: Callable[[str], Answer | None], most: int) -> None:
        self.sock = sock
        self.page = page
        self.most = most
        self.connections: dict[socket.socket, Connection] = {}


class Health:
    """The process; ``run`` returns its exit code."""

    def __init__(self, child: Child[HealthStart]) -> None:
        faults.hide_words()
        self._child = child
        self._counters = child.counters
        start = child.start
        memory = CounterMemory(start.all_blocks, child.fds[1], read_only=True)
        stacks, *log = child.fds[2:]
        self._pages = Pages(memory, child.counters, start.state, stacks, Reader(log[0]) if log else None)
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        files = MAX_CONNECTIONS + MAX_LOCAL_CONNECTIONS + 64
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(files, hard), min(files, hard)) if hard >= 0 else (files, files))
        child.drop_privileges()
        os.nice(5)
        self._selector = selectors.DefaultSelector()
        self._selector.register(child.channel, selectors.EVENT_READ)
        self._listeners: dict[str, Listener] = {}

    def run(self) -> int:
        """Until told to stop."""
        confine.limit_calls(confine.HEALTH)
        self._child.ready()
        last = time.monotonic()
        while not self._child.stopping:
            ready = self._selector.select(TURN_SECONDS)
            cost = time.process_time()
            now = time.monotonic()
            if now - last > STOPPED_SECONDS:
                self._pages.was_stopped()
            last = now
            for key, _events in ready:
                if isinstance(key.data, tuple):
                    self._serve(*key.data)
            self._hear()
            for listener in list(self._listeners.values()):
                self._expire(listener, now)
                self._accept(listener, now)
            self._child.beat()
            time.sleep(min(MAX_PAUSE_SECONDS, 2 * (time.process_time() - cost)))
        return 0

    def close(self) -> None:
        """The sockets end with the process."""

    def _hear(self) -> None:
        for message in self._child.hear():
            if message.get("kind") == "state":
                self._pages.state = message
            elif message.get("kind") == "listen":
                self._listen(str(message["what"]), message["fds"][0])

    def _listen(self, what: str, fd: int) -> None:
        old = self._listeners.pop(what, None)
        if old is not None:
            for connection in list(old.connections.values()):
                self._close(old, connection, reset=True)
            self._selector.unregister(old.sock)
            old.sock.close()
        sock = socket.socket(fileno=fd)
        sock.setblocking(False)
        if what == "local":
            listener = Listener(sock, self._pages.private, MAX_LOCAL_CONNECTIONS)
        else:
            listener = Listener(sock, self._pages.public, MAX_CONNECTIONS)
        self._listeners[what] = listener
        self._selector.register(sock, selectors.EVENT_READ)

    def _accept(self, listener: Listener, now: float) -> None:
        for _ in range(ACCEPTS_A_TURN):
            try:
                sock, _address = listener.sock.accept()
            except OSError:  # nobody waits any more, or it has gone already; a lack of memory passes
                return
            sock.setblocking(False)
            while len(listener.connections) >= listener.most:
                self._counters.add("pushed_out")
                self._close(listener, next(iter(listener.connections.values())), reset=True)
            http = Conversation(listener.page, Pages.PUBLIC)
            connection = listener.connections[sock] = Connection(sock, now + DEADLINE_SECONDS, http)
            self._selector.register(sock, selectors.EVENT_READ, (listener, connection))
            self._serve(listener, connection)  # it has often sent its request already

    def _expire(self, listener: Listener, now: float) -> None:
        """All have the same time, so the oldest is the first to have used it up."""
        while listener.connections:
            connection = next(iter(listener.connections.values()))
            if now < connection.deadline:
                return
            if not connection.answered:
                self._counters.add("too_slow")
                with contextlib.suppress(OSError):
                    connection.sock.send(connection.http.too_late())
            self._close(listener, connection)

    def _serve(self, listener: Listener, connection: Connection) -> None:
        """Go on with a connection as far as it goes."""
        if connection.sock not in listener.connections:
            return  # gave way in this turn
        try:
            if connection.out:
                self._send(connection)
                return
            data = connection.sock.recv(RECEIVE_BYTES)
            if connection.answered:
                connection.ignored += len(data)
                if not data or connection.ignored > MAX_IGNORED_BYTES:
                    self._close(listener, connection, reset=bool(data))
                return
            answer = self._answer(connection, data)
            if answer is None:
                return
            connection.answered = True
            if not answer:
                self._close(listener, connection)
                return
            connection.out = memoryview(answer)
            self._send(connection)
        except BlockingIOError:
            return
        except OSError:  # reset, or gone
            self._close(listener, connection)

    def _answer(self, connection: Connection, data: bytes) -> bytes | None:
        answer = connection.http.feed(data)
        if connection.http.status:
            self._counters.add("requests" if connection.http.status in (200, 503) else "bad_requests")
        return answer

    def _send(self, connection: Connection) -> None:
        """As much of the answer as the client takes; behind it the end, and then what the client still says is read away:
        closing with unread bytes would reset the connection and could cost the client the answer.
        """
        with contextlib.suppress(BlockingIOError):
            connection.out = connection.out[connection.sock.send(connection.out) :]
        key = self._selector.get_key(connection.sock)
        events = selectors.EVENT_WRITE if connection.out else selectors.EVENT_READ
        if key.events != events:
            self._selector.modify(connection.sock, events, key.data)
        if not connection.out:
            connection.sock.shutdown(socket.SHUT_WR)

    def _close(self, listener: Listener, connection: Connection, *, reset: bool = False) -> None:
        del listener.connections[connection.sock]
        self._selector.unregister(connection.sock)
        if reset:
            with contextlib.suppress(OSError):
                connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        connection.sock.close()


def main() -> int:
    """Entry of the child process."""
    return run_process(HealthStart, HEALTH_NAMES, Health)


if __name__ == "__main__":
    raise SystemExit(main())
