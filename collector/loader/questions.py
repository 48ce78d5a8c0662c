"""Answers to what the kernel programs cannot find out by themselves, where descriptors are the identity of connections
(bpf/maps.h `questions`): is it a socket, which ends has it, what is the name of its process.
"""

from __future__ import annotations

import logging
import socket
import struct
from collections.abc import Iterator

from collector import abi
from collector.attribution.owners import Provider
from collector.counters import Counters
from collector.loader import addresses, compiler, kernel
from collector.loader.ringbuffer import Ring

log = logging.getLogger("loader")

RING_BYTES = 16 * 4096
_QUESTION = compiler.QUESTION
_STEP = (_QUESTION["sizeof"] + 8 + 7) & ~7  # a record of the ring: the kernel's header, and the rest rounded up


class Questions:
    """``maps``: the kernel's, by name; ``owners`` answers for processes; ``proc``: are the kernel's process ids those of our
    /proc? ``unix``: are Unix sockets wanted? Counts addresses_resolved and addresses_failed.
    """

    def __init__(self, maps: dict[str, int], counters: Counters, owners: Provider, *, proc: bool, unix: bool) -> None:
        self._ring = Ring(maps["questions"], RING_BYTES)
        self._conns = maps["conns"]
        self._counters = counters
        self._owners = owners
        self._proc = proc
        self._unix = unix
        self._limiter = addresses.Limiter()

    def answers(self, now_ns: int) -> Iterator[tuple[int, bytes]]:
        """(ring, event) for what was asked since the last call; the event must not overtake the one it is about."""
        span = self._ring.drain(65536)
        for at in range(8, len(span or b"") - _STEP + 9, _STEP):
            assert span is not None
            (conn_id,) = struct.unpack_from("=Q", span, at + _QUESTION["conn_id"])
            tgid, fd, ring = struct.unpack_from("=IiI", span, at + _QUESTION["tgid"])
            if conn_id:
                event = self._look_at((conn_id, tgid, fd), ring, now_ns)
            else:  # the kernel knew the name of a thread
                owner = self._owners.owner(tgid) if self._proc else None
                event = owner.event(ts_ns=now_ns, ring=ring) if owner is not None else b""
            if event:
                yield ring, event

    def _look_at(self, conn: tuple[int, int, int], ring: int, now_ns: int) -> bytes:
        _conn_id, tgid, fd = conn
        known = addresses.is_socket(tgid, fd) if self._proc else None
        found = None
        if known and self._limiter.allow(now_ns / 1e9):
            found = addresses.ends(tgid, fd)
        if known is None or known and found is None:
            self._counters.add("addresses_failed")
            return b""
        if found is None or found.family == 0 or (found.family == socket.AF_UNIX and not self._unix):
            self._ignore(conn)
            return abi.pack_close(conn, ts_ns=now_ns, reason=abi.NOT_HTTP)
        if self._entry(conn) is None:  # the number may belong to another connection already
            self._counters.add("addresses_failed")
            return b""
        self._counters.add("addresses_resolved")
        return abi.pack_open(
            conn, ts_ns=now_ns, role=abi.UNKNOWN, local=found.local, remote=found.remote, type=abi.ADDRESS, ring=ring
        )

    def _entry(self, conn: tuple[int, int, int]) -> bytes | None:
        """The kernel's entry of a connection under this descriptor, if it still knows it so."""
        conn_id, tgid, fd = conn
        entry = kernel.map_lookup(self._conns, struct.pack("=Q", tgid << 32 | fd), compiler.CONN["sizeof"])
        same = entry is not None and struct.unpack_from("=Q", entry, compiler.CONN["conn_id"])[0] == conn_id
        return entry if same else None

    def _ignore(self, conn: tuple[int, int, int]) -> None:
        """Set the ignore flag of an entry, if it is still the same connection."""
        try:
            entry = self._entry(conn)
            if entry is None:
                return
            changed = bytearray(entry)
            changed[compiler.CONN["state"]] = compiler.CONN_IGNORED
            kernel.map_update(self._conns, struct.pack("=Q", conn[1] << 32 | conn[2]), bytes(changed), 2)  # BPF_EXIST
        except OSError as error:
            log.debug("cannot set an entry aside: %s", error)
