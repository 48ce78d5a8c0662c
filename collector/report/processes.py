"""The processes of the running collector, from /proc: what they use, and where their threads are, seen from the kernel."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from dataclasses import dataclass
from pathlib import Path

from collector.runtime import STACKS_SIGNAL

_MODULE = re.compile(rb"\0-m\0(collector(?:\.\w+)*)\0")
_OF_STATUS = (
    "State",
    "Threads",
    "VmRSS",
    "VmHWM",
    "VmSwap",
    "VmLck",
    "Seccomp",
    "NoNewPrivs",
    "CapEff",
    "SigBlk",
    "SigCgt",
    "voluntary_ctxt_switches",
    "nonvoluntary_ctxt_switches",
)
_OF_ROLLUP = ("Pss", "Pss_Dirty", "Pss_Anon", "Pss_File", "Pss_Shmem", "Private_Dirty", "Swap", "Locked")
_OF_LIMITS = ("Max core file size", "Max open files", "Max locked memory", "Max processes", "Max address space")


@dataclass(frozen=True)
class Process:
    """``name`` says what it does."""

    pid: int
    name: str


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError):
                found += map(int, Path(f"/proc/{pid}/task/{thread}/children").read_text().split())
    return found


def _module(pid: int) -> str:
    """What it was started as: of its arguments the module only, for the others may name anything."""
    with contextlib.suppress(OSError):
        found = _MODULE.search(Path(f"/proc/{pid}/cmdline").read_bytes())
        if found:
            return found[1].decode()
    return ""


def tree(supervisor: int) -> list[Process]:
    """The supervisor ``supervisor`` and all that it started, and these; empty when it is gone."""
    if not os.path.isdir(f"/proc/{supervisor}"):
        return []
    found, waiting = [Process(supervisor, "supervisor")], [(pid, "") for pid in _children(supervisor)]
    while waiting and len(found) < 1000:
        pid, above = waiting.pop(0)
        name = _module(pid).removeprefix("collector.").removesuffix(".process") or "child"
        if above:
            name = f"{name} of {above}"
        found.append(Process(pid, name))
        waiting += [(child, str(pid)) for child in _children(pid)]
    return found


def ask_for_stacks(processes: list[Process]) -> str:
    """Have each write its stacks; what was asked of whom. One that does not catch the signal would end by it."""
    out = []
    for process in processes:
        try:
            fd = os.pidfd_open(process.pid)
            try:
                caught = int(_fields(f"/proc/{process.pid}/status", ("SigCgt",))["SigCgt"], 16)
                if caught >> (STACKS_SIGNAL - 1) & 1:
                    signal.pidfd_send_signal(fd, STACKS_SIGNAL)
                    said = "asked"
                else:
                    said = "not asked: it does not catch the signal"
            finally:
                os.close(fd)
        except (OSError, KeyError, ValueError) as error:
            said = f"not asked: {getattr(error, 'strerror', None) or error}"
        out.append(f"{process.pid} {process.name}: {said}")
    return "\n".join(out) + "\n"


def _fields(path: str, names: tuple[str, ...]) -> dict[str, str]:
    """Those lines of a file of `name: value`. Raises OSError."""
    found = {}
    with open(path, encoding="ascii", errors="replace") as file:
        for line in file:
            name, _, value = line.partition(":")
            if name in names:
                found[name] = value.strip()
    return found


def use(processes: list[Process]) -> str:
    """Memory, CPU, limits and state of each, one block a process."""
    return "\n".join(_use(process) for process in processes)


def _use(process: Process) -> str:
    here = f"/proc/{process.pid}"
    out = [f"{process.pid} {process.name}"]
    for path, names in ((f"{here}/status", _OF_STATUS), (f"{here}/smaps_rollup", _OF_ROLLUP)):
        try:
            out += [f"  {name}: {value}" for name, value in _fields(path, names).items()]
        except OSError as error:
            out.append(f"  {os.path.basename(path)}: {error.strerror}")
    try:
        after = Path(f"{here}/stat").read_text().rpartition(")")[2].split()
        hertz = os.sysconf("SC_CLK_TCK")  # proc_pid_stat(5): fields 14 and 15, of which the first behind the name is 3
        out.append(f"  CPU: {int(after[11]) / hertz:.2f} s in the process, {int(after[12]) / hertz:.2f} s in the kernel")
        with open(f"{here}/limits", encoding="ascii") as file:
            out += [f"  {' '.join(line.split())}" for line in file if line.startswith(_OF_LIMITS)]
        out.append(f"  descriptors: {len(os.listdir(f'{here}/fd'))}")
    except (OSError, ValueError, IndexError) as error:
        out.append(f"  {getattr(error, 'strerror', None) or error}")
    return "\n".join(out) + "\n"


def kernel_stacks(processes: list[Process]) -> str:
    """Of each thread: its name and state, the call that it is in, where it waits, and its stack in the kernel. Of the call
    only the number: its arguments are values of the process.
    """
    out = []
    for process in processes:
        out.append(f"{process.pid} {process.name}")
        try:
            threads = sorted(map(int, os.listdir(f"/proc/{process.pid}/task")))
        except OSError as error:
            out.append(f"  {error.strerror}")
            continue
        for thread in threads[:200]:
            out += _thread(f"/proc/{process.pid}/task/{thread}", thread)
    return "\n".join(out) + "\n"


def _thread(here: str, thread: int) -> list[str]:
    said = {}
    for name in ("comm", "stat", "syscall", "wchan", "stack"):
        try:
            said[name] = Path(f"{here}/{name}").read_text(encoding="utf-8", errors="replace").strip()
        except OSError as error:
            said[name] = f"({error.strerror})"
    state = said["stat"].rpartition(")")[2].split()[:1] or ["?"]
    call = said["syscall"].split()[0] if said["syscall"] else "?"
    line = f"  {thread} {said['comm']}: state {state[0]}, system call {call}, waits in {said['wchan'] or '-'}"
    return [line, *(f"    {frame}" for frame in said["stack"].splitlines())]
