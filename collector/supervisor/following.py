"""The supervisor's side of the process that follows the API server: its lives, and the socket between it and the loader.

Whatever happens to it, or to the server, capture goes on with what is known.
"""

from __future__ import annotations

import logging
import os
import socket
from typing import Any

from collector.counter_names import KUBERNETES_NAMES
from collector.counters import CounterMemory, Counters
from collector.settings import KubernetesSettings, KubernetesStart
from collector.supervisor.child import ChildProcess

log = logging.getLogger("supervisor")

TOKEN_SECONDS = 10.0  # between two looks at the token, which is renewed at four fifths of its life, of minutes or more
TOKEN_BYTES = 1 << 16
NUMBERS = ("pods", "selected", "events", "lists", "errors", "behind")


class Following:
    """``own``: the supervisor's counters, which get its numbers."""

    def __init__(self, settings: KubernetesSettings, loader: ChildProcess, own: Counters) -> None:
        self._settings = settings
        self._loader = loader
        self._own = own
        self._memory = CounterMemory(1)  # it can write nobody else's
        self._lives = (0, 0)
        self._token = ""
        self._next_token = 0.0
        self.child = ChildProcess(
            "kubernetes",
            "kubernetes",
            "collector.kubernetes.process",
            0,
            Counters(self._memory.block(0), KUBERNETES_NAMES),
        )

    def start(self, log_level: str, uid: int | None) -> None:
        """A life of the child, which becomes user ``uid`` (None: stays who it is). Raises OSError."""
        self._own["kubernetes_behind"] = 1
        self._token = self._read_token()
        start = KubernetesStart(log_level=log_level, block=0, blocks=1, uid=uid, settings=self._settings, token=self._token)
        self.child.start(start, [self._memory.fd], "/")

    def heard(self, message: dict[str, Any]) -> None:
        """Its numbers."""
        for name in NUMBERS:
            self._own[f"kubernetes_{name}"] = message[name]

    def turn(self, now: float) -> None:
        """A new token, when the kubelet has renewed it. A new pair of sockets when one of the two is new; both are told only
        when both are there.
        """
        if now >= self._next_token:
            self._next_token = now + TOKEN_SECONDS
            token = self._read_token()
            if token != self._token and self.child.tell({"kind": "token", "token": token}):
                self._token = token
        lives = (self.child.lives, self._loader.lives)
        if lives == self._lives or not self.child.ready or not self._loader.ready:
            return
        self._lives = lives
        theirs, loaders = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, loaders:
            self.child.tell({"kind": "loader"}, [theirs.fileno()])
            self._loader.tell({"kind": "pods"}, [loaders.fileno()])

    def _read_token(self) -> str:
        """The one before where there is none: it may be being replaced."""
        path = self._settings.token_path
        try:
            with open(path, encoding="ascii") as file:
                return file.read(TOKEN_BYTES).strip()
        except (OSError, ValueError) as error:
            if path:
                log.warning("%s: %s", path, error)
            return self._token

    def close(self) -> None:
        """Give everything back."""
        os.close(self._memory.fd)
