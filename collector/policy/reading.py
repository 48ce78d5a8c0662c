"""From the text of a policy file to a model.Policy. docs/policy.md describes the format.

    policy = read(data, "/etc/collector/policy.yaml")      # PolicyError: file, line, column, key, what was expected

All that shards compile is tried out here, so that what was read can be used.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable
from typing import Any

from collector.policy import complaints, document, patterns
from collector.policy.document import MOST_BYTES, Document, Path, Place, PolicyError
from collector.policy.model import (
    BUILTIN,
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

_DIGEST = 16  # hexadecimal digits of the SHA-256 that are shown

_PART_CHECKS: dict[Part, Callable[[str], str]] = {
    Part.PATH: patterns.template,
    Part.JSON: patterns.pointer,
    Part.NAME: patterns.regex,
    Part.VALUE: patterns.regex,
}


def read_file(path: str) -> Policy:
    """The policy in a file. Raises PolicyError."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)  # a pipe must not hold us up
        with open(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise PolicyError(path, Place(), (), "is no regular file")
            data = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        raise PolicyError(path, Place(), (), getattr(error, "strerror", None) or str(error)) from None
    return read(data, path)


def read(data: bytes, name: str) -> Policy:
    """The policy in a text. ``name`` is the file's, for errors, and without folder and extension the policy's own where it
    gives itself none. Raises PolicyError.
    """
    read = document.read(data, name)
    complaints.check(read)
    if read.data.get("name") in BUILTIN:
        raise read.error(("name",), "is that of a built-in policy")
    return Policy(
        name=read.data.get("name") or _name_of(name),
        digest=hashlib.sha256(data).hexdigest()[:_DIGEST],
        redaction=_redaction(read, read.data.get("redaction", {})),
        rules=tuple(_rule(read, ("rules", i), rule) for i, rule in enumerate(read.data.get("rules", ()))),
        sampling=_sampling(read.data.get("sampling")),
    )


def _name_of(path: str) -> str:
    """What a file without a name is called: never as a built-in policy is."""
    name = os.path.splitext(os.path.basename(path))[0]
    name = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in name)[:58].lstrip("._-") or "policy"
    return f"{name}-file" if name in BUILTIN else name


def _redaction(read: Document, data: dict[str, Any]) -> Redaction:
    rules = tuple(_redaction_rule(read, ("redaction", "rules", i), rule) for i, rule in enumerate(data.get("rules", ())))
    return Redaction(Mode(data.get("builtin", "off")), rules)


def _redaction_rule(read: Document, path: Path, data: dict[str, Any]) -> RedactionRule:
    part = next(part for part in Part if part.value in data)
    pattern: str = data[part.value]
    if part in _PART_CHECKS and (why := _PART_CHECKS[part](pattern)):
        raise read.error((*path, part.value), why)
    keep: bool = data.get("keep", False)
    if "kind" not in data and not keep:
        raise read.error(path, "kind is missing: what a redacted value is called")
    scope = Scope(_texts(read, path, data, "hosts", patterns.host), _texts(read, path, data, "paths", patterns.path))
    return RedactionRule(data.get("kind", ""), part, pattern, scope, keep)


def _rule(read: Document, path: Path, data: dict[str, Any]) -> Rule:
    verb = "include" if "include" in data else "exclude"
    return Rule(verb == "include", _match(read, (*path, verb), data[verb]), data.get("name", ""))


def _match(read: Document, path: Path, data: dict[str, Any]) -> Match:
    return Match(
        hosts=tuple(host.lower().rstrip(".") or "." for host in _texts(read, path, data, "hosts", patterns.host)),
        paths=_texts(read, path, data, "paths", patterns.path),
        methods=_texts(read, path, data, "methods", patterns.method),
        statuses=tuple(_status(read, (*path, "statuses", i), one) for i, one in enumerate(data.get("statuses", ()))),
        content_types=tuple(one.lower() for one in _texts(read, path, data, "contentTypes", patterns.content_type)),
        processes=_texts(read, path, data, "processes"),
        addresses=_texts(read, path, data, "addresses", patterns.address),
        directions=tuple(Direction(one) for one in data.get("directions", ())),
    )


def _texts(
    read: Document, path: Path, data: dict[str, Any], key: str, check: Callable[[str], str] | None = None
) -> tuple[str, ...]:
    for i, text in enumerate(data.get(key, ())):
        if check is not None and (why := check(text)):
            raise read.error((*path, key, i), why)
    return tuple(data.get(key, ()))


def _status(read: Document, path: Path, value: int | str) -> tuple[int, int]:
    """From and to: of 404, "404", "4xx", "500-503"."""
    if isinstance(value, int):
        return value, value
    if value.endswith("xx"):
        return int(value[0]) * 100, int(value[0]) * 100 + 99
    first, _, last = value.partition("-")
    if int(last or first) < int(first):
        raise read.error(path, f"ends before it begins; did you mean {last}-{first}?")
    return int(first), int(last or first)


def _sampling(data: dict[str, Any] | None) -> Sampling | None:
    if data is None:
        return None
    plain = Sampling(0)
    return Sampling(
        first=data["first"],
        one_in=data.get("oneIn", plain.one_in),
        heads_only=data.get("headsOnly", plain.heads_only),
        errors_one_in=data.get("errorsOneIn", plain.errors_one_in),
        marked_one_in=data.get("markedOneIn", plain.marked_one_in),
        endpoints=data.get("endpoints", plain.endpoints),
    )
