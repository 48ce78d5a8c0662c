"""The process that follows the API server: pods of this node and namespaces, by list and watch, and which containers are
captured; it tells the loader of each pod (kubernetes/wire.py). Without privilege: it can open the certificates of its
account and connect, and nothing else; the token comes from the supervisor, for the kubelet may have given it to root alone.

Two threads wait for the server, one for each resource; the main thread alone knows what they have said. While the loader
does not read, what has changed meanwhile is told once, as it is then.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import functools
import json
import logging
import os
import queue
import select
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from collector import confine, faults
from collector.counter_names import KUBERNETES_NAMES
from collector.kubernetes import wire
from collector.kubernetes.api import Server
from collector.kubernetes.following import Follower
from collector.kubernetes.pods import Container, Found, Index, Pod, parse_pod
from collector.kubernetes.selection import Scope, parse_filters
from collector.runtime import Child, run_process
from collector.settings import KubernetesSettings, KubernetesStart

log = logging.getLogger("kubernetes")

TURN_SECONDS = 0.5
WAITING = 1024  # events that the threads may be ahead
ODD = 256  # values that mean nothing, of which it was said
_Event = tuple[str, str, Any]


class Following:
    """The pods and namespaces as they come in, and what is to be told of them. ``tell`` sends one message and says whether
    there was room. Not thread-safe.
    """

    def __init__(self, scope: Scope, tell: Callable[[bytes], bool]) -> None:
        self._scope = scope
        self._tell = tell
        self._index = Index()
        self._pods: dict[str, Pod] = {}
        self._due: collections.OrderedDict[str, None] = collections.OrderedDict()  # UIDs, and the words of wire.py
        self._again = False  # is all to be told?
        self._changed = True
        self._chosen = 0
        self._odd: set[str] = set()
        self.synced: set[str] = set()  # resources that were listed

    def heard(self, resource: str, kind: str, what: Any) -> None:
        """``kind`` replace (a list), put or remove, of ``resource`` pods (Pod, or None for what is none) or namespaces
        (name and labels).
        """
        self._changed = True
        if resource == "pods":
            self._heard_pods(kind, what)
        else:
            self._heard_namespaces(kind, what)

    def _heard_pods(self, kind: str, what: Any) -> None:
        pods: list[Pod] = [pod for pod in (what if kind == "replace" else [what]) if pod is not None]
        if kind == "replace":
            for uid in set(self._pods) - {pod.uid for pod in pods}:
                self._remove(uid)
            self.synced.add("pods")
        for pod in pods:
            if kind == "remove":
                self._remove(pod.uid)
            else:
                self._pods[pod.uid] = pod
                self._index.put(pod)
                self._due[pod.uid] = None

    def _remove(self, uid: str) -> None:
        if self._pods.pop(uid, None) is not None:
            self._index.remove(uid)
            self._due[uid] = None

    def _heard_namespaces(self, kind: str, what: Any) -> None:
        named: list[tuple[str, dict[str, str]]] = what if kind == "replace" else [what]
        touched = set()
        if kind == "replace":
            self.synced.add("namespaces")
            for name in self._index.namespaces() - {name for name, _labels in named}:
                self._index.remove_namespace(name)
                touched.add(name)
        for name, labels in named:
            if kind == "remove":
                self._index.remove_namespace(name)
                touched.add(name)
            elif self._index.put_namespace(name, labels):
                touched.add(name)
        for uid, pod in self._pods.items():
            if pod.namespace in touched:
                self._due[uid] = None

    def all_again(self) -> None:
        """Whoever is told is new."""
        self._again = True

    def send(self) -> None:
        """Tell what is due, as long as there is room. Not before everything was listed once: until then nobody knows which
        pods are captured.
        """
        if len(self.synced) < 2:
            return
        if self._again:
            self._again = False
            self._due.clear()
            self._due.update(dict.fromkeys(("all", *self._pods, "done")))
        while self._due:
            what = next(iter(self._due))
            pod = self._pods.get(what)
            # of a namespace that is not known nobody knows what it says; it is told of with that
            if (pod is None or pod.namespace in self._index.namespaces()) and not self._tell(self._message(what)):
                return
            del self._due[what]

    @property
    def waiting(self) -> bool:
        """Is there something to tell?"""
        return (self._again or bool(self._due)) and len(self.synced) == 2

    def __len__(self) -> int:
        return len(self._pods)

    def selected(self) -> int:
        """How many containers are captured."""
        if self._changed:
            self._changed = False
            self._chosen = sum(
                self._selected(pod, container) for pod in self._pods.values() for container in pod.containers.values()
            )
        return self._chosen

    def _message(self, what: str) -> bytes:
        if what in ("all", "done"):
            return json.dumps({"kind": what}).encode()
        pod = self._pods.get(what)
        if pod is None:
            return json.dumps({"kind": "gone", "uid": what}).encode()
        chosen = {identifier: self._selected(pod, container) for identifier, container in pod.containers.items()}
        # one whose name is not known yet may be any of them
        named = {name: self._selected(pod, Container(name)) for name in pod.names}
        otherwise = all(named.values()) if named else self._selected(pod, Container(""))
        told = wire.Told(pod, chosen, otherwise, wire.labels_text(pod.labels), named)
        message = wire.pack(told)
        if len(message) <= wire.LIMIT:
            return message
        # thousands of containers, or hundreds of names of tens of KiB: what it is called is what matters
        return wire.pack(replace(told, pod=replace(pod, containers={}, addresses=()), selected={}, labels="", named={}))

    def _selected(self, pod: Pod, container: Container | None) -> bool:
        verdict = self._scope.verdict(self._index.candidate(Found(pod, container)))
        for odd in verdict.odd:
            said = f"{pod.namespace}/{pod.name}: {odd}"
            if said not in self._odd and len(self._odd) < ODD:
                self._odd.add(said)
                log.warning("%.200r: neither enabled nor disabled; it counts as if it were not there", said)
        return verdict.selected


def parse_namespace(document: Any) -> tuple[str, dict[str, str]]:
    """Name and labels of a Namespace object; the name is empty when it is none."""
    metadata = document.get("metadata") if isinstance(document, dict) else None
    if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str):
        return "", {}
    labels = metadata.get("labels")
    texts = {name: text for name, text in labels.items() if isinstance(text, str)} if isinstance(labels, dict) else {}
    return metadata["name"], texts


class _Queue:
    """A follower's sink: what it hears goes to the main thread, which is waked."""

    def __init__(self, resource: str, events: queue.Queue[_Event], wake: socket.socket) -> None:
        self._resource = resource
        self._events = events
        self._wake = wake

    def replace(self, items: list[Any]) -> None:
        """See following.Sink."""
        self._put("replace", items)

    def put(self, item: Any) -> None:
        """See following.Sink."""
        self._put("put", item)

    def remove(self, item: Any) -> None:
        """See following.Sink."""
        self._put("remove", item)

    def _put(self, kind: str, what: Any) -> None:
        self._events.put((self._resource, kind, what))
        with contextlib.suppress(OSError):  # it is full, so the main thread will wake
            self._wake.send(b"e")


class Process:
    """The process; ``run`` returns its exit code."""

    def __init__(self, child: Child[KubernetesStart]) -> None:
        faults.hide_words()
        self._child = child
        settings = child.start.settings
        chosen = scope(settings)
        self._following = Following(chosen, self._send)
        self._loader: socket.socket | None = None
        self._events: queue.Queue[_Event] = queue.Queue(WAITING)
        self._woken, wake = socket.socketpair()
        self._woken.setblocking(False)
        wake.setblocking(False)
        self._token = child.start.token
        server = Server(settings.host, settings.port, ca_path=settings.ca_path, tls=settings.tls, token=lambda: self._token)
        pods = {"fieldSelector": f"spec.nodeName={settings.node}"}
        self._followers = [
            Follower(
                server,
                "/api/v1/pods",
                pods,
                _Queue("pods", self._events, wake),
                functools.partial(parse_pod, annotations=chosen.annotations),
            ),
            Follower(server, "/api/v1/namespaces", {}, _Queue("namespaces", self._events, wake), parse_namespace),
        ]
        child.drop_privileges(
            [*confine.network_rules(), *confine.account_rules([os.path.dirname(settings.ca_path)])], network=True
        )
        self._said: dict[str, int] = {}
        self._next_said = 0.0

    def run(self) -> int:
        """Until told to stop."""
        for follower in self._followers:
            threading.Thread(target=follower.run, daemon=True).start()
        confine.limit_calls(confine.KUBERNETES)
        self._child.ready()
        while not self._child.stopping:
            self._wait()
            for message in self._child.hear():
                if message.get("kind") == "loader":
                    self._use(message["fds"][0])
                elif message.get("kind") == "token":
                    self._token = str(message["token"])
            self._take()
            self._following.send()
            self._say()
            self._child.beat()
        return 0

    def close(self) -> None:
        """The threads end with the process."""

    def _wait(self) -> None:
        poll = select.poll()
        poll.register(self._child.channel, select.POLLIN)
        poll.register(self._woken, select.POLLIN)
        if self._loader is not None and self._following.waiting:
            poll.register(self._loader, select.POLLOUT)
        poll.poll(TURN_SECONDS * 1000)

    def _take(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._woken.recv(4096)
        for _ in range(WAITING):
            try:
                self._following.heard(*self._events.get_nowait())
            except queue.Empty:
                return

    def _use(self, fd: int) -> None:
        if self._loader is not None:
            self._loader.close()
        self._loader = socket.socket(fileno=fd)
        self._loader.setblocking(False)
        self._following.all_again()

    def _send(self, message: bytes) -> bool:
        if self._loader is None:
            return False
        try:
            self._loader.send(message)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            if error.errno == errno.EMSGSIZE:  # the host's limit is lower than that of wire.py
                log.error("a pod is too large to be told of (net.core.wmem_default)")
                return True
            # the loader is gone; the next one comes with a socket of its own
            self._loader.close()
            self._loader = None
            return False
        return True

    def _say(self) -> None:
        """Numbers for the metrics, when they have changed."""
        now = time.monotonic()
        if now < self._next_said:
            return
        self._next_said = now + TURN_SECONDS
        counts = [follower.counts for follower in self._followers]
        numbers = {
            "pods": len(self._following),
            "selected": self._following.selected(),
            "events": sum(one.events for one in counts),
            "lists": sum(one.lists for one in counts),
            "errors": sum(one.errors for one in counts),
            "behind": int(any(one.behind for one in counts)),
        }
        if numbers != self._said:
            self._said = numbers
            self._child.say({"kind": "followed", **numbers})


def scope(settings: KubernetesSettings) -> Scope:
    """What is captured. Raises ConfigError."""
    filters = parse_filters(json.loads(settings.filters), "COLLECTOR_FILTERS") if settings.filters else ()
    return Scope(settings.everything, filters, frozenset(settings.sidecars))


def main() -> int:
    """Entry of the child process."""
    return run_process(KubernetesStart, KUBERNETES_NAMES, Process)


if __name__ == "__main__":
    raise SystemExit(main())
