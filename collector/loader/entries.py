"""The kernel's tables as user space reads them: open connections, entries whose socket is gone, processes that the hooked
calls do not show.
"""

from __future__ import annotations

import collections
import logging
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from collector import abi
from collector.loader import compiler, kernel

log = logging.getLogger("loader")

SWEEP_SECONDS = 10.0  # between the beginnings of two sweeps
SWEEP_KEYS = 500  # a turn
_CONN, _PROCESS, _UNSEEN = compiler.CONN, compiler.PROCESS, compiler.UNSEEN
UNSEEN_ENTRIES = 1024  # of bpf/maps.h unseen_processes
_OBJECT_KEY_BYTES = 16  # struct object_key


@dataclass(frozen=True, slots=True)
class Entry:
    """One connection of the kernel's tables (struct conn of bpf/maps.h)."""

    conn_id: int
    tgid: int
    fd: int
    told: int
    ring: int
    local: tuple[bytes, int]
    remote: tuple[bytes, int]
    role: int
    state: int
    opened: bool
    source: int
    socket: int = 0  # conn_id of the socket of a library's object, once that is known

    @classmethod
    def read(cls, value: bytes, socket: int = 0) -> Entry:
        """From the bytes of the map."""
        tgid, fd, told = struct.unpack_from("=IiI", value, _CONN["tgid"])
        ring, local_port, remote_port = struct.unpack_from("=HHH", value, _CONN["ring"])
        local, remote = _CONN["local"], _CONN["remote"]
        return cls(
            struct.unpack_from("=Q", value, _CONN["conn_id"])[0],
            tgid,
            fd,
            told,
            ring,
            (value[local : local + 16], local_port),
            (value[remote : remote + 16], remote_port),
            value[_CONN["role"]],
            value[_CONN["state"]],
            bool(value[_CONN["opened"]]),
            value[_CONN["source"]],
            socket,
        )

    def introduction(self, ts_ns: int) -> bytes:
        """The events that tell a new shard what it cannot see any more: role and ends, and the other name of an object."""
        name = self.conn_id, self.told or self.tgid, self.fd
        known = abi.pack_known(
            name,
            self.local[0],
            self.remote[0],
            ts_ns=ts_ns,
            role=self.role,
            local_port=self.local[1],
            remote_port=self.remote[1],
            ring=self.ring,
            source=self.source,
        )
        if self.socket in (0, self.conn_id):
            return known
        return known + abi.pack_bind(name, self.socket, ts_ns=ts_ns, role=self.role, source=self.source)


def connections(maps: Mapping[str, int]) -> Iterator[Entry]:
    """Those that shards know: of the map `conns`, and of `objects` where there are programs of libraries. Raises OSError."""
    for value in _opened(maps["conns"], 8, _CONN["sizeof"]):
        yield Entry.read(value)
    if "objects" in maps:
        for value in _opened(maps["objects"], _OBJECT_KEY_BYTES, compiler.OBJECT["sizeof"]):
            yield Entry.read(value, struct.unpack_from("=Q", value, compiler.OBJECT["socket"])[0])


def _opened(table: int, key_bytes: int, value_bytes: int) -> Iterator[bytes]:
    for key in kernel.map_keys(table, key_bytes):
        value = kernel.map_lookup(table, key, value_bytes)
        if value is None or value[_CONN["state"]] != compiler.CONN_HTTP or not value[_CONN["opened"]]:
            continue
        yield value


def begin_lives(lives: int, rings: Sequence[int]) -> None:
    """Another shard reads these rings (bpf/maps.h `ring_lives`). Raises OSError."""
    for ring in rings:
        key = struct.pack("=I", ring)
        (before,) = struct.unpack("=I", kernel.map_lookup(lives, key, 4) or bytes(4))
        kernel.map_update(lives, key, struct.pack("=I", (before + 1) & 0x7FFFFFFF))


def leave_out(beyond: int, connections: int) -> None:
    """There is no CPU for so many of ALL_CONNECTIONS (bpf/maps.h `beyond`). Raises OSError."""
    kernel.map_update(beyond, bytes(4), struct.pack("=Q", connections))


def forget_names(processes: int, rings: int) -> None:
    """Nothing was told to these rings (a bit each): a new shard reads them. Raises OSError."""
    for key in kernel.map_keys(processes, 4):
        value = kernel.map_lookup(processes, key, _PROCESS["sizeof"])
        if value is None:
            continue
        told = struct.unpack_from("=Q", value, _PROCESS["rings"])[0]
        if told & rings:
            changed = bytearray(value)
            struct.pack_into("=Q", changed, _PROCESS["rings"], told & ~rings)
            kernel.map_update(processes, key, bytes(changed), 2)  # BPF_EXIST


class Sweep:
    """Asks, a few entries a turn, whether their sockets are still there: what no tracepoint told (Unix sockets of killed
    processes, sockets that their peer had reset before). It also mends the number of entries a process, which drifts
    when the table gives up its least recently used ones.
    """

    def __init__(self, program: int, table: int, processes: int) -> None:
        self._program, self._table, self._processes = program, table, processes
        self._keys: Iterator[bytes] | None = None
        self._next = 0.0
        self._seen: collections.Counter[int] = collections.Counter()
        self.entries = 0  # of the last whole sweep

    def turn(self, now: float) -> None:
        """A few entries, or nothing when the last sweep is young. An old kernel cannot do it: then it is given up."""
        if self._program < 0 or (self._keys is None and now < self._next):
            return
        if self._keys is None:
            self._next = now + SWEEP_SECONDS
            self._keys = kernel.map_keys(self._table, 8)
            self._seen.clear()
        try:
            for _ in range(SWEEP_KEYS):
                key = next(self._keys, None)
                if key is None:
                    self._finish()
                    return
                if not kernel.run_raw_program(self._program, struct.unpack("=Q", key)[0]):
                    value = kernel.map_lookup(self._table, key, _CONN["sizeof"])
                    if value is not None:
                        self._seen[struct.unpack_from("=I", value, _CONN["tgid"])[0]] += 1
        except OSError as error:
            log.warning("entries of sockets whose end was not seen stay until they are the least recently used: %s", error)
            self._program = -1

    def _finish(self) -> None:
        self._keys = None
        self.entries = self._seen.total()
        for tgid, count in self._seen.items():
            key = struct.pack("=I", tgid)
            value = kernel.map_lookup(self._processes, key, _PROCESS["sizeof"])
            if value is None:
                continue
            counted = struct.unpack_from("=I", value, _PROCESS["connections"])[0]
            if abs(counted - count) > 64 + count // 16:  # not for what came and went meanwhile
                changed = bytearray(value)
                struct.pack_into("=I", changed, _PROCESS["connections"], count)
                kernel.map_update(self._processes, key, bytes(changed), 2)  # BPF_EXIST


def unseen(table: int) -> list[dict[str, Any]]:
    """Processes with traffic that is not captured (bpf/maps.h `unseen`): pid, name, and a number of each reason."""
    out: list[dict[str, Any]] = []
    for key, value in kernel.Entries(table, 4, _UNSEEN["sizeof"], UNSEEN_ENTRIES).read():
        comm = value[_UNSEEN["comm"] : _UNSEEN["comm"] + 16].split(b"\0")[0]
        row: dict[str, Any] = {"pid": struct.unpack("=I", key)[0], "name": comm.decode("utf-8", "replace")}
        row.update((name, struct.unpack_from("=Q", value, at)[0]) for name, at in _UNSEEN.items() if at < _UNSEEN["comm"])
        out.append(row)
    return out
