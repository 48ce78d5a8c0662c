"""The supervisor's duplicates of what the kernel gave the loader, so that a new loader goes on where a killed one was.

Every descriptor has a name (collector/loader/programs.py, probes/attachments.py). The loader says "held" with names and
descriptors, "released" with names, and "attached" once everything is there that the start needs; later probes come and go
one by one. A new loader gets all of it in the same way, behind its start message. No message has more than
control.MAX_FDS descriptors.
"""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from collector import control
from collector.settings import Adoption, KernelState
from collector.supervisor.child import ChildProcess

log = logging.getLogger("supervisor")

KINDS = ("held", "released", "attached")
FINISH_SECONDS = 2.0
CLOSERS = 16  # of probes of libraries at a time, where each waits for the kernel, and several wait for the same


class Handover:
    """Nothing is held at first. ``state``: what a loader must know beside the descriptors; None until all are there."""

    def __init__(self) -> None:
        self.state: KernelState | None = None
        self.line = ""  # what is attached, for the start line
        self._held: dict[str, int] = {}
        self._offered: deque[tuple[dict[str, Any], list[int]]] = deque()
        # a probe is a descriptor, here and in the loader, and hundreds of libraries may have five each
        _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    def heard(self, message: dict[str, Any], fds: list[int]) -> None:
        """Take over what the loader says, descriptors included. Raises ValueError, KeyError or ProtocolError when that makes
        no sense.
        """
        kind = message["kind"]
        if kind == "held":
            if len(message["names"]) != len(fds):
                raise ValueError(f"{len(message['names'])} names for {len(fds)} descriptors")
            for name, fd in zip(message["names"], fds, strict=True):
                self._close([name])
                self._held[name] = fd
            fds.clear()
        elif kind == "released":
            self._close(message["names"])
        else:
            self.state, self.line = KernelState.from_message(message["state"]), message["line"]

    def _close(self, names: list[str]) -> None:
        for name in names:
            fd = self._held.pop(name, None)
            if fd is not None:
                os.close(fd)

    def offer(self) -> Adoption | None:
        """For the start message of a new loader: what it is going to get; None when it has to begin anew."""
        self._offered.clear()
        if self.state is None:
            self.release()
            return None
        self._offered.extend(({"kind": "held", "names": names}, fds) for names, fds in control.batches(self._held))
        return Adoption(state=self.state, descriptors=len(self._held))

    def turn(self, loader: ChildProcess) -> None:
        """Send the loader what was offered, as far as it takes it now."""
        while self._offered and loader.tell(*self._offered[0]):
            self._offered.popleft()

    def finish(self, loader: ChildProcess) -> None:
        """Before everything is released: let a loader that has just begun have what it waits for, if it takes it soon."""
        deadline = time.monotonic() + FINISH_SECONDS
        while self._offered and loader.pid is not None and time.monotonic() < deadline:
            self.turn(loader)
            time.sleep(0.01)

    def rings(self) -> list[int]:
        """The rings' descriptors in their order, and behind them the words that the kernel reads (bpf/maps.h unwanted); none
        before everything is there.
        """
        if self.state is None:
            return []
        count = sum(name.startswith("rings/") for name in self._held)
        return [*(self._held[f"rings/{number}"] for number in range(count)), self._held["maps/unwanted"]]

    def stop(self) -> None:
        """Let go of everything but the probes of libraries, when the loader is about to stop. It silences them; who closes
        one last waits for the kernel, some 80 ms each, and the stages of the data must not wait for that.
        """
        self._offered.clear()
        self.state = None
        self._close([name for name in self._held if not name.startswith("probes/") or name.startswith("probes/kernel/")])

    def release(self) -> None:
        """Let go of everything."""
        self.stop()
        held, self._held = self._held, {}  # a second signal may come meanwhile
        with ThreadPoolExecutor(CLOSERS) as pool:
            list(pool.map(os.close, held.values()))
