"""`collector check`: what capture needs, what was found, what follows, what to do. Also asked before every start."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

from collector import cgroups, config, confine, descriptor_sets, errors, memory_plan
from collector.config_values import SECCOMP_OFF, SECCOMP_ON
from collector.loader import kernel, offsets, program_cache
from collector.policy import describing
from collector.policy.source import Source

_CAPABILITIES = {
    "CAP_SYS_ADMIN": 21,
    "CAP_SYS_PTRACE": 19,
    "CAP_SYS_RESOURCE": 24,
    "CAP_IPC_LOCK": 14,
    "CAP_PERFMON": 38,
    "CAP_BPF": 39,
}
_INITIAL_PID_NAMESPACE = 0xEFFFFFFC  # include/linux/proc_ns.h PROC_PID_INIT_INO
NESTED = (
    "a pid namespace of its own (a container without hostPID): process ids in records are the node's and not those "
    "seen here; --pid takes processes of this namespace only; where descriptors are the identity, connections older "
    "than the collector stay without addresses, or are left out"
)
FOUND, MISSING, NOTE = "found", "MISSING", "note"


_WITHOUT_SOCKETS = (
    "connections passed between processes may be missing; bytes that go by sendfile, splice or io_uring "
    "before the first captured call can shift pairs"
)


@dataclass(frozen=True)
class Row:
    """One line of the table. ``fatal``: capture is impossible without it."""

    need: str
    state: str
    detail: str
    todo: str = ""
    fatal: bool = False


def _effective_capabilities() -> int:
    with open("/proc/self/status", encoding="ascii") as file:
        for line in file:
            if line.startswith("CapEff:"):
                return int(line.split()[1], 16)
    return 0


def own_pid_namespace(path: str = "/proc/self/ns/pid") -> tuple[int, int] | None:
    """(device as the kernel writes it, inode) of our pid namespace when it is not the initial one, whose numbers the kernel
    programs see; None when it is. Raises OSError.
    """
    found = os.stat(path)
    if found.st_ino == _INITIAL_PID_NAMESPACE:
        return None
    return os.major(found.st_dev) << 20 | os.minor(found.st_dev), found.st_ino


def _pid_namespace() -> Row:
    need = "the node's process ids"
    try:
        nested = own_pid_namespace() is not None
    except OSError as error:
        return Row(need, NOTE, f"/proc/self/ns/pid: {error.strerror}", "mount /proc")
    if not nested:
        return Row(need, FOUND, "the initial pid namespace")
    return Row(need, NOTE, NESTED, "share the host's (hostPID: true, docker run --pid=host)")


def _kernel() -> Row:
    release = os.uname().release
    version = tuple(int(n) for n in release.split("-")[0].split(".")[:2])
    good = version >= (5, 8)
    return Row(
        "kernel 5.8 or later",
        FOUND if good else MISSING,
        release,
        "" if good else "capture needs BPF ring buffers: use a newer kernel",
        not good,
    )


def _ring_buffer() -> Row:
    try:
        os.close(kernel.create_ring(4096))
    except OSError as error:
        return Row(
            "BPF ring buffer",
            MISSING,
            str(error),
            "run as root, or with CAP_BPF and CAP_PERFMON (privileged in a container)",
            True,
        )
    return Row("BPF ring buffer", FOUND, "created one and closed it")


def _hooks() -> Row:
    version = tuple(int(n) for n in os.uname().release.split("-")[0].split(".")[:2])
    btf = os.path.exists("/sys/kernel/btf/vmlinux")
    if version >= (5, 15) and btf:
        return Row("hook variant", FOUND, "tpx: one tracepoint per covered call (tried at start)")
    if os.uname().machine == "x86_64":
        return Row(
            "hook variant",
            FOUND,
            "raw: one raw tracepoint for all calls (dearer for uncovered calls)",
            "a kernel >= 5.15 with BTF has the cheaper one",
        )
    return Row("hook variant", MISSING, "this architecture needs tpx", "kernel >= 5.15 with BTF", True)


def _identity() -> Row:
    """What a connection will be known by (COLLECTOR_IDENTITY, docs/decisions/0010)."""
    wanted = config.load().COLLECTOR_IDENTITY
    need = "identity of connections"
    if wanted == "descriptor":
        return Row(need, NOTE, "descriptor: as COLLECTOR_IDENTITY says", _WITHOUT_SOCKETS)
    why = ""
    try:
        offsets.of_this_kernel()
    except offsets.UnknownKernel as error:
        why = str(error)
    with contextlib.suppress(OSError), open("/sys/kernel/security/lockdown", encoding="ascii") as file:
        if "[confidentiality]" in file.read():
            why = "lockdown=confidentiality forbids programs to read kernel memory"
    if not why:
        return Row(need, FOUND, "socket: offsets from /sys/kernel/btf/vmlinux (tried at start)")
    if wanted == "socket":
        return Row(need, MISSING, f"COLLECTOR_IDENTITY=socket, but {why}", "COLLECTOR_IDENTITY=auto", True)
    return Row(need, NOTE, f"descriptor: {why}", _WITHOUT_SOCKETS)


def _tracefs() -> Row:
    path = kernel.find_tracefs()
    if path is None:
        return Row(
            "tracefs",
            MISSING,
            "not mounted, and mounting it is not allowed",
            "mount -t tracefs nodev /sys/kernel/tracing, or mount the host's /sys/kernel",
            True,
        )
    return Row("tracefs", FOUND, path)


def _capabilities() -> Row:
    held = _effective_capabilities()
    have = {name for name, bit in _CAPABILITIES.items() if held >> bit & 1}
    enough = "CAP_SYS_ADMIN" in have or {"CAP_BPF", "CAP_PERFMON"} <= have
    missing = sorted(set(_CAPABILITIES) - have)
    if not enough:
        return Row(
            "capabilities",
            MISSING,
            "have " + (", ".join(sorted(have)) or "none"),
            "run as root, or grant CAP_BPF and CAP_PERFMON (or CAP_SYS_ADMIN)",
            True,
        )
    if missing:
        return Row(
            "capabilities",
            NOTE,
            "without " + ", ".join(missing),
            "CAP_SYS_PTRACE is needed for addresses of connections older than the collector; CAP_SYS_RESOURCE "
            "below kernel 5.11",
        )
    return Row("capabilities", FOUND, "all")


def _paranoid() -> Row:
    try:
        with open("/proc/sys/kernel/perf_event_paranoid", encoding="ascii") as file:
            value = int(file.read())
    except (OSError, ValueError):
        return Row("perf_event_paranoid", NOTE, "not readable")
    if value > 2 and not _effective_capabilities() >> 21 & 1:
        return Row("perf_event_paranoid", MISSING, str(value), "above 2 CAP_PERFMON is not enough: CAP_SYS_ADMIN", True)
    return Row("perf_event_paranoid", FOUND, str(value))


def _bcc() -> Row:
    import importlib.util

    spec = importlib.util.find_spec("bcc")
    origin = (spec.origin or "") if spec else ""
    if not spec or "dist-packages" not in origin and not os.path.exists(os.path.join(os.path.dirname(origin), "table.py")):
        return Row(
            "bcc",
            MISSING,
            "no module bcc for " + sys.executable,
            "install the distribution's python3-bpfcc and use a virtual environment with system site packages "
            "(scripts/setup); the PyPI package named bcc is another program",
            True,
        )
    return Row("bcc", FOUND, origin)


def _programs() -> Row:
    """Will the next start find what this one has compiled?"""
    need, directory = "programs kept between starts", config.load().COLLECTOR_PROGRAM_CACHE
    if not directory:
        return Row(need, NOTE, "none: COLLECTOR_PROGRAM_CACHE=off; every start compiles them", "unset it")
    number, why = program_cache.look(directory)
    if why:
        return Row(need, NOTE, f"{directory}: {why}; every start compiles them", "name another COLLECTOR_PROGRAM_CACHE")
    return Row(need, FOUND, f"{number} of at most {program_cache.MOST_FILES} in {directory}/{program_cache.OWN_NAME}")


def _memory() -> Row:
    """How the memory is shared out, as at the start (memory_plan.py)."""
    limit = cgroups.memory_limit()
    need = "memory"
    try:
        settings = config.load()
        sets = descriptor_sets.read(settings.COLLECTOR_GRPC_DESCRIPTORS)
        plan = memory_plan.of(settings, limit=limit, descriptors=descriptor_sets.size(sets))
    except errors.ConfigError as error:
        return Row(need, MISSING, str(error), "change the settings, or the limit", True)
    if limit is not None and limit < memory_plan.LEAST_LIMIT_BYTES:
        return Row(need, NOTE, str(plan), f"give it {memory_plan.LEAST_LIMIT_BYTES >> 20} MiB")
    return Row(need, FOUND, str(plan))


def _descriptor_sets() -> Row:
    """Read as at the start, which refuses what is refused here."""
    need = "descriptor sets"
    try:
        sets = descriptor_sets.read(config.load().COLLECTOR_GRPC_DESCRIPTORS)
    except errors.ConfigError as error:
        return Row(need, MISSING, str(error), "make the file again, or unset it", True)
    return Row(need, FOUND, descriptor_sets.summary(sets) or f"none ({descriptor_sets.VARIABLE})")


def _policy() -> Row:
    """Read as at the start, which refuses what is refused here."""
    need = "policy"
    try:
        found = Source.of(config.load())
    except errors.ConfigError as error:
        return Row(need, MISSING, str(error), "mend it (docs/policy.md)", True)
    return Row(need, FOUND, describing.words(found.first))


def _cpuid() -> Row:
    """Under some hypervisors reading the clock traps; then every event is dear."""
    started = time.perf_counter_ns()
    for _ in range(20000):
        time.monotonic_ns()
    each = (time.perf_counter_ns() - started) / 20000
    source = "unknown"
    with (
        contextlib.suppress(OSError),
        open("/sys/devices/system/clocksource/clocksource0/current_clocksource", encoding="ascii") as file,
    ):
        source = file.read().strip()
    if each > 500:
        return Row(
            "clock cost",
            NOTE,
            f"{each:.0f} ns a reading, clock source {source}",
            "readings trap to the hypervisor: every captured event costs more; a tsc clock source would help",
        )
    return Row("clock cost", FOUND, f"{each:.0f} ns a reading, clock source {source}")


def _confinement() -> Row:
    need, wanted = "limits of the unprivileged", confine.wanted()
    if wanted == SECCOMP_OFF:
        return Row(need, NOTE, f"none: {confine.VARIABLE}=off", "unset it")
    why, version = confine.missing(), confine.landlock_version()
    landlock = f"Landlock {version}" if version else "no Landlock"
    if why:
        return Row(need, MISSING if wanted == SECCOMP_ON else NOTE, f"no seccomp: {why}; {landlock}", "see docs/security.md")
    if not version:
        return Row(need, NOTE, f"seccomp; {landlock}", "a kernel >= 5.13 that starts with lsm=landlock,... has it")
    return Row(need, FOUND, f"seccomp; {landlock}")


CHECKS: tuple[Callable[[], Row], ...] = (
    _kernel,
    _hooks,
    _identity,
    _ring_buffer,
    _tracefs,
    _capabilities,
    _paranoid,
    _bcc,
    _programs,
    _pid_namespace,
    _memory,
    _confinement,
    _descriptor_sets,
    _policy,
    _cpuid,
)


def rows() -> list[Row]:
    """All checks."""
    return [check() for check in CHECKS]


def table(found: list[Row]) -> str:
    """The table that is printed."""
    lines = [("NEED", "STATE", "DETAIL", "WHAT TO DO")] + [(r.need, r.state, r.detail, r.todo or "-") for r in found]
    widths = [max(len(line[i]) for line in lines) for i in range(3)]
    return (
        "\n".join(
            "  ".join([*(cell.ljust(width) for cell, width in zip(line, widths, strict=False)), line[3]]) for line in lines
        )
        + "\n"
    )


def main(*, as_json: bool = False) -> int:
    """`collector check`: prints the table; 69 when capture is impossible."""
    found = rows()
    sys.stdout.write(json.dumps({"checks": [asdict(row) for row in found]}) + "\n" if as_json else table(found))
    return errors.EXIT_CANNOT_CAPTURE if any(row.state == MISSING and row.fatal for row in found) else errors.EXIT_OK


def require() -> None:
    """Raises PreflightError with the table when capture is impossible."""
    found = [check() for check in (_kernel, _hooks, _identity, _ring_buffer, _tracefs, _capabilities, _paranoid, _bcc)]
    if any(row.state == MISSING and row.fatal for row in found):
        raise errors.PreflightError("capture is not possible on this host:\n" + table(found))
