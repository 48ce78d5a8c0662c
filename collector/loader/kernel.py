"""The few kernel calls that the loader makes itself, so that libbcc and LLVM live only in the compiler child.

bpf(2), perf_event_open(2), pidfd_open(2), pidfd_getfd(2) by ctypes; include/uapi/linux/bpf.h and perf_event.h.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import platform
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

_libc = ctypes.CDLL(None, use_errno=True)
_ARM = platform.machine() == "aarch64"
_SYS_BPF = 280 if _ARM else 321
_SYS_PERF_EVENT_OPEN = 241 if _ARM else 298
_SYS_PIDFD_GETFD = 438

_MAP_CREATE, _MAP_LOOKUP, _MAP_UPDATE, _PROG_LOAD, _PROG_TEST_RUN, _RAW_TRACEPOINT_OPEN = 0, 1, 2, 5, 10, 17
_MAP_DELETE, _MAP_GET_NEXT_KEY, _MAP_GET_FD_BY_ID, _OBJ_GET_INFO_BY_FD = 3, 4, 14, 15
_MAP_LOOKUP_BATCH, _MAP_UPDATE_BATCH, _LINK_CREATE = 24, 26, 28
TRACE_UPROBE_MULTI = 48  # enum bpf_attach_type, kernel 6.6
_UPROBE_MULTI_RETURN = 1
_PERF_EVENT = 41  # of the same
_MAP_TYPE_ARRAY, _MAP_TYPE_RINGBUF = 2, 27
_PROG_TYPE_KPROBE = 2
_NAME_BYTES = 15  # BPF_OBJ_NAME_LEN, and a NUL
_INFO_BYTES = 64  # of struct bpf_map_info; the kernel fills what it is given
_LOG_BYTES, _LOG_END_BYTES = 16 << 20, 64 << 10
_PERF_EVENT_IOC_SET_BPF = 0x40042408
_PERF_FLAG_FD_CLOEXEC = 8
_PERF_TYPE_TRACEPOINT = 2


def _bpf(command: int, attributes: bytes) -> int:
    buffer = ctypes.create_string_buffer(attributes, 128)
    result = _libc.syscall(ctypes.c_long(_SYS_BPF), ctypes.c_long(command), buffer, ctypes.c_long(128))
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"bpf({command}): {os.strerror(error)}")
    return int(result)


def create_map(
    kind: int, key_bytes: int, value_bytes: int, entries: int, *, flags: int = 0, inner: int = 0, name: str = ""
) -> int:
    """A map of a type (enum bpf_map_type); its descriptor. ``inner``: descriptor of a map that those inside are like;
    ``name``: of which the kernel keeps the first 15 characters. Raises OSError.
    """
    # map_type, key_size, value_size, max_entries, map_flags, inner_map_fd, numa_node, map_name
    attributes = struct.pack("=IIIIIII16s", kind, key_bytes, value_bytes, entries, flags, inner, 0, _object_name(name))
    fd = _bpf(_MAP_CREATE, attributes)
    os.set_inheritable(fd, False)
    return fd


def _object_name(name: str) -> bytes:
    return name.encode()[:_NAME_BYTES]


def create_ring(size: int) -> int:
    """A ring buffer map of ``size`` bytes (a power of two); its descriptor. Raises OSError."""
    return create_map(_MAP_TYPE_RINGBUF, 0, 0, size)


def create_array(value_bytes: int, entries: int) -> int:
    """An array map; its descriptor. Raises OSError."""
    return create_map(_MAP_TYPE_ARRAY, 4, value_bytes, entries)


@dataclass(frozen=True, slots=True)
class MapInfo:
    """What the kernel says of a map."""

    type: int
    key_bytes: int
    value_bytes: int
    entries: int
    flags: int
    name: str = ""


def open_map(number: int) -> int:
    """A descriptor of the map that has this number (CAP_SYS_ADMIN). Raises OSError."""
    fd = _bpf(_MAP_GET_FD_BY_ID, struct.pack("=III", number, 0, 0))
    os.set_inheritable(fd, False)
    return fd


def map_info(fd: int) -> MapInfo:
    """How a map was made. Raises OSError."""
    info = ctypes.create_string_buffer(_INFO_BYTES)
    _bpf(_OBJ_GET_INFO_BY_FD, struct.pack("=IIQ", fd, _INFO_BYTES, ctypes.addressof(info)))
    # struct bpf_map_info: type, id, key_size, value_size, max_entries, map_flags, name
    kind, _id, key_bytes, value_bytes, entries, flags, name = struct.unpack_from("=6I16s", info.raw)
    return MapInfo(kind, key_bytes, value_bytes, entries, flags, name.partition(b"\0")[0].decode("ascii", "replace"))


def map_update(fd: int, key: bytes, value: bytes, flags: int = 0) -> None:
    """Store one entry. Raises OSError."""
    k, v = ctypes.create_string_buffer(key, len(key)), ctypes.create_string_buffer(value, len(value))
    _bpf(_MAP_UPDATE, struct.pack("=IxxxxQQQ", fd, ctypes.addressof(k), ctypes.addressof(v), flags))


def array_fill(fd: int, value: bytes, count: int) -> None:
    """Store the same value in the first ``count`` places of an array (kernel 5.6). Raises OSError."""
    keys = (ctypes.c_uint32 * count)(*range(count))
    values = ctypes.create_string_buffer(value * count, len(value) * count)
    # in_batch, out_batch, keys, values, count, map_fd, elem_flags, flags
    attributes = struct.pack("=QQQQIIQQ", 0, 0, ctypes.addressof(keys), ctypes.addressof(values), count, fd, 0, 0)
    _bpf(_MAP_UPDATE_BATCH, attributes)


def map_lookup(fd: int, key: bytes, size: int) -> bytes | None:
    """One entry of ``size`` bytes (for per-CPU maps: 8-byte rounded, times the possible CPUs), None when absent."""
    k, v = ctypes.create_string_buffer(key, len(key)), ctypes.create_string_buffer(size)
    try:
        _bpf(_MAP_LOOKUP, struct.pack("=IxxxxQQQ", fd, ctypes.addressof(k), ctypes.addressof(v), 0))
    except FileNotFoundError:
        return None
    return v.raw


def map_delete(fd: int, key: bytes) -> None:
    """Remove one entry. Raises OSError, FileNotFoundError when there is none."""
    k = ctypes.create_string_buffer(key, len(key))
    _bpf(_MAP_DELETE, struct.pack("=IxxxxQ", fd, ctypes.addressof(k)))


class Entries:
    """Reads a whole hash map of at most ``most`` entries by one system call (kernel 5.6)."""

    def __init__(self, fd: int, key_bytes: int, value_bytes: int, most: int) -> None:
        self._fd = fd
        self._most = most
        self._key_bytes, self._value_bytes = key_bytes, value_bytes
        self._keys = ctypes.create_string_buffer(key_bytes * most)
        self._values = ctypes.create_string_buffer(value_bytes * most)
        self._next = ctypes.create_string_buffer(max(8, key_bytes))

    def read(self) -> list[tuple[bytes, bytes]]:
        """(key, value) of each. Raises OSError."""
        # in_batch, out_batch, keys, values, count, map_fd, elem_flags, flags
        attributes = struct.pack(
            "=QQQQIIQQ",
            0,
            ctypes.addressof(self._next),
            ctypes.addressof(self._keys),
            ctypes.addressof(self._values),
            self._most,
            self._fd,
            0,
            0,
        )
        buffer = ctypes.create_string_buffer(attributes, 128)
        if _libc.syscall(ctypes.c_long(_SYS_BPF), ctypes.c_long(_MAP_LOOKUP_BATCH), buffer, ctypes.c_long(128)) < 0:
            error = ctypes.get_errno()
            if error != errno.ENOENT:  # which says that these were all
                raise OSError(error, f"bpf({_MAP_LOOKUP_BATCH}): {os.strerror(error)}")
        (count,) = struct.unpack_from("=I", buffer.raw, 32)
        if not count:
            return []
        keys, values = self._keys.raw, self._values.raw
        k, v = self._key_bytes, self._value_bytes
        return [(keys[n * k : n * k + k], values[n * v : n * v + v]) for n in range(count)]


def map_keys(fd: int, size: int) -> Iterator[bytes]:
    """The keys of a hash map of ``size``-byte keys. Entries that come or go meanwhile may be missed or seen twice."""
    key, following = None, ctypes.create_string_buffer(size)
    while True:
        at = ctypes.addressof(key) if key is not None else 0
        try:
            _bpf(_MAP_GET_NEXT_KEY, struct.pack("=IxxxxQQ", fd, at, ctypes.addressof(following)))
        except FileNotFoundError:
            return
        yield following.raw
        key = ctypes.create_string_buffer(following.raw, size)


def _perf_event(attributes: bytes, program: int, *, cookie: int = 0, pid: int = 0) -> int:
    """Open an event, for all processes or one, that runs the program. One for all is opened on one CPU, and the program runs
    on all. With a ``cookie``, the descriptor is that of a link (kernel 5.15), which keeps the event.
    """
    buffer = ctypes.create_string_buffer(attributes, 128)
    fd = _libc.syscall(
        ctypes.c_long(_SYS_PERF_EVENT_OPEN),
        buffer,
        ctypes.c_long(pid or -1),
        ctypes.c_long(-1 if pid else 0),
        ctypes.c_long(-1),
        ctypes.c_long(_PERF_FLAG_FD_CLOEXEC),
    )
    if fd < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"perf_event_open: {os.strerror(error)}")
    try:
        if cookie:
            with contextlib.suppress(OSError):  # without it the program runs too
                link = _bpf(_LINK_CREATE, struct.pack("=IIIIQ", program, fd, _PERF_EVENT, 0, cookie))
                os.set_inheritable(link, False)
                os.close(fd)
                return link
        fcntl.ioctl(fd, _PERF_EVENT_IOC_SET_BPF, program)
    except OSError:
        os.close(fd)
        raise
    return int(fd)


def load_program(
    instructions: bytes, kind: int, *, name: str = "", license_: str = "GPL", attach_type: int = 0, log: Any = None
) -> int:
    """Load a program of a type (enum bpf_prog_type); its descriptor. ``attach_type``: how it will be attached, where the
    kernel wants to know (enum bpf_attach_type); ``name``: as in `create_map`; ``log``: a buffer of ctypes for what the
    verifier says. Raises OSError.
    """
    code = ctypes.create_string_buffer(instructions, len(instructions))
    text = ctypes.create_string_buffer(license_.encode())
    # prog_type, insn_cnt, insns, license, log_level, log_size, log_buf, kern_version, prog_flags, prog_name, prog_ifindex,
    # expected_attach_type
    attributes = struct.pack(
        "=IIQQIIQII16sII",
        kind,
        len(instructions) // 8,
        ctypes.addressof(code),
        ctypes.addressof(text),
        0 if log is None else 1,
        0 if log is None else len(log),
        0 if log is None else ctypes.addressof(log),
        0,
        0,
        _object_name(name),
        0,
        attach_type,
    )
    fd = _bpf(_PROG_LOAD, attributes)
    os.set_inheritable(fd, False)
    return fd


def verifier_log(instructions: bytes, kind: int, *, license_: str = "GPL", attach_type: int = 0) -> str:
    """The end of what the verifier says of a program that it refuses; of the first 16 MiB, before kernel 6.4."""
    log = ctypes.create_string_buffer(_LOG_BYTES)
    with contextlib.suppress(OSError):
        os.close(load_program(instructions, kind, license_=license_, attach_type=attach_type, log=log))
    return log.value[-_LOG_END_BYTES:].decode("utf-8", "replace")


def load_uprobe(instructions: bytes, *, multi: bool) -> int:
    """Load a program for uprobes that is licensed as ours; ``multi``: for `attach_uprobes`. Raises OSError."""
    return load_program(instructions, _PROG_TYPE_KPROBE, attach_type=TRACE_UPROBE_MULTI if multi else 0)


def attach_tracepoint(program: int, category: str, name: str, tracefs: str) -> int:
    """Attach; closing the returned descriptor detaches. Raises OSError (FileNotFoundError: no such tracepoint)."""
    with open(f"{tracefs}/events/{category}/{name}/id", encoding="ascii") as file:
        config = int(file.read())
    return _perf_event(struct.pack("=IIQQQQQIIQQ", _PERF_TYPE_TRACEPOINT, 128, config, 1, 0, 0, 0, 0, 0, 0, 0), program)


def attach_uprobe(program: int, path: str, offset: int, *, returns: bool, cookie: int = 0, pid: int = 0) -> int:
    """Attach to the instruction at a file's offset, or (``returns``) to the return of the function that begins there, in all
    processes or in one; closing the returned descriptor detaches, which takes some 80 ms. The kernel keeps the file, not
    its path. ``cookie``: what bpf_get_attach_cookie tells the program (kernel 5.15; 0 before). Raises OSError.
    """
    with open("/sys/bus/event_source/devices/uprobe/type", encoding="ascii") as file:
        kind = int(file.read())
    flags = 0
    if returns:
        with open("/sys/bus/event_source/devices/uprobe/format/retprobe", encoding="ascii") as file:
            flags = 1 << int(file.read().strip().removeprefix("config:"))
    name = ctypes.create_string_buffer(os.fsencode(path))
    attributes = struct.pack("=IIQQQQQIIQQ", kind, 128, flags, 1, 0, 0, 0, 0, 0, ctypes.addressof(name), offset)
    return _perf_event(attributes, program, cookie=cookie, pid=pid)


def attach_uprobes(program: int, path: str, offsets: Sequence[int], *, returns: bool, cookie: int = 0, pid: int = 0) -> int:
    """As `attach_uprobe`, for any number of offsets of one file with one descriptor (kernel 6.6; the program must have been
    loaded for TRACE_UPROBE_MULTI). Raises OSError.
    """
    name = ctypes.create_string_buffer(os.fsencode(path))
    places = (ctypes.c_uint64 * len(offsets))(*offsets)
    cookies = (ctypes.c_uint64 * len(offsets))(*[cookie] * len(offsets))
    # prog_fd, target_fd, attach_type, flags; path, offsets, ref_ctr_offsets, cookies, cnt, flags, pid
    fd = _bpf(
        _LINK_CREATE,
        struct.pack(
            "=IIIIQQQQIII",
            program,
            0,
            TRACE_UPROBE_MULTI,
            0,
            ctypes.addressof(name),
            ctypes.addressof(places),
            0,
            ctypes.addressof(cookies),
            len(offsets),
            _UPROBE_MULTI_RETURN if returns else 0,
            pid,
        ),
    )
    os.set_inheritable(fd, False)
    return fd


def has_uprobe_multi(program: int) -> bool:
    """Can `attach_uprobes` attach this program? A kernel that knows such links refuses the path of a directory with EBADF;
    one that does not says EINVAL (as libbpf finds out).
    """
    try:
        os.close(attach_uprobes(program, "/", [0], returns=False))
    except OSError as error:
        return error.errno == errno.EBADF
    return True


def attach_raw_tracepoint(program: int, name: str) -> int:
    """Attach to a raw tracepoint; closing the returned descriptor detaches. Raises OSError."""
    text = ctypes.create_string_buffer(name.encode())
    return _bpf(_RAW_TRACEPOINT_OPEN, struct.pack("=QI", ctypes.addressof(text), program))


def pidfd_getfd(pid: int, fd: int) -> int:
    """A duplicate of descriptor ``fd`` of process ``pid``. Hold it as short as can be: while it lives, the program's
    close() sends no FIN. Raises OSError.
    """
    pidfd = os.pidfd_open(pid)
    try:
        result = _libc.syscall(ctypes.c_long(_SYS_PIDFD_GETFD), ctypes.c_long(pidfd), ctypes.c_long(fd), ctypes.c_long(0))
        if result < 0:
            error = ctypes.get_errno()
            raise OSError(error, f"pidfd_getfd: {os.strerror(error)}")
        return int(result)
    finally:
        os.close(pidfd)


def run_raw_program(program: int, argument: int) -> int:
    """Run a raw tracepoint program once, with ``argument`` as its first; what it returned. Raises OSError (kernels before
    5.10 cannot).
    """
    context = ctypes.create_string_buffer(struct.pack("=Q", argument), 8)
    # prog_fd, retval, data_size_in, data_size_out, data_in, data_out, repeat, duration, ctx_size_in, ctx_size_out, ctx_in
    attributes = struct.pack("=IIIIQQIIIIQ", program, 0, 0, 0, 0, 0, 0, 0, 8, 0, ctypes.addressof(context))
    buffer = ctypes.create_string_buffer(attributes, 128)
    if _libc.syscall(ctypes.c_long(_SYS_BPF), ctypes.c_long(_PROG_TEST_RUN), buffer, ctypes.c_long(80)) < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"bpf(PROG_TEST_RUN): {os.strerror(error)}")
    return int(struct.unpack_from("=I", buffer.raw, 4)[0])


def possible_cpus() -> int:
    """Number of CPUs that per-CPU maps have values for."""
    with open("/sys/devices/system/cpu/possible", encoding="ascii") as file:
        text = file.read().strip()
    return max(int(part.split("-")[-1]) for part in text.split(",")) + 1


def find_tracefs() -> str | None:
    """Where tracefs is mounted, mounting it at its usual place when it is not and that is allowed."""
    for path in ("/sys/kernel/tracing", "/sys/kernel/debug/tracing"):
        if os.path.isdir(f"{path}/events/syscalls"):
            return path
    if (
        os.geteuid() == 0
        and os.path.isdir("/sys/kernel/tracing")
        and _libc.mount(b"tracefs", b"/sys/kernel/tracing", b"tracefs", ctypes.c_ulong(0), None) == 0
    ):
        return "/sys/kernel/tracing"
    return None
