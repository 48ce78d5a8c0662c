"""Compile and load the kernel programs, in a child of its own that hands the descriptors over and ends.

bcc and LLVM take some 100 MB; they live for a few seconds. The child is started as

    python -m collector.loader.compiler CHANNEL PARENT

and gets one message {defines, variants, identity, sources, uprobes}; it answers with the descriptors, as many messages
{names} as it takes, and then {variant, identity, uprobes, why, verified}, or with {error}. bcc is pointed at our stub
headers, so the node needs no kernel headers.
"""

from __future__ import annotations

import os
import re
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from collector import abi, control, runtime
from collector.loader import kernel, offsets
from collector.loader.probes import sources as probe_sources
from collector.loader.probes.probe import DESCRIPTOR, RAW, SOCKET, TPX, Build, ProgramType, Source

AUTO = "auto"
MULTI, PERF = "multi", "perf"  # how uprobes are attached: all places of a file in one link, or an event for each

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
CONN = {
    "conn_id": 0,
    "pos": 8,
    "tgid": 64,
    "fd": 68,
    "told": 72,
    "ring": 84,
    "local_port": 86,
    "remote_port": 88,
    "state": 90,
    "role": 91,
    "start": 92,
    "family": 93,
    "opened": 94,
    "source": 101,
    "local": 112,
    "remote": 128,
    "sizeof": 144,
}
PROCESS = {"rings": 0, "told_ns": 8, "connections": 16, "sizeof": 32}
UNSEEN = {
    "rings": 0,
    "operations": 8,
    "compat": 16,
    "tls": 24,
    "tls_bound": 32,
    "quic_client": 40,
    "quic_server": 48,
    "comm": 56,
    "sizeof": 72,
}
LIBRARY = {"values": 0, "name": 64, "key": 112, "sizeof": 208}
OBJECT = {"c": 0, "socket": 144, "sizeof": 312}  # of libraries; only where there are programs of them
QUESTION = {"conn_id": 0, "tgid": 8, "fd": 12, "ring": 16, "sizeof": 24}
CONN_HTTP, CONN_IGNORED = 1, 2
# Statistics of the programs in the order of enum stat: what they are called here, and there.
STATS: Mapping[str, str] = {
    "kernel_dropped_events": "DROPPED_EVENTS",
    "kernel_dropped_bytes": "DROPPED_BYTES",
    "kernel_map_full": "MAP_FULL",
    "kernel_not_http": "NOT_HTTP",
    "kernel_tls": "TLS",
    "kernel_faults": "FAULTS",
    "null_accepts": "NULL_ACCEPTS",
    "io_uring_setups": "IO_URING",
    "kernel_unseen_bytes": "UNSEEN_BYTES",
    "kernel_unwanted_bytes": "UNWANTED_BYTES",
    "kernel_bounded_bytes": "BOUNDED_BYTES",
    "kernel_process_full": "PROCESS_FULL",
    "kernel_entries_made": "ENTRIES_MADE",
    "kernel_entries_ended": "ENTRIES_ENDED",
    "kernel_entries_swept": "SWEPT",
    "kernel_entries_stale": "STALE",
    "kernel_unplaced_bytes": "UNPLACED_BYTES",
    "kernel_left_out": "LEFT_OUT",
    "kernel_left_out_bytes": "LEFT_OUT_BYTES",
    "kernel_quic": "QUIC",
}
MAPS = (
    "beyond",
    "conns",
    "further",
    "libraries",
    "objects",
    "pid_bits",
    "processes",
    "questions",
    "ring_lives",
    "rings",
    "stats",
    "unseen_processes",
    "unwanted",
    "wanting",
)


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
    """Assertions that the kernel side lays the events and its maps' values out as the user side does, and numbers alike."""
    out = []
    numbers = {
        "CONN_HTTP": CONN_HTTP,
        "CONN_IGNORED": CONN_IGNORED,
        "STATS_IN_USE": len(STATS),
        **{f"STAT_{name}": number for number, name in enumerate(STATS.values())},
    }
    for name, value in numbers.items():
        out.append(f'_Static_assert({name} == {value}, "{name} differs between kernel and user side");\n')
    structs = {
        **abi.layout(),
        "conn": CONN,
        "process": PROCESS,
        "unseen": UNSEEN,
        "question": QUESTION,
        "object": OBJECT,
        "library": LIBRARY,
    }
    return "".join([*out, *(_layout(struct, fields) for struct, fields in structs.items())])


def _layout(struct: str, fields: Mapping[str, int]) -> str:
    out = []
    for name, value in fields.items():
        what = f"sizeof(struct {struct})" if name == "sizeof" else f"__builtin_offsetof(struct {struct}, {name})"
        out.append(f'_Static_assert({what} == {value}, "{struct}.{name} differs between kernel and user side");\n')
    return "".join(out)


def text(sources: Sequence[Source]) -> str:
    """All that is compiled: the kernel side, what sources bring of their own, and the assertions."""
    own = [f'#line 1 "{source.name}"\n{source.text}' for source in sources if source.text]
    return "".join([source(bpf_directory()), *own, layout_checks()])


def declared(sources: Sequence[Source], found: Sequence[str], build: Build) -> dict[str, ProgramType]:
    """The type of each function that was compiled. Raises ValueError unless each is declared, and nothing else is. Sources
    may share programs.
    """
    out: dict[str, ProgramType] = {}
    for source in sources:
        for program in source.programs(build):
            if out.setdefault(program.name, program.type) != program.type:
                raise ValueError(f"program {program.name} is declared with two types")
    if set(out) != set(found):
        raise ValueError(
            "programs of the kernel side and of the probe sources differ: " + ", ".join(sorted(set(out) ^ set(found)))
        )
    return out


def _load(defines: dict[str, int], build: Build, sources: Sequence[Source], uprobes: str) -> dict[str, Any]:
    os.environ["BCC_KERNEL_SOURCE"] = str(bpf_directory() / "headers")
    import bcc

    class Module(bcc.BPF):  # type: ignore[misc]
        def _trace_autoload(self) -> None:
            """Nothing is attached by its name."""

    flags = [f"-D{name}={value}" for name, value in defines.items()]
    if build.variant == RAW:
        flags.append("-DHOOKS_RAW=1")
    if build.identity == SOCKET:
        flags.append("-DIDENTITY_SOCKET=1")
    module = Module(text=text(sources).encode(), cflags=flags)
    functions = [
        bcc.lib.bpf_function_name(module.module, i).decode() for i in range(bcc.lib.bpf_num_functions(module.module))
    ]
    types = declared(sources, functions, build)
    if uprobes != PERF:
        uprobes = MULTI if _takes_multi(module, types) else PERF
    programs: dict[str, int] = {}
    verified: dict[str, int] = {}
    for name in functions:
        expected = kernel.TRACE_UPROBE_MULTI if types[name] == ProgramType.UPROBE and uprobes == MULTI else -1
        programs[name] = module.load_func(name.encode(), int(types[name]), None, expected).fd
        info = Path(f"/proc/self/fdinfo/{programs[name]}").read_text()
        found = re.search(r"verified_insns:\s*(\d+)", info)
        verified[name] = int(found[1]) if found else 0
    wanted = [
        *MAPS,
        *(("calls",) if build.variant == RAW else ()),
        *(name for source in sources for name in source.maps),
    ]
    maps = {name: module[name.encode()].map_fd for name in wanted}
    return {
        "variant": build.variant,
        "identity": build.identity,
        "uprobes": uprobes,
        "why": "",
        "programs": programs,
        "maps": maps,
        "verified": verified,
        "_module": module,
    }


def _takes_multi(module: Any, types: Mapping[str, ProgramType]) -> bool:
    """Has the kernel links of many uprobes (6.6)? An older one may load such a program and cannot attach it."""
    name = next((name for name, kind in types.items() if kind == ProgramType.UPROBE), None)
    if name is None:
        return False
    try:
        function = module.load_func(name.encode(), int(ProgramType.UPROBE), None, kernel.TRACE_UPROBE_MULTI)
    except Exception:  # bcc raises bare Exceptions; if it is the program that is wrong, the load that follows says so
        return False
    if kernel.has_uprobe_multi(function.fd):
        return True
    os.close(function.fd)
    del module.funcs[name.encode()]
    return False


def build(
    defines: dict[str, int], variants: Sequence[str], identity: str = AUTO, modules: Sequence[str] = (), uprobes: str = ""
) -> dict[str, Any]:
    """Load the first combination that this kernel takes: sockets as the identity before descriptors, then the variants in
    their order. ``modules``: of further probe sources; ``uprobes``: MULTI if this kernel can, unless it is PERF. ``why`` of
    the answer says why it is not sockets. Raises the last error when none loads.
    """
    sources = probe_sources(modules)
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
                    return _load({**defines, **members}, Build(variant, SOCKET), sources, uprobes)
                except Exception as error:  # bcc raises bare Exceptions
                    problem = error
            why = f"the programs that read sockets do not load: {problem}"
        if identity == SOCKET:
            raise RuntimeError(f"COLLECTOR_IDENTITY=socket: {why}")
    for variant in variants:
        try:
            return {**_load(defines, Build(variant, DESCRIPTOR), sources, uprobes), "why": why}
        except Exception as error:
            problem = error
    assert problem is not None
    raise problem


def main() -> int:
    """Entry of the child process."""
    runtime.end_with_parent(int(sys.argv[2]))
    channel = socket.socket(fileno=int(sys.argv[1]))
    received = control.receive(channel)
    if received is None:
        return 1
    request = received[0]
    try:
        built = build(request["defines"], request["variants"], request["identity"], request["sources"], request["uprobes"])
    except Exception as error:
        control.send(channel, {"error": f"{type(error).__name__}: {error}"[:2000]})
        return 1
    named = {
        **{f"programs/{name}": fd for name, fd in built["programs"].items()},
        **{f"maps/{name}": fd for name, fd in built["maps"].items()},
    }
    for names, fds in control.batches(named):
        control.send(channel, {"names": names}, fds)
    control.send(
        channel,
        {
            "variant": built["variant"],
            "identity": built["identity"],
            "uprobes": built["uprobes"],
            "why": built["why"][:2000],
            "verified": built["verified"],
        },
    )
    sys.stdout.flush()
    os._exit(0)


def default_variants() -> list[str]:
    """The cheap variant first; the raw one knows x86-64's call numbers only."""
    return [TPX, RAW] if os.uname().machine == "x86_64" else [TPX]


if __name__ == "__main__":
    raise SystemExit(main())
