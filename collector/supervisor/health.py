"""The supervisor's side of the health pages: the sockets that listen, the child that answers, what it is told.

Whatever happens to the child or to the port, capture goes on. A port that somebody else has is tried again and again.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
from typing import Any

from collector import __version__, logs
from collector.counter_names import HEALTH_NAMES
from collector.counters import CounterMemory, Counters
from collector.errors import ConfigError
from collector.runtime import hide_stacks, show_stacks_on_signal
from collector.settings import HealthStart
from collector.supervisor.child import ChildProcess
from collector.supervisor.lock import STATUS_SOCKET, within

log = logging.getLogger("health")

BACKLOG = 512
STACKS_BYTES = 256 << 10  # of ours that were asked for; they are a few KiB each time
TRY_AGAIN_SECONDS = 3.0


class Port:
    """The TCP address of the pages. Raises ConfigError for one that cannot be this host's."""

    def __init__(self, address: str) -> None:
        self._text = address
        host, _, port = address.rpartition(":")
        host = host.strip("[]")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._family = family
        try:
            self._address = socket.getaddrinfo(host, int(port), family, socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][4]
        except (OSError, UnicodeError) as error:
            raise self._unusable(error) from None
        self.sock: socket.socket | None = None
        self.problem = ""
        self._next = 0.0

    def _unusable(self, error: Exception) -> ConfigError:
        return ConfigError(f"COLLECTOR_HEALTH_ADDRESS={self._text}: {getattr(error, 'strerror', None) or error}")

    @property
    def shown(self) -> str:
        """The address that is served, with the port that port 0 became."""
        if self.sock is None:
            return self._text
        host, port = self.sock.getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def first(self, now: float) -> None:
        """At the start: an address that this host does not have or we may not use is an error, one that is taken is not."""
        try:
            self._bind()
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise self._unusable(error) from None
            self._next = now + TRY_AGAIN_SECONDS
            log.warning(
                "health pages: %s is in use by another program; starting without them, retrying every %.0f s "
                "(`collector status` works all the same)",
                self._text,
                TRY_AGAIN_SECONDS,
            )

    def again(self, now: float) -> bool:
        """Is there a new socket now? A child can have spoilt the old one; somebody else may have given the port back."""
        if now < self._next:
            return False
        self._next = now + TRY_AGAIN_SECONDS
        if self.sock is not None:
            if self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                return False
            self.close()
        try:
            self._bind()
        except OSError:
            return False
        log.info("health pages: now served at %s", self.shown)
        return True

    def _bind(self) -> None:
        sock = socket.socket(self._family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(self._address)
            sock.listen(BACKLOG)
        except OSError as error:
            sock.close()
            why = "in use by another program" if error.errno == errno.EADDRINUSE else error.strerror
            self.problem = f"{why}; retrying every {TRY_AGAIN_SECONDS:.0f} s"
            raise
        self.sock = sock
        self.problem = ""

    def close(self) -> None:
        """Give the port back."""
        if self.sock is not None:
            self.sock.close()
            self.sock = None


class Health:
    """``directory`` is a descriptor of the directory for the status socket; ``memory`` holds everybody's counters."""

    def __init__(self, address: str, directory: int, memory: CounterMemory) -> None:
        self._own = CounterMemory(1)  # the child can write nobody else's
        self._memory = memory
        self._read_only = memory.read_only_fd()
        self._directory = directory
        self._stacks = os.memfd_create("collector-stacks", os.MFD_CLOEXEC)
        os.fchmod(self._stacks, 0o600)
        self._for_reports = [os.open(f"/proc/self/fd/{self._stacks}", os.O_RDONLY | os.O_CLOEXEC)]
        if (lines := logs.last_lines()) is not None:
            self._for_reports.append(lines.lines.read_only_fd())
        self.child = ChildProcess(
            "health", "health", "collector.health.process", 0, Counters(self._own.block(0), HEALTH_NAMES)
        )
        self._port = Port(address)
        self._local: socket.socket | None = None
        self._told: dict[str, Any] | None = None

    def open(self, now: float) -> None:
        """Take the addresses; from now on our stacks can be asked for by signal (`collector report`). Raises ConfigError."""
        self._port.first(now)
        show_stacks_on_signal(self._stacks)
        local = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            path = within(self._directory, STATUS_SOCKET)
            local.bind(path)
            os.chmod(path, 0o600)
            local.listen(BACKLOG)
            self._local = local
        except OSError as error:
            log.error("`collector status` will not work: %s: %s", STATUS_SOCKET, error.strerror)
            local.close()

    def start(self, log_level: str, uid: int | None, state: dict[str, Any]) -> None:
        """A life of the child, which becomes user ``uid`` (None: stays who it is). Raises OSError."""
        self._told = self._with_address(state)
        self.child.start(
            HealthStart(log_level=log_level, block=0, blocks=1, uid=uid, all_blocks=self._memory.blocks, state=self._told),
            [self._own.fd, self._read_only, *self._for_reports],
            "/",
        )

    def serves(self) -> None:
        """The child is ready: give it the sockets. Not at its start: by now the loader knows to leave it alone."""
        self._tell_sockets(True)

    def turn(self, now: float, state: dict[str, Any]) -> None:
        """Every turn of the supervisor's loop: try the port again, tell the child what has changed."""
        if os.fstat(self._stacks).st_size > STACKS_BYTES:
            os.ftruncate(self._stacks, 0)
            os.lseek(self._stacks, 0, os.SEEK_SET)
        if self._port.again(now) and self.child.ready:
            self._tell_sockets(False)
        state = self._with_address(state)
        if state != self._told and self.child.channel is not None and self.child.tell({"kind": "state", **state}):
            self._told = state

    def _tell_sockets(self, local: bool) -> None:
        if self._port.sock is not None:
            self.child.tell({"kind": "listen", "what": "port"}, [self._port.sock.fileno()])
        if local and self._local is not None:
            self.child.tell({"kind": "listen", "what": "local"}, [self._local.fileno()])

    def _with_address(self, state: dict[str, Any]) -> dict[str, Any]:
        return {**state, "version": __version__, "health_address": self._port.shown, "health_problem": self._port.problem}

    def close(self) -> None:
        """Give everything back."""
        self._port.close()
        hide_stacks()
        for fd in (self._stacks, *self._for_reports):
            os.close(fd)
        if self._local is not None:
            self._local.close()
            try:
                os.unlink(STATUS_SOCKET, dir_fd=self._directory)
            except OSError as error:
                log.debug("%s: %s", STATUS_SOCKET, error)
        os.close(self._read_only)
