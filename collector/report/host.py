"""What a report says of this host: versions, limits of the container, mounts and switches of the kernel that matter here."""

from __future__ import annotations

import contextlib
import os
import platform
import ssl
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from collector import __version__, confine

_PACKAGES = (
    "pyzmq",
    "kafka-python",
    "multiprocessing-logging",
    "psutil",
    "prometheus-client",
    "h11",
    "protobuf",
    "capstone",
    "lz4",
    "brotli",
    "zstandard",
    "Cython",
)
_BCC = "import bcc; print(bcc.__version__)"
_BCC_SECONDS = 8.0  # it loads LLVM
_MOUNTS = frozenset(("proc", "sysfs", "tracefs", "debugfs", "bpf", "cgroup", "cgroup2", "securityfs"))
_SWITCHES = (
    "/proc/sys/kernel/unprivileged_bpf_disabled",
    "/proc/sys/kernel/bpf_stats_enabled",
    "/proc/sys/kernel/perf_event_paranoid",
    "/proc/sys/kernel/kptr_restrict",
    "/proc/sys/kernel/yama/ptrace_scope",
    "/proc/sys/kernel/pid_max",
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/net/core/bpf_jit_enable",
    "/proc/sys/fs/suid_dumpable",
    "/sys/kernel/security/lockdown",
    "/sys/kernel/security/lsm",
)
_LIMITS = (
    "cpu.max",
    "cpu.stat",
    "cpu.cfs_quota_us",
    "cpu.cfs_period_us",
    "memory.max",
    "memory.high",
    "memory.current",
    "memory.events",
    "memory.swap.max",
    "memory.limit_in_bytes",
    "memory.usage_in_bytes",
    "memory.failcnt",
    "pids.max",
    "pids.current",
)


def _read(path: str) -> str:
    return Path(path).read_text(encoding="utf-8", errors="replace").strip()


def versions() -> str:
    """Of everything that takes part; not the name of the host."""
    out = [
        f"collector {__version__}",
        f"Python {platform.python_version()} ({platform.python_implementation()})",
        f"kernel {platform.release()} {platform.version()}, {platform.machine()}",
        "libc " + " ".join(platform.libc_ver()),
        ssl.OPENSSL_VERSION,
        f"Landlock {confine.landlock_version() or 'none'}",
        f"seccomp {confine.missing() or 'there'}",
    ]
    with contextlib.suppress(OSError):
        out += [line for line in _read("/etc/os-release").splitlines() if line.startswith("PRETTY_NAME")]
    for name in _PACKAGES:
        try:
            out.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            out.append(f"{name} -")
    out.append(f"bcc {_bcc()}")
    return "\n".join(out) + "\n"


def _bcc() -> str:
    """Of the module, which is the distribution's; a process of its own loads it."""
    try:
        done = subprocess.run([sys.executable, "-P", "-c", _BCC], capture_output=True, text=True, timeout=_BCC_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"({type(error).__name__})"
    return done.stdout.strip() or f"- ({(done.stderr.strip().splitlines() or ['no version'])[-1]})"


def limits(pid: int) -> str:
    """What the cgroups of a process allow and use, innermost first; of the paths only how far up. Raises OSError."""
    out = []
    for line in _read(f"/proc/{pid}/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number != "0" and not {"memory", "cpu", "pids"} & set(controllers.split(",")):
            continue
        root = "/sys/fs/cgroup" if number == "0" else f"/sys/fs/cgroup/{controllers}"
        out += _of_group(root, path, controllers or "version 2")
    return "\n".join(out) + "\n" if out else "no cgroup with limits\n"


def _of_group(root: str, path: str, what: str) -> list[str]:
    out, up = [], 0
    while True:
        here = f"{root}{path}".rstrip("/")
        for name in _LIMITS:
            with contextlib.suppress(OSError):
                out.append(f"{what}, {up} up: {name}: {'; '.join(_read(f'{here}/{name}').splitlines())}")
        if path in ("", "/"):
            return out
        path, up = os.path.dirname(path), up + 1


def kernel() -> str:
    """Mounts that capture needs, and switches."""
    out = []
    for line in _read("/proc/self/mountinfo").splitlines():
        head, _, tail = line.partition(" - ")
        kind = tail.split(" ")[0]
        if kind in _MOUNTS:  # of others the source may be an address
            fields = head.split(" ")
            out.append(f"{kind} at {fields[4]} ({fields[5]})")
    out.append(f"/sys/kernel/btf/vmlinux: {'there' if os.path.exists('/sys/kernel/btf/vmlinux') else 'missing'}")
    for path in _SWITCHES:
        try:
            out.append(f"{path}: {_read(path)}")
        except OSError as error:
            out.append(f"{path}: {error.strerror}")
    out.append(f"effective user {os.geteuid()}, pid namespace {os.stat('/proc/self/ns/pid').st_ino}")
    return "\n".join(out) + "\n"
