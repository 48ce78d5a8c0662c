"""A YAML text as plain data, with the place of every value and key.

The text comes from whoever may write the policy, so what it can cost is bounded: MOST_BYTES of text, MOST_VALUES in
MOST_DEPTH levels, and no aliases, with which a short text describes gigabytes. Plain scalars are read by the core schema of
YAML 1.2 (section 10.3): `off`, `no` and `2xx` are texts, and only `true` and `false` are truth values. No policy has
fractions: `1.5` is a text, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import yaml

from collector.errors import ConfigError

MOST_BYTES = 1 << 20
MOST_DEPTH = 32
MOST_VALUES = 100_000

Path = tuple[str | int, ...]

_NULL = frozenset({"", "~"} | {f"{first}ull" for first in "nN"} | {"NULL"})
_TRUE, _FALSE = frozenset({"true", "True", "TRUE"}), frozenset({"false", "False", "FALSE"})
_INTEGER = re.compile(r"[-+]?[0-9]{1,18}")
_TAGS = (None, "!", "tag:yaml.org,2002:str")  # none, or that of a text
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True)
class Place:
    """Where something stands, from 1; column 0: the whole line, line 0: nowhere."""

    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f":{self.line}:{self.column}" if self.column else f":{self.line}" if self.line else ""


class PolicyError(ConfigError):
    """A policy that cannot be used: ``name`` of the file, ``place`` in it, ``path`` of the key, and why."""

    def __init__(self, name: str, place: Place, path: Path, why: str) -> None:
        self.name, self.place, self.path, self.why = name, place, path, why
        super().__init__(f"{name}{place}: {shown(path)}{': ' if path else ''}{why}")


def shown(path: Path) -> str:
    """As people write it: `rules[2].exclude.hosts[0]`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


@dataclass(slots=True)
class Document:
    """``data`` of dict, list, str, int, bool and None. A path has keys and numbers, from the top."""

    name: str
    data: Any = None
    values: dict[Path, Place] = field(default_factory=dict)
    keys: dict[Path, Place] = field(default_factory=dict)

    def error(self, path: Path, why: str, *, key: bool = False) -> PolicyError:
        """About the value at ``path``, or its ``key``."""
        places = self.keys if key else self.values
        return PolicyError(self.name, places.get(path, Place()), path, why)


def read(data: bytes, name: str) -> Document:
    """The one document in ``data``; ``name`` is that of the file. Raises PolicyError."""
    if len(data) > MOST_BYTES:
        raise PolicyError(name, Place(), (), f"is longer than {MOST_BYTES >> 20} MiB")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise PolicyError(name, Place(line), (), "is not UTF-8 text") from None
    document = Document(name)
    try:
        _Reader(document, yaml.parse(text, Loader=_LOADER)).read()
    except yaml.YAMLError as error:
        raise _syntax_error(name, text, error) from None
    return document


def _syntax_error(name: str, text: str, error: yaml.YAMLError) -> PolicyError:
    """In the words of the library, with its place. What most often goes wrong is said plainly."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    if mark is None:
        position = getattr(error, "position", None)
        if isinstance(position, int):  # a character that YAML does not allow
            return PolicyError(
                name, Place(text.count("\n", 0, position) + 1), (), "holds a character that YAML does not allow"
            )
        return PolicyError(name, Place(), (), "is not YAML")
    lines = text.splitlines()
    line = lines[mark.line] if mark.line < len(lines) else ""
    why = "is not YAML: " + (getattr(error, "problem", None) or "cannot be read")
    if "alias" in why or "alias" in str(getattr(error, "context", "")):
        why = "a text that begins with `*` must stand in quotes"
    elif "\t" in line[: len(line) - len(line.lstrip())] or "'\\t'" in why:
        why = "is not YAML: indent with blanks, not with tabs"
    return PolicyError(name, Place(mark.line + 1, mark.column + 1), (), why)


class _Reader:
    """Builds the data from the events, without recursion into the text: its depth is counted."""

    def __init__(self, document: Document, events: Iterator[Any]) -> None:
        self._document = document
        self._events = events

    def read(self) -> None:
        first = True
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                if not first:
                    raise self._error(event, (), "there is a second document; a policy is one")
                first = False
                self._document.data = self._value(next(self._events), ())

    def _error(self, event: Any, path: Path, why: str) -> PolicyError:
        return PolicyError(self._document.name, _place(event), path, why)

    def _value(self, event: Any, path: Path) -> Any:
        self._document.values[path] = _place(event)
        if isinstance(event, yaml.AliasEvent):
            raise self._error(
                event, path, f"`*{event.anchor}` is an alias, which a policy may not use; a text goes in quotes"
            )
        if len(path) >= MOST_DEPTH or len(self._document.values) > MOST_VALUES:
            raise self._error(event, (), f"more than {MOST_DEPTH} levels, or {MOST_VALUES} values")
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event, path)
        if event.tag is not None:
            raise self._error(event, path, f"the tag {event.tag} is not allowed")
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(path)
        return self._mapping(path)

    def _sequence(self, path: Path) -> list[Any]:
        out: list[Any] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            out.append(self._value(event, (*path, len(out))))
        return out

    def _mapping(self, path: Path) -> dict[str, Any]:
        out: dict[str, Any] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent):
                raise self._error(event, path, "a key is expected to be a text")
            key = cast(str, event.value)
            if key in out:
                raise self._error(event, (*path, key), "is there twice")
            self._document.keys[*path, key] = _place(event)
            out[key] = self._value(next(self._events), (*path, key))
        return out

    def _scalar(self, event: Any, path: Path) -> Any:
        text = cast(str, event.value)
        if event.tag not in _TAGS:
            raise self._error(event, path, f"the tag {event.tag} is not allowed")
        if any(ord(c) < 32 or 127 <= ord(c) < 160 for c in text):
            raise self._error(event, path, "holds a control character")
        if event.style or event.tag is not None:
            return text
        if text in _NULL:
            return None
        if text in _TRUE or text in _FALSE:
            return text in _TRUE
        return int(text) if _INTEGER.fullmatch(text) else text


def _place(event: Any) -> Place:
    return Place(event.start_mark.line + 1, event.start_mark.column + 1)
