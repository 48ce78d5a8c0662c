"""Where the sources of TLS libraries put their probes, in the libraries that are really used."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from collector.loader import decode
from collector.loader import elf as elf_files
from collector.loader.probes import SOURCES
from collector.loader.probes.probe import Found, Source, Unsupported
from tests.conftest import skip_or_fail

LIBRARIES = Path("/usr/lib/x86_64-linux-gnu")
OPENSSL, GNUTLS, NSS = (next(source for source in SOURCES if source.name == name) for name in ("openssl", "gnutls", "nss"))


def located(source: Source, path: Path) -> Found:
    if not path.exists():
        skip_or_fail(f"{path.name} is not installed")
    with path.open("rb") as file:
        found = source.locate(ELFFile(file))
    assert isinstance(found, Found), found
    return found


def places(found: Found, path: Path) -> dict[str, list[bool]]:
    """By program: does each of its places cost one trap only?"""
    out: dict[str, list[bool]] = {}
    data = path.read_bytes()
    for site in found.sites:
        first = next(decode.instructions(data[site.offset : site.offset + 16], site.offset))
        out.setdefault(site.program, []).append(decode.emulated(first))
    return out


def bundled() -> Path:
    """The libssl of a wheel of PyPI: 3.5 at the time of writing."""
    spec = importlib.util.find_spec("psycopg2")
    assert spec is not None and spec.origin is not None
    folder = Path(spec.origin).parent.parent / "psycopg2_binary.libs"
    return next(folder.glob("libssl-*.so.*"))


def test_the_shared_library_of_the_distribution() -> None:
    path = LIBRARIES / "libssl.so.3"
    found = located(OPENSSL, path)
    assert places(found, path) == {
        "openssl_new": [True],
        "openssl_clear": [True],
        "library_free": [True],
        "library_return": [True, True, True],
        "openssl_sendfile": [True],
        "openssl_read_ex": [True],
        "openssl_write_ex": [True],
        "openssl_handshake": [True],
        "openssl_handshake_return": [True],
    }
    assert re.fullmatch(r"openssl-3\.\d+", found.library)
    assert all(found.values[:4])


def test_a_library_of_a_wheel() -> None:
    path = bundled()
    found = located(OPENSSL, path)
    assert OPENSSL.wants(str(path))
    assert all(found.values[:4])
    at = places(found, path)
    assert at["library_return"][:2] == [True, True]
    assert at["openssl_read_ex"] == at.get("openssl_write_ex2", at.get("openssl_write_ex")) == [True]
    crypto = next(path.parent.glob("libcrypto-*.so.*"))
    assert re.fullmatch(r"openssl-3\.\d+\.\d+", located(OPENSSL, crypto).library)


def test_a_program_that_it_is_linked_into() -> None:
    node = shutil.which("node")
    if node is None:
        skip_or_fail("node is not installed")
    assert node is not None
    path = Path(node).resolve()
    with path.open("rb") as file:
        found = OPENSSL.locate(ELFFile(file))
    if isinstance(found, Unsupported):
        return  # the distribution's node uses the shared library
    at = places(found, path)
    assert at["library_return"] == [True] * 5
    assert at["openssl_bio_write"] == [True]
    assert re.match(r"openssl-\d+\.\d+\.\d+", found.library)


def test_gnutls() -> None:
    path = LIBRARIES / "libgnutls.so.30"
    found = located(GNUTLS, path)
    assert places(found, path) == {
        "gnutls_handshake": [True],
        "library_free": [True],
        "library_return": [True, True],
        "gnutls_recv_inner": [True],
        "gnutls_send": [True],
    }
    assert re.fullmatch(r"gnutls-3\.\d+\.\d+", found.library)


def test_nss() -> None:
    assert [site.program for site in located(NSS, LIBRARIES / "libssl3.so").sites] == ["nss_import"]
    assert len(located(NSS, LIBRARIES / "libnspr4.so").sites) == 9


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("/usr/lib/x86_64-linux-gnu/libssl.so.3", ["openssl"]),
        ("/a/psycopg2_binary.libs/libssl-8bd944e8.so.3", ["openssl"]),
        ("/lib/libssl.so.1.1", ["openssl"]),
        ("/lib/libcrypto.so.3", ["openssl"]),
        ("/tmp/libnetty_tcnative_linux_x86_641234.so", ["openssl"]),
        ("/tmp/libconscrypt_openjdk_jni-linux-x86_641234.so", ["openssl"]),
        ("/lib/libssl3.so", ["nss"]),
        ("/lib/libnspr4.so", ["nss"]),
        ("/lib/libgnutls.so.30.34.3", ["gnutls"]),
        ("/lib/libgnutls-dane.so.0.4.1", []),
        ("/lib/libgnutlsxx.so.30", []),
        ("/lib/libc.so.6", []),
        ("/usr/bin/libssl", []),
    ],
)
def test_files_that_are_looked_into(path: str, names: list[str]) -> None:
    assert [source.name for source in SOURCES if source.wants(path)] == names


@pytest.mark.parametrize("source", [OPENSSL, GNUTLS, NSS], ids=lambda source: source.name)
def test_a_file_without_the_library(source: Source) -> None:
    with Path("/bin/ls").resolve().open("rb") as file:
        assert isinstance(source.locate(ELFFile(file)), Unsupported)


def test_functions_are_found_as_nm_finds_them() -> None:
    path = LIBRARIES / "libssl.so.3"
    text = subprocess.run(["nm", "-D", "--defined-only", path], check=True, capture_output=True, text=True).stdout
    truth = {
        name.split("@")[0]: int(address, 16) for address, kind, name in map(str.split, text.splitlines()) if kind == "T"
    }
    with path.open("rb") as file:
        found = elf_files.find(ELFFile(file), list(truth))
    assert {name: function.address for name, function in found.items()} == truth
