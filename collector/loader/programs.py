"""The kernel programs as the loader has them: compiled by a child of its own, or adopted from the loader before."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from collector import control, errors
from collector.loader.loading import MULTI, PERF
from collector.loader.probes.probe import Build
from collector.settings import KernelState

__all__ = ["MULTI", "PERF", "Loaded", "compile_programs"]

CPU_SECONDS = 120  # that the compiler may use; ten times what it takes
LOOK_SECONDS = 1.0


@dataclass
class Loaded:
    """Descriptors by name, and what is to be known of them. ``why``: why connections are not known by their sockets, "" if
    they are. ``verified``: instructions that the verifier looked at, by program. ``cached``: they were compiled at an
    earlier start; ``notes``: what is to be said of the cache, ``suspicious`` if somebody may have tampered with it.
    """

    variant: str = ""
    identity: str = ""
    uprobes: str = PERF
    why: str = ""
    verified: dict[str, int] = field(default_factory=dict)
    programs: dict[str, int] = field(default_factory=dict)
    maps: dict[str, int] = field(default_factory=dict)
    rings: list[int] = field(default_factory=list)
    cached: bool = False
    notes: list[str] = field(default_factory=list)
    suspicious: bool = False

    @property
    def build(self) -> Build:
        """As the sources ask for it."""
        return Build(self.variant, self.identity)

    def state(self) -> KernelState:
        """What a later loader must know beside the descriptors."""
        return KernelState(variant=self.variant, identity=self.identity, uprobes=self.uprobes)

    def named(self) -> dict[str, int]:
        """Every descriptor by a name that says what it is, for the hand-over."""
        return {
            **{f"programs/{name}": fd for name, fd in self.programs.items()},
            **{f"maps/{name}": fd for name, fd in self.maps.items()},
            **{f"rings/{number}": fd for number, fd in enumerate(self.rings)},
        }

    @classmethod
    def adopt(cls, state: KernelState, named: Mapping[str, int]) -> Loaded:
        """The reverse of `state` and `named`; other names are left alone."""
        groups: dict[str, dict[str, int]] = {"programs": {}, "maps": {}, "rings": {}}
        for name, fd in named.items():
            group, _, rest = name.partition("/")
            if group in groups:
                groups[group][rest] = fd
        rings = groups["rings"]
        return cls(
            state.variant,
            state.identity,
            state.uprobes,
            programs=groups["programs"],
            maps=groups["maps"],
            rings=[rings[str(number)] for number in range(len(rings))],
        )


def compile_programs(
    defines: Mapping[str, int],
    variants: Sequence[str],
    identity: str,
    sources: Sequence[str] = (),
    uprobes: str = "",
    cache: str = "",
    progress: Callable[[], None] = lambda: None,
) -> Loaded:
    """Run the compiler child. ``sources``: modules of further probe sources; ``uprobes``: MULTI, PERF or "" for the best
    that the kernel has; ``cache``: the directory in which programs are kept between starts, "" for none; ``progress`` is
    called every second in which the child has got on. Raises PreflightError with the child's message when nothing loads.
    """
    ours, theirs = control.pair()
    with ours, tempfile.TemporaryFile() as stderr:  # not a pipe: a verifier log is longer than one holds
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "collector.loader.compiler", str(theirs.fileno()), str(os.getpid())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
        )
        theirs.close()
        control.send(
            ours,
            {
                "defines": dict(defines),
                "variants": list(variants),
                "identity": identity,
                "sources": list(sources),
                "uprobes": uprobes,
                "cache": cache,
                "cpu_seconds": CPU_SECONDS,
            },
        )
        named: dict[str, int] = {}
        received = wait_for_answer(ours, process.pid, progress)
        while received is not None and "names" in received[0]:
            named.update(zip(received[0]["names"], received[1], strict=True))
            received = wait_for_answer(ours, process.pid, progress)
        process.wait()
        stderr.seek(0)
        noise = stderr.read()
    if received is None or "error" in received[0]:
        why = received[0]["error"] if received else _end_of_compiler(process.returncode)
        detail = noise.decode("utf-8", "replace").strip()[-1500:]
        raise errors.PreflightError(f"cannot load the kernel programs: {why}\n{detail}")
    answer = received[0]
    out = Loaded.adopt(KernelState(variant=answer["variant"], identity=answer["identity"], uprobes=answer["uprobes"]), named)
    out.why, out.verified = answer["why"], answer["verified"]
    out.cached, out.notes, out.suspicious = answer["cached"], answer["notes"], answer["suspicious"]
    return out


def wait_for_answer(
    channel: socket.socket, pid: int, progress: Callable[[], None]
) -> tuple[dict[str, Any], list[int]] | None:
    """The next message of the child `pid`; None when it has ended. ``progress`` is called meanwhile, as often as it is seen
    to have used CPU time since the last look: on a machine with much to do it may take minutes for seconds of that.
    """
    used = _cpu_ns(pid)
    while not control.readable(channel, LOOK_SECONDS):
        before, used = used, _cpu_ns(pid)
        if used > before:
            progress()
    return control.receive(channel)


def _cpu_ns(pid: int) -> int:
    """CPU time of a process, of all its threads; 0 when it has gone."""
    with contextlib.suppress(OSError):
        return time.clock_gettime_ns(~pid << 3 | 2)  # clock_getcpuclockid(3), with CPUCLOCK_SCHED
    return 0


def _end_of_compiler(code: int) -> str:
    if code == -signal.SIGXCPU:
        return f"the compiler did not come to an end: it used more than {CPU_SECONDS} s of CPU"
    return f"the compiler ended with {code}"
