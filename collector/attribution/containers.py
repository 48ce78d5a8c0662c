"""Which container, pod and unit of systemd a process belongs to, by the paths of its control groups: /proc/PID/cgroup,
cgroups(7), as containerd, CRI-O, Docker and the kubelet name them, with version 1 and 2, in a private namespace or not.

A path names candidates and nothing more: a container may run containers of its own, so the one that a pod lists is chosen
by who knows the pods.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_CONTAINER = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
# pod<uid>: a UUID, its dashes as underscores under systemd; of a static pod the 32 digits of its configuration's hash
_POD = re.compile(
    r"(?:^|[-/])pod([0-9a-f]{8}([-_])[0-9a-f]{4}\2[0-9a-f]{4}\2[0-9a-f]{4}\2[0-9a-f]{12}|[0-9a-f]{32})(?![0-9a-f])"
)
_UNIT = re.compile(r"(?:^|/)([^/]+\.service)(?=/|$)")
_MONITOR = "crio-conmon-"  # CRI-O's process that watches a container, and is none of it


@dataclass(frozen=True, slots=True)
class Place:
    """Where a process is. ``pod``: its UID with dashes, or the hash of a static pod's configuration (annotation
    `kubernetes.io/config.hash`). ``containers``: candidates, 64 hexadecimal digits each, the most likely first.
    ``unit``: of systemd, where it is in no container. Empty where there is none.
    """

    pod: str = ""
    containers: tuple[str, ...] = ()
    unit: str = ""


def parse_cgroups(text: str) -> Place:
    """What /proc/PID/cgroup says: a line for each hierarchy, `number:controllers:path`. Lines that are none are passed
    over.
    """
    best = Place()
    for line in text.splitlines():
        _number, first, rest = line.partition(":")
        _controllers, second, path = rest.partition(":")
        if not first or not second:
            continue
        found = _parse_path(path)
        if _rank(found) > _rank(best):
            best = found
    return best


def _rank(place: Place) -> tuple[bool, bool, bool]:
    return bool(place.containers), bool(place.pod), bool(place.unit)


def _parse_path(path: str) -> Place:
    path = "/".join(segment for segment in path.split("/") if not segment.startswith(_MONITOR))
    pods = list(_POD.finditer(path))
    inside = pods[-1].end() if pods else 0
    ids = [(found.start() < inside, found.start(), found.group()) for found in _CONTAINER.finditer(path)]
    containers = tuple(dict.fromkeys(name for _outside, _at, name in sorted(ids)))
    if containers or pods:
        return Place(pods[-1].group(1).replace("_", "-") if pods else "", containers)
    units = _UNIT.findall(path)
    return Place(unit=units[-1]) if units else Place()
