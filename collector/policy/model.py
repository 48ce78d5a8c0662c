"""A policy, as it was read (reading.py) and as shards go by it."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field


class Mode(enum.Enum):
    """What a policy does to values by itself, before its own rules."""

    OFF = "off"
    SECRETS = "secrets"  # credentials by name, and by form wherever they stand
    STRICT = "strict"  # every value becomes its type and length


class Part(enum.Enum):
    """What the pattern of a redaction rule is about."""

    HEADER = "header"  # the name of a field, in any case
    QUERY = "query"  # the name of a parameter in the target
    PATH = "path"  # segments of the path, `/customers/{*}/orders`: those in braces; `*` and `{name}` are any one
    JSON = "json"  # a pointer (RFC 6901) whose segments may be `*`, and `**` for any number of them
    NAME = "name"  # RE2: the whole name of a field of a body, a parameter or a header
    VALUE = "value"  # RE2: what is found in any value


@dataclass(frozen=True, slots=True)
class Scope:
    """Where something holds: hosts and paths (without the query) by glob, `*` any characters. Empty: everywhere."""

    hosts: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RedactionRule:
    """``kind`` is what a redacted value is called. ``keep``: no redaction but an exception; such values stay as they are."""

    kind: str
    part: Part
    pattern: str
    scope: Scope = Scope()
    keep: bool = False


@dataclass(frozen=True, slots=True)
class Redaction:
    """The first of the ``rules`` that matches a value decides, then the mode."""

    mode: Mode = Mode.OFF
    rules: tuple[RedactionRule, ...] = ()

    @property
    def acts(self) -> bool:
        """Is there anything that it takes out?"""
        return self.mode is not Mode.OFF or any(not rule.keep for rule in self.rules)


class Direction(enum.Enum):
    """As in the field `direction` of a record: what the traced process is."""

    INBOUND = "inbound"  # it is the server: direction 1
    OUTBOUND = "outbound"  # it is the client: direction 2


@dataclass(frozen=True, slots=True)
class Match:
    """Exchanges by what is known of them; of each that is not empty one has to fit. Hosts, paths (without the query),
    content types (of the answer, without parameters) and names of processes by glob, methods by name, ``statuses`` from and
    to (inclusive; 0: no answer), ``addresses`` the network of either end (CIDR).
    """

    hosts: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    statuses: tuple[tuple[int, int], ...] = ()
    content_types: tuple[str, ...] = ()
    processes: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    directions: tuple[Direction, ...] = ()


@dataclass(frozen=True, slots=True)
class Rule:
    """The first rule that matches an exchange says whether it is recorded; without one it is."""

    include: bool
    match: Match
    name: str = ""


@dataclass(frozen=True, slots=True)
class Sampling:
    """Of each endpoint and minute of event time the ``first`` exchanges are recorded whole; then one in ``one_in`` (0:
    none), or with ``heads_only`` all of them without bodies. Errors (4xx, 5xx) and records with marks have rates of their
    own, one in so many (1: all, 0: as the others). At most so many ``endpoints`` are known at a time.
    """

    first: int
    one_in: int = 0
    heads_only: bool = False
    errors_one_in: int = 1
    marked_one_in: int = 1
    endpoints: int = 10_000


@dataclass(frozen=True, slots=True)
class Policy:
    """``name``: of the built-in policy, or what the file calls it; ``digest``: the beginning of the SHA-256 of the text that
    it was read from, in hexadecimal, empty for a built-in one.
    """

    name: str = "off"
    digest: str = ""
    redaction: Redaction = field(default_factory=Redaction)
    rules: tuple[Rule, ...] = ()
    sampling: Sampling | None = None


BUILTIN = {mode.value: Policy(mode.value, redaction=Redaction(mode)) for mode in Mode}
