"""Each role in a process of its own: what it may not do fails as decided, and what it needs works."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from collector import confine, runtime
from collector.errors import ConfigError
from tests.collector.test_files import HEAD, data, stream_lines
from tests.conftest import skip_or_fail
from tests.events import GET, OK
from tests.live.harness import wait_for

if confine.missing():
    skip_or_fail(confine.missing())

LANDLOCK = confine.landlock_version()
ROLES = {
    "reader": confine.READER,
    "health": confine.HEALTH,
    "shard": confine.SHARD,
    "printer": confine.sink(files=False, network=False),
    "spooler": confine.sink(files=True, network=False),
    "kafka": confine.sink(files=True, network=True),
}
SINKS = {"printer", "spooler", "kafka"}

# Run with: role, directory to work in, name of an abstract socket; then the attempts. Prints what came of each.
PROGRAM = """
import ctypes, encodings.idna, fcntl, json, mmap, os, resource, signal, socket, ssl, sys, tempfile, threading
import seccomp
from collector import confine, runtime
from tests.collector.test_confine import ROLES

name, directory, abstract, *attempts = sys.argv[1:]
libc = ctypes.CDLL(None, use_errno=True)

def call(what, *arguments):
    number = seccomp.resolve_syscall(seccomp.Arch.NATIVE, what) if isinstance(what, str) else what
    if libc.syscall(number, *arguments) < 0:
        raise OSError(ctypes.get_errno(), what)

def thread():
    done = []
    one = threading.Thread(target=done.append, args=[1])
    one.start()
    one.join()
    assert done

def work():
    file = os.open("a", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=where)
    os.pwritev(file, [b"x", b"y"], 0)
    assert os.pread(file, 9, 0) == b"xy"
    os.ftruncate(file, 0)
    os.fdatasync(file)
    os.rename("a", "b", src_dir_fd=where, dst_dir_fd=where)
    assert os.listdir(where) == ["b"]
    os.unlink("b", dir_fd=where)
    fcntl.flock(where, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.fsync(where)

def to_abstract():
    socket.socket(socket.AF_UNIX).connect("\\0" + abstract)

def memory():
    one = mmap.mmap(-1, 1 << 20)
    one[:3] = b"abc"
    one.madvise(mmap.MADV_DONTNEED)
    bytearray(64 << 20)

def name_of_a_key():
    with open(os.memfd_create("pem"), "wb") as file:
        file.write(b"x")
        file.flush()
        assert open(f"/proc/self/fd/{file.fileno()}", "rb").read() == b"x"

where = os.open(directory, os.O_RDONLY)
other, page = os.getppid(), mmap.mmap(-1, 4096)
address = ctypes.addressof(ctypes.c_char.from_buffer(page))
ATTEMPTS = {
    "open": lambda: os.open("/bin/true", os.O_RDONLY),
    "create": lambda: os.open("/tmp/should-not-be", os.O_RDWR | os.O_CREAT),
    "resolver": lambda: os.open("/etc/hosts", os.O_RDONLY),
    "stat": lambda: os.stat("/etc/hosts"),
    "work": work,
    "temporary": lambda: tempfile.TemporaryFile(dir=directory).write(b"x"),
    "key": name_of_a_key,
    "authorities": lambda: ssl.create_default_context(cafile=ssl.get_default_verify_paths().cafile),
    "resolve": lambda: socket.getaddrinfo("localhost", 9),
    "connect": lambda: socket.create_connection(("127.0.0.1", 1)),
    "inet": lambda: socket.socket(socket.AF_INET),
    "inet6": lambda: socket.socket(socket.AF_INET6),
    "netlink": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
    "unix": lambda: socket.socket(socket.AF_UNIX),
    "packet": lambda: socket.socket(socket.AF_PACKET),
    "vsock": lambda: socket.socket(socket.AF_VSOCK),
    "abstract": to_abstract,
    "listen": lambda: listener.listen(),
    "bind": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).bind(("127.0.0.1", 0)),
    "fork": os.fork,
    "vfork": lambda: os.posix_spawn("/bin/true", ["true"], {}),
    "thread": thread,
    "clone3": lambda: call("clone3", 0, 0),
    "new": lambda: call(449, 0, 0),
    "unknown": lambda: call(500),
    "signal": lambda: os.kill(other, 0),
    "own signal": lambda: os.kill(os.getpid(), 0),
    "executable": lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC),
    "make executable": lambda: call("mprotect", ctypes.c_void_p(address), ctypes.c_size_t(4096), 5),
    "limit": lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (10, 10)),
    "ask limit": lambda: resource.getrlimit(resource.RLIMIT_NOFILE),
    "dumpable": lambda: call("prctl", 4, 1),
    "chdir": lambda: os.chdir("/"),
    "chmod": lambda: os.fchmod(where, 0o777),
    "nice": lambda: os.nice(1),
    "memory": memory,
    "execve": lambda: os.execv("/bin/true", ["true"]),
    "ptrace": lambda: call("ptrace", 16, other, 0, 0),
    "process_vm_readv": lambda: call("process_vm_readv", other, 0, 0, 0, 0, 0),
    "bpf": lambda: call("bpf", 0, 0, 0),
    "perf_event_open": lambda: call("perf_event_open", 0, 0, -1, -1, 0),
    "io_uring_setup": lambda: call("io_uring_setup", 8, 0),
    "unshare": lambda: call("unshare", 0x10000000),
    "mount": lambda: call("mount", 0, 0, 0, 0, 0),
    "setuid": lambda: os.setuid(0),
    "keyctl": lambda: call("keyctl", 0, 0),
}
listener = socket.socket()
runtime.drop_privileges(None)
network = name == "kafka"
rules = [confine.Rule(where, confine.WORK)] if name in ("spooler", "kafka") else []
confine.limit_files(rules + (confine.network_rules() if network else []), network=network)
waiting = threading.Event()
if name in ("shard", "spooler"):  # one that is there already is no way out
    threading.Thread(target=waiting.wait, daemon=True).start()
confine.limit_calls(ROLES[name])
found = {}
for attempt in attempts:
    try:
        ATTEMPTS[attempt]()
        found[attempt] = 0
    except OSError as error:
        found[attempt] = error.errno
    except (RuntimeError, ValueError):
        found[attempt] = -1
print(json.dumps(found), flush=True)
"""


def tried(role: str, directory: Path, *attempts: str, abstract: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, role, str(directory), abstract, *attempts],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, confine.VARIABLE: "on"},
    )


def expected(role: str) -> dict[str, int]:
    """errno of each attempt, 0 for those that work, -1 for Python's own exceptions."""
    files, network = role in ("spooler", "kafka"), role == "kafka"
    denied = ["packet", "vsock", "listen", "bind", "fork", "vfork", "signal", "executable", "make executable"]
    denied += ["dumpable", "chdir", "chmod", "nice"]
    outside = (errno.EACCES if LANDLOCK else 0) if files else errno.EPERM
    return {
        **dict.fromkeys(denied, errno.EPERM),
        **dict.fromkeys(["own signal", "ask limit", "memory"], 0),
        "clone3": errno.ENOSYS,
        "new": errno.ENOSYS,
        "unknown": errno.ENOSYS,
        "open": outside,
        "create": outside,
        "resolver": 0 if network else outside,
        "stat": 0 if files else errno.EPERM,
        "work": 0 if files else errno.EPERM,
        "temporary": 0 if files else errno.EPERM,
        "key": 0 if files else errno.EPERM,
        "connect": errno.ECONNREFUSED if network else errno.EPERM,
        **({"authorities": 0, "resolve": 0} if network else {}),
        "unix": 0 if role == "shard" or role in SINKS else errno.EPERM,
        **dict.fromkeys(("inet", "inet6", "netlink"), 0 if network else errno.EPERM),
        "thread": 0 if role == "shard" or role in SINKS else -1,
        "limit": -1,
    }


@pytest.mark.parametrize("role", ROLES)
def test_a_role_does_what_it_needs_and_nothing_else(role: str, tmp_path: Path) -> None:
    wanted = expected(role)
    done = tried(role, tmp_path, *wanted)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == wanted
    assert not Path("/tmp/should-not-be").exists()


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(
    "attempt",
    [
        "execve",
        "ptrace",
        "process_vm_readv",
        "bpf",
        "perf_event_open",
        "io_uring_setup",
        "unshare",
        "mount",
        "setuid",
        "keyctl",
    ],
)
def test_what_only_an_intruder_does_ends_the_process(role: str, attempt: str, tmp_path: Path) -> None:
    done = tried(role, tmp_path, attempt)
    assert (done.returncode, done.stdout) == (-signal.SIGSYS, ""), done.stderr


@pytest.mark.parametrize("role", ["shard", "kafka"])
def test_sockets_without_a_file_are_out_of_reach(role: str, tmp_path: Path) -> None:
    """Those of container runtimes and others, which check nobody's user."""
    if LANDLOCK < 6:
        skip_or_fail("needs Landlock 6 (Linux 6.12)")
    name = f"collector-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"\0{name}")
        listener.listen()
        assert json.loads(tried(role, tmp_path, "abstract", abstract=name).stdout) == {"abstract": errno.EPERM}


CHARSETS = """
from collector import confine, runtime
from collector.shards.records.content import Decoder, load_charsets
load_charsets()
runtime.drop_privileges(None)
confine.limit_files(())
confine.limit_calls(confine.SHARD)
decoder = Decoder()
text = "\\u3042"
for name in ("shift_jis", "euc-jp", "iso-2022-jp", "gb18030", "big5", "euc-kr", "iso-2022-kr", "windows-1251", "koi8-r",
             "latin-1", "utf-16le", "macintosh", "ks_c_5601-1987", "tis-620", "cp1006"):
    number = decoder.charset_number(name.encode())
    assert number, name
    assert decoder.decode(b"abcd", b"", number, False, 99, 1 << 30)[1] == 1, name
assert decoder.decode(text.encode("euc-jp"), b"", decoder.charset_number(b"euc-jp"), False, 99, 1 << 30)[0] == text.encode()
assert decoder.charset_number(b"iso-8859-12") == decoder.charset_number(b"cp9999") == 0
"""


FRAMES = """
import zmq
from collector import confine, runtime
from collector.router import channel
runtime.drop_privileges(None)
confine.limit_files(())
context = zmq.Context(io_threads=1)
ours, theirs = context.socket(zmq.PAIR), context.socket(zmq.PAIR)
ours.bind("inproc://a")
theirs.connect("inproc://a")
confine.limit_calls(confine.SHARD)
ours.send_multipart([b"x" * (1 << 20)], copy=False)
assert len(theirs.recv()) == 1 << 20
context.destroy(0)
"""


def test_a_shard_sends_frames_that_are_not_copied() -> None:
    """As it sends batches when all slots are taken."""
    done = subprocess.run([sys.executable, "-c", FRAMES], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_a_shard_decodes_all_charsets_without_opening_a_file() -> None:
    done = subprocess.run([sys.executable, "-c", CHARSETS], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


ERROR = """
import sys
from collector import confine, runtime
runtime.drop_privileges(None)
confine.limit_files(())
confine.limit_calls(confine.SHARD)
def fails(): raise ValueError("the cause")
fails()
"""


def test_the_cause_of_an_exception_is_still_reported() -> None:
    done = subprocess.run([sys.executable, "-c", ERROR], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "in fails" in done.stderr and "ValueError: the cause" in done.stderr


BUSY = """
import threading, time
from collector import confine, runtime
runtime.drop_privileges(None)
confine.limit_files(())
runtime.show_stacks_on_signal()
def deep(n):
    return n and deep(n - 1) + sum(i for i in range(3))
def work():
    while True:
        deep(600)
for _ in range(3):
    threading.Thread(target=work, daemon=True).start()
confine.limit_calls(confine.SHARD)
print("ready", flush=True)
while True:
    time.sleep(0.001)
"""


def test_a_process_with_busy_threads_shows_its_stacks_again_and_again(tmp_path: Path) -> None:
    """Their frames change while it writes; faulthandler alone crashed after some tens of times."""
    said = tmp_path / "stderr"
    with (
        said.open("wb") as stderr,
        subprocess.Popen([sys.executable, "-c", BUSY], stdout=subprocess.PIPE, stderr=stderr) as process,
    ):
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        for _ in range(300):
            process.send_signal(runtime.STACKS_SIGNAL)
            time.sleep(0.002)  # no more than its pace
        wait_for(lambda: process.poll() is not None or b" in deep" in said.read_bytes())
        assert process.poll() is None, said.read_text()[-2000:]
        process.kill()


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_a_filter_can_be_built_for_each_machine(role: str, machine: str, tmp_path: Path) -> None:
    made = confine.build(ROLES[role], machine if machine != os.uname().machine else "")
    with (tmp_path / "filter").open("w+b") as file:
        made.export_bpf(file)
    assert 8 * 64 < (tmp_path / "filter").stat().st_size <= 8 * 4096  # BPF_MAXINSNS


def test_off_limits_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "shard", str(tmp_path), "", "open", "inet", "executable"],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, confine.VARIABLE: "Off"},
    )
    assert done.returncode == 0 and json.loads(done.stdout.splitlines()[-1]) == {"open": 0, "inet": 0, "executable": 0}


OUTER = """
import errno, os, sys
import seccomp
outer = seccomp.SyscallFilter(seccomp.ALLOW)
outer.add_rule(seccomp.ERRNO(errno.EPERM), sys.argv[1])
outer.load()
os.execv(sys.executable, [sys.executable, "-m", "collector", "replay", *sys.argv[2:]])
"""


@pytest.mark.parametrize(
    ("call", "setting", "code", "words"),
    [
        ("seccomp", "auto", 0, "can make all system calls: the kernel, or the container's runtime, refuses seccomp(2)"),
        ("seccomp", "on", 78, "COLLECTOR_SECCOMP=on: the kernel, or the container's runtime, refuses seccomp(2)"),
        ("landlock_restrict_self", "auto", 0, "cannot limit files: [Errno 1] Landlock: Operation not permitted"),
    ],
)
def test_inside_a_filter_that_refuses_ours(call: str, setting: str, code: int, words: str, tmp_path: Path) -> None:
    """As a container's runtime has them."""
    if not LANDLOCK and call != "seccomp":
        skip_or_fail("needs Landlock")
    path = tmp_path / "one.streams.jsonl"
    path.write_text(stream_lines(HEAD, data("c2s", 1, GET), data("s2c", 1, OK)))
    done = subprocess.run(
        [sys.executable, "-c", OUTER, call, str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, confine.VARIABLE: setting, "AKTO_LOG_LEVEL": "INFO"},
    )
    assert done.returncode == code and words in done.stderr, done.stderr
    assert len(done.stdout.splitlines()) == (not code)


def test_what_is_missing_is_said_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(confine.VARIABLE, raising=False)
    assert confine.require() == ""
    monkeypatch.setattr(confine, "seccomp", None)
    assert "python3-seccomp" in confine.require()
    monkeypatch.setenv(confine.VARIABLE, "off")
    assert confine.require() == ""
    monkeypatch.setenv(confine.VARIABLE, "on")
    with pytest.raises(ConfigError, match="COLLECTOR_SECCOMP=on: no module seccomp"):
        confine.require()
    with pytest.raises(OSError, match="python3-seccomp"):
        confine.limit_calls(confine.READER)
    monkeypatch.undo()
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    assert "not known for riscv64" in confine.require()


LINKED = """
import os, socket, sys
from collector import confine
rules = confine.network_rules()
confine.limit_files(rules, network=True)
confine.limit_calls(confine.sink(files=True, network=True))
for line in sys.stdin:
    print(socket.getaddrinfo("broker.test", 9092, type=socket.SOCK_STREAM)[0][4][0], flush=True)
"""


@pytest.mark.live
def test_names_are_found_in_a_file_that_is_a_link_to_elsewhere(tmp_path: Path) -> None:
    """As /etc/resolv.conf is, with SUSE to /run/netconfig, with ConnMan to /run/connman."""
    if os.geteuid() != 0:
        skip_or_fail("needs root for a mount namespace")
    etc, elsewhere = tmp_path / "etc", tmp_path / "run" / "netconfig"
    shutil.copytree("/etc", etc, symlinks=True)
    elsewhere.mkdir(parents=True)
    (etc / "nsswitch.conf").write_text("hosts: files\n")
    (etc / "hosts").unlink()
    (etc / "hosts").symlink_to(elsewhere / "hosts")
    command = f'mount --bind {etc} /etc && exec "$@"'
    with subprocess.Popen(
        ["unshare", "-m", "--propagation", "private", "sh", "-c", command, "sh", sys.executable, "-c", LINKED],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        for address in ("10.9.9.9", "10.8.8.8"):  # the second file replaces the first
            (elsewhere / "new").write_text(f"{address} broker.test\n")
            (elsewhere / "new").rename(elsewhere / "hosts")
            process.stdin.write("\n")
            process.stdin.flush()
            assert process.stdout.readline().strip() == address
        process.stdin.close()
    assert process.returncode == 0
