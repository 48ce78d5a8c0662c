"""What files of the host say of a container: the kubelet's logs, whose names have pod, namespace and container in them, and
Docker's own description. They are there from the container's start on, without any server.

    /var/log/pods/NAMESPACE_POD_UID/                             kubelet, pkg/kubelet/kuberuntime/helpers.go
    /var/log/containers/POD_NAMESPACE_CONTAINER-ID.log           pkg/kubelet/kuberuntime/legacy.go
    /var/lib/docker/containers/ID/config.v2.json                 Docker
"""

from __future__ import annotations

import collections
import json
import os
from collections.abc import Mapping, Sequence

LOOK_SECONDS = 0.2  # between two looks at a directory
KNOWN = 4096
CONFIG_BYTES = 1 << 20
ROOTS = ("/proc/1/root", "/host", "")  # of the host's files: by its first process, mounted for us, or ours
_ID = 64


class HostFiles:
    """``roots``: where the host's files may be. Not thread-safe."""

    def __init__(self, roots: Sequence[str] = ROOTS) -> None:
        self._pods = _first(roots, "/var/log/pods")
        self._containers = _first(roots, "/var/log/containers")
        self._docker = _first(roots, "/var/lib/docker/containers")
        self._names: dict[str, dict[str, str]] = {}  # by UID of a pod, and by id of a container
        self._named: collections.OrderedDict[str, dict[str, str]] = collections.OrderedDict()
        self._next_look = 0.0

    def pod(self, uid: str, containers: Sequence[str], now: float) -> Mapping[str, str]:
        """namespace, pod and container, as far as the kubelet's logs say. ``now``: time.monotonic()."""
        wanted = (uid, *containers)
        if not any(name in self._names for name in containers) and now >= self._next_look:
            self._next_look = now + LOOK_SECONDS
            self._look()
        found: dict[str, str] = {}
        for name in wanted:
            found.update(self._names.get(name, {}))
        return found

    def docker(self, containers: Sequence[str]) -> Mapping[str, str]:
        """Container and image, as Docker names them."""
        for container in containers:
            found = self._named.get(container)
            if found is None and (found := self._describe(container)):  # else the file may come
                self._named[container] = found
                while len(self._named) > KNOWN:
                    self._named.popitem(last=False)
            if found:
                return found
        return {}

    def _look(self) -> None:
        names: dict[str, dict[str, str]] = {}
        for entry in _entries(self._pods):
            parts = entry.split("_")
            if len(parts) == 3:
                names[parts[2]] = {"namespace": parts[0], "pod": parts[1]}
        for entry in _entries(self._containers):
            stem, dot, _suffix = entry.rpartition(".log")
            parts = stem[: -_ID - 1].split("_")
            if dot and len(parts) == 3:
                names[stem[-_ID:]] = {"namespace": parts[1], "pod": parts[0], "container": parts[2]}
        self._names = names

    def _describe(self, container: str) -> dict[str, str]:
        if not self._docker:
            return {}
        try:
            with open(f"{self._docker}/{container}/config.v2.json", "rb") as file:
                document = json.loads(file.read(CONFIG_BYTES))
            found = {"container": document["Name"].lstrip("/"), "image": document["Config"]["Image"]}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return {}
        return {name: text for name, text in found.items() if isinstance(text, str) and text}


def _first(roots: Sequence[str], path: str) -> str:
    return next((root + path for root in roots if os.path.isdir(root + path)), "")


def _entries(directory: str) -> list[str]:
    try:
        return os.listdir(directory) if directory else []
    except OSError:
        return []
