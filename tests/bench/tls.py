"""scripts/bench tls: what capture inside TLS costs the traced programs (root; attaches and detaches real probes).

An nginx worker that answers 1 KB over 16 keep-alive TLS connections, and a server in Go. Rounds alternate between
  off       nothing attached
  calls     the probes of system calls, which leave TLS alone
  ours      and those of the library, where the source puts them
  symbols   and instead of these the usual places: entries and returns of the exported functions (OpenSSL, with the same
            programs), entries and RET instructions of (*Conn).Read and Write (Go, with what is sent left out)
so that drift of the machine meets all of them; figures are medians of the differences within a round with their 95 %
interval. CPU time of the worker per request, from its schedstat.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import struct
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from elftools.elf.elffile import ELFFile

from collector.loader import decode, elf, gopclntab, kernel
from collector.loader.catalogue import SIZE
from collector.loader.probes import SOURCES, go
from collector.loader.probes.probe import SOCKET, TPX, Found, Site
from tests.bench.overhead import Probes, interval

MODES = ("off", "calls", "ours", "symbols")
BODY = 1024
CONNECTIONS = 16
# program: functions of OpenSSL that are exported; all return there too
EXPORTED = {
    "openssl_read": "SSL_read",
    "openssl_read_ex": "SSL_read_ex",
    "openssl_write": "SSL_write",
    "openssl_write_ex": "SSL_write_ex",
}


OURS, USUAL = 1, 2  # numbers of libraries


def openssl_symbols(file: IO[bytes], found: Found) -> tuple[list[Site], Sequence[int]]:
    """The exported functions."""
    names = elf.functions(ELFFile(file), set(EXPORTED.values()))
    own = [site for site in found.sites if site.program in ("openssl_new", "library_free")]
    returns = [Site("library_return", names[name]) for name in EXPORTED.values()]
    return [*own, *returns, *(Site(program, names[name]) for program, name in EXPORTED.items())], found.values


def go_symbols(file: IO[bytes], found: Found) -> tuple[list[Site], Sequence[int]]:
    """Entries and RETs of (*Conn).Read and Write."""
    functions = gopclntab.functions(ELFFile(file), (go.READ, go.WRITE))
    returns = {
        name: [
            function.offset + instruction.address - function.address
            for instruction in decode.instructions(elf.code(ELFFile(file), function), function.address)
            if instruction.mnemonic == "ret"
        ]
        for name, function in functions.items()
    }
    return [
        *(site for site in found.sites if site.program in ("go_handshake", "go_close")),
        *(Site("go_read", offset) for offset in returns[go.READ]),
        *(Site("openssl_write", offset) for offset in returns[go.WRITE]),
        *(Site("openssl_read", function.offset) for function in functions.values()),
    ], [*found.values[:3], go.READ_RETURNS, *found.values[4:]]


class Uprobes:
    """Links in one file, made and closed by turns."""

    def __init__(
        self,
        probes: Probes,
        path: Path,
        source: str,
        symbols: Callable[[IO[bytes], Found], tuple[list[Site], Sequence[int]]],
    ) -> None:
        self._probes = probes
        self._path = str(path)
        (self.source,) = (source_ for source_ in SOURCES if source_.name == source)
        with path.open("rb") as file:
            found = self.source.locate(ELFFile(file))
            assert isinstance(found, Found), found
            self.symbols, values = symbols(file, found)
        self.ours = found.sites
        for number, of_it in ((OURS, found.values), (USUAL, values)):
            entry = struct.pack("=8Q", *of_it, *[0] * (8 - len(of_it))).ljust(SIZE, b"\0")
            kernel.map_update(probes.loaded.maps["libraries"], struct.pack("=I", number), entry)
        self._on_demand = {
            probe.program for probe in self.source.probes(probes.loaded.build) if getattr(probe.at, "on_demand", False)
        }
        self._links: list[int] = []

    def set(self, sites: Sequence[Site], number: int = OURS) -> None:
        """These and no others."""
        for fd in self._links:
            os.close(fd)
        self._links.clear()
        by_program: dict[str, list[int]] = {}
        for site in sites:
            if site.program not in self._on_demand:
                by_program.setdefault(site.program, []).append(site.offset)
        for name, offsets in by_program.items():
            returns = name in ("library_return", "openssl_new")
            program = self._probes.loaded.programs[name]
            self._links.append(kernel.attach_uprobes(program, self._path, offsets, returns=returns, cookie=number))


def rounds(probes: Probes, uprobes: Uprobes, pid: int, port: int, modes: Sequence[str], count: int) -> dict[str, object]:
    """CPU microseconds of process ``pid`` per request."""
    series: dict[str, list[float]] = {mode: [] for mode in modes}
    os.sched_setaffinity(pid, {0})
    for _ in range(count):
        for mode in modes:
            probes.set("off" if mode == "off" else "traced")
            uprobes.set(
                uprobes.ours if mode == "ours" else uprobes.symbols if mode == "symbols" else [],
                USUAL if mode == "symbols" else OURS,
            )
            before = cpu(pid)
            with subprocess.Popen(
                ["taskset", "-c", "1", "wrk", "-t1", f"-c{CONNECTIONS}", "-d1s", f"https://127.0.0.1:{port}/x"],
                stdout=subprocess.PIPE,
                text=True,
            ) as wrk:
                probes.ignore(wrk.pid, True)
                text = wrk.communicate()[0]
                probes.ignore(wrk.pid, False)
            found = re.search(r"(\d+) requests in", text)
            assert found and int(found[1]) > 100, text
            series[mode].append((cpu(pid) - before) / int(found[1]) / 1000)
    uprobes.set(uprobes.ours)
    programs = run_times(probes, port)
    uprobes.set([])
    probes.set("off")
    return {
        "programs": programs,
        **{f"{mode}_us": interval(series[mode]) for mode in modes},
        **{
            f"{mode}_added_us": interval([round(b - a, 3) for a, b in zip(series["off"], series[mode], strict=True)])
            for mode in modes[1:]
        },
        **{
            f"{mode}_over_calls_us": interval([round(b - a, 3) for a, b in zip(series["calls"], series[mode], strict=True)])
            for mode in modes[2:]
        },
    }


def run_times(probes: Probes, port: int) -> dict[str, object]:
    """Runs per request and mean ns of a run, by program, as the kernel counts them (which adds to each)."""
    switch = Path("/proc/sys/kernel/bpf_stats_enabled")
    switch.write_text("1")
    try:
        before = probes.run_times()
        with subprocess.Popen(
            ["taskset", "-c", "1", "wrk", "-t1", f"-c{CONNECTIONS}", "-d2s", f"https://127.0.0.1:{port}/x"],
            stdout=subprocess.PIPE,
            text=True,
        ) as wrk:
            probes.ignore(wrk.pid, True)
            text = wrk.communicate()[0]
            probes.ignore(wrk.pid, False)
        found = re.search(r"(\d+) requests in", text)
        assert found, text
        counted = {name: (ns - before[name][0], runs - before[name][1]) for name, (ns, runs) in probes.run_times().items()}
    finally:
        switch.write_text("0")
    requests = int(found[1])
    return {
        name: {"runs": round(runs / requests, 2), "ns": round(ns / runs)}
        for name, (ns, runs) in counted.items()
        if runs > requests / 10
    }


def cpu(pid: int) -> int:
    """Nanoseconds that all threads of a process have run."""
    return sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat"))


def nginx(probes: Probes, count: int) -> dict[str, object]:
    """nginx with the distribution's OpenSSL."""
    from tests.live.harness import Nginx

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        certificate(folder)
        text = "x" * BODY
        server = Nginx(folder, f"location / {{ return 200 '{text}'; }}", tls=(folder / "cert.pem", folder / "key.pem"))
        try:
            worker = server.workers()[0]
            maps = Path(f"/proc/{worker}/maps").read_text()
            (path,) = set(re.findall(r"\S+/libssl\.so\S*$", maps, re.MULTILINE))
            uprobes = Uprobes(probes, Path(path), "openssl", openssl_symbols)
            return rounds(probes, uprobes, worker, server.port, MODES, count)
        finally:
            server.close()


def golang(probes: Probes, count: int) -> dict[str, object]:
    """Go's net/http."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        certificate(folder)
        source = Path(__file__).with_name("server.go")
        subprocess.run(["go", "build", "-o", folder / "server", source], check=True, env={**os.environ, "GOFLAGS": ""})
        with subprocess.Popen(
            [folder / "server", folder / "cert.pem", folder / "key.pem"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "GOMAXPROCS": "1"},
        ) as server:
            assert server.stdout is not None
            port = int(server.stdout.readline())
            uprobes = Uprobes(probes, folder / "server", "go", go_symbols)
            try:
                return rounds(probes, uprobes, server.pid, port, MODES, count)
            finally:
                server.terminate()


def certificate(folder: Path) -> None:
    """cert.pem and key.pem for localhost."""
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
        + ["-keyout", folder / "key.pem", "-out", folder / "cert.pem", "-subj", "/CN=localhost"],
        check=True,
        capture_output=True,
    )


def main(arguments: list[str]) -> None:
    """Entry of `scripts/bench tls`."""
    parser = argparse.ArgumentParser(prog="scripts/bench tls", description=__doc__)
    parser.add_argument("--rounds", type=int, default=11)
    options = parser.parse_args(arguments)
    probes = Probes(TPX, SOCKET)
    try:
        result = {"nginx": nginx(probes, options.rounds), "go": golang(probes, options.rounds)}
    finally:
        probes.close()
    print(json.dumps(result))
