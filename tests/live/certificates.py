"""Certificates for tests, made by the openssl command: authorities, and what they sign."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.live.matrix.starting import tool

CURVE, RSA = ("ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"), ("rsa:2048",)
NAMES = "IP:127.0.0.1,DNS:localhost"
PAST = ("20240101000000Z", "20240201000000Z")
_CA_CONFIG = """[ca]
default_ca = own
[own]
database = {name}.index
serial = {name}.serial
new_certs_dir = .
default_md = sha256
policy = any
copy_extensions = copy
unique_subject = no
[any]
commonName = supplied
"""


class Authority:
    """NAME.pem and NAME.key in a directory, and ``issue`` for others beside them."""

    def __init__(self, directory: Path, name: str, common_name: str = "") -> None:
        self.directory, self.name = directory, name
        self.pem = directory / f"{name}.pem"
        self._openssl("req", "-x509", *self._request(name, common_name or name, CURVE), "-days", "7")

    def issue(
        self,
        name: str,
        *,
        usage: str = "serverAuth,clientAuth",
        names: str = NAMES,
        key: Sequence[str] = CURVE,
        valid: tuple[str, str] | None = None,
    ) -> Path:
        """NAME.pem and NAME.key, signed by this authority, and both in NAME-all.pem. ``names`` is a
        subjectAltName; ``valid`` from when until when, for a week from now when it is None.
        """
        extensions = [
            part
            for one in (f"subjectAltName={names}", "basicConstraints=critical,CA:FALSE", f"extendedKeyUsage={usage}")
            for part in ("-addext", one)
        ]
        request = [*self._request(name, name, key), *extensions]
        if valid is None:
            self._openssl("req", "-x509", *request, "-days", "7", "-CA", self.pem, "-CAkey", f"{self.name}.key")
        else:  # `req` knows no dates before OpenSSL 3.4
            self._openssl("req", "-new", *request)
            (self.directory / f"{self.name}.config").write_text(_CA_CONFIG.format(name=self.name))
            (self.directory / f"{self.name}.index").touch()
            issuer = ("-config", f"{self.name}.config", "-cert", self.pem, "-keyfile", f"{self.name}.key", "-rand_serial")
            dates = ("-startdate", valid[0], "-enddate", valid[1])
            self._openssl("ca", "-batch", "-notext", *issuer, *dates, "-in", f"{name}.pem", "-out", f"{name}.signed")
            (self.directory / f"{name}.signed").replace(self.directory / f"{name}.pem")
        certificate, secret = (self.directory / f"{name}.{part}" for part in ("pem", "key"))
        (self.directory / f"{name}-all.pem").write_bytes(certificate.read_bytes() + secret.read_bytes())
        return certificate

    def _request(self, name: str, common_name: str, key: Sequence[str]) -> list[str]:
        files = ("-keyout", f"{name}.key", "-out", f"{name}.pem")
        return ["-newkey", *key, "-nodes", *files, "-subj", f"/CN={common_name}"]

    def _openssl(self, *arguments: str | Path) -> None:
        subprocess.run([tool("openssl"), *arguments], cwd=self.directory, check=True, capture_output=True)
