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
from typing import Any

import zmq

from collector import abi, control, errors
from collector.clock import SystemClock
from collector.loader import addresses, capturefile, compiler, kernel
from collector.loader.probes import registry
from collector.loader.ringbuffer import Ring
from collector.metrics import LOADER_NAMES
from collector.router import endpoints, messages, partition
from collector.router.channel import Sender
from collector.runtime import Child

log = logging.getLogger("loader")

SPAN_BYTES = 2 << 20
# How long to sleep between two looks at the rings: long enough that a look is worth its cost (some 100 us with all
# wake-ups that follow), short enough that a ring fills to a quarter at most. See docs/benchmarks.md.
BUSY_SECONDS, RELAXED_SECONDS, IDLE_SECONDS = 0.002, 0.02, 0.05
STOP_SECONDS = 8.0
_QUESTION = struct.Struct("=IiII")
_STATS = ("kernel_dropped_events", "kernel_dropped_bytes", "kernel_map_full", "kernel_not_http", "kernel_tls",
          "kernel_http2", "kernel_faults", "null_accepts", "io_uring_setups")


class Attached:
    """What the kernel gave us: descriptors by name, and how to hand them on."""

    def __init__(self) -> None:
        self.variant = ""
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
        return {"variant": self.variant, "names": names}, fds

    @classmethod
    def adopt(cls, manifest: dict[str, Any], fds: list[int]) -> Attached:
        """The reverse of manifest()."""
        out = cls()
        out.variant = manifest["variant"]
        left = iter(fds)
        out.programs = {name: next(left) for name in manifest["names"]["programs"]}
        out.maps = {name: next(left) for name in manifest["names"]["maps"]}
        out.rings = [next(left) for _ in manifest["names"]["rings"]]
        out.probes = {name: next(left) for name in manifest["names"]["probes"]}
        return out


def compile_programs(defines: dict[str, int], variants: list[str]) -> Attached:
    """Run the compiler child; raises PreflightError with its message when nothing loads."""
    ours, theirs = control.pair()
    with ours, tempfile.TemporaryFile() as stderr:  # not a pipe: a verifier log is longer than one holds
        process = subprocess.Popen(
            [sys.executable, "-m", "collector.loader.compiler", str(theirs.fileno())], pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr)
        theirs.close()
        control.send(ours, {"defines": defines, "variants": variants})
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
    probes = [probe for probe in registry.COMMON if probe.lazy == lazy]
    if not lazy and attached.variant == registry.TPX:
        probes += registry.PER_CALL
    for probe in probes:
        if probe.program in attached.probes:
            continue
        try:
            attached.probes[probe.program] = kernel.attach_tracepoint(
                attached.programs[probe.program], probe.category, probe.name, tracefs)
        except OSError as error:
            if probe.required:
                raise errors.PreflightError(f"cannot attach {probe.category}:{probe.name}: {error}") from None
            missing.append(f"{probe.category}:{probe.name} ({probe.without})")
    if not lazy and attached.variant == registry.RAW and "raw_exit" not in attached.probes:
        for call, number in registry.CALLS.items():
            kernel.map_update(attached.maps["calls"], struct.pack("=I", number),
                              struct.pack("=I", attached.programs[f"raw_exit_{call}"]))
        attached.probes["raw_exit"] = kernel.attach_raw_tracepoint(attached.programs["raw_exit"], "sys_exit")
    return missing


class Loader:
    """The process; ``run`` returns its exit code."""

    def __init__(self, child: Child) -> None:
        start = child.start
        self._child = child
        self._counters = child.counters
        self._start = start
        self._clock = SystemClock()
        token = bytes.fromhex(start["token"])
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
        self._senders = [Sender(self.context, endpoints.shard(i), token, retain=True,
                                on_new_peer=functools.partial(self._introduce, i)) for i in range(start["shards"])]
        self._attached = Attached()
        self._rings: list[Ring] = []
        self._questions: Ring | None = None
        # (ring, its producer position when the answer was found, event): it must not overtake the OPEN it is about
        self._injected: collections.deque[tuple[int, int, bytes]] = collections.deque()
        self._limiter = addresses.Limiter()
        self._bits: dict[int, int] = {}
        self._pids: set[int] = set()
        self._tracefs = ""
        self._next_stats = 0.0
        self._heard = True
        self._wall = self._clock.wall_offset_ns()
        self._cpus = kernel.possible_cpus()
        spare = start.get("spare", 0)
        record = child.fds[1] if start.get("record") else None
        self._adopted_fds = child.fds[1 + spare:]
        self._writer = capturefile.Writer(record, start["rings"], start["record_limit"]) if record is not None else None
        self._stats_base = {name: self._counters[name] for name in _STATS if name != "null_accepts"}

    def _introduce(self, shard: int) -> None:
        """Tell a new shard the roles and ends of the connections that it now joins in the middle."""
        if not self._attached.maps:
            return
        told = 0
        wall = self._clock.monotonic_ns()
        for key in kernel.map_keys(self._attached.maps["conns"], 8):
            entry = kernel.map_lookup(self._attached.maps["conns"], key, compiler.CONN["sizeof"])
            if entry is None or entry[compiler.CONN["state"]] != compiler.CONN_HTTP or not entry[compiler.CONN["opened"]]:
                continue
            tgid, fd, gen = struct.unpack_from("=IiI", entry, compiler.CONN["tgid"])
            ring, local_port, remote_port = struct.unpack_from("=HHH", entry, compiler.CONN["ring"])
            if partition.shard_of_ring(ring, len(self._senders)) != shard:
                continue
            local, remote = compiler.CONN["local"], compiler.CONN["remote"]
            event = abi.pack_known((tgid, fd, gen), entry[local : local + 16], entry[remote : remote + 16], ts_ns=wall,
                                   role=entry[compiler.CONN["role"]], local_port=local_port, remote_port=remote_port,
                                   comm=addresses.process_name(tgid))
            self._injected.append((ring, self._rings[ring].produced(), event))
            told += 1
        log.warning("shard %d is new: %d connections introduced again", shard, told)

    # ---- start

    def run(self) -> int:
        """Until told to stop and everything is drained."""
        try:
            if self._start.get("test_rings"):
                self._use_test_rings()
            elif self._start.get("adopt"):
                self._adopt()
            else:
                self._set_up()
        except OSError as error:
            self._child.say({"kind": "problem", "text": f"cannot capture: {error}"})
            return errors.EXIT_CANNOT_CAPTURE
        except errors.CollectorError as error:
            self._child.say({"kind": "problem", "text": str(error)})
            return error.exit_code
        self._child.ready()
        delay, last = IDLE_SECONDS, time.monotonic()
        quarter = self._start["ring_bytes"] * len(self._rings) / 4
        while not self._child.stopping:
            moved = self._turn()
            now = time.monotonic()
            if moved > 4096:
                delay = min(RELAXED_SECONDS, max(BUSY_SECONDS, quarter * (now - last) / moved))
            else:
                delay = min(IDLE_SECONDS, delay * 1.5)
            last = now
            if moved < SPAN_BYTES:
                self._heard = bool(select.select([self._child.channel], [], [], delay)[0])
        return self._finish()

    def _use_test_rings(self) -> None:
        size = self._start["ring_bytes"]
        fds = self._child.fds[1:]
        self._rings = [Ring(fd, size, memfd=True) for fd in fds]

    def _defines(self) -> dict[str, int]:
        start = self._start
        defines = {**compiler.DEFAULTS, "RINGS": start["rings"], "CPUS": self._cpus}
        if start["pids"]:
            defines["SELECT_PIDS"] = 1
        if start["unix"]:
            defines["UNIX_SOCKETS"] = 1
        if tuple(int(n) for n in os.uname().release.split("-")[0].split(".")[:2]) < (5, 10):
            # inner maps must then be exactly as large as the template
            defines["RING_TEMPLATE_PAGES"] = start["ring_bytes"] // 4096
        return defines

    def _set_up(self) -> None:
        start = self._start
        tracefs = kernel.find_tracefs()
        if tracefs is None:
            raise errors.PreflightError("tracefs is not mounted and may not be mounted (see `collector check`)")
        self._tracefs = tracefs
        variants = start.get("variants") or compiler.default_variants()
        self._attached = attached = compile_programs(self._defines(), variants)
        size = start["ring_bytes"]
        for i in range(start["rings"]):
            fd = kernel.create_ring(size)
            attached.rings.append(fd)
            kernel.map_update(attached.maps["rings"], struct.pack("=I", i), struct.pack("=I", fd))
        self._map_rings()
        self._select(start["ours"])
        missing = attach(attached, tracefs)
        for what in missing:
            log.warning("not attached: %s", what)
        self._hand_over()

    def _hand_over(self) -> None:
        attached = self._attached
        manifest, fds = attached.manifest()
        line = (f"hooks {attached.variant}, {len(attached.probes)} probes, {len(attached.rings)} rings of "
                f"{self._start['ring_bytes'] >> 10} KiB")
        self._child.say({"kind": "attached", "line": line, **manifest, "verified": attached.verified}, fds)
        self._counters["probes"] = len(attached.probes)
        log.info("attached: %s", line)

    def _adopt(self) -> None:
        self._tracefs = kernel.find_tracefs() or ""
        self._attached = Attached.adopt(self._start["adopt"], self._adopted_fds)
        self._map_rings()
        # the bits that the loader before us had set: those of processes that are gone must be cleared
        if not self._start["pids"]:
            self._pids = set(self._start["known"])
            for pid in self._pids:
                self._bits[pid >> 6] = self._bits.get(pid >> 6, 0) | 1 << (pid & 63)
            self._pids.discard(os.getpid())
            self._bits[os.getpid() >> 6] = self._bits.get(os.getpid() >> 6, 0) & ~(1 << (os.getpid() & 63))
        self._select(self._start["ours"])
        self._counters["probes"] = len(self._attached.probes)

    def _map_rings(self) -> None:
        size = self._start["ring_bytes"]
        self._rings = [Ring(fd, size) for fd in self._attached.rings]
        self._questions = Ring(self._attached.maps["questions"], 16 * 4096)

    def _select(self, ours: list[int]) -> None:
        """Keep our own processes out of the capture, or the chosen ones in."""
        chosen = set(self._start["pids"]) if self._start["pids"] else {*ours, os.getpid()}
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
            sender.send((messages.pack_span(number, position, length),), self._wall, kind=messages.SPAN, size=length,
                        done=functools.partial(ring.release, position + length))
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
        try:
            self._writer.write(number, span, wall)
        except OSError as error:
            self._child.say({"kind": "problem", "text": f"--record: {error.strerror}; recording stopped"})
            self._writer = None
            return
        self._counters["record_file_bytes"] = self._writer.written_bytes
        self._counters["record_file_skipped_bytes"] = self._writer.skipped_bytes

    def _answer(self) -> None:
        """Connections that user space must look at."""
        assert self._questions is not None
        span = self._questions.drain(65536)
        if span is None:
            return
        step = (_QUESTION.size + 8 + 7) & ~7
        for at in range(0, len(span) - step + 1, step):
            tgid, fd, gen, ring = _QUESTION.unpack_from(span, at + 8)
            self._look_at(tgid, fd, gen, ring)

    def _look_at(self, tgid: int, fd: int, gen: int, ring: int) -> None:
        known = addresses.is_socket(tgid, fd)
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
        if found is None or found.family == 0 or (found.family == 1 and not self._start["unix"]):
            self._ignore(tgid, fd, gen)
            event = abi.pack_close((tgid, fd, gen), ts_ns=self._clock.monotonic_ns(), reason=abi.NOT_HTTP)
        elif not self._is_still(tgid, fd, gen):
            self._counters.add("addresses_failed")  # the number may belong to another connection already
            return
        else:
            self._counters.add("addresses_resolved")
            event = abi.pack_open((tgid, fd, gen), ts_ns=self._clock.monotonic_ns(), role=abi.UNKNOWN,
                                  local=found.local, remote=found.remote, type=abi.ADDRESS)
        self._injected.append((ring, self._rings[ring].produced(), event))

    def _is_still(self, tgid: int, fd: int, gen: int) -> bool:
        """Does the kernel still know this connection under this descriptor?"""
        entry = kernel.map_lookup(self._attached.maps["conns"], struct.pack("=Q", tgid << 32 | fd),
                                  compiler.CONN["sizeof"])
        return entry is not None and struct.unpack_from("=I", entry, compiler.CONN["gen"])[0] == gen

    def _ignore(self, tgid: int, fd: int, gen: int) -> None:
        """Set the ignore flag of an entry, if it is still the same connection."""
        key = struct.pack("=Q", tgid << 32 | fd)
        try:
            entry = kernel.map_lookup(self._attached.maps["conns"], key, compiler.CONN["sizeof"])
            if entry is None or struct.unpack_from("=I", entry, compiler.CONN["gen"])[0] != gen:
                return
            changed = bytearray(entry)
            changed[compiler.CONN["state"]] = compiler.CONN_IGNORED
            kernel.map_update(self._attached.maps["conns"], key, bytes(changed), 2)  # BPF_EXIST
        except OSError as error:
            log.debug("cannot set an entry aside: %s", error)

    def _inject(self, wall: int) -> None:
        for _ in range(len(self._injected)):
            ring, position, event = self._injected.popleft()
            sender = self._senders[partition.shard_of_ring(ring, len(self._senders))]
            if self._rings[ring].announced < position or sender.room() < len(event):
                self._injected.append((ring, position, event))
                continue
            sender.send((event,), wall)
            if self._writer is not None:
                self._record(ring, event, wall)

    def _read_stats(self) -> None:
        if not self._attached.maps:
            return
        for i, name in enumerate(_STATS):
            value = kernel.map_lookup(self._attached.maps["stats"], struct.pack("=I", i), 8 * self._cpus)
            total = sum(struct.unpack(f"={self._cpus}Q", value)) if value else 0
            if name == "null_accepts":
                if total and "tp_tcp_recv" not in self._attached.probes and self._tracefs:
                    self._attach_lazy()
            else:
                self._counters[name] = total
        self._counters["spans_announced_again"] = sum(sender.resent for sender in self._senders)
        self._counters["ring_high_water_bytes"] = max((ring.high_water for ring in self._rings), default=0)

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
        return 1 if left else 0


def main() -> int:
    """Entry of the child process."""
    child = Child.begin(LOADER_NAMES)
    loader = Loader(child)
    code = loader.run()
    loader.context.destroy(0)
    return code


if __name__ == "__main__":
    raise SystemExit(main())
