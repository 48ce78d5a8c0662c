"""Names of files and what is written in them: which implementation of TLS it is."""

from __future__ import annotations

import pytest

from collector.loader.tls import implementations


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/usr/lib/x86_64-linux-gnu/libssl.so.3", "openssl"),
        ("/usr/lib/libssl.so.1.1.1k", "openssl"),
        ("/usr/lib/libssl.so", "openssl"),
        ("/lib/libssl.so.3", "openssl"),  # Alpine
        ("/opt/psycopg2_binary.libs/libssl-3e69114b.so.1.1", "openssl"),
        ("/usr/lib/x86_64-linux-gnu/libssl3.so", "nss"),
        ("/opt/wheel.libs/libssl3-0a1b2c3d.so", "nss"),
        ("/usr/lib/x86_64-linux-gnu/libgnutls.so.30.34.3", "gnutls"),
        ("/opt/wheel.libs/libgnutls-1f2e3d4c.so.30.34.3", "gnutls"),
        ("/tmp/libnetty_tcnative_linux_x86_644242424242.so", "netty-tcnative"),
        ("/tmp/liborg_apache_pulsar_shade_netty_tcnative_linux_x86_64123.so", "netty-tcnative"),
        ("/tmp/libconscrypt_openjdk_jni-linux-x86_64987.so", "conscrypt"),
        ("/usr/lib/libmbedtls.so.14", "mbedtls"),
        ("/usr/lib/libwolfssl.so.35.3.0", "wolfssl"),
        ("/usr/local/lib/libs2n.so.1", "s2n"),
        ("/usr/lib/libbotan-2.so.19", "botan"),
        ("/usr/lib/jvm/java-17/lib/server/libjvm.so", "jsse"),
        ("/opt/ibm/java/jre/lib/amd64/default/libj9vm29.so", "jsse"),
        ("/usr/share/dotnet/shared/NETCore/9.0/libSystem.Security.Cryptography.Native.OpenSsl.so", "dotnet"),
        ("/usr/lib/erlang/erts-13.1.5/bin/beam.smp", "erlang"),
        ("/usr/lib/x86_64-linux-gnu/libcrypto.so.3", None),
        ("/usr/lib/x86_64-linux-gnu/libgnutls-openssl.so.27", None),
        ("/usr/lib/x86_64-linux-gnu/libgnutls-dane.so.0", None),
        ("/usr/lib/x86_64-linux-gnu/libgnutlsxx.so.30", None),
        ("/usr/lib/x86_64-linux-gnu/libsslcommon.so.1", None),
        ("/usr/lib/python3.11/lib-dynload/_ssl.cpython-311-x86_64-linux-gnu.so", None),
        ("/usr/bin/libssl", None),
        ("", None),
    ],
)
def test_names_of_files(path: str, name: str | None) -> None:
    found = implementations.named(path)
    assert (found.name if found else None) == name


def test_small_files_and_those_of_the_c_library_are_not_read() -> None:
    assert implementations.may_have_tls("/usr/lib/python3/grpc/cygrpc.so", 1 << 20)
    assert not implementations.may_have_tls("/usr/lib/python3/grpc/cygrpc.so", 4096)
    for name in ("libc.so.6", "libstdc++.so.6.0.30", "ld-linux-x86-64.so.2", "ld-musl-x86_64.so.1", "libicudata.so.72"):
        assert not implementations.may_have_tls(f"/usr/lib/{name}", 1 << 22)


def test_every_reason_belongs_to_an_implementation() -> None:
    names = {entry.name for entry in implementations.NAMED} | {mark.name for mark in implementations.MARKS}
    assert set(implementations.WHY) <= names
    for mark in (*implementations.MARKS, *implementations.VERSIONS):
        assert mark.pattern.groups <= 1 and 4 <= len(mark.needle) < 32
