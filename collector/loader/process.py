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
import time
from collections.abc import Mapping, Sequence
from typing import Any

import zmq

from collector import capturefile, control, errors
from collector.attribution import owners
from collector.clock import SystemClock
from collector.config_values import ALL_LIBRARIES
from collector.counter_names import LOADER_NAMES
from collector.loader import compiler, entries, kernel, preflight
from collector.loader.blindspots import Blindspots
from collector.loader.catalogue import Catalogue
from collector.loader.choice import Choice
from collector.loader.introductions import introductions, library_names
from collector.loader.libraries import Libraries
from collector.loader.mapped import Proc
from collector.loader.newcomers import RING_BYTES as NEWCOMERS_BYTES
from collector.loader.newcomers import Newcomers
from collector.loader.ownership import Ownership, without_process_ids
from collector.loader.probes import sources as probe_sources
from collector.loader.probes.attachments import Attachments
from collector.loader.probes.newcomers import Newcomers as NewcomersSource
from collector.loader.probes.owners import Owners
from collector.loader.probes.probe import Source, Uprobe
from collector.loader.programs import MULTI, Loaded, compile_programs
from collector.loader.questions import Questions
from collector.loader.ringbuffer import Ring
from collector.loader.selecting import OwnedSelection
from collector.loader.selection import Selection
from collector.loader.statistics import Statistics
from collector.router import endpoints, messages, partition
from collector.router.channel import Sender
from collector.runtime import Child, run_process
from collector.settings import ALL_CONNECTIONS, LoaderStart

log = logging.getLogger("loader")

SPAN_BYTES = 2 << 20
# How long to sleep between two looks at the rings: long enough that a look is worth its cost (some 100 us with all
# wake-ups that follow), short enough that a ring fills to a quarter at most. See docs/benchmarks.md.
BUSY_SECONDS, RELAXED_SECONDS, IDLE_SECONDS = 0.002, 0.02, 0.05
WAKE_PART = 4  # the kernel wakes the loader when a ring is filled to this part
WINDOW_PART = 8  # of a ring: what one connection may fill between two drains
PRESSING_SECONDS = 0.001  # while a ring is filled further, for acknowledgements that give room back
STOP_SECONDS = 8.0
ADOPT_SECONDS = 10.0  # for the descriptors of the loader before


def attach_sources(sources: Sequence[Source], loaded: Loaded, attachments: Attachments) -> list[str]:
    """Attach what sources want at the start. Returns what is missing, in words; raises PreflightError when something
    indispensable is.
    """
    missing = []
    for source in sources:
        for jump in source.jumps(loaded.build):
            kernel.map_update(
                loaded.maps[jump.table], struct.pack("=I", jump.index), struct.pack("=I", loaded.programs[jump.program])
            )
    for source in sources:
        for probe in source.probes(loaded.build):
            if probe.need or isinstance(probe.at, Uprobe):
                continue
            error = attachments.attach_once(probe)
            if error is not None and probe.required:
                raise errors.PreflightError(f"cannot attach {probe.at}: {error}")
            if error is not None:
                missing.append(f"{probe.at} ({probe.without})")
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
        self._senders = [
            Sender(self.context, endpoints.shard(i), token, on_peer=functools.partial(self._introduce, i))
            for i in range(start.shards)
        ]
        self._sources: Sequence[Source] = ()
        self._loaded = Loaded()
        self._attachments = Attachments({}, "", multi=False)
        self._libraries: Libraries | None = None
        self._catalogue: Catalogue | None = None
        self._selection: Selection | OwnedSelection | None = None
        self._statistics = Statistics(self._loaded, self._counters, self._settings.connections)
        self._blindspots: Blindspots | None = None
        self._questions: Questions | None = None
        self._owners_of: Ownership | None = None
        self._rings: list[Ring] = []
        # (ring, its producer position when the answer was found, event): it must not overtake the OPEN it is about
        self._injected: collections.deque[tuple[int, int, bytes]] = collections.deque()
        self._owners: owners.Provider = owners.ProcessProvider()
        self._calm = self._pressing = select.epoll()
        self._nested = preflight.own_pid_namespace()  # then the kernel's process ids are not those of our /proc
        self._next_stats = 0.0
        self._heard = True
        self._stopped = False  # nothing is attached any more
        self._unheard: list[dict[str, Any]] = []  # messages that came while we waited for others
        self._wall = self._clock.wall_offset_ns()
        record = child.fds[1] if settings.record else None
        self._writer: capturefile.Writer | None = None
        self._record_failed = False
        if record is not None:
            self._writer = capturefile.Writer(
                record, settings.rings, settings.record_limit, self._counters["record_file_bytes"]
            )
            self._writer.skipped_bytes = self._counters["record_file_skipped_bytes"]

    def _introduce(self, shard: int, again: bool) -> None:
        """Tell a new shard the roles and ends of the connections that it now joins in the middle, before the spans that its
        last life did not acknowledge. A new loader cannot know whether a shard is new, too.
        """
        if not self._loaded.maps or not (again or self._start.adopt):
            return
        self._forget_names(shard)
        if self._catalogue is not None and (names := self._catalogue.names()):
            libraries = library_names(names, now_ns=self._clock.monotonic_ns())
            self._senders[shard].introduce((libraries,), wall_offset_ns=self._wall)
        if self._owners_of is not None and (peers := self._owners_of.introduction()):
            self._senders[shard].introduce((peers,), wall_offset_ns=self._wall)
        told = 0
        for events, count in introductions(
            self._loaded.maps,
            shard,
            len(self._senders),
            now_ns=self._clock.monotonic_ns(),
            provider=self._owners if self._nested is None else None,
            owned=self._owners_of.introduce if self._owners_of is not None else None,
        ):
            self._senders[shard].introduce((b"".join(events),), wall_offset_ns=self._wall)
            told += count
            self._child.beat()
        log.warning("shard %d may be new: %d open connections re-announced", shard, told)

    def _forget_names(self, shard: int) -> None:
        """A new shard knows no process's name, and nothing of TLS: the kernel tells them again."""
        rings = [ring for ring in range(len(self._rings)) if partition.shard_of_ring(ring, len(self._senders)) == shard]
        entries.forget_names(self._loaded.maps["processes"], sum(1 << ring for ring in rings))
        entries.begin_lives(self._loaded.maps["ring_lives"], rings)

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
                self._sleep(min(delay, self._libraries.pause() if self._libraries is not None else delay))
        return self._finish()

    def _watch_descriptors(self) -> None:
        """What ends a sleep: the supervisor, and the kernel when a ring has filled (edge-triggered: a ring with anything in
        it is always readable); while a ring is full, acknowledgements too.
        """
        channel = self._child.channel.fileno()
        self._calm, self._pressing = select.epoll(), select.epoll()
        for poll in (self._calm, self._pressing):
            poll.register(channel, select.EPOLLIN)
            asked = [self._loaded.maps["owners"]] if isinstance(self._selection, OwnedSelection) else []
            for fd in [*self._loaded.rings, *asked]:
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
        defines = {
            **compiler.DEFAULTS,
            "MAX_CONNS": settings.connections,
            "RINGS": settings.rings,
            "CPUS": kernel.possible_cpus(),
            "WAKE_BYTES": size // WAKE_PART,
            "RUN_BYTES": run,
            "WINDOW_BYTES": max(chunk, size // WINDOW_PART),
        }
        if settings.unix:
            defines["UNIX_SOCKETS"] = 1
        if not settings.plain:
            defines["ONLY_LIBRARIES"] = 1
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
        variants = list(settings.variants) or compiler.default_variants()
        self._loaded = loaded = compile_programs(
            self._defines(),
            variants,
            settings.identity,
            settings.sources,
            settings.uprobes,
            settings.program_cache,
            self._child.beat,
        )
        for note in loaded.notes:
            log.log(logging.WARNING if loaded.suspicious else logging.INFO, "%s", note)
        log.info("kernel programs %s", "as compiled at an earlier start" if loaded.cached else "compiled")
        if loaded.why and settings.identity == compiler.AUTO:
            log.warning("connections are known by descriptor: %s", loaded.why)
        size = settings.ring_bytes
        for i in range(settings.rings):
            fd = kernel.create_ring(size)
            loaded.rings.append(fd)
            kernel.map_update(loaded.maps["rings"], struct.pack("=I", i), struct.pack("=I", fd))
        self._use(tracefs)
        assert self._selection is not None
        self._selection.begin()
        self._selection.update(self._start.ours)
        # nobody needs to know where a program begins when no library is looked for
        idle = ((NewcomersSource,) if not settings.libraries else ()) + (
            () if isinstance(self._selection, OwnedSelection) else (Owners,)
        )
        used = [source for source in self._sources if not isinstance(source, idle)]
        for what in attach_sources(used, loaded, self._attachments):
            log.warning("not attached: %s", what)
        for names, fds in control.batches(loaded.named()):
            self._child.say({"kind": "held", "names": names}, fds)
        self._tell_attached()
        line = (
            f"hooks {loaded.variant}, identity {loaded.identity}, {len(self._attachments)} probes, "
            f"{len(loaded.rings)} rings of {size >> 10} KiB"
        )
        self._child.say(
            {"kind": "attached", "line": line, "state": loaded.state().to_message(), "verified": loaded.verified}
        )
        log.info("attached: %s", line)

    def _tell_attached(self) -> None:
        """What is attached and released goes to the supervisor, and into its duplicates."""
        for names, fds, gone in self._attachments.delta():
            if gone:
                self._child.say({"kind": "released", "names": [f"probes/{name}" for name in gone]})
            else:
                self._child.say({"kind": "held", "names": [f"probes/{name}" for name in names]}, fds)
        self._counters["probes"] = len(self._attachments)

    def _adopt(self) -> None:
        """Go on with what the loader before us had; its descriptors come in messages behind the start message."""
        adopt, named = self._start.adopt, dict[str, int]()
        assert adopt is not None
        deadline = time.monotonic() + ADOPT_SECONDS
        while len(named) < adopt.descriptors:
            if not control.readable(self._child.channel, 0.1) and time.monotonic() > deadline:
                raise errors.ChildError(f"{len(named)} of {adopt.descriptors} descriptors came")
            for message in self._child.hear():
                if message.get("kind") == "held":
                    named.update(zip(message["names"], message["fds"], strict=True))
                else:
                    self._unheard.append(message)
            self._child.beat()
        self._loaded = Loaded.adopt(adopt.state, named)
        self._use(
            kernel.find_tracefs() or "",
            {name.removeprefix("probes/"): fd for name, fd in named.items() if name.startswith("probes/")},
        )
        assert self._selection is not None
        # the bits that the loader before us had set: those of processes that are gone must be cleared
        self._selection.adopt(self._start.known)
        self._selection.update(self._start.ours)
        self._counters["probes"] = len(self._attachments)

    def _use(self, tracefs: str, probes: Mapping[str, int] | None = None) -> None:
        """Everything that works with what was loaded; ``probes``: those that are attached already."""
        settings, loaded = self._settings, self._loaded
        self._sources = probe_sources(settings.sources)
        self._attachments = Attachments(loaded.programs, tracefs, multi=loaded.uprobes == MULTI)
        self._attachments.adopt(probes or {})
        self._choose()
        if "libraries" in loaded.maps:
            self._catalogue = Catalogue(loaded.maps["libraries"])
            chosen = settings.libraries
            self._libraries = Libraries(
                [source for source in self._sources if ALL_LIBRARIES in chosen or source.name in chosen],
                settings.sources,
                loaded.build,
                self._attachments,
                self._catalogue,
                self._start.reader_uid,
                wanting=loaded.maps["wanting"] if self._nested is None else None,
                newcomers=self._newcomers(),
                proc=Proc(settings.proc),
                choice=Choice.of(
                    settings.library_programs,
                    containers=settings.containers,
                    captured=self._selection.captures if isinstance(self._selection, OwnedSelection) else None,
                ),
                look_seconds=settings.look_seconds,
            )
        self._rings = [Ring(fd, settings.ring_bytes) for fd in loaded.rings]
        self._questions = Questions(loaded.maps, self._counters, self._owners, proc=self._nested is None, unix=settings.unix)
        self._statistics = Statistics(loaded, self._counters, settings.connections)
        self._blindspots = Blindspots(
            loaded.maps["unseen_processes"], self._probed, self._start.reader_uid, proc=self._nested is None
        )

    def _choose(self) -> None:
        """Whose the processes are, if that is asked for, and which are captured."""
        settings, maps = self._settings, self._loaded.maps
        if settings.owners is not None and self._nested is not None:
            without_process_ids(settings.owners)
        elif settings.owners is not None:
            self._owners_of = Ownership(maps, settings, self._clock, self._tell_owner, self._tell_all)
            self._selection = self._owners_of.selection
        if self._selection is None:
            self._selection = Selection(maps["pid_bits"], settings.pids, settings.names)

    def _probed(self) -> set[str]:
        return self._libraries.probed() if self._libraries is not None else set()

    def _newcomers(self) -> Newcomers | None:
        if not self._settings.libraries or self._nested is not None:
            return None
        return Newcomers(Ring(self._loaded.maps["newcomers"], NEWCOMERS_BYTES), self._loaded.maps["newcomers_told"])

    # ---- the loop

    def _turn(self) -> int:
        """Drain every ring once; returns the bytes moved."""
        moved = 0
        if self._heard:
            self._heard = False
            unheard, self._unheard = self._unheard, []
            for message in [*unheard, *self._child.hear()]:
                if message.get("kind") == "pids" and self._selection is not None:
                    self._selection.update(message["ours"])
                elif message.get("kind") == "new_shard" and self._loaded.maps:
                    self._forget_names(message["number"])
                elif message.get("kind") == "pods":
                    for fd in message["fds"]:
                        (self._owners_of.listen if self._owners_of is not None else os.close)(fd)
                elif message.get("kind") == "share" and self._loaded.maps:
                    entries.leave_out(self._loaded.maps["beyond"], ALL_CONNECTIONS - message["share"])
        for sender in self._senders:
            sender.service()
        if self._questions is not None:
            for number, event in self._questions.answers(self._clock.monotonic_ns()):
                self._injected.append((number, self._rings[number].produced(), event))
        self._tell_libraries()
        if self._owners_of is not None:
            self._owners_of.turn()
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
            if self._owners_of is not None:  # what was asked before these events is answered before they are read
                self._owners_of.answer()
            sender.send(
                (messages.pack_span(number, position, length),),
                kind=messages.SPAN,
                size=length,
                wall_offset_ns=self._wall,
                done=functools.partial(ring.release, position + length),
            )
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
        if self._selection is not None and not self._stopped:
            self._selection.turn(now)
        if self._libraries is not None:
            if self._owners_of is not None:
                self._owners_of.come(self._libraries)
            self._libraries.turn(now)
            self._tell_attached()
        self._child.beat()
        return moved

    def _tell_owner(self, ring: int, event: bytes) -> None:
        self._senders[partition.shard_of_ring(ring, len(self._senders))].send((event,), wall_offset_ns=self._wall)
        if self._writer is not None:
            self._record(ring, event, self._wall)

    def _tell_libraries(self) -> None:
        """Tell every shard the names of libraries that were found in the last turn. It drained the rings before their probes
        were attached, so no span that a shard was told of has their events yet. A recording has the names for every ring, as
        another number of shards may replay it.
        """
        names = self._catalogue.untold() if self._catalogue is not None else None
        if not names:
            return
        self._tell_all(library_names(names, now_ns=self._clock.monotonic_ns()))

    def _tell_all(self, events: bytes) -> None:
        for sender in self._senders:
            sender.send((events,), wall_offset_ns=self._wall)
        if self._writer is not None:
            for ring in range(len(self._rings)):
                self._record(ring, events, self._wall)

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
            log.warning(
                "--record: the limit of %d bytes is reached: later events are counted, not written",
                self._settings.record_limit,
            )
        self._counters["record_file_bytes"] = self._writer.written_bytes
        self._counters["record_file_skipped_bytes"] = self._writer.skipped_bytes

    def _cannot_record(self, error: OSError) -> None:
        self._record_failed = True
        self._child.say(
            {
                "kind": "problem",
                "text": f"--record: {error.strerror}: later events are counted, not written; capture goes on",
            }
        )

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
        now = time.monotonic()
        totals = self._statistics.read(now, sweep=not self._stopped)
        if self._libraries is not None:
            counters = self._counters
            counters["libraries"], counters["libraries_failed"], counters["library_reads"] = self._libraries.figures()
        if self._owners_of is not None:
            self._counters["processes_without_place"] = self._owners_of.unknown
        self._attach_needed(totals)
        if self._blindspots is not None:
            for message in self._blindspots.turn(now, totals["kernel_tls"] + totals["kernel_quic"]):
                self._child.say(message)
        self._counters["spans_announced_again"] = sum(sender.resent for sender in self._senders)
        self._counters["ring_high_water_bytes"] = max((ring.high_water for ring in self._rings), default=0)

    def _attach_needed(self, totals: Mapping[str, int]) -> None:
        """The probes that wait for something to be counted (Probe.need)."""
        if self._stopped:
            return
        for source in self._sources:
            for probe in source.probes(self._loaded.build):
                if probe.need and totals.get(probe.need):
                    error = self._attachments.attach_once(probe)
                    if error is not None:
                        log.warning("not attached: %s (%s): %s", probe.at, probe.without, error)

    # ---- the end

    def _finish(self) -> int:
        """Probes off, rings drained, the end to every shard, all of it acknowledged."""
        deadline = time.monotonic() + STOP_SECONDS
        self._read_stats()
        self._stopped = True
        if self._libraries is not None:
            self._libraries.close()
            self._libraries = None
        if self._blindspots is not None:
            self._blindspots.close()
            self._blindspots = None
        if self._selection is not None:
            self._selection.stop()
        self._attachments.close_kernel()
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
