"""Where the probes of Go's crypto/tls are, in programs of each kind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from collector.loader import decode, gopclntab
from collector.loader.probes import SOURCES, go
from collector.loader.probes.probe import Found, Unsupported
from tests.live.golang import build

GO = next(source for source in SOURCES if source.name == "go")
COMMON = {"go_handshake": 2, "go_close": 1, "go_fd_read": 1, "go_fd_write": 1}


def located(path: Path) -> Found | Unsupported:
    with path.open("rb") as file:
        return GO.locate(ELFFile(file))


def places(path: Path, found: Found) -> dict[str, list[bool]]:
    """By program: does each of its places cost one trap only?"""
    data = path.read_bytes()
    out: dict[str, list[bool]] = {}
    for site in found.sites:
        first = next(decode.instructions(data[site.offset : site.offset + 16], site.offset))
        out.setdefault(site.program, []).append(decode.emulated(first))
    return out


TOOLCHAINS = os.environ.get("GO_TOOLCHAINS", "").split()


@pytest.mark.parametrize(
    ("kind", "toolchain"),
    [(kind, "") for kind in build.KINDS if kind != "other-shape"]
    + [(kind, toolchain) for toolchain in TOOLCHAINS for kind in ("plain", "pie-stripped")],
)
def test_every_place_is_cheap(kind: str, toolchain: str) -> None:
    path = build.program(kind, toolchain)
    found = located(path)
    assert isinstance(found, Found), found
    at = places(path, found)
    assert {program: len(cheap) for program, cheap in at.items()} == {**COMMON, "go_read": 1, "go_record": 1}
    assert all(all(cheap) for cheap in at.values())
    assert found.library.startswith("go-1.") and (not toolchain or found.library == toolchain.replace("go", "go-"))


@pytest.mark.parametrize("toolchain", ["", *TOOLCHAINS])
def test_offsets_are_those_of_the_structures(toolchain: str) -> None:
    path = build.program("stripped", toolchain)
    found = located(path)
    assert isinstance(found, Found)
    layout = build.layout(path)
    version, alpn, alpn_bytes, fallbacks, server_name = found.values[:5]
    assert (version - 1, alpn - 1, server_name - 1) == tuple(
        layout[f"Conn.{name}"] for name in ("vers", "clientProtocol", "serverName")
    )
    assert alpn_bytes == alpn + 8 and not fallbacks
    # what bpf/go.h has as constants
    assert layout["Conn.haveVers"] == layout["Conn.vers"] + 2
    assert (layout["Conn.conn"], layout["Conn.isClient"]) == (0, 16)
    assert [layout[f"FD.{name}"] for name in ("Sysfd", "IsStream", "ZeroReadIsEOF", "isFile")] == [16, 48, 49, 50]
    names = ("pfd", "family", "sotype", "isConnected", "net")
    assert [layout[f"netFD.{name}"] for name in names] == [0, 56, 64, 72, 80]


def test_functions_with_the_connection_in_their_frames() -> None:
    path = build.program("plain")
    found = located(path)
    assert isinstance(found, Found)
    sites = {site.program: site.offset for site in found.sites}
    with path.open("rb") as file:
        functions = gopclntab.functions(ELFFile(file), (go.READ, go.HANDSHAKES[1]))
    behind, *spans = found.values[5:]
    assert behind == sites["go_fd_write"] - sites["go_fd_read"]
    mask = (1 << go.SPAN_BITS) - 1
    assert [((span + sites["go_fd_read"]) & mask, span >> go.SPAN_BITS) for span in spans] == [
        (function.offset, function.size) for function in functions.values()
    ]


def test_a_crypto_tls_of_another_shape() -> None:
    """Where Read copies in two places and records are encrypted in two: the returns of the one, the calls in Write."""
    path = build.program("other-shape")
    found = located(path)
    assert isinstance(found, Found)
    assert found.values[3] == go.READ_RETURNS | go.WHOLE_WRITES
    at = places(path, found)
    assert len(at["go_read"]) > 3 and not any(at["go_read"])
    assert at["go_record"] == [True, True]


def test_programs_without_it() -> None:
    assert located(build.program("stripped", name="plaintext")) == Unsupported("Go without crypto/tls")
    assert located(Path("/bin/ls")) == Unsupported("not made by Go")
    other = build.program("stripped", name="plaintext", GOARCH="arm64")
    assert located(other) == Unsupported("only for x86-64")
