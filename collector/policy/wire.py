"""A policy and the key of its hashes on their way from the supervisor to a shard: sealed memory, for they may be larger than
a control message, and the key stands in no message.

    fd = share(policy, key)         # the caller closes it
    policy, key = received(fd)      # in the shard
"""

from __future__ import annotations

import dataclasses
import json
import os
from typing import Any

from collector import memfd
from collector.policy.model import (
    Direction,
    Match,
    Mode,
    Part,
    Policy,
    Redaction,
    RedactionRule,
    Rule,
    Sampling,
    Scope,
)


def share(policy: Policy, key: bytes) -> int:
    """A descriptor, closed on exec. Raises OSError."""
    return memfd.holding("collector-policy", json.dumps({"policy": to_plain(policy), "key": key.hex()}).encode())


def received(fd: int) -> tuple[Policy, bytes]:
    """What is in the memory of `share`, whose descriptor is closed."""
    with open(fd, "rb", buffering=0) as file:
        data = json.loads(os.pread(fd, os.fstat(file.fileno()).st_size, 0))
    return from_plain(data["policy"]), bytes.fromhex(data["key"])


def to_plain(policy: Policy) -> dict[str, Any]:
    """As JSON has it."""
    return dataclasses.asdict(policy, dict_factory=_factory)


def _factory(items: list[tuple[str, Any]]) -> dict[str, Any]:
    return {name: _plain(value) for name, value in items}


def _plain(value: Any) -> Any:
    if isinstance(value, (Mode, Part, Direction)):
        return value.value
    return [_plain(one) for one in value] if isinstance(value, tuple) else value


def from_plain(data: dict[str, Any]) -> Policy:
    """The reverse."""
    redaction, sampling = data["redaction"], data["sampling"]
    return Policy(
        data["name"],
        data["digest"],
        Redaction(Mode(redaction["mode"]), tuple(map(_redaction_rule, redaction["rules"]))),
        tuple(Rule(rule["include"], _match(rule["match"]), rule["name"]) for rule in data["rules"]),
        None if sampling is None else Sampling(**sampling),
    )


def _redaction_rule(data: dict[str, Any]) -> RedactionRule:
    scope = Scope(tuple(data["scope"]["hosts"]), tuple(data["scope"]["paths"]))
    return RedactionRule(data["kind"], Part(data["part"]), data["pattern"], scope, data["keep"])


def _match(data: dict[str, Any]) -> Match:
    lists = {name: tuple(value) for name, value in data.items()}
    lists["statuses"] = tuple((first, last) for first, last in data["statuses"])
    lists["directions"] = tuple(map(Direction, data["directions"]))
    return Match(**lists)
