"""Which implementations of TLS a process has, from its mapped files and their contents."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.loader.mapped import Mapping, Proc, mappings
from collector.loader.tls import contents, processes
from collector.loader.tls.contents import Contents
from collector.loader.tls.processes import File, Library, Reading

PROGRAM = "/usr/bin/program"


def files(*paths: str) -> list[File]:
    """Mapped under these paths; the first one is the program."""
    return [
        File((Mapping(f"{number:x}000-{number:x}fff", "08:01", number, path, 0),), path, number == 1)
        for number, path in enumerate(paths, 1)
    ]


def names(found: list[Library]) -> list[str]:
    return [f"{library.name} {library.version}".strip() for library in found]


def nothing(_key: str) -> bool:
    return False


def everything(_key: str) -> bool:
    return True


MAPS = b"""\
55d0c0a00000-55d0c0a02000 r--p 00000000 08:01 11                         /usr/bin/program
55d0c0a02000-55d0c0a04000 r-xp 00002000 08:01 11                         /usr/bin/program
7f0000000000-7f0000001000 r-xp 00000000 00:27 99                         /tmp/libnetty_tcnative_linux_x86_64123.so (deleted)
7f0000002000-7f0000003000 r-xp 00000000 00:27 99                         /tmp/libnetty_tcnative_linux_x86_64123.so (deleted)
7f0000010000-7f0000011000 rw-p 00000000 00:00 0                          [heap]
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
"""


def test_files_are_those_that_are_mapped_executable_each_once() -> None:
    program, library = processes.files_in(mappings(MAPS), PROGRAM)
    assert (program.key, program.path, program.program, len(program.mappings)) == ("08:01:11", PROGRAM, True, 1)
    path = "/tmp/libnetty_tcnative_linux_x86_64123.so"
    assert (library.key, library.path, library.program, len(library.mappings)) == ("00:27:99", path, False, 2)
    assert processes.files_in([], PROGRAM) == []


@given(st.binary(max_size=200) | st.text().map(str.encode))
def test_no_text_of_maps_raises(text: bytes) -> None:
    for maps in (text, MAPS + text, MAPS.replace(b"program", text)):
        found = processes.files_in(mappings(maps), PROGRAM)
        processes.libraries_in(found, {})


def test_the_version_of_openssl_is_that_of_the_libcrypto_beside_it() -> None:
    mapped = files(PROGRAM, "/a/libssl.so.3", "/b/libcrypto.so.3", "/a/libcrypto.so.3")
    known = {
        mapped[2].key: Contents(versions={"openssl": "1.1.1w"}),
        mapped[3].key: Contents(versions={"openssl": "3.0.19"}),
    }
    assert names(processes.libraries_in(mapped, known)) == ["openssl 3.0.19"]
    assert names(processes.libraries_in(mapped[:3], known)) == ["openssl 1.1.1w"]
    assert names(processes.libraries_in(mapped, {})) == ["openssl"]


def test_what_a_libssl_really_is_shows_in_its_contents() -> None:
    mapped = files(PROGRAM, "/a/libssl.so.55", "/a/libcrypto.so.52")
    known = {mapped[2].key: Contents(versions={"libressl": "3.9.2"})}
    assert names(processes.libraries_in(mapped, known)) == ["libressl 3.9.2"]
    assert names(processes.libraries_in(mapped, {mapped[1].key: Contents({"boringssl": ""})})) == ["boringssl"]


def test_the_likeliest_comes_first() -> None:
    mapped = files(PROGRAM, "/jvm/libjvm.so", "/x/cygrpc.so", "/usr/lib/libssl.so.3", "/tmp/libnetty_tcnative1.so")
    known = {
        mapped[0].key: Contents({"rustls": "0.23.37"}, {}, "ab" * 20),
        mapped[1].key: Contents(versions={"jsse": "17.0.15+6"}),
        mapped[2].key: Contents({"boringssl": ""}),
        mapped[4].key: Contents({"boringssl": ""}),
    }
    found = processes.libraries_in(mapped, known)
    assert names(found) == ["rustls 0.23.37", "netty-tcnative", "openssl", "boringssl", "jsse 17.0.15+6"]
    assert [library.built_in for library in found] == [True, False, False, True, False]
    assert [library.runtime for library in found] == [False] * 4 + [True]


def test_dotnet_uses_openssl_when_it_has_loaded_it() -> None:
    native = "/dotnet/libSystem.Security.Cryptography.Native.OpenSsl.so"
    assert names(processes.libraries_in(files(PROGRAM, native), {})) == ["dotnet"]
    assert names(processes.libraries_in(files(PROGRAM, native, "/lib/libssl.so.3"), {})) == ["openssl"]


def test_the_label_of_what_is_not_seen_is_no_probed_library() -> None:
    mapped = files(PROGRAM, "/jvm/libjvm.so", "/usr/lib/libssl.so.3", "/usr/lib/libcrypto.so.3")
    found = processes.libraries_in(mapped, {})
    assert names(found) == ["openssl", "jsse"]
    assert processes.label(found, mapped, nothing) == ("openssl", False)
    assert processes.label(found, mapped, lambda key: key == mapped[2].key) == ("jsse", True)
    assert processes.label(found, mapped, everything) == ("jsse", True)  # no source knows it: it is never probed
    assert processes.label(found[:1], mapped, everything) == ("openssl", True)
    # libcrypto alone carries no connection
    assert processes.label(found, mapped, lambda key: key == mapped[3].key) == ("openssl", False)
    assert processes.label([], mapped, nothing) == ("program", False)
    assert processes.label([], [], nothing) == ("unknown", False)


def test_of_two_in_one_program_the_one_without_a_source_is_not_seen() -> None:
    mapped = files(PROGRAM)
    found = processes.libraries_in(mapped, {mapped[0].key: Contents({"openssl": "3.5.4", "rustls": "0.23.37"})})
    assert processes.label(found, mapped, everything) == ("rustls", True)
    assert processes.label(found, mapped, nothing) == ("openssl", False)


@pytest.mark.parametrize(
    ("library", "words"),
    [
        (Library("jsse", "17", files(PROGRAM)[0]), "Java"),
        (Library("go", "go1.16.15", files(PROGRAM)[0], "", built_in=True), "before 1.17"),
        (Library("mbedtls", "3.4.0", files(PROGRAM)[0], "", built_in=True), "no probes"),
        (Library("boringssl", "", files(PROGRAM)[0], "abcd" * 10, built_in=True), "not found (stripped?); build id abcd"),
    ],
)
def test_reasons(library: Library, words: str) -> None:
    assert words in processes.why_not(library)


@pytest.fixture
def process() -> Iterator[subprocess.Popen[str]]:
    """A Python that has loaded OpenSSL."""
    code = "import ssl, sys; print(ssl.OPENSSL_VERSION.split()[1], flush=True); sys.stdin.read()"
    running = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    yield running
    running.communicate("")


def test_a_running_process(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    version = process.stdout.readline().strip()
    reading = Reading(None, Proc())
    mapped = processes.files_of(process.pid, Proc())
    assert reading.known(reading.ask(process.pid, mapped)) is None
    while reading.turn():
        time.sleep(0.005)
    known = reading.known(reading.ask(process.pid, mapped))  # and nothing is read again
    assert known is not None
    found = processes.libraries_in(mapped, known)
    assert [library.name for library in found if not library.built_in] == ["openssl"]
    assert found[0].version.startswith(version.partition("+")[0]) or found[0].version  # that of libcrypto, not of headers
    assert [file.path for file in mapped if file.program] == [os.path.realpath(sys.executable)]


@pytest.mark.parametrize("version", ["go1.17", "go1.26.8", "devel", ""])
def test_newer_go_is_not_called_old(version: str) -> None:
    assert "1.17" not in processes.why_not(Library("go", version, files(PROGRAM)[0]))


def test_a_process_that_is_gone() -> None:
    done = subprocess.Popen(["true"])
    done.wait()
    assert processes.files_of(done.pid, Proc()) == []
    assert Reading(None, Proc()).ask(done.pid, files(PROGRAM)) == {}


def test_what_is_read_is_bounded(monkeypatch: pytest.MonkeyPatch, process: subprocess.Popen[str]) -> None:
    monkeypatch.setattr(processes, "REMEMBERED", 1)
    monkeypatch.setattr(processes, "JOB_FILES", 1)
    reading = Reading(None, Proc())
    assert process.stdout is not None and process.stdout.readline()
    mapped = processes.files_of(process.pid, Proc())
    asked = reading.ask(process.pid, mapped)
    assert len(asked) > 2
    while reading.turn():
        time.sleep(0.005)
    known = reading.known(asked)
    assert known is not None
    assert sum(said != contents.UNREADABLE for said in known.values()) == 1


def test_it_can_be_ended_at_any_time(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None and process.stdout.readline()
    before = len(os.listdir("/proc/self/fd"))
    reading = Reading(None, Proc())
    asked = reading.ask(process.pid, processes.files_of(process.pid, Proc()))
    reading.turn()
    reading.close()
    assert reading.known(asked) is not None
    assert len(os.listdir("/proc/self/fd")) == before
