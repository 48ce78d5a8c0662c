"""What is attached where: data, checked at import. A probe source says what is lost without it."""

from __future__ import annotations

from dataclasses import dataclass

TPX, RAW = "tpx", "raw"
SOCKET, DESCRIPTOR = "socket", "descriptor"

# Covered calls (bpf/collector.c FOR_EACH_CALL) with their x86-64 numbers, for the raw variant's jump table.
DATA_CALLS: dict[str, int] = {
    "read": 0, "write": 1, "readv": 19, "writev": 20, "preadv2": 327, "pwritev2": 328, "recvfrom": 45, "sendto": 44,
    "recvmsg": 47, "sendmsg": 46, "recvmmsg": 299, "sendmmsg": 307, "sendfile64": 40, "splice": 275,
}
OTHER_CALLS: dict[str, dict[str, int]] = {
    SOCKET: {"accept": 43, "accept4": 288, "connect": 42},
    DESCRIPTOR: {"accept": 43, "accept4": 288, "dup": 32, "dup2": 33, "dup3": 292, "fcntl": 72, "close_range": 436},
}
# The programs that go on with a call: name without its variant's prefix -> place in `further` (enum further).
FURTHER: dict[str, int] = {"gather": 1, "meet": 2}


def calls(identity: str) -> dict[str, int]:
    """The covered calls and their numbers."""
    return {**DATA_CALLS, **OTHER_CALLS[identity]}


@dataclass(frozen=True)
class Probe:
    """A tracepoint: ``program`` in bpf/, category and name in tracefs, or with an empty category a raw tracepoint.
    ``without``: what is missing if it is. ``identity``: where it is needed, everywhere when empty.
    """

    program: str
    category: str
    name: str
    required: bool
    without: str
    lazy: bool = False
    identity: str = ""


# First what keeps state right, last what makes data: a program never sees data of which it missed the opening.
COMMON: tuple[Probe, ...] = (
    Probe("tp_process_exit", "sched", "sched_process_exit", True, "ends of processes"),
    Probe("tp_process_exec", "sched", "sched_process_exec", False, "32-bit programs; connections that exec closes"),
    Probe("tp_enter_close", "syscalls", "sys_enter_close", True, "ends of connections"),
    Probe("raw_set_state", "", "inet_sock_set_state", True, "ends of connections", identity=SOCKET),
    Probe("raw_task_rename", "", "task_rename", False, "new names of processes", identity=SOCKET),
    Probe("tp_set_state", "sock", "inet_sock_set_state", False, "outgoing connections from their start; local addresses",
          identity=DESCRIPTOR),
    Probe("tp_enter_connect", "syscalls", "sys_enter_connect", True, "outgoing connections from their start",
          identity=DESCRIPTOR),
    Probe("tp_io_uring", "io_uring", "io_uring_create", False, "the count of io_uring users"),
    Probe("tp_io_uring_submit", "io_uring", "io_uring_submit_req", False,
          "the count of what io_uring users send and receive"),
    Probe("tp_tcp_recv", "tcp", "tcp_rcv_space_adjust", False,
          "addresses of servers that accept without asking for them", lazy=True, identity=DESCRIPTOR),
)


def per_call(identity: str) -> tuple[Probe, ...]:
    """One probe a covered call, those that make data last."""
    return tuple(
        Probe(f"tp_exit_{call}", "syscalls", f"sys_exit_{call}", call in ("read", "write", "recvfrom", "sendto"),
              f"traffic that goes through {call}") for call in (*OTHER_CALLS[identity], *reversed(DATA_CALLS)))
