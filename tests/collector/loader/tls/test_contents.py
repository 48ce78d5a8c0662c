"""What files say of TLS: real ones, damaged ones, and anything at all."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.loader.tls import contents, implementations
from collector.loader.tls.contents import UNREADABLE, Contents
from tests.conftest import skip_or_fail

TLS_CLIENT = """
#include <stdio.h>
#include <openssl/ssl.h>
int main(void)
{
    puts(OpenSSL_version(OPENSSL_VERSION));
    SSL *ssl = SSL_new(SSL_CTX_new(TLS_client_method()));
    return SSL_connect(ssl) == 1 && SSL_read(ssl, 0, 0) == 1 && SSL_write(ssl, "", 1) == 1;
}
"""
GO = """package main

import (
	"crypto/tls"
	"fmt"
)

func main() { fmt.Println(tls.Dial("tcp", "127.0.0.1:1", nil)) }
"""


def scan(path: Path | str) -> Contents:
    with open(path, "rb") as file:
        return contents.scan(file.fileno())


def of(path: Path, data: bytes) -> Contents:
    path.write_bytes(data)
    return scan(path)


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same TLS client with OpenSSL linked as a library, into the program, and stripped."""
    directory = tmp_path_factory.mktemp("programs")
    source = directory / "client.c"
    source.write_text(TLS_CLIENT)
    static = ["-Wl,-Bstatic", "-lssl", "-lcrypto", "-Wl,-Bdynamic", "-lpthread", "-ldl"]
    out = {}
    for name, flags in {"shared": ["-lssl", "-lcrypto"], "static": static, "stripped": ["-s", *static]}.items():
        out[name] = directory / name
        build = subprocess.run(
            ["gcc", "-Wl,--build-id=sha1", "-o", out[name], source, *flags], capture_output=True, text=True, check=False
        )
        if build.returncode:
            skip_or_fail(f"needs gcc and libssl-dev: {build.stderr[-300:]}")
    return out


def version_of_openssl() -> str:
    return subprocess.run(["openssl", "version"], capture_output=True, text=True, check=True).stdout.split()[1]


@pytest.mark.parametrize("name", ["static", "stripped"])
def test_openssl_in_a_program_is_found_with_its_version_and_build_id(programs: dict[str, Path], name: str) -> None:
    found = scan(programs[name])
    assert found.built_in == {"openssl": found.versions["openssl"]}
    assert found.versions["openssl"].startswith("3.")
    notes = subprocess.run(["readelf", "-n", programs[name]], capture_output=True, text=True, check=True).stdout
    assert len(found.build_id) == 40 and f"Build ID: {found.build_id}" in notes


def test_a_program_that_uses_the_library_has_nothing_built_in(programs: dict[str, Path]) -> None:
    assert scan(programs["shared"]).built_in == {}


def test_libraries_of_this_system_say_their_versions() -> None:
    maps = subprocess.run(
        ["/usr/bin/python3", "-c", "import ssl; print(open('/proc/self/maps').read())"], capture_output=True, check=True
    ).stdout.decode()
    path = next(line.split()[5] for line in maps.splitlines() if "/libcrypto.so" in line)
    assert scan(path).versions == {"openssl": version_of_openssl()}
    assert scan(path).built_in == {}


def test_node_has_openssl_built_in() -> None:
    node = shutil.which("node")
    if node is None:
        skip_or_fail("needs node")
    assert node is not None
    version = subprocess.run([node, "-p", "process.versions.openssl"], capture_output=True, text=True, check=True)
    found = scan(os.path.realpath(node)).built_in
    assert found in ({"openssl": version.stdout.strip().partition("+")[0]}, {})  # {}: Debian's links libssl


def test_a_virtual_machine_for_java_says_its_version() -> None:
    java = shutil.which("java")
    if java is None:
        skip_or_fail("needs java")
    assert java is not None
    home = Path(os.path.realpath(java)).parents[1]
    said = subprocess.run([java, "-version"], capture_output=True, text=True, check=True).stderr
    assert f"(build {scan(home / 'lib/server/libjvm.so').versions['jsse']}" in said


@pytest.mark.parametrize("flags", [[], ["-ldflags=-s -w"], ["-buildmode=pie"]])
def test_go_programs(tmp_path: Path, flags: list[str]) -> None:
    go = shutil.which("go") or ("/usr/local/go/bin/go" if os.path.exists("/usr/local/go/bin/go") else None)
    if go is None:
        skip_or_fail("needs go")
    assert go is not None
    (tmp_path / "main.go").write_text(GO)
    environment = {**os.environ, "GOFLAGS": "", "GO111MODULE": "off"}
    subprocess.run([go, "build", *flags, "-o", tmp_path / "program", "main.go"], cwd=tmp_path, env=environment, check=True)
    version = subprocess.run([go, "env", "GOVERSION"], capture_output=True, text=True, check=True).stdout.strip()
    assert scan(tmp_path / "program").built_in == {"go": version}


def old_go(version: bytes, *, address: int = 0x400000, spare: int = 0) -> bytes:
    """An ELF file as Go made it before 1.18: the build information points to a string header, and that to the version."""
    info = b"\xff Go buildinf:" + bytes([8, 0])
    where = 0x1000
    body = info + struct.pack("<QQ", address + where + 64, 0) + bytes(32)
    body += struct.pack("<QQ", address + where + 96, len(version) + spare) + bytes(16) + version
    body += b"\0crypto/tls.(*Conn).Read\0"
    head = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    head += struct.pack("<IIQQQQQQ", 1, 4, 0, address, address, where + len(body), where + len(body), 4096)
    return head.ljust(where, b"\0") + body


def test_go_before_1_18_points_to_its_version(tmp_path: Path) -> None:
    assert of(tmp_path / "go", old_go(b"go1.16.15")).built_in == {"go": "go1.16.15"}
    for broken in (
        old_go(b"go1.16.15", spare=1 << 60),
        old_go(b"go1.16.15", address=(1 << 64) - 0x2000),
        old_go(b"\xff\xfe"),
        old_go(b"go1.16.15").replace(b"\x7fELF", b"\x7fELG"),
        old_go(b"go1.16.15")[:0x1020],
    ):
        found = of(tmp_path / "go", broken)
        assert all(
            implementations.GO not in part or part["go"].startswith("go1.16.15") or part["go"] == ""
            for part in (found.built_in, found.versions)
        )


@pytest.mark.parametrize(
    ("data", "built_in"),
    [
        (b"/root/.cargo/registry/src/index/rustls-0.23.37/src/client/hs.rs", {"rustls": "0.23.37"}),
        (b"vendor/rustls/src/client/hs.rs", {"rustls": ""}),
        (b"/tokio-rustls-0.26.4/src/lib.rs /hyper-rustls-0.27.7/src/lib.rs rustls-pki-types-1.0.0/src/lib.rs", {}),
        (b"third_party/boringssl-with-bazel/src/ssl/ssl_lib.cc\0", {"boringssl": ""}),
        (b"/src/aws-lc-sys-0.38.0/aws-lc/ssl/ssl_lib.cc\0", {"aws-lc": "", "boringssl": ""}),
        (b"\0../ssl/ssl_lib.c\0 OpenSSL 1.1.1w  11 Sep 2023\0", {"openssl": "1.1.1w"}),
        (b"\0ssl_lib.c\0LibreSSL 3.9.2\0", {"libressl": "3.9.2"}),
        (b"built with OpenSSL 3.0.17 1 Jul 2025\0", {}),
        (b"Error encountered in /build/s2n-tls/tls/s2n_connection.c:42", {"s2n": ""}),
        (b"\0Mbed TLS 3.4.0\0", {"mbedtls": "3.4.0"}),
        (b"\0.text\0.svm_heap\0.data\0", {"graalvm": ""}),
        (b"crypto/tls.(*Conn).Read\0", {"go": ""}),
    ],
)
def test_marks(tmp_path: Path, data: bytes, built_in: dict[str, str]) -> None:
    assert of(tmp_path / "file", b"\0" * 100 + data + b"\0" * 100).built_in == built_in


def test_marks_that_lie_across_two_pieces_are_found(tmp_path: Path) -> None:
    text = b"/rustls-0.23.37/src/client/hs.rs"
    for before in range(contents.PIECE_BYTES - len(text) - 2, contents.PIECE_BYTES + 2, 3):
        assert of(tmp_path / "file", b"." * before + text + b"." * 100).built_in == {"rustls": "0.23.37"}, before


def test_a_file_full_of_needles_is_read_in_no_time(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"rustls" * (4 << 20))
    started = time.process_time()
    assert scan(path).built_in == {}
    assert time.process_time() - started < 5


TEXT = st.sampled_from(
    [mark.needle for mark in (*implementations.MARKS, *implementations.VERSIONS)]
    + [b"\xff Go buildinf:", b"\x04\0\0\0\x14\0\0\0\x03\0\0\0GNU\0", b"\x7fELF\x02\x01", b"3.0.19 27 Jan 2026", b"\0"]
)


@given(st.lists(TEXT | st.binary(max_size=80), max_size=12).map(b"".join))
def test_any_file_can_be_read_and_its_answer_is_believed(data: bytes) -> None:
    fd = os.memfd_create("file")
    try:
        os.write(fd, data)
        found = contents.scan(fd)
    finally:
        os.close(fd)
    line = json.dumps(contents.to_message(found)).encode()
    assert len(line) < 4096
    assert contents.from_message(line) in (found, UNREADABLE)


@given(st.binary(max_size=300))
def test_no_answer_raises(line: bytes) -> None:
    assert contents.from_message(line) == UNREADABLE


@pytest.mark.parametrize(
    "change",
    [
        {"built_in": {"nothing": "1"}},
        {"built_in": {"openssl": "a b"}},
        {"built_in": {"openssl": "x" * 65}},
        {"built_in": []},
        {"versions": {"openssl": None}, "built_in": 1},
        {"build_id": "xyz"},
        {"build_id": "ab" * 65},
    ],
)
def test_only_answers_that_can_be_are_believed(change: dict[str, object]) -> None:
    good = {"built_in": {"openssl": "3.0.19"}, "versions": {}, "build_id": "ab" * 20}
    assert contents.from_message(json.dumps(good).encode()) == Contents({"openssl": "3.0.19"}, {}, "ab" * 20)
    assert contents.from_message(json.dumps({**good, **change}).encode()) == UNREADABLE


def answers(job: contents.Job) -> list[Contents]:
    while (found := job.contents()) is None:
        time.sleep(0.005)
    return found


def test_a_child_reads_several_files(programs: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    paths = [programs["static"], tmp_path / "empty", programs["shared"]]
    fds = [os.open(path, os.O_RDONLY) for path in paths] + [os.open(tmp_path, os.O_RDONLY)]
    found = answers(contents.Job(fds, None))
    for fd in fds:
        os.close(fd)
    assert found == [*(scan(path) for path in paths), UNREADABLE]  # a directory cannot be read


def test_a_child_that_cannot_read_has_no_answers() -> None:
    assert answers(contents.Job([], None)) == []
    with open(os.devnull, "rb") as file:
        contents.Job([file.fileno()], None).close()
