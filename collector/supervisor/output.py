"""The descriptor that the sink gets: opened again at SIGHUP, and when a file changes that it was made of.

For Kafka it is memory with certificates and secrets (collector/sink/kafka/security.py): the sink has no right to read
those files. A Kubernetes secret changes by a link that leads elsewhere, a file by being written or replaced; all of it shows
when its status is asked for now and then.
"""

from __future__ import annotations

import logging
import os
import time

from collector import files
from collector.errors import CollectorError
from collector.supervisor.starting import Plan

log = logging.getLogger("supervisor")

LOOK_SECONDS = 2.0


class Output:
    """``fd`` is None when the sink needs none."""

    def __init__(self, plan: Plan) -> None:
        self.fd = plan.output_fd
        self._reopen = plan.reopen
        self._made_of = dict(plan.made_of)
        self._next_look = time.monotonic() + LOOK_SECONDS

    def changed(self, now: float) -> bool:
        """Has a file changed since the last call? Asks every few seconds. A change that cannot be used (a certificate whose
        key is still to come) is not asked about again: the next one will be noticed.
        """
        if not self._made_of or now < self._next_look:
            return False
        self._next_look = now + LOOK_SECONDS
        before, self._made_of = self._made_of, {path: files.signature(path) for path in self._made_of}
        return before != self._made_of

    def open_again(self, why: str) -> int | None:
        """The new descriptor, None when it stays as it is."""
        if self._reopen is None:
            log.info("%s: the output is not a file; nothing to reopen", why)
            return None
        try:
            fd = self._reopen()
        except (CollectorError, OSError) as error:
            log.error("%s: %s; continuing with what is open", why, error)
            return None
        if fd is not None:
            old, self.fd = self.fd, fd
            if old is not None:
                os.close(old)
        return fd
