"""The policy in force: read again at SIGHUP and when one of its files changes, and handed to the shards.

A mounted ConfigMap changes by a link that leads elsewhere, a file by being written or replaced; all of it shows when its
status is asked for now and then (files.signature). What cannot be used leaves in force what is. A file that is still being
written is read once more when it has changed again.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence

from collector.counters import Counters
from collector.errors import ConfigError
from collector.policy import describing, wire
from collector.policy.source import InForce, Source
from collector.supervisor.child import ChildProcess

log = logging.getLogger("policy")

LOOK_SECONDS = 1.0


class PolicyFile:
    """``own`` are the supervisor's counters. ``fd`` is the memory that a shard gets at its start (policy/wire.py)."""

    def __init__(self, source: Source, own: Counters, shards: Sequence[ChildProcess]) -> None:
        self._source = source
        self._own = own
        self._shards = shards
        self._signatures = source.signatures
        self._next_look = 0.0
        self._in_force = source.first
        self.fd = wire.share(self._in_force.policy, self._in_force.key)
        own["policy_reload_success_seconds"] = int(time.time())

    @property
    def policy(self) -> dict[str, str]:
        """Which one is in force, for the health pages."""
        policy = self._in_force.policy
        return {"name": policy.name, "digest": policy.digest, "words": describing.words(self._in_force)}

    def turn(self, now: float) -> None:
        """Read again what has changed. The files are looked at every LOOK_SECONDS."""
        if not self._source.files or now < self._next_look:
            return
        self._next_look = now + LOOK_SECONDS
        if self._source.look() != self._signatures:
            self.read_again("its file has changed")

    def read_again(self, why: str) -> None:
        """Go over to what the files hold now, if that can be used."""
        if not self._source.files:
            log.info("%s: the policy is built in; nothing to read", why)
            return
        self._signatures = self._source.look()
        try:
            found = self._source.read()
            if found != self._in_force:
                self._go_over(found)
        except (ConfigError, OSError) as error:
            self._own.add("policy_reload_failures")
            log.error("%s: %s; policy %s stays in force", why, error, self._in_force.policy.name)
            return
        self._own.add("policy_reloads")
        self._own["policy_reload_success_seconds"] = int(time.time())

    def _go_over(self, found: InForce) -> None:
        """Raises OSError; then nothing has changed. A shard that cannot be told is killed: its next life gets it."""
        fd = wire.share(found.policy, found.key)
        os.close(self.fd)
        self.fd, self._in_force = fd, found
        log.warning("in force from now on: %s", describing.words(found))
        for shard in self._shards:
            if not shard.tell({"kind": "policy"}, [fd]) and shard.pid is not None:
                log.error("cannot reach the control channel of %s; killing it", shard.name)
                shard.kill()

    def close(self) -> None:
        """Give the memory back."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
