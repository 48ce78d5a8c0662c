"""The folder that all programs of the TLS matrix share: certificates of one authority, and the letters of bodies."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.live.matrix.starting import tool
from tests.live.tls.exchanges import write_pool

NAMES = "subjectAltName=IP:127.0.0.1,DNS:localhost"


@dataclass(frozen=True)
class Bed:
    """ca.pem; server.pem, server.key and both in server-all.pem; the same for client, and for rsa, a client whose key is one
    of RSA (NSS reads no others from files); pool."""

    directory: Path
    letters: bytes


def make(directory: Path) -> Bed:
    """All of it in ``directory``, readable by all users."""
    directory.chmod(0o755)

    def openssl(name: str, common_name: str, key: tuple[str, ...], *arguments: str) -> None:
        files = ("-keyout", f"{name}.key", "-out", f"{name}.pem", "-nodes", "-days", "7")
        command = [tool("openssl"), "req", "-x509", "-newkey", *key, *files, "-subj", f"/CN={common_name}", *arguments]
        subprocess.run(command, cwd=directory, check=True, capture_output=True)

    curve = ("ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")
    openssl("ca", "matrix authority", curve)
    for name, usage, key in (
        ("server", "serverAuth", curve),
        ("client", "clientAuth", curve),
        ("rsa", "clientAuth", ("rsa:2048",)),
    ):
        extensions = ("-addext", "basicConstraints=critical,CA:FALSE", "-addext", f"extendedKeyUsage={usage}")
        openssl(name, name, key, "-CA", "ca.pem", "-CAkey", "ca.key", "-addext", NAMES, *extensions)
        both = (directory / f"{name}.pem").read_bytes() + (directory / f"{name}.key").read_bytes()
        (directory / f"{name}-all.pem").write_bytes(both)
    for file in directory.iterdir():
        file.chmod(0o644)
    return Bed(directory, write_pool(directory))
