"""Whose the processes with traffic are: the kernel programs ask (bpf/owners.h) right before they tell the name of a process,
and the answer goes to the shard before the span in which that name stands (EVENT_OWNER). So records wait for nobody, but for
those of a pod that the API server has not told of yet.

When what is known of a pod changes, its processes are told again.
"""

from __future__ import annotations

import collections
import contextlib
import json
import logging
import socket
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from collector import abi
from collector.attribution.containers import Place, parse_cgroups
from collector.attribution.hostfiles import HostFiles
from collector.attribution.owners import began_at
from collector.attribution.places import ROOT_GROUP, Places
from collector.errors import ProtocolError
from collector.kubernetes import wire
from collector.kubernetes.pods import Index, Pod
from collector.loader.ringbuffer import Ring
from collector.settings import OwnerSettings

log = logging.getLogger("loader")

RING_BYTES = 64 * 4096
QUESTION = struct.Struct("=QQII")  # bpf/owners.h struct owner_question
_STEP = 8 + QUESTION.size
NO_RING = 0xFFFFFFFF  # of a process that begins a program: only its selection is asked for
PROCESSES = 16384  # that are remembered
GROUPS = 4096  # the same of control groups; entries of bpf/owners.h groups
CHANGE_SECONDS = 0.1  # between two looks at who has changed
MESSAGES_A_TURN = 256


@dataclass(frozen=True, slots=True)
class Answer:
    """``fields`` of the records, `"name":"value",...`; ``pending``: perhaps more is known soon."""

    fields: bytes = b""
    selected: bool = True
    pending: bool = False

    @property
    def flags(self) -> int:
        """Of the event."""
        return (abi.F_PENDING if self.pending else 0) | (0 if self.selected else abi.F_UNSELECTED)


@dataclass(slots=True)
class _Asked:
    """A process that was asked for. ``place``: None when nobody can say. ``new``: it has begun a program in a group that the
    loader before us had not decided on: it is not captured unless it is known soon that it should be.
    """

    start_ns: int
    place: Place | None
    since: float
    answer: Answer
    group: int = 0
    new: bool = False
    rings: set[int] = field(default_factory=set)


def _own_groups() -> str:
    with contextlib.suppress(OSError), open("/proc/self/cgroup", encoding="utf-8", errors="replace") as file:
        return file.read()
    return ""


def fragment(fields: Mapping[str, str]) -> bytes:
    """Members of a JSON object, without its braces; what is empty is left out."""
    present = {name: text for name, text in fields.items() if text}
    return json.dumps(present, separators=(",", ":"), ensure_ascii=False).encode(errors="replace")[1:-1]


def _peer(pod: Pod) -> dict[str, str]:
    """The container is known only where there is no choice."""
    names = {container.name for container in pod.containers.values()}
    return {
        "peerNamespace": pod.namespace,
        "peerPod": pod.name,
        "peerContainer": names.pop() if len(names) == 1 else "",
    }


def _peer_events(fields: Mapping[str, bytes], now_ns: int) -> list[bytes]:
    events = []
    for address, members in fields.items():
        with contextlib.suppress(OSError):  # what is no address is nobody's
            events.append(abi.pack_peer(abi.address16(address), members, ts_ns=now_ns))
    return events


class Owning:
    """``ring``: `owners`, of RING_BYTES. Not thread-safe; ``now`` is time.monotonic() everywhere."""

    def __init__(
        self, ring: Ring, settings: OwnerSettings, places: Places | None = None, files: HostFiles | None = None
    ) -> None:
        self._ring = ring
        self._settings = settings
        self._places = places or Places()
        self._files = files or HostFiles()
        self._index = Index()
        self._told: dict[str, wire.Told] = {}
        self._asked: collections.OrderedDict[int, _Asked] = collections.OrderedDict()
        self._pods: socket.socket | None = None
        self._coming: set[str] | None = None  # the pods that have come since "all"
        self._changed = self.peers_changed = False
        self.synced = not settings.kubernetes  # is it known which pods there are?
        self._left_out: bool | None = None  # None: to be looked at
        self.before: frozenset[int] | None = None  # the groups that a loader before us has decided on
        self._answers: dict[Place, Answer] = {}  # of pods: each for all its processes
        self._nowhere: set[int] = set()  # processes that had ended, whose groups are still to be looked for
        self._due: set[int] = set()  # processes of which something else may be known by now
        self._peers: dict[str, bytes] = {}  # by address, as they were told
        self._next_look = 0.0
        self.groups: collections.OrderedDict[int, Place] = collections.OrderedDict()  # that processes were in, by number
        self.new_groups: list[int] = []  # those that nobody has taken yet
        self._own = parse_cgroups(_own_groups())
        self.overflowed = False  # have questions perhaps found no room?
        self.moved: set[int] = set()  # processes that are captured now, or not, and were looked at as something else before
        self.unknown = 0  # processes of which nobody could say in which container they were

    @property
    def default(self) -> bool:
        """Is a process captured of which nothing is known?"""
        return self._settings.default

    def look(self, pid: int, now: float) -> bool:
        """Is that process captured? For those that did not ask."""
        return self._ask(pid, 0, 0, now)[1].selected

    def waits(self) -> bool:
        """Does the loader before us know better than we do yet?"""
        return self.before is not None and not self.synced

    def captures(self, place: Place, now: float) -> bool | None:
        """Is it captured, whatever begins there? None where that is not known, or where it matters who begins it: outside of
        pods, and where we are.
        """
        if not place.pod or place == self._own or self._index.find(place) is None:
            return None
        return self._answer(place, now).selected

    def _new_group(self, group: int, place: Place) -> None:
        self.groups[group] = place
        self.new_groups.append(group)
        while len(self.groups) > GROUPS:
            self.groups.popitem(last=False)

    # ---- what the API server says

    def listen(self, fd: int) -> None:
        """From now on messages of wire.py come by this socket, which is ours."""
        self.close()
        self._pods = socket.socket(fileno=fd)
        self._pods.setblocking(False)
        self._coming = None

    def close(self) -> None:
        """Hear no more."""
        if self._pods is not None:
            self._pods.close()
            self._pods = None

    def hear(self) -> None:
        """Take the messages that are here."""
        for _ in range(MESSAGES_A_TURN if self._pods is not None else 0):
            assert self._pods is not None
            try:
                data = self._pods.recv(wire.LIMIT)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                data = b""
            if not data:  # it has ended; what is known stays until the next one has told all
                self.close()
                return
            try:
                self._heard(data)
            except (ProtocolError, ValueError, RecursionError) as error:
                log.error("a message about pods that is none: %s", error)

    def _heard(self, data: bytes) -> None:
        document = json.loads(data)
        kind = document.get("kind") if isinstance(document, dict) else None
        changed = self._changed, self.peers_changed
        self._changed = self.peers_changed = True
        self._answers.clear()
        self._left_out = None
        if kind == "pod":
            told = wire.unpack(document)
            if self._told.get(told.pod.uid) == told and told.pod.uid in self._index:
                self._changed, self.peers_changed = changed
            self._index.put(told.pod)
            self._told[told.pod.uid] = told
            if self._coming is not None:
                self._coming.add(told.pod.uid)
        elif kind == "gone":
            self._remove(str(document.get("uid")))
        elif kind == "all":
            self._coming = set()
        elif kind == "done" and self._coming is not None:
            for uid in set(self._told) - self._coming:
                self._remove(uid)
            self._coming = None
            self.synced = True
        else:
            raise ProtocolError("of no known kind")

    def _remove(self, uid: str) -> None:
        for gone in self._index.remove(uid):
            self._told.pop(gone, None)

    # ---- who asks

    def answers(
        self, now: float, now_ns: int, decide: Callable[[int, bool], None] | None = None
    ) -> Iterator[tuple[int, bytes]]:
        """(ring, event) for what was asked since the last call; ``decide`` is told whether each process is captured."""
        span = self._ring.drain(RING_BYTES)
        self.overflowed |= len(span or b"") > RING_BYTES - _STEP
        for at in range(8, len(span or b""), _STEP):
            assert span is not None
            group, start_ns, tgid, ring = QUESTION.unpack_from(span, at)
            asked, answer = self._ask(tgid, start_ns, group, now, begins=ring == NO_RING)
            if decide is not None:
                decide(tgid, answer.selected)
                if group not in self.groups and (place := self._places.of_group(group)) is not None:
                    self._new_group(group, place)
            if ring != NO_RING:
                asked.rings.add(ring)
                yield ring, self._event(tgid, asked, answer, ring, now_ns)

    def introduce(self, tgid: int, ring: int, now: float, now_ns: int) -> bytes:
        """The event for a shard that is new, of a process with an open connection in that ring."""
        asked, answer = self._ask(tgid, 0, 0, now)
        asked.rings.add(ring)
        return self._event(tgid, asked, answer, ring, now_ns)

    def everybody(self, tgids: Iterable[int], rings: Iterable[int], now: float, now_ns: int) -> Iterator[bytes]:
        """Events for all these processes, of which something may not have been asked, and for those that have asked, as if
        each had asked for all rings.
        """
        rings = frozenset(rings)
        for tgid in tgids:
            self._ask(tgid, 0, 0, now)
        for tgid, asked in self._asked.items():
            asked.rings |= rings
            yield self._event(tgid, asked, asked.answer, 0, now_ns)

    def changes(self, now: float, now_ns: int) -> Iterator[tuple[int, bytes]]:
        """(ring, event) for the processes of which something else is known than was told."""
        nowhere = self._look_for(now) if self._nowhere and self._places.may_look(now) else ()
        if not nowhere and (now < self._next_look or not self._changed and not self._due):
            return
        tgids = list(self._asked) if self._changed else [tgid for tgid in {*self._due, *nowhere} if tgid in self._asked]
        self._next_look, self._changed, self._due = now + CHANGE_SECONDS, False, set()
        for tgid in tgids:
            asked = self._asked[tgid]
            answer = self._answer_for(asked, now)
            if answer.pending and now - asked.since < self._settings.wait_seconds:  # files may have it
                self._due.add(tgid)
            if answer != asked.answer:
                if answer.selected != asked.answer.selected:
                    self.moved.add(tgid)
                asked.answer = answer
                for ring in asked.rings:
                    yield ring, self._event(tgid, asked, answer, ring, now_ns)

    def _look_for(self, now: float) -> list[int]:
        """Where processes were that had ended before anybody looked: those of which it is known now, or will never be."""
        settled = []
        for tgid in list(self._nowhere):
            asked = self._asked.get(tgid)
            if asked is not None and asked.place is None:
                asked.place, _start_ns = self._places.find(tgid, asked.start_ns, asked.group, now)
                if asked.place is None and self._places.may_be_found(asked.group, asked.since):
                    continue
                self.unknown += asked.place is None
            self._nowhere.discard(tgid)
            settled.append(tgid)
        return settled

    def peers(self, now_ns: int) -> list[bytes]:
        """Events for every shard: who has which address, as far as that is other than was told."""
        self.peers_changed = False
        before, self._peers = self._peers, self._with_addresses()
        changed = {address: b"" for address in before if address not in self._peers}
        changed |= {address: fields for address, fields in self._peers.items() if before.get(address) != fields}
        return _peer_events(changed, now_ns)

    def all_peers(self, now_ns: int) -> list[bytes]:
        """The same for a new shard, of all that was told the others."""
        return _peer_events(self._peers, now_ns)

    def _with_addresses(self) -> dict[str, bytes]:
        return {
            address: fragment(_peer(told.pod))
            for uid, told in self._told.items()
            if uid in self._index
            for address in told.pod.addresses
        }

    def _event(self, tgid: int, asked: _Asked, answer: Answer, ring: int, now_ns: int) -> bytes:
        fields = answer.fields if self._settings.fields else b""
        return abi.pack_owner(tgid, fields, start_ns=asked.start_ns, flags=answer.flags, ts_ns=now_ns, ring=ring)

    def _ask(self, tgid: int, start_ns: int, group: int, now: float, *, begins: bool = False) -> tuple[_Asked, Answer]:
        """What is known of a process, and the answer now. One that differs from what was told before is told wherever it was
        asked for, with the next `changes`. ``begins``: it has just begun a program.
        """
        asked = self._asked.get(tgid)
        place, start_ns = self._places.find(tgid, start_ns, group, now)
        if asked is not None and start_ns and asked.start_ns and not began_at(start_ns, asked.start_ns):
            asked = None  # another process has its number
        first = asked is None
        if asked is None:
            asked = self._asked[tgid] = _Asked(start_ns, place, now, Answer())
            while len(self._asked) > PROCESSES:
                self._asked.popitem(last=False)
        elif place is not None and place != asked.place:  # it was moved
            asked.place, asked.since = place, now
        moved = not first and place is None and group > ROOT_GROUP and group != asked.group
        if moved and not asked.group:  # it was looked at without having asked: before it was put into its container?
            moved = asked.place is not None and not asked.place.pod and not asked.place.containers
        if moved:  # and it has ended: it is not where it was seen
            asked.place, asked.since = None, now
        asked.group = group or asked.group
        if (first or moved) and place is None:
            if self._places.may_be_found(asked.group, now):
                self._nowhere.add(tgid)
            else:
                self.unknown += 1
        if start_ns > asked.start_ns:  # exactly, as the kernel tells it, or not known before
            asked.start_ns = start_ns
        self._asked.move_to_end(tgid)
        if self.before is not None and (begins or group > ROOT_GROUP):
            asked.new = group not in self.before
        answer = self._answer_for(asked, now)
        if first:
            asked.answer = answer
        if answer.pending or answer != asked.answer:
            self._due.add(tgid)
        return asked, answer

    # ---- the answer

    def _answer_for(self, asked: _Asked, now: float) -> Answer:
        if asked.place is not None:
            answer = self._answer(asked.place, now)
            if answer.pending and asked.new and self.waits() and not self._settings.everything:
                return replace(answer, selected=now < asked.since + self._settings.wait_seconds / 2)
            return answer
        settings = self._settings
        # it may be anybody's, that of a pod of which nothing is wanted too
        selected = settings.everything and settings.host_processes and not self._leaves_out()
        pending = self._places.may_be_found(asked.group, asked.since)
        return Answer(fragment({"node": settings.node}), selected or pending and settings.everything, pending=pending)

    def _leaves_out(self) -> bool:
        """Is there a pod of which nothing is wanted?"""
        if self._left_out is None:
            self._left_out = any(
                not any((told.otherwise, *told.selected.values(), *told.named.values())) for told in self._told.values()
            )
        return self._left_out

    def _answer(self, place: Place, now: float) -> Answer:
        settings = self._settings
        if (answer := self._answers.get(place)) is not None:
            return answer
        found = self._index.find(place)
        if found is not None:
            return self._of_pod(place, found.pod.uid, now)
        if place.pod:
            known = self._files.pod(place.pod, place.containers, now)
            selected = settings.everything or self.waits()  # as the loader before us has decided
            return Answer(fragment({**known, "node": settings.node}), selected, pending=settings.kubernetes)
        named = {"node": settings.node}
        if place.containers:
            named.update(self._files.docker(place.containers))
        elif place.unit:
            named["workload"] = f"Unit/{place.unit}"
        return Answer(fragment(named), settings.host_processes)

    def _of_pod(self, place: Place, uid: str, now: float) -> Answer:
        told = self._told[uid]
        pod = told.pod
        described, selected = None, told.otherwise
        for container in place.containers:
            if container in pod.containers:
                described, selected = pod.containers[container], told.selected[container]
                break
        if described is not None:
            name = described.name
        else:
            name = self._files.pod(uid, place.containers, now).get("container", "")
            selected = told.named.get(name, told.otherwise)
        fields = {
            "namespace": pod.namespace,
            "pod": pod.name,
            "container": name,
            "node": pod.node or self._settings.node,
            "workload": pod.workload,
            "serviceAccount": pod.service_account,
            "image": described.image if described is not None else "",
            "tag": told.labels,
        }
        answer = Answer(fragment(fields), selected)
        if described is not None:  # else files may say more by and by
            if len(self._answers) >= PROCESSES:  # containers in containers
                self._answers.clear()
            self._answers[place] = answer
        return answer
