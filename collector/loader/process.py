"""The loader's loop: compile (by a child), attach, announce the rings' spans to the shards. It decodes no event and
copies none: a shard reads a span where the kernel put it, and when it has acknowledged it, its room is released.

Only this process and its compiler child are privileged. Everything the kernel gives is passed on to the supervisor as
duplicates, so a new loader goes on at the consumer position with nothing compiled again.
"""

from __future__ import annotations

import collections
import functools
import logging
import os
import select
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import zmq

from collector import abi, control, errors
from collector.attribution import owners
from collector.clock import SystemClock
from collector.loader import addresses, capturefile, compiler, entries, kernel, preflight
from collector.loader.probes import registry
from collector.loader.ringbuffer import Ring
from collector.metrics import LOADER_NAMES
from collector.router import endpoints, messages, partition
from collector.router.channel import Sender
from collector.runtime import Child, run_process
from collector.settings import LoaderStart

log = logging.getLogger("loader")

SPAN_BYTES = 2 << 20
# How long to sleep between two looks at the rings: long enough that a look is worth its cost (some 100 us with all
# wake-ups that follow), short enough that a ring fills to a quarter at most. See docs/benchmarks.md.
BUSY_SECONDS, RELAXED_SECONDS, IDLE_SECONDS = 0.002, 0.02, 0.05
WAKE_PART = 4  # the kernel wakes the loader when a ring is filled to this part
WINDOW_PART = 8  # of a ring: what one connection may fill between two drains
PRESSING_SECONDS = 0.001  # while a ring is filled further, for acknowledgements that give room back
STOP_SECONDS = 8.0
UNSEEN_SECONDS = 5.0
INTRODUCTIONS = 4096  # events in one message to a new shard
_QUESTION = struct.Struct("=QIiII")  # struct question of bpf/maps.h
_STATS = ("kernel_dropped_events", "kernel_dropped_bytes", "kernel_map_full", "kernel_not_http", "kernel_tls",
          "kernel_http2", "kernel_faults", "null_accepts", "io_uring_setups", "kernel_unseen_bytes",
          "kernel_unwanted_bytes", "kernel_bounded_bytes", "kernel_process_full", "kernel_entries_made",
          "kernel_entries_ended", "kernel_entries_swept", "kernel_entries_stale",
          "kernel_unplaced_bytes")  # enum stat of bpf/maps.h


class Attached:
    """What the kernel gave us: descriptors by name, and how to hand them on."""

    def __init__(self) -> None:
        self.variant = ""
        self.identity = ""
        self.why = ""
        self.verified: dict[str, int] = {}
        self.programs: dict[str, int] = {}
        self.maps: dict[str, int] = {}
        self.rings: list[int] = []
        self.probes: dict[str, int] = {}

    def manifest(self) -> tuple[dict[str, Any], list[int]]:
        """(names, descriptors in the same order)."""
        groups = {"programs": self.programs, "maps": self.maps,
                  "rings": {str(i): fd for i, fd in enumerate(self.rings)},
                  "probes": self.probes}
        names = {group: list(entries) for group, entries in groups.items()}
        fds = [fd for entries in groups.values() for fd in entries.values()]
        return {"variant": self.variant, "identity": self.identity, "names": names}, fds

    @classmethod
    def adopt(cls, manifest: dict[str, Any], fds: list[int]) -> Attached:
        """The reverse of manifest()."""
        out = cls()
        out.variant = manifest["variant"]
        out.identity = manifest["identity"]
        left = iter(fds)
        out.programs = {name: next(left) for name in manifest["names"]["programs"]}
        out.maps = {name: next(left) for name in manifest["names"]["maps"]}
        out.rings = [next(left) for _ in manifest["names"]["rings"]]
        out.probes = {name: next(left) for name in manifest["names"]["probes"]}
        return out


def compile_programs(defines: dict[str, int], variants: list[str], identity: str) -> Attached:
    """Run the compiler child; raises PreflightError with its message when nothing loads."""
    ours, theirs = control.pair()
    with ours, tempfile.TemporaryFile() as stderr:  # not a pipe: a verifier log is longer than one holds
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "collector.loader.compiler", str(theirs.fileno())], pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr)
        theirs.close()
        control.send(ours, {"defines": defines, "variants": variants, "identity": identity})
        received = control.receive(ours)
        process.wait()
        stderr.seek(0)
        noise = stderr.read()
    if received is None or "error" in received[0]:
        why = received[0]["error"] if received else f"the compiler ended with {process.returncode}"
        detail = noise.decode("utf-8", "replace").strip()[-1500:]
        raise errors.PreflightError(f"cannot load the kernel programs: {why}\n{detail}")
    answer, fds = received
    out = Attached()
    out.variant = answer["variant"]
    out.identity = answer["identity"]
    out.why = answer["why"]
    out.verified = answer["verified"]
    left = iter(fds)
    out.programs = {name: next(left) for name in answer["programs"]}
    out.maps = {name: next(left) for name in answer["maps"]}
    return out


def attach(attached: Attached, tracefs: str, *, lazy: bool = False) -> list[str]:
    """Attach everything that is not attached (``lazy``: what waits for its need). Returns what is missing, in words;
    raises PreflightError when something indispensable is.
    """
    missing = []
    probes = [probe for probe in registry.COMMON
              if probe.lazy == lazy and probe.identity in ("", attached.identity)]
    if not lazy:
        prefix = "raw" if attached.variant == registry.RAW else "tp"
        for name, place in registry.FURTHER.items():
            kernel.map_update(attached.maps["further"], struct.pack("=I", place),
                              struct.pack("=I", attached.programs[f"{prefix}_{name}"]))
        if attached.variant == registry.TPX:
            probes += registry.per_call(attached.identity)
    for probe in probes:
        if probe.program in attached.probes:
            continue
        program = attached.programs[probe.program]
        try:
            attached.probes[probe.program] = (
                kernel.attach_tracepoint(program, probe.category, probe.name, tracefs) if probe.category
                else kernel.attach_raw_tracepoint(program, probe.name))
        except OSError as error:
            if probe.required:
                raise errors.PreflightError(f"cannot attach {probe.category}:{probe.name}: {error}") from None
            missing.append(f"{probe.category}:{probe.name} ({probe.without})")
    if not lazy and attached.variant == registry.RAW and "raw_exit" not in attached.probes:
        for call, number in registry.calls(attached.identity).items():
            kernel.map_update(attached.maps["calls"], struct.pack("=I", number),
                              struct.pack("=I", attached.programs[f"raw_exit_{call}"]))
        attached.probes["raw_exit"] = kernel.attach_raw_tracepoint(attached.programs["raw_exit"], "sys_exit")
    return missing


class Loader:
    """The process; ``run`` returns its exit code."""

    def __init__(self, child: Child[LoaderStart]) -> None:
        start = child.start
        self._child = child
        self._counters = child.counters
        self._start = start
        self._settings = settings = start.settings
        self._clock = SystemClock()
        token = bytes.fromhex(start.token)
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
        self._senders = [Sender(self.context, endpoints.shard(i), token,
                                on_peer=functools.partial(self._introduce, i)) for i in range(start.shards)]
        self._attached = Attached()
        self._rings: list[Ring] = []
        self._questions: Ring | None = None
        # (ring, its producer position when the answer was found, event): it must not overtake the OPEN it is about
        self._injected: collections.deque[tuple[int, int, bytes]] = collections.deque()
        self._owners: owners.Provider = owners.ProcessProvider()
        self._limiter = addresses.Limiter()
        self._sweep = entries.Sweep(-1, -1, -1)
        self._next_unseen = 0.0
        self._full_warned = 0.0
        self._refused = 0
        self._unseen: list[dict[str, object]] = []
        self._calm = self._pressing = select.epoll()
        self._bits: dict[int, int] = {}
        self._pids: set[int] = set()
        self._tracefs = ""
        self._nested = preflight.own_pid_namespace()  # then the kernel's process ids are not those of our /proc
        self._next_stats = 0.0
        self._heard = True
        self._wall = self._clock.wall_offset_ns()
        self._cpus = kernel.possible_cpus()
        spare = start.spare
        record = child.fds[1] if settings.record else None
        self._adopted_fds = child.fds[1 + spare:]
        self._writer: capturefile.Writer | None = None
        self._record_failed = False
        if record is not None:
            self._writer = capturefile.Writer(record, settings.rings, settings.record_limit,
                                              self._counters["record_file_bytes"])
            self._writer.skipped_bytes = self._counters["record_file_skipped_bytes"]
        self._stats_base = {name: self._counters[name] for name in _STATS if name != "null_accepts"}

    def _introduce(self, shard: int, again: bool) -> None:
        """Tell a new shard the roles and ends of the connections that it now joins in the middle, before the spans that its
        last life did not acknowledge. A new loader cannot know whether a shard is new, too.
        """
        if not self._attached.maps or not (again or self._start.adopt):
            return
        self._forget_names(shard)
        told = 0
        now = self._clock.monotonic_ns()
        events: list[bytes] = []
        named: set[int] = set()  # a shard keeps one name of a process, whatever ring it came by
        for entry in entries.connections(self._attached.maps["conns"]):
            if partition.shard_of_ring(entry.ring, len(self._senders)) == shard:
                if self._nested is None:  # else the kernel tells them, with the next connection
                    for pid in {entry.tgid, entry.told} - named:
                        named.add(pid)
                        owner = self._owners.owner(pid)
                        events += (owner.event(ts_ns=now, ring=entry.ring),) if owner is not None else ()
                events.append(entry.introduction(now))
                told += 1
                if len(events) >= INTRODUCTIONS:
                    self._senders[shard].introduce((b"".join(events),), wall_offset_ns=self._wall)
                    events.clear()
                    self._child.beat()
        if events:
            self._senders[shard].introduce((b"".join(events),), wall_offset_ns=self._wall)
        log.warning("shard %d may be new: %d open connections re-announced", shard, told)

    def _forget_names(self, shard: int) -> None:
        """A new shard knows no process's name: the kernel tells them again."""
        entries.forget_names(self._attached.maps["processes"], sum(
            1 << ring for ring in range(len(self._rings)) if partition.shard_of_ring(ring, len(self._senders)) == shard))

    def close(self) -> None:
        """Close the sockets at once."""
        self.context.destroy(0)

    # ---- start

    def run(self) -> int:
        """Until told to stop and everything is drained."""
        try:
            if self._settings.test_rings:
                self._use_test_rings()
            elif self._start.adopt:
                self._adopt()
            else:
                self._set_up()
        except OSError as error:
            self._child.say({"kind": "problem", "text": f"cannot capture: {error}"})
            return errors.EXIT_CANNOT_CAPTURE
        except errors.CollectorError as error:
            self._child.say({"kind": "problem", "text": str(error)})
            return error.exit_code
        self._watch_descriptors()
        self._child.ready()
        delay, last = IDLE_SECONDS, time.monotonic()
        quarter = self._settings.ring_bytes * len(self._rings) / 4
        while not self._child.stopping:
            moved = self._turn()
            now = time.monotonic()
            if moved > 4096:
                delay = min(RELAXED_SECONDS, max(BUSY_SECONDS, quarter * (now - last) / moved))
            else:
                delay = min(IDLE_SECONDS, delay * 1.5)
            last = now
            if moved < SPAN_BYTES:
                self._sleep(delay)
        return self._finish()

    def _watch_descriptors(self) -> None:
        """What ends a sleep: the supervisor, and the kernel when a ring has filled (edge-triggered: a ring with anything in
        it is always readable); while a ring is full, acknowledgements too.
        """
        channel = self._child.channel.fileno()
        self._calm, self._pressing = select.epoll(), select.epoll()
        for poll in (self._calm, self._pressing):
            poll.register(channel, select.EPOLLIN)
            for fd in self._attached.rings:
                poll.register(fd, select.EPOLLIN | select.EPOLLET)
        for sender in self._senders:
            self._pressing.register(int(sender.socket.getsockopt(zmq.FD)), select.EPOLLIN)

    def _sleep(self, delay: float) -> None:
        most = self._settings.ring_bytes // WAKE_PART
        if any(ring.pending() > most for ring in self._rings):
            found = self._pressing.poll(min(delay, PRESSING_SECONDS))
        else:
            found = self._calm.poll(delay)
        channel = self._child.channel.fileno()
        self._heard = self._heard or any(fd == channel for fd, _events in found)

    def _use_test_rings(self) -> None:
        size = self._settings.ring_bytes
        fds = self._child.fds[1:]
        self._rings = [Ring(fd, size, memfd=True) for fd in fds]

    def _defines(self) -> dict[str, int]:
        settings = self._settings
        size = settings.ring_bytes
        # what one connection may always fill: a body that is kept whole, with its head if the ring is not too small for that
        body, chunk = settings.body_bytes, compiler.DEFAULTS["CHUNK"]
        run = min(body + settings.header_bytes + chunk, max(body + chunk, size // 16))
        defines = {**compiler.DEFAULTS, "RINGS": settings.rings, "CPUS": self._cpus, "WAKE_BYTES": size // WAKE_PART,
                   "RUN_BYTES": run, "WINDOW_BYTES": max(chunk, size // WINDOW_PART)}
        if settings.pids:
            defines["SELECT_PIDS"] = 1
        if settings.unix:
            defines["UNIX_SOCKETS"] = 1
        if self._nested is not None:
            defines["PIDNS_DEV"], defines["PIDNS_INO"] = self._nested
        if tuple(int(n) for n in os.uname().release.split("-")[0].split(".")[:2]) < (5, 10):
            # inner maps must then be exactly as large as the template
            defines["RING_TEMPLATE_PAGES"] = settings.ring_bytes // 4096
        return defines

    def _set_up(self) -> None:
        settings = self._settings
        tracefs = kernel.find_tracefs()
        if tracefs is None:
            raise errors.PreflightError("tracefs is not mounted and may not be mounted (see `collector check`)")
        self._tracefs = tracefs
        variants = list(settings.variants) or compiler.default_variants()
        self._attached = attached = compile_programs(self._defines(), variants, settings.identity)
        if attached.why and settings.identity == compiler.AUTO:
            log.warning("connections are known by descriptor: %s", attached.why)
        size = settings.ring_bytes
        for i in range(settings.rings):
            fd = kernel.create_ring(size)
            attached.rings.append(fd)
            kernel.map_update(attached.maps["rings"], struct.pack("=I", i), struct.pack("=I", fd))
        self._map_rings()
        self._select(self._start.ours)
        missing = attach(attached, tracefs)
        for what in missing:
            log.warning("not attached: %s", what)
        self._hand_over()

    def _hand_over(self) -> None:
        attached = self._attached
        manifest, fds = attached.manifest()
        line = (f"hooks {attached.variant}, identity {attached.identity}, {len(attached.probes)} probes, "
                f"{len(attached.rings)} rings of "
                f"{self._settings.ring_bytes >> 10} KiB")
        self._child.say({"kind": "attached", "line": line, **manifest, "verified": attached.verified}, fds)
        self._counters["probes"] = len(attached.probes)
        log.info("attached: %s", line)

    def _adopt(self) -> None:
        self._tracefs = kernel.find_tracefs() or ""
        self._attached = Attached.adopt(self._start.adopt or {}, self._adopted_fds)
        self._map_rings()
        # the bits that the loader before us had set: those of processes that are gone must be cleared
        if not self._settings.pids:
            self._pids = set(self._start.known)
            for pid in self._pids:
                self._bits[pid >> 6] = self._bits.get(pid >> 6, 0) | 1 << (pid & 63)
            self._pids.discard(os.getpid())
            self._bits[os.getpid() >> 6] = self._bits.get(os.getpid() >> 6, 0) & ~(1 << (os.getpid() & 63))
        self._select(self._start.ours)
        self._counters["probes"] = len(self._attached.probes)

    def _map_rings(self) -> None:
        size = self._settings.ring_bytes
        self._rings = [Ring(fd, size) for fd in self._attached.rings]
        self._questions = Ring(self._attached.maps["questions"], 16 * 4096)
        if self._attached.identity == registry.SOCKET:
            maps = self._attached.maps
            self._sweep = entries.Sweep(self._attached.programs["raw_sweep"], maps["conns"], maps["processes"])

    def _select(self, ours: Sequence[int]) -> None:
        """Keep our own processes out of the capture, or the chosen ones in."""
        chosen = set(self._settings.pids) if self._settings.pids else {*ours, os.getpid()}
        for pid in self._pids ^ chosen:
            word = self._bits.get(pid >> 6, 0) ^ (1 << (pid & 63))
            self._bits[pid >> 6] = word
            kernel.map_update(self._attached.maps["pid_bits"], struct.pack("=I", pid >> 6), struct.pack("=Q", word))
        self._pids = chosen

    # ---- the loop

    def _turn(self) -> int:
        """Drain every ring once; returns the bytes moved."""
        moved = 0
        if self._heard:
            self._heard = False
            for message in self._child.hear():
                if message.get("kind") == "pids" and self._attached.maps:
                    self._select(message["ours"])
                elif message.get("kind") == "new_shard" and self._attached.maps:
                    self._forget_names(message["number"])
        for sender in self._senders:
            sender.service()
        if self._questions is not None:
            self._answer()
        for number, ring in enumerate(self._rings):
            shard = partition.shard_of_ring(number, len(self._senders))
            sender = self._senders[shard]
            room = sender.room()
            if not room:
                continue  # its rings wait, and only its
            span = ring.next_span(min(SPAN_BYTES, room))
            if span is None:
                continue
            position, length = span
            moved += length
            sender.send((messages.pack_span(number, position, length),), kind=messages.SPAN, size=length,
                        wall_offset_ns=self._wall, done=functools.partial(ring.release, position + length))
            self._counters.add("spans")
            self._counters.add("span_bytes", length)
            if self._writer is not None:
                self._record(number, ring.copy(position, length), self._wall)
        self._inject(self._wall)
        now = time.monotonic()
        if now >= self._next_stats:
            self._next_stats = now + 0.25
            self._wall = self._clock.wall_offset_ns()
            self._heard = True
            self._read_stats()
        self._child.beat()
        return moved

    def _record(self, number: int, span: bytes, wall: int) -> None:
        assert self._writer is not None
        full = self._writer.full
        if self._record_failed:
            self._writer.skipped_bytes += len(span)
        else:
            try:
                self._writer.write(number, span, wall)
            except OSError as error:
                self._cannot_record(error)
                self._writer.skipped_bytes += len(span)
        if self._writer.full and not full:
            log.warning("--record: the limit of %d bytes is reached: later events are counted, not written",
                        self._settings.record_limit)
        self._counters["record_file_bytes"] = self._writer.written_bytes
        self._counters["record_file_skipped_bytes"] = self._writer.skipped_bytes

    def _cannot_record(self, error: OSError) -> None:
        self._record_failed = True
        self._child.say({"kind": "problem", "text": f"--record: {error.strerror}: later events are counted, not written; "
                         "capture goes on"})

    def _answer(self) -> None:
        """Connections that user space must look at."""
        assert self._questions is not None
        span = self._questions.drain(65536)
        if span is None:
            return
        step = (_QUESTION.size + 8 + 7) & ~7
        for at in range(0, len(span) - step + 1, step):
            conn_id, tgid, fd, ring, _pad = _QUESTION.unpack_from(span, at + 8)
            if conn_id:
                self._look_at((conn_id, tgid, fd), ring)
            elif self._nested is None:
                owner = self._owners.owner(tgid)  # the kernel knew the name of a thread
                if owner is not None:
                    self._injected.append((ring, self._rings[ring].produced(), owner.event(
                        ts_ns=self._clock.monotonic_ns(), ring=ring)))

    def _look_at(self, conn: tuple[int, int, int], ring: int) -> None:
        _conn_id, tgid, fd = conn
        known = addresses.is_socket(tgid, fd) if self._nested is None else None
        if known is None:
            self._counters.add("addresses_failed")
            return
        found = None
        if known:
            if not self._limiter.allow(time.monotonic()):
                self._counters.add("addresses_failed")
                return
            found = addresses.ends(tgid, fd)
            if found is None:
                self._counters.add("addresses_failed")
                return
        if found is None or found.family == 0 or (found.family == 1 and not self._settings.unix):
            self._ignore(conn)
            event = abi.pack_close(conn, ts_ns=self._clock.monotonic_ns(), reason=abi.NOT_HTTP)
        elif self._entry(conn) is None:
            self._counters.add("addresses_failed")  # the number may belong to another connection already
            return
        else:
            self._counters.add("addresses_resolved")
            event = abi.pack_open(conn, ts_ns=self._clock.monotonic_ns(), role=abi.UNKNOWN,
                                  local=found.local, remote=found.remote, type=abi.ADDRESS, ring=ring)
        self._injected.append((ring, self._rings[ring].produced(), event))

    def _entry(self, conn: tuple[int, int, int]) -> bytes | None:
        """The kernel's entry of a connection under this descriptor, if it still knows it so (descriptor identity)."""
        conn_id, tgid, fd = conn
        entry = kernel.map_lookup(self._attached.maps["conns"], struct.pack("=Q", tgid << 32 | fd),
                                  compiler.CONN["sizeof"])
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
            kernel.map_update(self._attached.maps["conns"], struct.pack("=Q", conn[1] << 32 | conn[2]), bytes(changed),
                              2)  # BPF_EXIST
        except OSError as error:
            log.debug("cannot set an entry aside: %s", error)

    def _inject(self, wall: int) -> None:
        for _ in range(len(self._injected)):
            ring, position, event = self._injected.popleft()
            sender = self._senders[partition.shard_of_ring(ring, len(self._senders))]
            if self._rings[ring].announced < position or sender.room() < len(event):
                self._injected.append((ring, position, event))
                continue
            sender.send((event,), wall_offset_ns=wall)
            if self._writer is not None:
                self._record(ring, event, wall)

    def _read_stats(self) -> None:
        if not self._attached.maps:
            return
        for i, name in enumerate(_STATS):
            value = kernel.map_lookup(self._attached.maps["stats"], struct.pack("=I", i), 8 * self._cpus)
            total = sum(struct.unpack(f"={self._cpus}Q", value)) if value else 0
            if name == "null_accepts":
                if total and "tp_tcp_recv" not in self._attached.probes and self._tracefs and (
                        self._attached.identity == registry.DESCRIPTOR):
                    self._attach_lazy()
            else:
                self._counters[name] = total
        self._watch_entries()
        self._counters["spans_announced_again"] = sum(sender.resent for sender in self._senders)
        self._counters["ring_high_water_bytes"] = max((ring.high_water for ring in self._rings), default=0)

    def _watch_entries(self) -> None:
        """The kernel's table of connections: how full, what ended unseen; and processes that it cannot show."""
        now = time.monotonic()
        self._sweep.turn(now)
        made, ended = self._counters["kernel_entries_made"], self._counters["kernel_entries_ended"]
        most = compiler.DEFAULTS["MAX_CONNS"]
        self._counters["kernel_entries"] = max(0, min(made - ended, most))
        self._counters["kernel_entries_pushed_out"] = max(self._counters["kernel_entries_pushed_out"], made - ended - most)
        refused = self._counters["kernel_process_full"]
        if (made - ended > most * 9 // 10 or refused > self._refused) and now > self._full_warned:
            self._full_warned = now + 60
            log.warning("the kernel's table of connections is %d %% full, its least recently used entries give way; "
                        "%d calls of processes that have half of it were left out",
                        min(100, (made - ended) * 100 // most), refused)
        self._refused = refused
        if now > self._next_unseen and self._attached.maps:
            self._next_unseen = now + UNSEEN_SECONDS
            rows = entries.unseen(self._attached.maps["unseen_processes"])
            if rows != self._unseen:
                self._unseen = rows
                self._child.say({"kind": "unseen", "rows": rows[:256]})

    def _attach_lazy(self) -> None:
        for what in attach(self._attached, self._tracefs, lazy=True):
            log.warning("not attached: %s", what)
            self._attached.probes["tp_tcp_recv"] = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        self._hand_over()

    # ---- the end

    def _finish(self) -> int:
        """Probes off, rings drained, the end to every shard, all of it acknowledged."""
        deadline = time.monotonic() + STOP_SECONDS
        self._read_stats()
        for fd in self._attached.probes.values():
            os.close(fd)
        self._attached.probes.clear()
        quiet = 0
        while quiet < 2 and time.monotonic() < deadline:
            self._turn()
            quiet = 0 if any(ring.pending() for ring in self._rings) else quiet + 1
            time.sleep(0.001)
        self._read_stats()
        while not all(sender.may_end() for sender in self._senders) and time.monotonic() < deadline:
            for sender in self._senders:
                sender.service()
            self._child.beat()
            time.sleep(0.002)
        for sender in self._senders:
            if sender.may_end():
                sender.end()
        while not all(sender.idle() for sender in self._senders) and time.monotonic() < deadline:
            for sender in self._senders:
                sender.service()
            self._child.beat()
            time.sleep(0.002)
        self._counters["probes"] = 0
        left = sum(ring.pending() for ring in self._rings)
        if left:
            log.error("stopped with %d bytes not drained", left)
        if self._writer is not None:
            try:
                self._writer.close()
            except OSError as error:
                if not self._record_failed:
                    self._cannot_record(error)
        return 1 if left or self._record_failed else 0


def main() -> int:
    """Entry of the child process."""
    return run_process(LoaderStart, LOADER_NAMES, Loader)


if __name__ == "__main__":
    raise SystemExit(main())
