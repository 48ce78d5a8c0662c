"""Which members of the kernel's structs `bpf/kernel.h` reads, and where the running kernel has them.

The programs are compiled without kernel headers: each offset is a define. One table; what is missing in a kernel means
that sockets cannot be the identity of connections there (COLLECTOR_IDENTITY), never a guess.
"""

from __future__ import annotations

from collections.abc import Mapping

from collector.loader import btf

# define -> member
MEMBERS: Mapping[str, str] = {
    "TASK_FILES": "task_struct.files",
    "TASK_GROUP_LEADER": "task_struct.group_leader",
    "TASK_COMM": "task_struct.comm",
    "TASK_PID": "task_struct.pid",
    "TASK_TGID": "task_struct.tgid",
    "TASK_SIGNAL": "task_struct.signal",
    "SIGNAL_LIVE": "signal_struct.live",
    "TASK_START_BOOTTIME": "task_struct.start_boottime",
    "FILES_FDT": "files_struct.fdt",
    "FDT_MAX_FDS": "fdtable.max_fds",
    "FDT_FD": "fdtable.fd",
    "FILE_PRIVATE_DATA": "file.private_data",
    "SOCKET_FILE": "socket.file",
    "SOCKET_SK": "socket.sk",
    "SK_FAMILY": "sock.__sk_common.skc_family",
    "SK_STATE": "sock.__sk_common.skc_state",
    "SK_DADDR": "sock.__sk_common.skc_daddr",
    "SK_RCV_SADDR": "sock.__sk_common.skc_rcv_saddr",
    "SK_DPORT": "sock.__sk_common.skc_dport",
    "INET_SPORT": "inet_sock.inet_sport",  # not skc_num, which is 0 as soon as the state is CLOSE
    "SK_V6_DADDR": "sock.__sk_common.skc_v6_daddr",
    "SK_V6_RCV_SADDR": "sock.__sk_common.skc_v6_rcv_saddr",
    "SK_TYPE": "sock.sk_type",
    "SK_PROTOCOL": "sock.sk_protocol",
    "SK_SOCKET": "sock.sk_socket",
    "ICSK_ULP_OPS": "inet_connection_sock.icsk_ulp_ops",
    "TCP_COPIED_SEQ": "tcp_sock.copied_seq",
    "TCP_WRITE_SEQ": "tcp_sock.write_seq",
    "TCP_RCV_NXT": "tcp_sock.rcv_nxt",
    "TCP_SND_UNA": "tcp_sock.snd_una",
    "TCP_BYTES_RECEIVED": "tcp_sock.bytes_received",
    "TCP_BYTES_ACKED": "tcp_sock.bytes_acked",
}
# Only with COLLECTOR_UNIX_SOCKETS, and only where Unix sockets are no module: to tell a pair made by socketpair.
OPTIONAL: Mapping[str, str] = {"UNIX_ADDR": "unix_sock.addr", "UNIX_PEER": "unix_sock.peer"}
# The count of a file's users: since 6.13 one less than there are, before as many as there are.
_FILE_COUNTS = (("file.f_ref.refcnt", 0), ("file.f_count", 1))


class UnknownKernel(Exception):
    """Sockets cannot be the identity of connections; says why."""


def defines(data: bytes) -> dict[str, int]:
    """The defines for `bpf/kernel.h` from a kernel's BTF. Raises UnknownKernel, naming what is missing."""
    wanted = [*MEMBERS.values(), *OPTIONAL.values(), *(member for member, _one in _FILE_COUNTS)]
    try:
        found = btf.offsets(data, wanted)
    except btf.BtfError as error:
        raise UnknownKernel(f"its BTF cannot be read: {error}") from None
    missing = sorted(member for member in MEMBERS.values() if member not in found)
    if missing:
        raise UnknownKernel("its BTF does not have " + ", ".join(missing))
    out = {define: found[member] for define, member in {**MEMBERS, **OPTIONAL}.items() if member in found}
    if out["SOCKET_SK"] != out["SOCKET_FILE"] + 8 or out["SK_RCV_SADDR"] != out["SK_DADDR"] + 4:
        raise UnknownKernel("its struct socket or sock_common is laid out in another way")
    for member, one in _FILE_COUNTS:
        if member in found:
            return {**out, "FILE_COUNT": found[member], "FILE_COUNT_ONE": one}
    raise UnknownKernel("its BTF does not have the count of a file's users")


def of_this_kernel() -> dict[str, int]:
    """The same for the running kernel. Raises UnknownKernel."""
    try:
        data = btf.read_kernel()
    except OSError as error:
        raise UnknownKernel(f"it shows no BTF ({error.filename}: {error.strerror})") from None
    return defines(data)
