"""Compile and load the kernel programs, in a child of its own that hands the descriptors over and ends.

bcc and LLVM take some 100 MB; they live for a few seconds. The child is started as

    python -m collector.loader.compiler CHANNEL

and gets one message {defines, variants, identity}; it answers {variant, identity, why, programs, maps, verified} with the
descriptors in that order, or {error}. bcc is pointed at our stub headers, so the node needs no kernel headers.
"""

from __future__ import annotations

import os
import re
import socket
import sys
import time
from pathlib import Path
from typing import Any

from collector import abi, control
from collector.loader import offsets
from collector.loader.probes.registry import RAW, TPX

AUTO, SOCKET, DESCRIPTOR = "auto", "socket", "descriptor"

_INCLUDE = re.compile(r'^#include "([^"]+)"\s*$')

DEFAULTS = {
    "CHUNK": 16384,
    "CHUNKS": 9,  # 144 KiB of one call: the default body cap and a head with room
    "IOV_STEPS": 144,  # some 70 buffers of one vectored call in one program, two steps each, and the chunks
    "MAX_CONNS": 65536,
    "MAX_SHARED": 4096,
    "MAX_PIDS": 1 << 22,  # PID_MAX_LIMIT
    "EXIT_FDS": 4096,
    "CLOSE_RANGE_FDS": 64,
    "RING_TEMPLATE_PAGES": 1,
    "WAKE_BYTES": 2 << 20,
    "RUN_BYTES": 192 << 10,  # the default body cap and the longest head, with room
    "WINDOW_BYTES": 1 << 20,
    "UNWANTED_WORDS": 1 << 15,
}
# What the loader must know of struct conn (bpf/maps.h); the compiler child asserts it.
CONN = {"conn_id": 0, "pos": 8, "tgid": 64, "fd": 68, "told": 72, "ring": 84, "local_port": 86, "remote_port": 88,
        "state": 90, "role": 91, "start": 92, "family": 93, "opened": 94, "local": 112, "remote": 128, "sizeof": 144}
PROCESS = {"rings": 0, "told_ns": 8, "connections": 16, "sizeof": 32}
UNSEEN = {"rings": 0, "operations": 8, "compat": 16, "comm": 24, "sizeof": 40}
CONN_HTTP, CONN_IGNORED = 1, 2
MAPS = ("conns", "pid_bits", "processes", "rings", "questions", "stats", "further", "unwanted", "unseen_processes")


def bpf_directory() -> Path:
    """Where the kernel side's sources are: beside the package in a checkout, inside it when installed."""
    beside = Path(__file__).resolve().parents[2] / "bpf"
    return beside if (beside / "collector.c").exists() else Path(__file__).resolve().parents[1] / "bpf"


def source(directory: Path, name: str = "collector.c") -> str:
    """The one text for bcc, whose rewriting of map accesses does not reach into included files: our own includes are
    put in place, with #line for messages.
    """
    out = []
    for number, line in enumerate((directory / name).read_text().splitlines(), 1):
        match = _INCLUDE.match(line)
        if match:
            out.append(f'#line 1 "{match[1]}"\n{source(directory, match[1])}#line {number + 1} "{name}"\n')
        else:
            out.append(line + "\n")
    return "".join(out)


def layout_checks() -> str:
    """Assertions that the kernel side lays the event structs out as the user side does."""
    out = []
    out.append(f'_Static_assert(CONN_HTTP == {CONN_HTTP}, "CONN_HTTP");\n')
    out.append('_Static_assert(STAT_UNPLACED_BYTES == 17, "enum stat");\n')
    out.append(f'_Static_assert(CONN_IGNORED == {CONN_IGNORED}, "CONN_IGNORED");\n')
    for struct, fields in {**abi.layout(), "conn": CONN, "process": PROCESS, "unseen": UNSEEN}.items():
        for name, value in fields.items():
            what = f"sizeof(struct {struct})" if name == "sizeof" else f"__builtin_offsetof(struct {struct}, {name})"
            out.append(f'_Static_assert({what} == {value}, "{struct}.{name} differs between kernel and user side");\n')
    return "".join(out)


def _load(defines: dict[str, int], variant: str, identity: str) -> dict[str, Any]:
    directory = bpf_directory()
    os.environ["BCC_KERNEL_SOURCE"] = str(directory / "headers")
    import bcc

    class Module(bcc.BPF):  # type: ignore[misc]
        def _trace_autoload(self) -> None:
            """Nothing is attached by its name."""

    flags = [f"-D{name}={value}" for name, value in defines.items()]
    if variant == RAW:
        flags.append("-DHOOKS_RAW=1")
    if identity == SOCKET:
        flags.append("-DIDENTITY_SOCKET=1")
    module = Module(text=(source(directory) + layout_checks()).encode(), cflags=flags)
    programs: dict[str, int] = {}
    verified: dict[str, int] = {}
    for i in range(bcc.lib.bpf_num_functions(module.module)):
        name = bcc.lib.bpf_function_name(module.module, i)
        kind = bcc.BPF.RAW_TRACEPOINT if name.startswith(b"raw_") else bcc.BPF.TRACEPOINT
        function = module.load_func(name, kind)
        programs[name.decode()] = function.fd
        text = Path(f"/proc/self/fdinfo/{function.fd}").read_text()
        found = re.search(r"verified_insns:\s*(\d+)", text)
        verified[name.decode()] = int(found[1]) if found else 0
    wanted = MAPS + (("calls",) if variant == RAW else ())
    maps = {name: module[name.encode()].map_fd for name in wanted}
    return {"variant": variant, "identity": identity, "why": "", "programs": programs, "maps": maps, "verified": verified,
            "_module": module}


def build(defines: dict[str, int], variants: list[str], identity: str = AUTO) -> dict[str, Any]:
    """Load the first combination that this kernel takes: sockets as the identity before descriptors, then the variants in
    their order. ``why`` of the answer says why it is not sockets. Raises the last error when none loads.
    """
    problem: Exception | None = None
    why = ""
    if identity != DESCRIPTOR:
        try:
            members = offsets.of_this_kernel()
        except offsets.UnknownKernel as error:
            problem, why = error, f"sockets cannot be told apart in this kernel: {error}"
        else:
            for variant in variants:
                try:
                    return _load({**defines, **members}, variant, SOCKET)
                except Exception as error:  # bcc raises bare Exceptions
                    problem = error
            why = f"the programs that read sockets do not load: {problem}"
        if identity == SOCKET:
            raise RuntimeError(f"COLLECTOR_IDENTITY=socket: {why}")
    for variant in variants:
        try:
            return {**_load(defines, variant, DESCRIPTOR), "why": why}
        except Exception as error:
            problem = error
    assert problem is not None
    raise problem


def main() -> int:
    """Entry of the child process."""
    channel = socket.socket(fileno=int(sys.argv[1]))
    received = control.receive(channel)
    if received is None:
        return 1
    request = received[0]
    try:
        built = build(request["defines"], request["variants"], request["identity"])
    except Exception as error:
        control.send(channel, {"error": f"{type(error).__name__}: {error}"[:2000]})
        return 1
    control.send(channel, {"variant": built["variant"], "identity": built["identity"], "why": built["why"][:2000],
                           "programs": list(built["programs"]),
                           "maps": list(built["maps"]), "verified": built["verified"],
                           "cpu_seconds": time.process_time()},
                 [*built["programs"].values(), *built["maps"].values()])
    sys.stdout.flush()
    os._exit(0)


def default_variants() -> list[str]:
    """The cheap variant first; the raw one knows x86-64's call numbers only."""
    return [TPX, RAW] if os.uname().machine == "x86_64" else [TPX]


if __name__ == "__main__":
    raise SystemExit(main())
