"""Over all: starts the children, watches them, repairs, stops them in the order of the data.

    start   sink, shards, loader          (receivers start before senders)
    stop    loader, shards, sink          (each drains into the next, then ends)

A child that ends is noticed at once and started again; one that hangs, within seconds. The supervisor keeps
duplicates of everything the kernel gave the loader, so a new loader goes on where the old one was, and nothing is
compiled again. What a killed child held is known from shared memory and counted.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import signal
import time
from typing import Any

from collector import confine, counted, counter_names, errors, logs, unsupported
from collector.counters import CounterMemory, Counters
from collector.errors import ChildError, ProtocolError
from collector.router import slots
from collector.runtime import Usage
from collector.settings import STOP_SINK_SECONDS, Rings
from collector.supervisor import identity, policy, starting
from collector.supervisor.child import ChildProcess
from collector.supervisor.following import Following
from collector.supervisor.handover import KINDS, Handover
from collector.supervisor.health import Health
from collector.supervisor.losses import Losses
from collector.supervisor.memory import Guard
from collector.supervisor.output import Output
from collector.supervisor.policy_file import PolicyFile
from collector.supervisor.said import may_say
from collector.supervisor.shedding import Shedding
from collector.supervisor.starting import Plan
from collector.supervisor.thermostat import Thermostat
from collector.supervisor.unseen import Unseen
from collector.supervisor.viewers import Viewers
from collector.supervisor.waiting import wait

log = logging.getLogger("supervisor")

NOTICE_SECONDS = 0.1

_HELD = (signal.SIGHUP, signal.SIGUSR1)
STOP_LOADER_SECONDS, STOP_SHARDS_SECONDS = 10.0, 10.0
STACKS_SECONDS = 0.1  # for one that hangs to say where, before it is killed


def hold_signals() -> None:
    """Neither SIGHUP nor SIGUSR1 ends us, nor a child, at any moment: blocked, here and in all that are started from now on.
    The supervisor takes them when it comes to it. To be called before there is a thread.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)


class Supervisor:
    """See the module. ``run`` blocks until everything has ended and returns the exit code."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.shards = plan.supervisor.shards
        self._memory = CounterMemory(self.shards + 3)
        self.own = Counters(self._memory.block(self.shards + 2), counter_names.SUPERVISOR_NAMES)
        self._usage = Usage(self.own)
        self._core = [Counters(self._memory.block(i), counter_names.CORE_NAMES, 0) for i in range(self.shards)]
        self._losses = Losses(self.own, self._core, lambda message: self.sink.tell(message))
        self._deaths_while_fed: dict[int, int] = {}
        self._known_pids: set[int] = set()  # all that the kernel programs were ever told to leave alone
        self._signals = 0
        self._exit_code = 0
        self._stop_reason = ""
        self._failed = ""
        self._slots: dict[int, tuple[int, int]] = {}  # shard -> (life, memory of its batches)
        self._handover = Handover()
        self._announced = False
        self._unseen = Unseen()
        self._unsupported = unsupported.Totals()
        self.problems: list[str] = []
        self._last_turn = time.monotonic()
        self.sink = ChildProcess(
            "sink",
            "sink",
            starting.SINK,
            self.shards + 1,
            Counters(self._memory.block(self.shards + 1), counter_names.SINK_NAMES),
        )
        self._output = Output(plan, self.sink.counters, self.own, self._tell_sink)
        self.shard_children = [
            ChildProcess(
                f"shard-{i}", "shard", starting.SHARD, i, Counters(self._memory.block(i), counter_names.SHARD_NAMES)
            )
            for i in range(self.shards)
        ]
        self._policy = PolicyFile(plan.policy, self.own, self.shard_children)
        self._viewers = Viewers(plan.view_directory, self.shard_children, self.own)
        self.loader = ChildProcess(
            "loader",
            "loader",
            starting.FIRST_STAGE[type(plan.loader)],
            self.shards,
            Counters(self._memory.block(self.shards), counter_names.LOADER_NAMES),
        )
        self.children = [self.sink, *self.shard_children, self.loader]  # the stages of the data
        self._health: Health | None = None
        if plan.health_directory is not None:
            self._health = Health(plan.supervisor.health_address, plan.health_directory, self._memory)
        self._following: Following | None = None
        if plan.kubernetes is not None:
            self._following = Following(plan.kubernetes, self.loader, self.own)
        # what capture does without, if it has to
        self._beside = [beside.child for beside in (self._health, self._following) if beside is not None]
        self.everyone = [*self.children, *self._beside]
        # for the stages, the health child, who reads libraries for the loader, and who follows the API server
        self._identity = identity.choose(4)
        self._unconfined = confine.require()
        for why in filter(None, (self._identity.why, self._unconfined)):
            log.log(logging.WARNING if plan.supervisor.live else logging.INFO, "%s", why)
        self._messages = starting.Messages(plan, self._memory.blocks, next(iter(self._identity.ids), None))
        self._shedding = Shedding(
            Guard(plan.supervisor.soft_bytes, plan.supervisor.hard_bytes, plan.supervisor.memory_check_seconds),
            self.sink,
            self.shard_children,
            self._core,
            self.own,
            queue_bytes=plan.supervisor.queue_bytes,
            live=plan.supervisor.live,
        )
        self._thermostat = Thermostat(plan.supervisor.cpu)
        self._told: dict[str, dict[str, Any]] = {}  # what shards are told in every life, by kind
        self._share_out()
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    # ---- starts

    def _start(self, child: ChildProcess) -> None:
        directory = self._plan.directory
        if child.role == "shard":
            self._new_slots(child.block, child.lives)
            child.start(
                self._messages.shard(
                    child.block,
                    child.lives,
                    buffer_bytes=self._shedding.budget(),
                    suspects=policy.suspects(self._deaths_while_fed),
                    rings=self._rings(),
                ),
                [self._memory.fd, self._slots[child.block][1], self._policy.fd, *self._plan.descriptors, *self._ring_fds()],
                directory,
            )
            for message in self._told.values():
                child.tell(message)
        elif child.role == "sink":
            child.start(
                self._messages.sink([(shard, life) for shard, (life, _fd) in self._slots.items()]),
                [
                    self._memory.fd,
                    *self._output.fds(),
                    *self._plan.recording,
                    *(fd for _life, fd in self._slots.values()),
                ],
                directory,
            )
            self._output.sink_started()
        elif self._health is not None and child is self._health.child:
            self._health.start(
                self._plan.supervisor.log_level, self._identity.ids[1] if self._identity.ids else None, self._state()
            )
        elif self._following is not None and child is self._following.child:
            self._following.start(self._plan.supervisor.log_level, self._identity.ids[3] if self._identity.ids else None)
        else:
            child.start(
                self._messages.first_stage(
                    ours=self.pids(),
                    known=sorted(self._known_pids),
                    adopt=self._handover.offer(),
                    reader_uid=self._identity.ids[2] if self._identity.ids else None,
                ),
                [self._memory.fd, *self._plan.loader_fds],
                directory,
            )
            self._handover.turn(child)
            if self._plan.supervisor.live:
                child.tell(self._told["share"])
        self._known_pids.update(self.pids())
        if child.role == "shard" and child.lives > 1:
            self.loader.tell({"kind": "new_shard", "number": child.block})
        if child is not self.loader:
            self.loader.tell({"kind": "pids", "ours": self.pids()})

    def _new_slots(self, shard: int, life: int) -> None:
        """Memory for the batches of a new life of a shard, made known to the sink first."""
        old = self._slots.pop(shard, None)
        if old is not None:
            os.close(old[1])
        self._slots[shard] = (life, slots.create(slots.count_for(self.shards)))
        self._tell_sink({"kind": "slots", "shard": shard, "life": life}, self._slots[shard][1])

    def _tell_sink(self, message: dict[str, Any], fd: int) -> None:
        """Send the sink what it must know. When that fails it is killed: its next life gets everything at its start."""
        if not self.sink.tell(message, [fd]) and self.sink.pid is not None:
            log.error("cannot reach the sink's control channel; killing it")
            self.sink.kill()

    def _rings(self) -> Rings | None:
        """What a shard must know to map the rings; without rings (yet) nothing."""
        settings = self._plan.rings
        if settings is None or not self._ring_fds():
            return None
        return Rings(ring_bytes=settings.ring_bytes, memfd=settings.test_rings)

    def _ring_fds(self) -> list[int]:
        """The descriptors of the rings, and behind those of the kernel the words that it reads (Handover.rings), for shards:
        they map them and close them at once (the kernel does not map a read-only descriptor, but a read-only mapping cannot
        be made writable later).
        """
        if self._plan.rings is not None and self._plan.rings.test_rings:
            return list(self._plan.loader_fds)
        return self._handover.rings()

    # ---- the health pages

    def _state(self) -> dict[str, Any]:
        """What only we know; the health child is told when it changes."""
        return {
            "live": list(self.live()),
            "ready": list(self.ready()),
            "unseen": self._unseen.rows,
            "unsupported": self._unsupported.samples(),
            "pid": os.getpid(),
            "policy": self._policy.policy,
            "notes": [why for why in (self._identity.why, self._unconfined) if why],
            "children": [
                {"name": child.name, "pid": child.pid, "ready": child.ready, "lives": child.lives} for child in self.everyone
            ],
        }

    def live(self) -> tuple[bool, str]:
        """Live fails only when repair failed."""
        return (not self._failed, self._failed or "ok")

    def ready(self) -> tuple[bool, str]:
        """Probes attached and every child at work."""
        missing = [child.name for child in self.children if not child.ready]
        if self._stop_reason:
            return False, f"stopping: {self._stop_reason}"
        return (not missing, "ok" if not missing else "not ready: " + ", ".join(missing))

    def totals(self) -> dict[str, int]:
        """Sums over the shards, and the other children's numbers by `role_key`."""
        return counted.totals(counted.readings(self._memory))

    def pids(self) -> list[int]:
        """Of the whole tree, this process first."""
        return [os.getpid(), *(child.pid for child in self.everyone if child.pid is not None)]

    # ---- the loop

    def run(self) -> int:
        """Until a signal, the planned end, or a failure that cannot be repaired."""
        old = {number: signal.signal(number, self._on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            self._make_directory()
            self._viewers.open()
            if self._health is not None:
                self._health.open(time.monotonic())
                self._start_beside(self._health.child, time.monotonic())
            if self._following is not None:
                self._start_beside(self._following.child, time.monotonic())
            for child in [self.loader] if self._plan.supervisor.compiler_first else self.children:
                self._start(child)
            started = time.monotonic()
            while not self._stop_reason:
                self._turn(0.1)
                duration = self._plan.supervisor.duration_seconds
                if duration is not None and self.loader.ready and time.monotonic() - self._ready_since(started) > duration:
                    self._stop("duration is over")
            self._shut_down()
        finally:
            for child in self.everyone:
                child.kill()
            for child in self.everyone:
                while child.pid is not None and not child.reap():
                    time.sleep(0.005)
            self._handover.release()
            for _life, fd in self._slots.values():
                os.close(fd)
            self._slots.clear()
            self._policy.close()
            self._viewers.close()
            if self._health is not None:
                self._health.close()
            if self._following is not None:
                self._following.close()
            if self._plan.directory:
                shutil.rmtree(self._plan.directory, ignore_errors=True)
            for number, handler in old.items():
                signal.signal(number, handler)
        if self._failed:
            raise ChildError(self._failed)
        return self._exit_code

    def _ready_since(self, fallback: float) -> float:
        return self._captures_since if self._captures_since else fallback

    _captures_since = 0.0
    _not_begun = False  # the end came before the loader captured anything

    def _on_signal(self, number: int, _frame: object) -> None:
        self._signals += 1
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_write, b"s")
        if self._signals > 1:
            for child in self.everyone:
                child.kill()
            self._handover.release()
            if self._plan.directory:
                shutil.rmtree(self._plan.directory, ignore_errors=True)
            os._exit(128 + number)

    def _make_directory(self) -> None:
        directory = self._plan.directory
        if not self._plan.directory_exists:
            os.mkdir(directory, 0o700)
        if self._identity.ids:
            os.chown(directory, self._identity.ids[0], self._identity.ids[0], follow_symlinks=False)

    def _stop(self, reason: str, code: int = 0) -> None:
        if not self._stop_reason:
            self._stop_reason = reason
            self._exit_code = code
            log.info("stopping: %s", reason)

    def _wait(self, seconds: float) -> None:
        """Until something may have happened: a message, a log line, an end, a signal."""
        self.own["heartbeat_ns"] = time.monotonic_ns()
        self._usage.turn()
        wait(self._wake_read, self.everyone, self._viewers.sockets(), seconds)
        self._viewers.turn(time.monotonic())

    def _answer_signals(self) -> None:
        """SIGHUP, or the output is due by itself: open it again. SIGUSR1: say how it stands, and
        where the threads of all children are. Neither does anything else.
        """
        while (held := signal.sigtimedwait(_HELD, 0)) is not None:
            if held.si_signo == signal.SIGHUP:
                self._output.open_again("SIGHUP")
                self._policy.read_again("SIGHUP")
            else:
                said = logging.getLogger("statistics")
                said.setLevel(logging.INFO)  # asked for: whatever the level
                said.info("%s", json.dumps(self.statistics()))
                for child in self.everyone:
                    child.show_stacks()
        self._output.turn(time.monotonic())
        self._policy.turn(time.monotonic())

    def statistics(self) -> dict[str, Any]:
        """What SIGUSR1 asks for: the processes, and all counters as in `totals`."""
        return {
            "ready": self.ready()[1],
            "processes": {child.name: {"pid": child.pid, "lives": child.lives} for child in self.children},
            **self.totals(),
        }

    def _turn(self, seconds: float) -> None:
        self._wait(seconds)
        self._answer_signals()
        now = time.monotonic()
        if now - self._last_turn > policy.HANG_SECONDS / 2:
            # we were stopped ourselves (freezer, SIGSTOP): the children's silence proves nothing
            for child in self.everyone:
                child.counters["heartbeat_ns"] = time.monotonic_ns()
        self._last_turn = now
        if self._signals:
            self._stop("signal")
        for child in self.everyone:
            child.read_logs()
            for message, fds in child.said():
                self._heard(child, message, fds)
            self._watch(child, now)
        self._handover.turn(self.loader)
        if self._following is not None:
            self._following.turn(now)
        self._watch_memory(now)
        self._watch_cpu(now)
        self._tell_health(now)

    def _tell_health(self, now: float) -> None:
        if self._health is not None:
            self._health.turn(now, self._state())

    def _start_beside(self, child: ChildProcess, now: float) -> None:
        """Its trouble is never ours: what cannot be started is tried again."""
        try:
            self._start(child)
        except OSError as error:
            child.did_not_start(now, error)
            child.restart_at = now + max(policy.restart_delay(child.history) or policy.MAX_DELAY, policy.FIRST_DELAY)

    def _heard(self, child: ChildProcess, message: dict[str, Any], fds: list[int]) -> None:
        kind = message.get("kind")
        if not may_say(child.role, message, hands_over=child is self.loader and self._plan.rings is not None):
            log.error("%s sent a message that its role may not send, or a malformed one; killing it", child.name)
            child.kill()
        elif self._health is not None and child is self._health.child:
            child.ready = True
            self._health.serves()
        elif kind == "ready":
            child.ready = True
            if child is self.loader and not self._captures_since:
                self._captures_since = time.monotonic()
            self._announce()
        elif kind in KINDS:
            try:
                self._handover.heard(message, fds)
            except (ValueError, KeyError, ProtocolError) as error:
                log.error("%s sent a malformed hand-over (%s); killing it", child.name, error)
                child.kill()
            self._start_others()
            for shard in self.shard_children if kind == "attached" else ():
                if (rings := self._rings()) is not None:
                    shard.tell({"kind": "rings", "rings": rings.to_message()}, self._ring_fds())
        elif kind == "followed" and self._following is not None:
            self._following.heard(message)
        elif kind == "unseen":
            self._unseen.heard(message["rows"])
        elif kind == "unsupported":
            self._unsupported.heard(message["rows"])
        elif kind == "taken":
            self._losses.sink_said(message["epoch"], message["records"])
        elif kind == "problem":
            self.problems.append(message["text"])
            log.error("%s", message["text"])
        elif kind == "largest":
            self._tell_shards(message)
        elif kind == "destination_gone":
            self.problems.append(f"output: {message['why']}")
            self._stop(f"the output is gone: {message['why']}", errors.EXIT_FAILURE)
        for fd in fds:
            os.close(fd)

    def _start_others(self) -> None:
        """The stages behind the loader, if they were to wait until its compiler, which takes much memory, has ended. What is
        captured meanwhile waits in the rings.
        """
        for child in self.children:
            if not child.lives and child.restart_at is None and not self._stop_reason:
                try:
                    self._start(child)
                except OSError as error:
                    child.did_not_start(time.monotonic(), error)
                    child.restart_at = time.monotonic() + policy.FIRST_DELAY

    def _announce(self) -> None:
        if self._announced or not all(child.ready for child in self.children):
            return
        self._announced = True
        line = self._plan.supervisor.announcement
        if line and self._plan.supervisor.log_level != "OFF":
            logs.say(line.format(attached=self._handover.line))

    def _watch(self, child: ChildProcess, now: float) -> None:
        """One idempotent step for one child: reap, then make it so."""
        if child.pid is not None and not child.expected_to_end:
            silent = (time.monotonic_ns() - child.counters["heartbeat_ns"]) / 1e9
            if policy.hangs(ready=child.ready, silent_seconds=silent, lived_seconds=now - child.started_at):
                log.error("%s is unresponsive (no heartbeat for %.1f s); killing it", child.name, silent)
                child.show_stacks()
                time.sleep(STACKS_SECONDS)
                child.kill()
        if child.reap():
            self._ended(child, now)
        if child.restart_at is not None and now >= child.restart_at and not self._stop_reason:
            if child in self._beside:
                self._start_beside(child, now)
                return
            try:
                self._start(child)
            except OSError as error:
                child.did_not_start(now, error)
                delay = policy.restart_delay(child.history)
                if delay is None:
                    self._failed = f"{child.name} cannot be started: {error}"
                    self._stop(self._failed, errors.EXIT_CHILD)
                else:
                    child.restart_at = now + max(delay, policy.FIRST_DELAY)

    def _ended(self, child: ChildProcess, now: float) -> None:
        was_ready, child.ready = child.ready, False
        if child.expected_to_end:
            return
        self._losses.ended(child.role, child.block, child.counters)
        if child.role == "shard" and (fed := self._core[child.block]["current_connection"]):
            self._deaths_while_fed[fed] = self._deaths_while_fed.get(fed, 0) + 1
        if child is self.loader and self._plan.supervisor.ends_by_itself and child.counters["done"]:
            self._stop("done", child.exit_code or 0)
            return
        log.error("%s ended with %s", child.name, child.exit_code)
        if child.exit_code == -signal.SIGSYS:
            log.error("%s made a system call that no process of ours makes: see docs/security.md", child.name)
        if self._plan.supervisor.ends_by_itself:
            # what a dead stage of a replay had taken in cannot be had again in order
            self._failed = f"{child.name} ended with {child.exit_code}; the replay is not complete"
            self._stop(self._failed, errors.EXIT_CHILD)
            return
        child.history.ended(now, was_ready=was_ready, lived_seconds=now - child.started_at)
        if child in self._beside:
            self.own.add(f"restarts_{child.role}")
            delay = policy.restart_delay(child.history)
            child.restart_at = now + (policy.MAX_DELAY if delay is None else delay)
            return
        if child is self.loader and child.exit_code in (errors.EXIT_CANNOT_CAPTURE, errors.EXIT_CONFIG):
            self._failed = "; ".join(self.problems) or "the loader cannot capture"
            self._stop("cannot capture", child.exit_code)
            return
        delay = policy.restart_delay(child.history)
        if delay is None:
            self._failed = f"{child.name} cannot be started ({policy.MAX_FAILED_STARTS} attempts)"
            self._stop(self._failed, errors.EXIT_CHILD)
            return
        self.own.add(f"restarts_{child.role}")
        child.restart_at = now + delay

    def _watch_memory(self, now: float) -> None:
        rings = self._plan.rings
        size = rings.ring_bytes * rings.rings if rings is not None else 0
        if self._shedding.turn(now, self.pids, at_work=self._announced, rings_bytes=size):
            self._stop("memory", errors.EXIT_MEMORY)

    def _watch_cpu(self, now: float) -> None:
        if self._announced and self._thermostat.turn(now, self.pids):
            self._share_out()
            self.loader.tell(self._told["share"])

    def _share_out(self) -> None:
        self.own["share"] = self._thermostat.share
        self._tell_shards({"kind": "share", "share": self._thermostat.share})

    def _tell_shards(self, message: dict[str, Any]) -> None:
        self._told[message["kind"]] = message
        for child in self.shard_children:
            child.tell(message)

    # ---- the end

    def _shut_down(self) -> None:
        """Drain in the order of the data. Who waits for a restart, or has just died, is started first: there is something to
        drain.
        """
        noticed = time.monotonic() + NOTICE_SECONDS
        while time.monotonic() < noticed:  # whoever kills a child and us at once wants no loss of it
            self._wait(NOTICE_SECONDS / 5)
            for child in self.children:
                if child.reap(listen=True):
                    self._ended(child, time.monotonic())
        for child in self.children:
            if child.restart_at is not None and not self._failed:
                try:
                    self._start(child)
                except OSError as error:
                    log.error("cannot start %s: %s", child.name, error)
        if self.loader.pid is not None and not self.loader.ready and self._handover.state is None:
            self.loader.kill()  # it had not begun: there is nothing to drain
            self._not_begun = True
        self._handover.finish(self.loader)
        self._handover.stop()  # the probes go with the loader's own descriptors
        self._end_stage([self.loader], STOP_LOADER_SECONDS)
        self.sink.tell({"kind": "last"})
        self._end_stage(self.shard_children, STOP_SHARDS_SECONDS)
        self._end_stage([self.sink], self._plan.sink.stop_seconds + 2.0)

    def _end_stage(self, children: list[ChildProcess], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        for child in children:
            child.expected_to_end = True
            child.restart_at = None
            child.tell({"kind": "stop"})
        while any(child.pid is not None for child in children):
            self._wait(0.05)
            if self._signals and deadline > time.monotonic() + STOP_SINK_SECONDS + 2.0:  # a replay's sink had all the time
                deadline = time.monotonic() + STOP_SINK_SECONDS + 2.0
                self.sink.tell({"kind": "stop", "seconds": STOP_SINK_SECONDS})
            self._answer_signals()
            self._tell_health(time.monotonic())
            for child in self.everyone:
                child.read_logs()
                ended = child.reap(listen=True)
                for message, fds in child.said():
                    if child.role == "sink" or message.get("kind") == "problem":
                        self._heard(child, message, fds)
                        fds = []
                    for fd in fds:
                        os.close(fd)
                if ended and not (child is self.loader and self._not_begun):
                    if child not in children or child.exit_code and child.exit_code < 0:
                        log.error("%s ended with %s while stopping", child.name, child.exit_code)
                    if child.exit_code:  # it has not delivered everything
                        self._losses.ended(child.role, child.block, child.counters)
                    if child in children and child.exit_code and not self._exit_code:
                        self._exit_code = errors.EXIT_FAILURE if child.exit_code < 0 else child.exit_code
            if time.monotonic() > deadline:
                for child in children:
                    if child.pid is not None:
                        log.error("%s did not stop within %.0f s; killing it", child.name, seconds)
                        child.kill()
