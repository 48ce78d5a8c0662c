"""The implementations of TLS that programs of a cluster use, and how each is recognised: by the name of a file that a
process has mapped, or by what is written inside a file that has it built in.

`NAMED` and `MARKS` are the two tables; a new implementation is a line in one of them. Nothing here opens a file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

OPENSSL, LIBRESSL, BORINGSSL, AWS_LC = "openssl", "libressl", "boringssl", "aws-lc"
GNUTLS, NSS, GO, RUSTLS, MBEDTLS, WOLFSSL, S2N = "gnutls", "nss", "go", "rustls", "mbedtls", "wolfssl", "s2n"
NETTY_TCNATIVE, CONSCRYPT, JSSE, DOTNET, ERLANG, GRAALVM = (
    "netty-tcnative",
    "conscrypt",
    "jsse",
    "dotnet",
    "erlang",
    "graalvm",
)
BOTAN, BEARSSL, GSKIT = "botan", "bearssl", "gskit"
UNKNOWN = "unknown"

# Why nothing is captured where no probe source has found anything.
WHY = {
    JSSE: "TLS of Java (JSSE) is Java code, compiled while it runs: there is no library function to probe",
    GRAALVM: "a GraalVM native image has TLS of Java (JSSE) built in, without symbols to probe",
    ERLANG: "TLS of Erlang/OTP is Erlang code: there is no library function to probe",
    RUSTLS: "rustls is built into each program in another way, without functions that could be relied on",
    DOTNET: ".NET has loaded no OpenSSL library yet",
}
NO_PROBES = "there are no probes for this library"
NOT_FOUND = "its functions were not found (stripped?)"
OLD_GO = "Go before 1.17 passes arguments in another way"
# The probe source that knows an implementation, where that has another name.
_SOURCES = dict.fromkeys((LIBRESSL, BORINGSSL, AWS_LC, NETTY_TCNATIVE, CONSCRYPT, DOTNET), OPENSSL)


def source_of(name: str) -> str:
    """The name of the probe source that knows this implementation, if there is one."""
    return _SOURCES.get(name, name)


@dataclass(frozen=True, slots=True)
class Named:
    """An implementation that is known by the name of a mapped file. ``runtime``: it is a language's runtime, which may use
    another library for TLS; that one is named first. ``beside``: the versions of these implementations are not in the file
    itself but in one mapped beside it, by a pattern of names.
    """

    name: str
    file: re.Pattern[str]
    runtime: bool = False
    beside: re.Pattern[str] | None = None


def _library(name: str) -> str:
    """libNAME.so, libNAME.so.1.1, and as wheels rename it: libNAME-3f2a1b9c.so.1.1."""
    return rf"lib{name}(?:[-_][^/]*)?\.so(?:\.[^/]*)?"


_CRYPTO = re.compile(_library("crypto"))
NAMED: tuple[Named, ...] = (
    # their own copies of BoringSSL or OpenSSL, also under shaded names and with a random number (unpacked into /tmp)
    Named(NETTY_TCNATIVE, re.compile(r"[^/]*netty_tcnative[^/]*\.so[^/]*")),
    Named(CONSCRYPT, re.compile(r"[^/]*conscrypt[^/]*_jni[^/]*\.so[^/]*")),
    Named(OPENSSL, re.compile(_library("ssl")), beside=_CRYPTO),
    Named(GNUTLS, re.compile(_library(r"gnutls(?!-openssl|-dane)"))),
    Named(NSS, re.compile(_library("ssl3"))),
    Named(MBEDTLS, re.compile(_library("mbedtls")), beside=re.compile(_library("mbedcrypto"))),
    Named(WOLFSSL, re.compile(_library("wolfssl"))),
    Named(S2N, re.compile(_library("s2n"))),
    Named(BOTAN, re.compile(_library(r"botan-?\d?"))),
    Named(BEARSSL, re.compile(_library("bearssl"))),
    Named(GSKIT, re.compile(r"libgsk8ssl(?:_64)?\.so[^/]*")),
    Named(JSSE, re.compile(r"libjvm\.so|libj9vm\d+\.so"), runtime=True),
    Named(DOTNET, re.compile(r"libSystem\.Security\.Cryptography\.Native\.OpenSsl\.so"), runtime=True),
    Named(ERLANG, re.compile(r"beam(?:\.smp)?"), runtime=True),
)


@dataclass(frozen=True, slots=True)
class Mark:
    """Bytes that only a file has which has the implementation built in: ``needle`` is looked for, and ``pattern`` must match
    (`search`) around it; its group, if it has one, is the version.
    """

    name: str
    needle: bytes
    pattern: re.Pattern[bytes]


# In the order of how likely it is that a program with several of them uses this one for its connections. OpenSSL and its
# relatives put the names of their source files into error messages, stripped or not: ssl_lib.c, and .cc in BoringSSL's line.
MARKS: tuple[Mark, ...] = (
    Mark(GO, b"crypto/tls.(*Conn).Read", re.compile(rb"crypto/tls\.\(\*Conn\)\.Read")),
    Mark(GRAALVM, b".svm_heap", re.compile(rb"\x00\.svm_heap\x00")),
    Mark(AWS_LC, b"ssl_lib.c", re.compile(rb"aws-lc[ -~]{0,200}/ssl_lib\.c")),
    Mark(BORINGSSL, b"ssl_lib.cc", re.compile(rb"/ssl_lib\.cc")),
    Mark(OPENSSL, b"ssl_lib.c", re.compile(rb"(?:^|[\x00/])ssl_lib\.c(?!c)")),
    Mark(S2N, b"/s2n_", re.compile(rb"/s2n_[a-z0-9_]+\.c:\d")),
    Mark(RUSTLS, b"rustls", re.compile(rb"(?<![\w-])rustls(?:-(\d+\.\d+\.\d+[0-9A-Za-z.+-]*))?[/\\]src[/\\]")),
    Mark(MBEDTLS, b"bed TLS ", re.compile(rb"[mM]bed TLS (\d+\.\d+\.\d+)")),
)

# How a library says which version it is; OpenSSL and LibreSSL in libcrypto.
VERSIONS: tuple[Mark, ...] = (
    Mark(
        OPENSSL, b"OpenSSL ", re.compile(rb"(?<![\w.])OpenSSL (\d+\.\d+\.\d+[0-9A-Za-z.+-]*) +\d{1,2} [A-Z][a-z]{2} \d{4}")
    ),
    Mark(LIBRESSL, b"LibreSSL ", re.compile(rb"(?<![\w.])LibreSSL (\d+\.\d+\.\d+)")),
    Mark(GNUTLS, b"GnuTLS ", re.compile(rb"Enabled GnuTLS (\d+\.\d+\.\d+)")),
    Mark(NSS, b"NSS ", re.compile(rb"Version: NSS (\d+\.\d+(?:\.\d+)?)")),
    Mark(MBEDTLS, b"bed TLS ", re.compile(rb"[mM]bed TLS (\d+\.\d+\.\d+)")),
    Mark(JSSE, b" VM (", re.compile(rb" VM \((\d[0-9A-Za-z.+-]{0,60})\) for ")),
)

# Mapped files that are no program's own code and too many to be read each: the C library and what goes with it.
_PLAIN = re.compile(
    r"(?:ld-(?:linux|musl)[^/]*|lib(?:c|m|pthread|dl|rt|resolv|stdc\+\+|gcc_s|z|lzma|zstd|bz2|icu[a-z]+|glib-2|systemd|"
    r"pcre2?-8|selinux|LLVM)(?:[-.][^/]*)?\.so[^/]*)"
)


def named(path: str) -> Named | None:
    """The implementation that a file of this path is, by its name. The kernel's " (deleted)" must be taken off."""
    base = path.rpartition("/")[2]
    return next((entry for entry in NAMED if entry.file.fullmatch(base)), None)


def may_have_tls(path: str, size: int) -> bool:
    """Is a mapped file worth being read for implementations that are built in? The smallest complete ones that were seen
    have 200 KB.
    """
    return size >= 192 << 10 and not _PLAIN.fullmatch(path.rpartition("/")[2])
