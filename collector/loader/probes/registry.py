"""What is attached where: data, checked at import. A probe source says what is lost without it."""

from __future__ import annotations

from dataclasses import dataclass

TPX, RAW = "tpx", "raw"

# Covered calls (bpf/collector.c FOR_EACH_CALL) with their x86-64 numbers, for the raw variant's jump table.
CALLS: dict[str, int] = {
    "read": 0, "write": 1, "readv": 19, "writev": 20, "preadv2": 327, "pwritev2": 328, "recvfrom": 45, "sendto": 44,
    "recvmsg": 47, "sendmsg": 46, "recvmmsg": 299, "sendmmsg": 307, "sendfile64": 40, "splice": 275, "accept": 43,
    "accept4": 288, "dup": 32, "dup2": 33, "dup3": 292, "fcntl": 72, "close_range": 436,
}


@dataclass(frozen=True)
class Probe:
    """A tracepoint: ``program`` in bpf/, category and name in tracefs. ``without``: what is missing if it is."""

    program: str
    category: str
    name: str
    required: bool
    without: str
    lazy: bool = False


def _exit(call: str, without: str) -> Probe:
    return Probe(f"tp_exit_{call}", "syscalls", f"sys_exit_{call}", call in ("read", "write", "recvfrom", "sendto"),
                 without)


# First what keeps state right, last what makes data: a program never sees data of which it missed the opening.
COMMON: tuple[Probe, ...] = (
    Probe("tp_process_exit", "sched", "sched_process_exit", True, "ends of killed processes"),
    Probe("tp_process_exec", "sched", "sched_process_exec", False, "connections closed by exec"),
    Probe("tp_enter_close", "syscalls", "sys_enter_close", True, "ends of connections"),
    Probe("tp_set_state", "sock", "inet_sock_set_state", False, "outgoing connections from their start; local addresses"),
    Probe("tp_enter_connect", "syscalls", "sys_enter_connect", True, "outgoing connections from their start"),
    Probe("tp_io_uring", "io_uring", "io_uring_create", False, "the count of io_uring users"),
    Probe("tp_tcp_recv", "tcp", "tcp_rcv_space_adjust", False,
          "addresses of servers that accept without asking for them", lazy=True),
)
PER_CALL: tuple[Probe, ...] = tuple(
    _exit(call, f"traffic that goes through {call}") for call in
    ("dup", "dup2", "dup3", "fcntl", "close_range", "accept", "accept4", "splice", "sendfile64", "recvmmsg", "sendmmsg",
     "recvmsg", "sendmsg", "preadv2", "pwritev2", "readv", "writev", "recvfrom", "sendto", "read", "write"))

assert {probe.program.removeprefix("tp_exit_") for probe in PER_CALL} == set(CALLS)
