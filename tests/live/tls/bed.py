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
    """ca.pem; server.pem, server.key and both in server-all.pem; the same for client; pool."""

    directory: Path
    letters: bytes


def make(directory: Path) -> Bed:
    """All of it in ``directory``, readable by all users."""
    directory.chmod(0o755)
    new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "7")

    def openssl(*arguments: str) -> None:
        subprocess.run(
            [tool("openssl"), "req", "-x509", *new_key, *arguments], cwd=directory, check=True, capture_output=True
        )

    openssl("-subj", "/CN=matrix authority", "-keyout", "ca.key", "-out", "ca.pem")
    for name, usage in (("server", "serverAuth"), ("client", "clientAuth")):
        extensions = ("-addext", "basicConstraints=critical,CA:FALSE", "-addext", f"extendedKeyUsage={usage},clientAuth")
        signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-addext", NAMES, *extensions)
        openssl(*signed, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem")
        both = (directory / f"{name}.pem").read_bytes() + (directory / f"{name}.key").read_bytes()
        (directory / f"{name}-all.pem").write_bytes(both)
    for file in directory.iterdir():
        file.chmod(0o644)
    return Bed(directory, write_pool(directory))
