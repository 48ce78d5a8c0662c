"""The folder that all programs of the TLS matrix share: certificates of one authority, and the letters of bodies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.live.certificates import CURVE, RSA, Authority
from tests.live.tls.exchanges import write_pool


@dataclass(frozen=True)
class Bed:
    """ca.pem; server.pem, server.key and both in server-all.pem; the same for client, and for rsa, a client whose key is one
    of RSA (NSS reads no others from files); pool."""

    directory: Path
    letters: bytes


def make(directory: Path) -> Bed:
    """All of it in ``directory``, readable by all users."""
    directory.chmod(0o755)

    authority = Authority(directory, "ca", "matrix authority")
    for name, usage, key in (("server", "serverAuth", CURVE), ("client", "clientAuth", CURVE), ("rsa", "clientAuth", RSA)):
        authority.issue(name, usage=usage, key=key)
    for file in directory.iterdir():
        file.chmod(0o644)
    return Bed(directory, write_pool(directory))
