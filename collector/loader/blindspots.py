"""What is not captured, by process: what the kernel programs count of it (bpf/maps.h `unseen`), and the name of the library
that a process with such connections uses.

A connection that begins with TLS is counted at once, and as seen when a library's object is bound to it, after the
handshake. So what counts as not seen is what began before the last look (LOOK_SECONDS) and is not bound by this one.
"""

from __future__ import annotations

import contextlib
import logging
import struct
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

from collector.loader import entries, kernel
from collector.loader.mapped import Proc
from collector.loader.tls import processes
from collector.loader.tls.processes import File, Library, Reading
from collector.unsupported import NAME_LETTERS

log = logging.getLogger("loader")

LOOK_SECONDS = 5.0  # between two looks
SOON_SECONDS = 1.0  # when there are new connections: their process may live for moments only
AGAIN_SECONDS = 60.0  # a process may load another library
BEGUN = 2  # processes a turn whose files are looked at
ROWS = 128  # of one message
UNSEEN_ROWS = 256
LOGGED = 64  # names of processes and libraries that are logged
COUNTED = ("tls", "tls_bound", "quic_client", "quic_server")  # connections of a process, in its row
OTHERWISE = ("rings", "operations", "compat")  # what else makes a row


@dataclass(slots=True)
class _Process:
    """A process with connections that begin with TLS, or of QUIC."""

    name: str
    row: dict[str, Any]  # as it was read last
    tls_before: int = 0  # a look ago
    not_seen: int = 0  # of its TLS connections; never falls
    files: list[File] = field(default_factory=list)
    names: dict[str, tuple[str, str]] = field(default_factory=dict)  # of its files (tls.processes.Reading)
    libraries: list[Library] | None = None  # None: not known yet
    looked: float | None = None  # when its files were looked at last
    looked_tls: int = 0  # connections that it had then
    gone: bool = False
    finished: bool = False  # and all is told
    told: int = 0  # of `not_seen`
    told_quic: tuple[int, int] = (0, 0)

    @property
    def quic(self) -> tuple[int, int]:
        """Its connections of QUIC: as a client, as a server."""
        return self.row["quic_client"], self.row["quic_server"]


class Blindspots:
    """``table``: the descriptor of `unseen_processes`. ``probed``: the files (device:inode) in which probes are. ``uid``:
    the user that reads files, None when there is none. ``proc``: the kernel's process ids are those of our /proc.
    """

    def __init__(self, table: int, probed: Callable[[], Collection[str]], uid: int | None, *, proc: bool) -> None:
        self._table = table
        self._probed = probed
        self._ids = proc
        self._files = Proc()
        self._reading = Reading(uid, self._files)
        self._known: dict[int, _Process] = {}
        self._unseen: list[dict[str, Any]] = []
        self._left_out = 0
        self._next, self._soon = 0.0, 0.0
        self._to_look_at: deque[int] = deque()
        self._ended: list[int] = []  # processes whose number another one has, and nobody was told
        self._logged: set[tuple[str, str]] = set()

    def turn(self, now: float, left_out: int) -> list[dict[str, Any]]:
        """Some of what is to be done; the messages for the supervisor. ``left_out``: connections that the kernel programs
        have left out as TLS or QUIC so far.
        """
        messages = []
        if now >= self._next or left_out != self._left_out and now >= self._soon:
            settled = now >= self._next
            self._soon, self._left_out = now + SOON_SECONDS, left_out
            if settled:
                self._next = now + LOOK_SECONDS
            messages += self._look(now, settled=settled)
        for _ in range(BEGUN):
            if self._to_look_at and not self._reading.busy():  # files that wait to be read are open
                self._look_at(self._to_look_at.popleft())
        self._reading.turn()
        return messages + self._tell()

    # ---- the kernel's table

    def _look(self, now: float, *, settled: bool) -> list[dict[str, Any]]:
        rows = entries.unseen(self._table)
        present = set()
        for row in rows:
            pid: int = row["pid"]
            present.add(pid)
            process = self._known.get(pid)
            if process is not None and any(row[key] < process.row[key] for key in COUNTED):
                process = None  # another one has its number
                self._ended.append(pid)
            if process is None:
                if not any(row[key] for key in COUNTED):
                    continue
                process = self._known[pid] = _Process(str(row["name"]), row)
            if not process.finished:
                self._follow(pid, process, row, now, settled=settled)
        for pid in set(self._known) - present:  # it is finished, or the table had no room
            if self._known[pid].finished:
                del self._known[pid]
            else:
                self._known[pid].gone = True
        others = [
            {key: row[key] for key in ("pid", "name", *OTHERWISE)} | {"quic": row["quic_client"] + row["quic_server"]}
            for row in rows
            if any(row[key] for key in (*OTHERWISE, "quic_client", "quic_server"))
        ]
        if others == self._unseen:
            return []
        self._unseen = others
        return [{"kind": "unseen", "rows": others[:UNSEEN_ROWS]}]

    def _follow(self, pid: int, process: _Process, row: dict[str, Any], now: float, *, settled: bool) -> None:
        process.row = row
        name = self._name(pid)
        process.gone = process.gone or self._ids and name is None
        process.name = name or process.name
        if settled or process.gone:
            began = row["tls"] if process.gone else process.tls_before
            process.not_seen = max(process.not_seen, began - row["tls_bound"])
            process.tls_before = row["tls"]
        if process.gone or not self._ids:
            process.libraries = process.libraries or []
        elif row["tls"] > process.looked_tls and (process.looked is None or now >= process.looked + AGAIN_SECONDS):
            process.looked, process.looked_tls = now, row["tls"]
            self._to_look_at.append(pid)

    def _name(self, pid: int) -> str | None:
        """Of the process, None when it is gone."""
        if not self._ids:
            return None
        try:
            with open(f"/proc/{pid}/comm", "rb") as file:
                return file.read(64).rstrip(b"\n").decode("utf-8", "replace")
        except OSError:
            return None

    # ---- libraries of a process

    def _look_at(self, pid: int) -> None:
        process = self._known.get(pid)
        if process is None:
            return
        process.files = processes.files_of(pid, self._files) or process.files  # it may have ended
        process.names = self._reading.ask(pid, process.files)
        if not process.names and process.libraries is None:
            process.libraries = processes.libraries_in(process.files, {})

    def _settle(self, process: _Process) -> bool:
        """Are its libraries known?"""
        known = self._reading.known(process.names) if process.names else None
        if known is not None:
            process.libraries = processes.libraries_in(process.files, known)
            process.names = {}
        return process.libraries is not None or not process.row["tls"]

    # ---- telling

    def _tell(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = [{"pid": pid, "gone": True} for pid in self._ended]
        self._ended = []
        probed: Collection[str] | None = None
        for pid, process in list(self._known.items()):
            if len(rows) >= ROWS:
                break
            if process.finished:
                continue
            if process.told_quic != process.quic:
                process.told_quic = process.quic
                rows.append({"pid": pid, "process": process.name, "quic": process.quic})
            if not self._settle(process):
                continue
            if process.told != process.not_seen:
                probed = self._probed() if probed is None else probed
                process.told = process.not_seen
                rows.append(self._row(pid, process, probed))
            if process.gone:
                rows.append({"pid": pid, "gone": True})
                self._finish(pid, process)
        return [{"kind": "unsupported", "rows": rows}] if rows else []

    def _row(self, pid: int, process: _Process, probed: Collection[str]) -> dict[str, Any]:
        libraries = process.libraries or []
        name, hooked = processes.label(libraries, process.files, probed.__contains__)
        if process.told and not hooked:
            self._log(process, name, libraries)
        return {
            "pid": pid,
            "process": process.name,
            "library": name[:NAME_LETTERS],
            "probed": hooked,
            "tls": process.told,
        }

    def _log(self, process: _Process, name: str, libraries: list[Library]) -> None:
        if (process.name, name) in self._logged or len(self._logged) >= LOGGED:
            return
        self._logged.add((process.name, name))
        library = next((library for library in libraries if library.name == name), None)
        if library is None:
            log.warning("process %r: TLS that is not captured: the library of %r is not known", process.name, name)
            return
        log.warning(
            "process %r: TLS that is not captured: %s in %r: %s",
            process.name,
            f"{name} {library.version}".strip(),
            library.file.path,
            processes.why_not(library),
        )

    def _finish(self, pid: int, process: _Process) -> None:
        """All of it is told; its entry of the table goes, unless it says more: the kernel's room is for the living."""
        process.finished = True
        if self._ids and not any(process.row[key] for key in OTHERWISE):
            with contextlib.suppress(OSError):
                kernel.map_delete(self._table, struct.pack("=I", pid))

    def busy(self) -> bool:
        """Are there files that are being read, or are to be?"""
        return bool(self._to_look_at) or self._reading.busy()

    def close(self) -> None:
        """End the child, if there is one."""
        self._reading.close()
