"""Compile and load the kernel programs, in a child of its own that hands the descriptors over and ends.

bcc and LLVM take some 100 MB; they live for a few seconds. The child is started as

    python -m collector.loader.compiler CHANNEL PARENT

and gets one message {defines, variants, identity, sources, uprobes, cache, cpu_seconds}; it answers with the descriptors,
as many messages {names} as it takes, and then {variant, identity, uprobes, why, verified, cached, notes, suspicious}, or
with {error}. bcc is pointed at our stub headers, so the node needs no kernel headers.

What bcc makes is an image (images.py), which is kept for the next start (program_cache.py). Whether it was just compiled or
kept, it gets into the kernel in one way (loading.py); when it was kept, bcc and LLVM are not even loaded.
"""

from __future__ import annotations

import ctypes
import dataclasses
import importlib.util
import os
import re
import resource
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from collector import abi, control, heap, runtime
from collector.loader import images, kernel, loading, offsets, program_cache
from collector.loader.loading import InKernel, RefusedError
from collector.loader.probes import sources as probe_sources
from collector.loader.probes.probe import DESCRIPTOR, RAW, SOCKET, TPX, Build, ProgramType, Source
from collector.loader.program_cache import ProgramCache

AUTO = "auto"

_INCLUDE = re.compile(r'^#include "([^"]+)"\s*$')
_INNER = re.compile(r'^BPF_ARRAY_OF_MAPS\((\w+), "(\w+)"', re.MULTILINE)  # which libbcc does not tell

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
OWNER_QUESTION = {"cgroup_id": 0, "start_ns": 8, "tgid": 16, "ring": 20, "sizeof": 24}
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
    "kernel_owners_lost": "OWNERS_LOST",
}
MAPS = (
    "beyond",
    "conns",
    "further",
    "groups",
    "libraries",
    "objects",
    "owners",
    "owners_wanted",
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
        "owner_question": OWNER_QUESTION,
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


def program_types(sources: Sequence[Source], build: Build) -> dict[str, ProgramType]:
    """The type of each program that is declared. Raises ValueError when two sources do not agree on one that they share."""
    out: dict[str, ProgramType] = {}
    for source in sources:
        for program in source.programs(build):
            if out.setdefault(program.name, program.type) != program.type:
                raise ValueError(f"program {program.name} is declared with two types")
    return out


def check_declared(types: Mapping[str, ProgramType], found: Sequence[str]) -> None:
    """Raises ValueError unless each function that was compiled is declared, and nothing else is."""
    if set(types) != set(found):
        raise ValueError(
            "programs of the kernel side and of the probe sources differ: " + ", ".join(sorted(set(types) ^ set(found)))
        )


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is compiled, and how. The same one gives the same image with the same compiler on the same kernel."""

    text: str
    flags: tuple[str, ...]
    types: Mapping[str, ProgramType]

    @classmethod
    def of(cls, defines: Mapping[str, int], build: Build, sources: Sequence[Source]) -> Recipe:
        """Raises ValueError when sources do not agree on a program."""
        flags = [f"-D{name}={value}" for name, value in defines.items()]
        if build.variant == RAW:
            flags.append("-DHOOKS_RAW=1")
        if build.identity == SOCKET:
            flags.append("-DIDENTITY_SOCKET=1")
        return cls(text(sources), tuple(flags), program_types(sources, build))

    def key(self) -> str:
        """Under which its image is kept."""
        return program_cache.key(
            {
                "format": images.MAGIC.hex(),
                "text": self.text,
                "flags": self.flags,
                "types": {name: int(kind) for name, kind in self.types.items()},
                "headers": program_cache.directory_digest(bpf_directory() / "headers"),
                "bcc": _bcc_version(),
                **program_cache.platform_parts(),
            }
        )


def _bcc_version() -> list[str]:
    """Where bcc is and what it says of itself. To import it would load LLVM."""
    spec = importlib.util.find_spec("bcc")
    if spec is None or spec.origin is None:
        return []
    try:
        return [spec.origin, Path(spec.origin).with_name("version.py").read_text()]
    except OSError:
        return [spec.origin]


def compile_image(recipe: Recipe) -> images.Image:
    """What bcc makes of it. Raises ValueError when its programs are not those that are declared; bcc raises bare
    Exceptions.
    """
    import bcc

    class Module(bcc.BPF):  # type: ignore[misc]
        def _trace_autoload(self) -> None:
            """Nothing is attached by its name."""

    module = Module(text=recipe.text.encode(), cflags=list(recipe.flags))
    try:
        return _image_of(bcc.lib, module.module, recipe)
    finally:
        module.cleanup()  # its maps were made only to be looked at, and LLVM's memory is needed for others
        heap.trim()


def _image_of(lib: Any, module: int, recipe: Recipe) -> images.Image:
    functions = [lib.bpf_function_name(module, i).decode() for i in range(lib.bpf_num_functions(module))]
    check_declared(recipe.types, functions)
    maps = _maps_of(lib, module)
    inner = dict(_INNER.findall(recipe.text))
    programs = []
    for name in functions:
        start, size = lib.bpf_function_start(module, name.encode()), lib.bpf_function_size(module, name.encode())
        programs.append(images.ProgramImage.of(name, int(recipe.types[name]), ctypes.string_at(start, size), maps))
    described = [(name, kernel.map_info(fd)) for fd, name in maps.items()]
    return images.Image(
        tuple(
            images.MapImage(name, i.type, i.key_bytes, i.value_bytes, i.entries, i.flags, inner.get(name, ""))
            for name, i in described
        ),
        tuple(programs),
        lib.bpf_module_license(module).decode(),
        program_cache.tools_in_use(),
    )


def _maps_of(lib: Any, module: int) -> dict[int, str]:
    """The names of its maps by their descriptors: functions of libbcc that bcc's Python does not declare."""
    lib.bpf_num_tables.argtypes = [ctypes.c_void_p]
    lib.bpf_num_tables.restype = ctypes.c_size_t
    lib.bpf_table_name.argtypes = lib.bpf_table_fd_id.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    lib.bpf_table_name.restype = ctypes.c_char_p
    return {
        lib.bpf_table_fd_id(module, i): lib.bpf_table_name(module, i).decode() for i in range(lib.bpf_num_tables(module))
    }


def obtain(recipe: Recipe, uprobes: str, cache: ProgramCache) -> tuple[InKernel, bool]:
    """The programs in the kernel, and whether they were in the cache. They are compiled when they are not there, or when the
    kernel does not take what was. Raises RefusedError, and what `compile_image` raises.
    """
    key = recipe.key()
    kept = cache.read(key)
    if kept is not None:
        try:
            return loading.load(kept, uprobes), True
        except RefusedError:
            if kept.refused:  # as when they had just been compiled
                raise
    image = compile_image(recipe)
    try:
        loaded = loading.load(image, uprobes)
    except RefusedError:
        cache.write(key, dataclasses.replace(image, refused=True))
        raise
    cache.write(key, image)
    return loaded, False


def _load(
    defines: dict[str, int], build: Build, sources: Sequence[Source], uprobes: str, cache: ProgramCache
) -> dict[str, Any]:
    try:
        loaded, cached = obtain(Recipe.of(defines, build, sources), uprobes, cache)
    except RefusedError as error:
        sys.stderr.write(error.log)
        raise
    wanted = [
        *MAPS,
        *(("calls",) if build.variant == RAW else ()),
        *(name for source in sources for name in source.maps),
    ]
    return {
        "variant": build.variant,
        "identity": build.identity,
        "uprobes": loaded.uprobes,
        "why": "",
        "cached": cached,
        "programs": loaded.programs,
        "maps": {name: loaded.maps[name] for name in wanted},
        "verified": loaded.verified,
    }


def build(
    defines: dict[str, int],
    variants: Sequence[str],
    identity: str = AUTO,
    modules: Sequence[str] = (),
    uprobes: str = "",
    cache: ProgramCache | None = None,
) -> dict[str, Any]:
    """Load the first combination that this kernel takes: sockets as the identity before descriptors, then the variants in
    their order. ``modules``: of further probe sources; ``uprobes``: MULTI if this kernel can, unless it is PERF. ``why`` of
    the answer says why it is not sockets. Raises the last error when none loads.
    """
    cache = cache or ProgramCache()
    os.environ["BCC_KERNEL_SOURCE"] = str(bpf_directory() / "headers")  # before any key is made, for it is part of it
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
                    return _load({**defines, **members}, Build(variant, SOCKET), sources, uprobes, cache)
                except Exception as error:  # bcc raises bare Exceptions
                    problem = error
            why = f"the programs that read sockets do not load: {problem}"
        if identity == SOCKET:
            raise RuntimeError(f"COLLECTOR_IDENTITY=socket: {why}")
    for variant in variants:
        try:
            return {**_load(defines, Build(variant, DESCRIPTOR), sources, uprobes, cache), "why": why}
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
    seconds = request["cpu_seconds"]
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))  # SIGXCPU, by which the parent knows it
    cache = ProgramCache(request["cache"])
    try:
        built = build(
            request["defines"], request["variants"], request["identity"], request["sources"], request["uprobes"], cache
        )
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
            "cached": built["cached"],
            "notes": cache.notes,
            "suspicious": cache.suspicious,
        },
    )
    sys.stdout.flush()
    os._exit(0)


def default_variants() -> list[str]:
    """The cheap variant first; the raw one knows x86-64's call numbers only."""
    return [TPX, RAW] if os.uname().machine == "x86_64" else [TPX]


if __name__ == "__main__":
    raise SystemExit(main())
