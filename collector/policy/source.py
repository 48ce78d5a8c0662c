"""The policy of a run: which one the configuration names, and the key of its hashes.

source = Source.of(config)          # ConfigError when it cannot be used
source.read()                       # the same again later: raises, or says what is in force from now on
"""

from __future__ import annotations

import difflib
import os
import stat
from dataclasses import dataclass, field, replace
from typing import Self

from collector.config import Config
from collector.errors import ConfigError
from collector.files import Signature, signature
from collector.policy.model import BUILTIN, Policy

VARIABLE, KEY, KEY_FILE = "COLLECTOR_POLICY", "COLLECTOR_REDACTION_KEY", "COLLECTOR_REDACTION_KEY_FILE"
LEAST_KEY_BYTES = 16  # 128 bits, when they are random
MOST_KEY_BYTES = 4096


@dataclass(frozen=True, slots=True)
class InForce:
    """A policy and its key, b"" for none."""

    policy: Policy = BUILTIN["off"]
    key: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Source:
    """``path`` of the policy's file, "" for a built-in one; ``key_path`` of the key's, "" where it is no file. ``first`` is
    what was in force at the start, ``signatures`` the files as they were before they were read for it. ``redacts_for``: an
    option that relies on it, so a policy that redacts nothing cannot be used, neither now nor later; "" for none.
    """

    path: str = ""
    key_path: str = ""
    first: InForce = InForce()  # noqa: RUF009 - frozen
    signatures: tuple[Signature, ...] = ()
    redacts_for: str = ""

    @classmethod
    def of(cls, config: Config, *, redacts_for: str = "") -> Self:
        """What the configuration names, read and tried out. Raises ConfigError."""
        wanted, key_path = config.COLLECTOR_POLICY.strip(), config.COLLECTOR_REDACTION_KEY_FILE
        if config.COLLECTOR_REDACTION_KEY and key_path:
            raise ConfigError(f"{KEY} and {KEY_FILE}: only one of them can be set")
        key = b""
        if config.COLLECTOR_REDACTION_KEY:
            key = _checked(config.COLLECTOR_REDACTION_KEY.encode("utf-8", "surrogateescape"), KEY)
        path = "" if wanted in BUILTIN else os.path.abspath(wanted)
        if path and not os.path.lexists(path):
            near = difflib.get_close_matches(wanted, BUILTIN, 1, 0.6)
            raise ConfigError(
                f"{VARIABLE}={wanted!r}: no such file"
                + (f"; did you mean {near[0]}?" if near else f"; built in are {', '.join(BUILTIN)}")
            )
        source = cls(
            path,
            os.path.abspath(key_path) if key_path else "",
            InForce(BUILTIN.get(wanted, BUILTIN["off"]), key),
            redacts_for=redacts_for,
        )
        signatures = source.look()
        return replace(source, first=source.read(), signatures=signatures)

    @property
    def files(self) -> tuple[str, ...]:
        """At whose change it is read again."""
        return tuple(filter(None, (self.path, self.key_path)))

    def look(self) -> tuple[Signature, ...]:
        """Differs when one of them was written to or replaced."""
        return tuple(map(signature, self.files))

    def read(self) -> InForce:
        """What is in force from now on. Raises ConfigError."""
        policy, key = self.first.policy, self.first.key
        if self.path:
            from collector.policy.document import PolicyError  # with what they need, only where there is a file
            from collector.policy.reading import read_file

            try:
                policy = read_file(self.path)
            except PolicyError as error:
                raise ConfigError(f"{VARIABLE}: {error}") from None
        if self.redacts_for and not policy.redaction.acts:
            raise ConfigError(
                f"{self.redacts_for}: the policy {policy.name!r} redacts nothing; set {VARIABLE} to secrets, strict, or a "
                "file that says what to redact"
            )
        if self.key_path:
            key = _checked(_contents(self.key_path).rstrip(b"\r\n"), f"{KEY_FILE}={self.key_path!r}")
        return InForce(policy, key)


def _checked(key: bytes, where: str) -> bytes:
    """Raises ConfigError, which does not say the key."""
    if len(key) < LEAST_KEY_BYTES:
        raise ConfigError(
            f"{where}: has {len(key)} bytes; expected at least {LEAST_KEY_BYTES}, such as of `openssl rand -hex 32`"
        )
    if len(key) > MOST_KEY_BYTES:
        raise ConfigError(f"{where}: is longer than {MOST_KEY_BYTES} bytes")
    return key


def _contents(path: str) -> bytes:
    """Raises ConfigError."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)  # a pipe must not hold us up
        with open(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise ConfigError(f"{KEY_FILE}={path!r}: not a regular file")
            return file.read(MOST_KEY_BYTES + 2)
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        raise ConfigError(f"{KEY_FILE}={path!r}: {getattr(error, 'strerror', None) or error}") from None
