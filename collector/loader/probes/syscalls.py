"""The system calls: the source that is always there. Both hook variants and both identities of connections."""

from __future__ import annotations

from collections.abc import Sequence

from collector.loader.probes.probe import (
    DESCRIPTOR,
    RAW,
    SOCKET,
    TPX,
    Build,
    Jump,
    Probe,
    Program,
    ProgramType,
    RawTracepoint,
    Source,
    Tracepoint,
)

# Covered calls (bpf/collector.c FOR_EACH_CALL) with their x86-64 numbers, for the raw variant's jump table.
DATA_CALLS: dict[str, int] = {
    "read": 0,
    "write": 1,
    "readv": 19,
    "writev": 20,
    "preadv2": 327,
    "pwritev2": 328,
    "recvfrom": 45,
    "sendto": 44,
    "recvmsg": 47,
    "sendmsg": 46,
    "recvmmsg": 299,
    "sendmmsg": 307,
    "sendfile64": 40,
    "splice": 275,
}
OTHER_CALLS: dict[str, dict[str, int]] = {
    SOCKET: {"accept": 43, "accept4": 288, "connect": 42},
    DESCRIPTOR: {"accept": 43, "accept4": 288, "dup": 32, "dup2": 33, "dup3": 292, "fcntl": 72, "close_range": 436},
}
REQUIRED_CALLS = ("read", "write", "recvfrom", "sendto")
# The programs that go on with a call: name without its variant's prefix -> place in `further` (enum further).
FURTHER: dict[str, int] = {"gather": 1, "meet": 2, "bind": 3, "quic": 4}
SWEEP = Program("raw_sweep", ProgramType.RAW_TRACEPOINT)  # the loader runs it for each entry


def calls(identity: str) -> dict[str, int]:
    """The covered calls and their numbers."""
    return {**DATA_CALLS, **OTHER_CALLS[identity]}


_PROCESSES_AND_CLOSE = (
    Probe("tp_process_exit", Tracepoint("sched", "sched_process_exit"), "ends of processes", required=True),
    Probe("tp_process_exec", Tracepoint("sched", "sched_process_exec"), "32-bit programs; connections that exec closes"),
    Probe("tp_enter_close", Tracepoint("syscalls", "sys_enter_close"), "ends of connections", required=True),
)
_BY_IDENTITY = {
    SOCKET: (
        Probe("raw_set_state", RawTracepoint("inet_sock_set_state"), "ends of connections", required=True),
        Probe("raw_task_rename", RawTracepoint("task_rename"), "new names of processes"),
    ),
    DESCRIPTOR: (
        Probe(
            "tp_set_state",
            Tracepoint("sock", "inet_sock_set_state"),
            "outgoing connections from their start; local addresses",
        ),
        Probe(
            "tp_enter_connect",
            Tracepoint("syscalls", "sys_enter_connect"),
            "outgoing connections from their start",
            required=True,
        ),
    ),
}
_IO_URING = (
    Probe("tp_io_uring", Tracepoint("io_uring", "io_uring_create"), "the count of io_uring users"),
    Probe(
        "tp_io_uring_submit",
        Tracepoint("io_uring", "io_uring_submit_req"),
        "the count of what io_uring users send and receive",
    ),
)
# It fires inside every read of a TCP socket: only once somebody accepts without asking for the address.
_LATE_ADDRESSES = Probe(
    "tp_tcp_recv",
    Tracepoint("tcp", "tcp_rcv_space_adjust"),
    "addresses of servers that accept without asking for them",
    need="null_accepts",
)


class Syscalls(Source):
    """See the module."""

    name = "syscalls"

    def programs(self, build: Build) -> Sequence[Program]:
        """As Source."""
        found = [Program(probe.program, probe.at.type) for probe in self.probes(build)]
        kind = ProgramType.RAW_TRACEPOINT if build.variant == RAW else ProgramType.TRACEPOINT
        found += [Program(jump.program, kind) for jump in self.jumps(build)]
        return [*found, SWEEP] if build.identity == SOCKET else found

    def probes(self, build: Build) -> Sequence[Probe]:
        """As Source."""
        out = [*_PROCESSES_AND_CLOSE, *_BY_IDENTITY[build.identity], *_IO_URING]
        if build.identity == DESCRIPTOR:
            out.append(_LATE_ADDRESSES)
        if build.variant == TPX:
            out += [
                Probe(
                    f"tp_exit_{call}",
                    Tracepoint("syscalls", f"sys_exit_{call}"),
                    f"traffic that goes through {call}",
                    required=call in REQUIRED_CALLS,
                )
                for call in (*OTHER_CALLS[build.identity], *reversed(DATA_CALLS))
            ]
        else:
            out.append(Probe("raw_exit", RawTracepoint("sys_exit"), "all traffic", required=True))
        return out

    def jumps(self, build: Build) -> Sequence[Jump]:
        """As Source."""
        prefix = "raw" if build.variant == RAW else "tp"
        out = [Jump("further", index, f"{prefix}_{name}") for name, index in FURTHER.items()]
        if build.variant == RAW:
            out += [Jump("calls", number, f"raw_exit_{call}") for call, number in calls(build.identity).items()]
        return out
