"""Which containers of Kubernetes are captured: by a label of the namespace, an annotation of the pod, a list of filters, and
a default.

What is enabled at one level can be disabled at a lower one; what is disabled stays so, whatever is said below it; and what
a pod says of itself goes before the filters. Names and values of Wallarm's agent are understood beside our own, which win
where both are there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from collector.errors import ConfigError

# Of namespaces a label, of pods an annotation: name -> (value that enables, value that disables), ours first.
_SAID = ("enabled", "disabled")
NAMESPACE_LABELS = {"ebpf-api-collector/capture": _SAID, "wallarm-mirror": _SAID}
POD_ANNOTATIONS = {"ebpf-api-collector/capture": _SAID, "mirror.wallarm.com/enabled": ("true", "false")}


class Reason(StrEnum):
    """What has decided."""

    NAMESPACE_DISABLED = "namespace disabled"
    POD_DISABLED = "pod disabled"
    POD_ENABLED = "pod enabled"
    NAMESPACE_ENABLED = "namespace enabled"
    FILTER = "filter"
    DEFAULT = "default"
    SIDECAR = "sidecar"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A container, with what is asked of its pod and namespace. Each of these may be empty: not known, or not there."""

    namespace: str = ""
    namespace_labels: Mapping[str, str] = field(default_factory=dict)
    pod_labels: Mapping[str, str] = field(default_factory=dict)
    pod_annotations: Mapping[str, str] = field(default_factory=dict)
    node: str = ""
    container: str = ""
    beside: frozenset[str] | None = None  # the containers of its pod, but those that begin before; None: not known


@dataclass(frozen=True, slots=True)
class Filter:
    """An entry of the list: all of it must be true. Of each value there may be several, one of which must be equal; None and
    an empty mapping ask for nothing.
    """

    namespace: frozenset[str] | None = None
    pod_labels: tuple[tuple[str, frozenset[str]], ...] = ()
    pod_annotations: tuple[tuple[str, frozenset[str]], ...] = ()
    node_name: frozenset[str] | None = None
    container_name: frozenset[str] | None = None

    def matches(self, candidate: Candidate) -> bool:
        """Does it select that container?"""
        for allowed, value in (
            (self.namespace, candidate.namespace),
            (self.node_name, candidate.node),
            (self.container_name, candidate.container),
        ):
            if allowed is not None and value not in allowed:
                return False
        return _has_all(self.pod_labels, candidate.pod_labels) and _has_all(self.pod_annotations, candidate.pod_annotations)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Is it captured, and why? ``odd``: labels and annotations, `name=value`, whose value means nothing."""

    selected: bool
    reason: Reason
    odd: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Scope:
    """What is captured on this node."""

    everything: bool = True  # where nothing else decides
    filters: tuple[Filter, ...] = ()
    sidecars: frozenset[str] = frozenset()  # names of containers that are never captured

    @property
    def annotations(self) -> frozenset[str]:
        """The names of those that may matter."""
        return frozenset(POD_ANNOTATIONS) | {name for one in self.filters for name, _allowed in one.pod_annotations}

    def verdict(self, candidate: Candidate) -> Verdict:
        """Of one container: six steps, the first of which that applies decides. A sidecar passes on what the application
        beside it sends and receives, so it is left out whoever else is captured: else each exchange would be there twice.
        Where nothing is beside it, as in a gateway of Istio's, it is none.
        """
        odd: list[str] = []
        namespace = _said(NAMESPACE_LABELS, candidate.namespace_labels, odd)
        pod = _said(POD_ANNOTATIONS, candidate.pod_annotations, odd)
        if namespace is False:
            selected, reason = False, Reason.NAMESPACE_DISABLED
        elif pod is not None:
            selected, reason = pod, Reason.POD_ENABLED if pod else Reason.POD_DISABLED
        elif namespace:
            selected, reason = True, Reason.NAMESPACE_ENABLED
        elif any(one.matches(candidate) for one in self.filters):
            selected, reason = True, Reason.FILTER
        else:
            selected, reason = self.everything, Reason.DEFAULT
        alone = candidate.beside is not None and not candidate.beside - self.sidecars
        if selected and candidate.container in self.sidecars and not alone:
            selected, reason = False, Reason.SIDECAR
        return Verdict(selected, reason, tuple(odd))


def _has_all(wanted: Iterable[tuple[str, frozenset[str]]], there: Mapping[str, str]) -> bool:
    return all(there.get(name) in allowed for name, allowed in wanted)


def _said(names: Mapping[str, tuple[str, str]], there: Mapping[str, str], odd: list[str]) -> bool | None:
    """What a namespace or pod says of itself; None: nothing."""
    found: bool | None = None
    for name, (yes, no) in names.items():
        value = there.get(name)
        if value in (yes, no):
            if found is None:
                found = value == yes
        elif value is not None:
            odd.append(f"{name}={value}")
    return found


def parse_filters(entries: Any, where: str = "filters") -> tuple[Filter, ...]:
    """A list of mappings, as the chart's `config.agent.mirror.filters`. A value with commas means any of its parts, blanks
    around which do not count. Raises ConfigError, which says in which entry of ``where`` and at which key.
    """
    if not isinstance(entries, list):
        raise ConfigError(f"{where}: a list of filters is wanted, and not {_kind(entries)}")
    return tuple(_parse_filter(entry, f"{where}[{number}]") for number, entry in enumerate(entries))


_KEYS = ("namespace", "pod_labels", "pod_annotations", "node_name", "container_name")


def _parse_filter(entry: Any, where: str) -> Filter:
    if not isinstance(entry, dict) or not entry:
        raise ConfigError(f"{where}: names and values are wanted ({', '.join(_KEYS)}), and not {_kind(entry)}")
    parsed: dict[str, Any] = {}
    for key, value in entry.items():
        if key not in _KEYS:
            raise ConfigError(f"{where}: there is no {key!r}; there are {', '.join(_KEYS)}")
        if key in ("pod_labels", "pod_annotations"):
            if not isinstance(value, dict) or not value:
                raise ConfigError(f"{where}.{key}: names and values are wanted, and not {_kind(value)}")
            parsed[key] = tuple((str(name), _any_of(one, f"{where}.{key}.{name}")) for name, one in value.items())
        else:
            parsed[key] = _any_of(value, f"{where}.{key}")
    return Filter(**parsed)


def _any_of(value: Any, where: str) -> frozenset[str]:
    """Labels and annotations are texts; YAML makes truth values and numbers of some, which are meant as they were
    written.
    """
    if isinstance(value, bool):
        value = "true" if value else "false"
    if not isinstance(value, str | int):
        raise ConfigError(f"{where}: a text is wanted, and not {_kind(value)}")
    if not str(value).strip(" ,"):
        raise ConfigError(f"{where}: a text is wanted, and not nothing")
    if "*" in str(value) and ".pod_annotations." not in where:
        raise ConfigError(f"{where}: names and labels have no '*'; they are compared as they are")
    return frozenset(part.strip() for part in str(value).split(",") if part.strip())


def _kind(value: Any) -> str:
    if value is None or value in ("", [], {}):
        return "nothing"
    return {dict: "a mapping", list: "a list", str: "a text", float: "a fraction"}.get(type(value), repr(value))
