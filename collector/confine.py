"""What a process without privilege gives up besides: files (Landlock) and system calls (seccomp).

    limit_files(rules)      no path can be opened but these, by this thread and all that it makes from now on
    limit_calls(role)       no system call but those of the role, by any thread of the process

Both are for good. They are taken in this order: files before the first thread, calls when everything is open and loaded.

A call that is not the role's fails with EPERM, which Python and its libraries take like any file that they may not read: a
libc that makes a call nobody has foreseen goes on. Calls newer than the oldest kernel that we run on fail with ENOSYS: every
library has a way without them. Calls that only an intruder makes end the process (docs/decisions/0024).

Neither is everywhere: `missing` says what is not, and COLLECTOR_SECCOMP what follows.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import logging
import os
import platform
import socket
import stat
import struct
import sys
import termios
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from collector.config_values import SECCOMP_OFF, SECCOMP_ON
from collector.errors import ConfigError

try:
    import seccomp
except ImportError:  # a distribution's package, as bcc's
    seccomp = None

log = logging.getLogger("confine")

VARIABLE = "COLLECTOR_SECCOMP"
_MACHINES = ("x86_64", "aarch64")  # of which we know the order of arguments

_libc = ctypes.CDLL(None, use_errno=True)
_malloc = ctypes.CDLL(None).malloc
_malloc.restype = ctypes.c_void_p
_HEAP_MIB = 24  # more than MALLOC_TRIM_THRESHOLD_ (supervisor/child.py), less than a heap; a page of each is touched

# ---- system calls ------------------------------------------------------------------------------------------------

_BASE = """
    read readv pread64 preadv preadv2 write writev pwrite64 pwritev pwritev2 close lseek fstat dup fstatfs
    poll ppoll select pselect6 epoll_create1 epoll_ctl epoll_wait epoll_pwait eventfd2 pipe2
    recvmsg recvfrom sendmsg sendto shutdown getsockopt getsockname getpeername
    munmap mremap madvise brk futex membarrier sched_yield sched_getaffinity sched_getscheduler sched_getparam
    clock_gettime clock_getres clock_nanosleep nanosleep gettimeofday time times getrusage getcpu sysinfo uname
    getpid getppid gettid getuid geteuid getgid getegid getrandom getcwd getrlimit umask
    rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending sigaltstack restart_syscall exit exit_group
    set_robust_list get_robust_list set_tid_address rseq
"""
_SERVE = "accept4 setsockopt"
_CONNECT = "socket connect setsockopt"
_FILES = """
    openat newfstatat statx access faccessat faccessat2 readlink readlinkat getdents64
    rename renameat renameat2 unlink unlinkat ftruncate fallocate
    fsync fdatasync flock fadvise64 statfs memfd_create dup2 dup3
"""
_NETWORK = "sendmmsg recvmmsg"
_OUTPUT = "ftruncate dup2 dup3 fsync"

# Nothing that runs in a confined process makes one of these, whatever fails: who makes it is not us
_NEVER = """
    execve execveat ptrace process_vm_readv process_vm_writev pidfd_getfd kcmp bpf perf_event_open userfaultfd
    init_module finit_module delete_module kexec_load kexec_file_load reboot swapon swapoff
    mount umount2 pivot_root chroot move_mount open_tree fsopen fsconfig fsmount fspick mount_setattr setns unshare
    add_key request_key keyctl io_uring_setup io_uring_enter io_uring_register open_by_handle_at name_to_handle_at
    iopl ioperm modify_ldt acct quotactl settimeofday clock_settime clock_adjtime adjtimex sethostname setdomainname
    setuid setgid setreuid setregid setresuid setresgid setgroups setfsuid setfsgid capset
"""

_FIRST_NEW, _BEYOND = 440, 512  # calls have one number on all machines from 424 on; 439 is the last of Linux 5.8
_PROT_EXEC, _CLONE_THREAD, _AT_EMPTY_PATH = 4, 0x10000, 0x1000
_PR_SET_NAME, _PR_GET_NAME, _PR_SET_VMA = 15, 16, 0x53564D41
_GET_ACTION_AVAIL, _RET_KILL_PROCESS = 2, 0x80000000  # of seccomp(2)
_NETLINK_ADDRESS_BYTES = 12  # struct sockaddr_nl; the addresses of the Internet are longer
_FCNTL = (fcntl.F_GETFL, fcntl.F_SETFL, fcntl.F_GETFD, fcntl.F_SETFD, fcntl.F_DUPFD, fcntl.F_DUPFD_CLOEXEC)
_SEALS = (fcntl.F_ADD_SEALS, fcntl.F_GET_SEALS)
_IOCTL = (termios.FIONBIO, termios.FIONREAD, termios.FIOCLEX, termios.TCGETS)


@dataclass(frozen=True)
class Role:
    """What one kind of process may do: ``calls`` whatever their arguments; ``sockets``: families of those that it may make;
    ``threads``: may it start some?
    """

    calls: str
    sockets: tuple[int, ...] = ()
    threads: bool = False


READER = Role(_BASE)  # reads the descriptors that it has
HEALTH = Role(f"{_BASE} {_SERVE}")  # answers on sockets that it is given
# ZeroMQ connects again when a process was replaced; pyzmq starts a thread with the first frame that it does not copy
SHARD = Role(f"{_BASE} {_SERVE} {_CONNECT}", (socket.AF_UNIX,), threads=True)


def sink(*, files: bool, network: bool) -> Role:
    """The sink's. ``files``: it has a directory to work in, or certificates to read; ``network``: connections to make."""
    calls, sockets = f"{_BASE} {_SERVE} {_CONNECT} {_OUTPUT}", [socket.AF_UNIX]
    if files or network:
        calls = f"{calls} {_FILES}"
    if network:  # the resolver asks the kernel which addresses there are by netlink
        calls, sockets = f"{calls} {_NETWORK}", [*sockets, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK]
    return Role(calls, tuple(sockets), threads=True)


# Follows the API server: as a sink with a network, and it reads its account
KUBERNETES = sink(files=True, network=True)


def build(role: Role, machine: str = "") -> Any:
    """The filter, not loaded; for the machine that we are on, or another one."""
    made = seccomp.SyscallFilter(seccomp.ERRNO(errno.EPERM))
    if machine:
        made.add_arch(getattr(seccomp.Arch, machine.upper()))
        made.remove_arch(seccomp.Arch.NATIVE)
    made.set_attr(seccomp.Attr.CTL_TSYNC, 1)
    made.set_attr(seccomp.Attr.CTL_SSB, 1)  # else older kernels slow each store down, which is for code from strangers
    made.set_attr(seccomp.Attr.CTL_OPTIMIZE, 2)  # a tree, not a list
    names = set(role.calls.split())
    for name in sorted(names):
        if name == "socket":
            continue
        _add(made, seccomp.ALLOW, name)
    for name, rule in _with_arguments(role, names):
        _add(made, seccomp.ALLOW, name, rule)
    for name in _NEVER.split():
        _add(made, seccomp.KILL_PROCESS, name)
    _add(made, seccomp.ERRNO(errno.ENOSYS), "clone3")  # its flags are where no filter can see them; libc goes back to clone
    taken = {seccomp.resolve_syscall(seccomp.Arch.NATIVE, name) for name in (*names, *_NEVER.split())}
    for number in range(_FIRST_NEW, _BEYOND):
        if number not in taken and not machine:  # libseccomp translates only what it knows
            made.add_rule(seccomp.ERRNO(errno.ENOSYS), number)
    return made


def _add(made: Any, action: int, name: str, *rules: Any) -> None:
    """A call that libseccomp does not know is one that it denies."""
    if seccomp.resolve_syscall(seccomp.Arch.NATIVE, name) != -1:
        made.add_rule(action, name, *rules)


def _with_arguments(role: Role, names: set[str]) -> Iterator[tuple[str, Any]]:
    """(call, what its argument must be)."""

    def equal(argument: int, value: int) -> Any:
        return seccomp.Arg(argument, seccomp.EQ, value)

    def masked(argument: int, mask: int, value: int) -> Any:
        return seccomp.Arg(argument, seccomp.MASKED_EQ, mask, value)

    yield "mmap", masked(2, _PROT_EXEC, 0)
    yield "mprotect", masked(2, _PROT_EXEC, 0)
    for command in (*_FCNTL, *(_SEALS if "memfd_create" in names else ())):
        yield "fcntl", equal(1, command)
    for command in _IOCTL:
        yield "ioctl", equal(1, command)
    for option in (_PR_SET_NAME, _PR_GET_NAME, _PR_SET_VMA):
        yield "prctl", equal(0, option)
    yield "prlimit64", equal(2, 0)  # asks
    yield "sched_setscheduler", equal(1, os.SCHED_OTHER)  # what threads of ZeroMQ begin with
    for name in ("kill", "tgkill"):  # abort(3) signals itself
        yield name, equal(0, os.getpid())
    if "newfstatat" not in names:  # of a descriptor
        yield "newfstatat", masked(3, _AT_EMPTY_PATH, _AT_EMPTY_PATH)
        yield "statx", masked(2, _AT_EMPTY_PATH, _AT_EMPTY_PATH)
    for family in role.sockets:
        yield "socket", equal(0, family)
    if socket.AF_INET in role.sockets:
        yield "socketpair", equal(0, socket.AF_UNIX)
        yield "bind", equal(2, _NETLINK_ADDRESS_BYTES)
    if role.threads:
        yield "clone", masked(0, _CLONE_THREAD, _CLONE_THREAD)


# ---- files -------------------------------------------------------------------------------------------------------

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # on all machines
_VERSION, _BENEATH = 1, 1  # LANDLOCK_CREATE_RULESET_VERSION, LANDLOCK_RULE_PATH_BENEATH
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _REMOVE_DIR, _REMOVE_FILE = (1 << bit for bit in range(6))
_MAKE_REG, _MAKE_SOCK, _REFER, _TRUNCATE, _IOCTL_DEV = 1 << 8, 1 << 9, 1 << 13, 1 << 14, 1 << 15
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
_BIND_TCP, _CONNECT_TCP, _ABSTRACT, _SIGNAL = 1, 2, 1, 2

READ = _READ_FILE
WORK = _READ_FILE | _READ_DIR | _WRITE_FILE | _TRUNCATE | _MAKE_REG | _REMOVE_FILE
SOCKETS = _MAKE_SOCK | _REMOVE_FILE


@dataclass(frozen=True)
class Rule:
    """``rights`` (READ, WORK, SOCKETS) in all that is below ``place``: a path, or a descriptor."""

    place: str | int
    rights: int


def landlock_version() -> int:
    """Of the kernel's Landlock, 0 without one."""
    return max(0, int(_libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION)))


def _handled(version: int) -> int:
    """All rights on files that this version knows."""
    known = _REFER - 1  # version 1
    for since, right in ((2, _REFER), (3, _TRUNCATE), (5, _IOCTL_DEV)):
        if version >= since:
            known |= right
    return known


def _restrict(version: int, rules: Iterable[Rule], *, network: bool) -> None:
    """Raises OSError."""
    handled = _handled(version)
    attributes = struct.pack("=Q", handled)
    if version >= 4:
        attributes += struct.pack("=Q", _BIND_TCP | (0 if network else _CONNECT_TCP))
    if version >= 6:
        attributes += struct.pack("=Q", _ABSTRACT | _SIGNAL)
    ruleset = _landlock(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0)
    try:
        for rule in rules:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
                _allow(ruleset, rule, handled)
        _landlock(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _allow(ruleset: int, rule: Rule, handled: int) -> None:
    fd = os.dup(rule.place) if isinstance(rule.place, int) else os.open(rule.place, os.O_PATH | os.O_CLOEXEC)
    try:
        rights = rule.rights & handled & (-1 if stat.S_ISDIR(os.fstat(fd).st_mode) else _OF_FILES)
        _landlock(_ADD_RULE, ruleset, _BENEATH, struct.pack("=Qi", rights, fd), 0)
    finally:
        os.close(fd)


def _landlock(number: int, *arguments: Any) -> int:
    result = int(_libc.syscall(number, *arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), f"Landlock: {os.strerror(ctypes.get_errno())}")
    return result


# ---- what a process calls ----------------------------------------------------------------------------------------


def wanted() -> str:
    """What COLLECTOR_SECCOMP says. The only setting that children take from the environment: it concerns theirs, too."""
    return os.environ.get(VARIABLE, "").strip().lower()


def missing() -> str:
    """Why there can be no filter of system calls here, "" when there can."""
    if seccomp is None:
        return "no module seccomp: install the distribution's python3-seccomp"
    if platform.machine() not in _MACHINES:
        return f"not known for {platform.machine()}"
    call, action = seccomp.resolve_syscall(seccomp.Arch.NATIVE, "seccomp"), ctypes.c_uint32(_RET_KILL_PROCESS)
    if _libc.syscall(call, _GET_ACTION_AVAIL, 0, ctypes.byref(action)) < 0:
        return f"the kernel, or the container's runtime, refuses seccomp(2): {os.strerror(ctypes.get_errno())}"
    return ""


def require() -> str:
    """At the start: what is missing, for a warning; "" when nothing is, or it is not wanted. Raises ConfigError when it has
    to be there.
    """
    if wanted() == SECCOMP_OFF:
        return ""
    why = missing()
    if why and wanted() == SECCOMP_ON:
        raise ConfigError(f"{VARIABLE}=on: {why}")
    return why and f"the processes without privilege can make all system calls: {why}"


def limit_files(rules: Iterable[Rule], *, network: bool = False) -> None:
    """See the module. Without rules nothing can be opened at all. ``network``: are there connections to be made? Where the
    kernel has no Landlock, nothing happens. Raises OSError if COLLECTOR_SECCOMP is on.
    """
    version = 0 if wanted() == SECCOMP_OFF else landlock_version()
    if version:
        with _refusal("files"):
            _restrict(version, rules, network=network)


def limit_calls(role: Role) -> None:
    """See the module. Raises OSError if COLLECTOR_SECCOMP is on."""
    if wanted() == SECCOMP_OFF or missing() and wanted() != SECCOMP_ON:
        return  # it was said at the start
    with _refusal("system calls"):
        if seccomp is None:
            raise OSError(errno.ENOSYS, missing())
        build(role).load()


@contextlib.contextmanager
def _refusal(what: str) -> Iterator[None]:
    """A kernel, or a container's own filter, that refuses it."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        if wanted() == SECCOMP_ON:
            raise
        log.warning("cannot limit %s: %s", what, error)


def prepare_heaps() -> None:
    """To be called by a process that will have threads, before it limits anything: glibc reads a file of /proc when it first
    gives back memory of a thread's heap, and remembers what it says. So let it be now. Where it may not read the file it
    takes another way: this is for a log of refused calls without entries that mean nothing.
    """

    def give_back() -> None:
        for piece in reversed([_malloc(1 << 20) for _ in range(_HEAP_MIB)]):
            _libc.free(ctypes.c_void_p(piece))

    one = threading.Thread(target=give_back)
    one.start()
    one.join()


# ---- what the sink needs for its connections ---------------------------------------------------------------------

# Directories, for files in them are replaced. What others must not read there, they cannot: the sink is nobody's user.
_RESOLVER = ("/etc", "/run/systemd/resolve", "/run/resolvconf", "/run/NetworkManager")
_LINKED = ("resolv.conf", "hosts", "nsswitch.conf", "gai.conf", "host.conf")  # in /etc, on some systems links to elsewhere
_AUTHORITIES = ("/usr/share/ca-certificates", "/usr/local/share/ca-certificates", "/usr/lib/ssl")


def network_rules() -> list[Rule]:
    """What getaddrinfo and OpenSSL read, and modules that are imported when something goes wrong; loads the libraries that
    would be loaded at the first use.
    """
    import encodings.idna  # noqa: F401
    import ssl

    with contextlib.suppress(OSError), open("/etc/nsswitch.conf", encoding="utf-8", errors="replace") as file:
        services = [line.partition(":")[2] for line in file if line.startswith("hosts:")]
        for name in " ".join(services).split():
            if name.isalnum() or name.replace("_", "").isalnum():
                with contextlib.suppress(OSError):
                    ctypes.CDLL(f"libnss_{name}.so.2")
    paths = ssl.get_default_verify_paths()
    own = [path for path in (paths.openssl_cafile, paths.openssl_capath) if path]
    linked = [_with_its_directory(os.path.realpath(f"/etc/{name}")) for name in _LINKED]
    return [Rule(path, READ) for path in (*_RESOLVER, *linked, *_AUTHORITIES, *own, *_code())]


def account_rules(directories: Iterable[str]) -> list[Rule]:
    """The files of an account in these directories, which are links to others that are replaced as a whole."""
    return [Rule(directory, READ) for directory in directories if directory]


def _with_its_directory(path: str) -> str:
    """The directory of a file, which may be replaced in there; but not /run whole, nor /."""
    directory = os.path.dirname(path)
    return directory if directory.count("/") > 1 or directory == "/etc" else path


def _code() -> list[str]:
    """Where Python looks for modules."""
    return [path for path in map(os.path.abspath, filter(None, sys.path)) if path not in ("/", os.getcwd())]
