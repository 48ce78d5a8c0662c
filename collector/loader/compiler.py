"""Compile and load the kernel programs, in a child of its own that hands the descriptors over and ends.

bcc and LLVM take some 100 MB; they live for a few seconds. The child is started as

    python -m collector.loader.compiler CHANNEL

and gets one message {defines, variants}; it answers {variant, programs, maps, verified} with the descriptors in that
order, or {error}. bcc is pointed at our stub headers, so the node needs neither kernel headers nor BTF for them.
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
from collector.loader.probes.registry import RAW, TPX

_INCLUDE = re.compile(r'^#include "([^"]+)"\s*$')

DEFAULTS = {
    "CHUNK": 16384,
    "CHUNKS": 9,  # 144 KiB of one call: the default body cap and a head with room
    "IOV_STEPS": 144,  # 64 buffers of one vectored call, two steps each, and the chunks
    "MAX_CONNS": 65536,
    "MAX_SHARED": 4096,
    "MAX_PIDS": 1 << 22,  # PID_MAX_LIMIT
    "EXIT_FDS": 4096,
    "CLOSE_RANGE_FDS": 64,
    "RING_TEMPLATE_PAGES": 1,
}
# What the loader must know of struct conn (bpf/maps.h) to set an entry aside; the compiler child asserts it.
CONN = {"tgid": 24, "fd": 28, "gen": 32, "ring": 40, "local_port": 42, "remote_port": 44, "state": 46, "role": 47,
        "opened": 50, "local": 56, "remote": 72, "sizeof": 88}
CONN_HTTP, CONN_IGNORED = 1, 2
MAPS = ("conns", "pid_bits", "processes", "rings", "questions", "stats")


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
    out.append(f'_Static_assert(CONN_IGNORED == {CONN_IGNORED}, "CONN_IGNORED");\n')
    for struct, fields in {**abi.layout(), "conn": CONN}.items():
        for name, value in fields.items():
            what = f"sizeof(struct {struct})" if name == "sizeof" else f"__builtin_offsetof(struct {struct}, {name})"
            out.append(f'_Static_assert({what} == {value}, "{struct}.{name} differs between kernel and user side");\n')
    return "".join(out)


def _load(defines: dict[str, int], variant: str) -> dict[str, Any]:
    directory = bpf_directory()
    os.environ["BCC_KERNEL_SOURCE"] = str(directory / "headers")
    import bcc

    class Module(bcc.BPF):  # type: ignore[misc]
        def _trace_autoload(self) -> None:
            """Nothing is attached by its name."""

    flags = [f"-D{name}={value}" for name, value in defines.items()]
    if variant == RAW:
        flags.append("-DHOOKS_RAW=1")
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
    return {"variant": variant, "programs": programs, "maps": maps, "verified": verified, "_module": module}


def build(defines: dict[str, int], variants: list[str]) -> dict[str, Any]:
    """Load the first variant that this kernel takes. Raises the last one's error when none loads."""
    problem: Exception | None = None
    for variant in variants:
        try:
            return _load(defines, variant)
        except Exception as error:  # bcc raises bare Exceptions
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
        built = build(request["defines"], request["variants"])
    except Exception as error:
        control.send(channel, {"error": f"{type(error).__name__}: {error}"[:2000]})
        return 1
    control.send(channel, {"variant": built["variant"], "programs": list(built["programs"]),
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
