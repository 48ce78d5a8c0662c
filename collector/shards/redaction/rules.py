"""A policy's own rules of redaction: what they say of the values of a head or a body, before the built-in policy is asked.

They are for the exception, and are made of objects; what they cost is said in docs/policy.md. Without rules nothing of
this is called.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import unquote_plus

import re2

from collector.policy.model import Part, Redaction, RedactionRule, Scope

KEEP = ""  # instead of a kind: the value stays, whatever the built-in policy says of it
SETS = 255  # of rules in force together, for one host and path: those beyond have all rules that could apply
REMEMBERED = 4096  # names, hosts and paths whose rules are known

_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*+(?:"|\Z|\\\Z)|[{}\[\],:]|[^\s{}\[\],:"]+', re.DOTALL)
_END = b"\0"  # behind each segment of a path in JSON, where no name has one


@dataclass(frozen=True, slots=True)
class Value:
    """Where a value stands in its text, and what it becomes: a kind, or KEEP."""

    begin: int
    end: int
    kind: str
    quoted: bool = True  # it has quotes around it, or needs none


def glob(pattern: str) -> re.Pattern[str]:
    """`*` is any characters."""
    return re.compile(".*".join(map(re.escape, pattern.split("*"))), re.DOTALL)


def _scope(scope: Scope) -> Callable[[str, str], bool]:
    hosts, paths = [glob(one.lower()) for one in scope.hosts], [glob(one) for one in scope.paths]

    def holds(host: str, path: str) -> bool:
        return (not hosts or any(one.fullmatch(host) for one in hosts)) and (
            not paths or any(one.fullmatch(path) for one in paths)
        )

    return holds


def _pointer(pattern: str) -> re.Pattern[bytes]:
    """A pointer (RFC 6901) as a regular expression for a path whose segments end with _END."""
    out = b""
    for segment in pattern.split("/")[1:]:
        if segment == "**":
            out += b"(?:[^\\x00]*\\x00)*"
        elif segment == "*":
            out += b"[^\\x00]*\\x00"
        else:
            out += re.escape(segment.replace("~1", "/").replace("~0", "~").encode()) + b"\\x00"
    return re.compile(out, re.DOTALL)


def _template(pattern: str) -> re.Pattern[str]:
    """`/customers/{*}/orders`: `*` is any segment; one in braces, whatever is in them, is any, and a group."""
    out = ""
    for segment in pattern.split("/")[1:]:
        braces = segment.startswith("{") and segment.endswith("}")
        out += "/" + ("([^/]+)" if braces else "[^/]*" if segment == "*" else re.escape(segment))
    return re.compile(out)


class RuleSet:
    """The rules in force for a host and path, in their order."""

    def __init__(self, rules: Sequence[RedactionRule]) -> None:
        self._names: list[tuple[Part, Callable[[str], object], RedactionRule]] = []
        for rule in rules:
            if rule.part is Part.NAME:
                self._names.append((rule.part, re2.compile(rule.pattern).fullmatch, rule))
            elif rule.part in (Part.HEADER, Part.QUERY):
                self._names.append((rule.part, re.compile(re.escape(rule.pattern), re.IGNORECASE).fullmatch, rule))
        self._pointers = [(_pointer(rule.pattern), rule) for rule in rules if rule.part is Part.JSON]
        self._values = [(re2.compile(rule.pattern.encode()), rule) for rule in rules if rule.part is Part.VALUE]
        self._paths = [(_template(rule.pattern), rule) for rule in rules if rule.part is Part.PATH]
        self._order = {id(rule): number for number, rule in enumerate(rules)}
        self.of_name = lru_cache(REMEMBERED)(self._of_name)

    def _first(self, rules: Iterator[RedactionRule]) -> RedactionRule | None:
        return min(rules, key=lambda rule: self._order[id(rule)], default=None)

    def _of_name(self, part: Part, name: str) -> RedactionRule | None:
        """The first rule for a field of this name: of a head, a query or a body (NAME)."""
        fitting = (rule for kind, fits, rule in self._names if kind in (Part.NAME, part) and fits(name))
        return next(fitting, None)

    def _inside(self, text: bytes, begin: int, end: int) -> Iterator[Value]:
        """What rules for values find in a value."""
        for pattern, rule in self._values:
            for found in pattern.finditer(text[begin:end]):
                if found.end() > found.start():
                    yield Value(begin + found.start(), begin + found.end(), KEEP if rule.keep else rule.kind)

    def field(self, name: bytes, value: bytes) -> list[Value]:
        """Of a header field."""
        rule = self.of_name(Part.HEADER, name.decode("latin-1"))
        if rule is not None:
            return [Value(0, len(value), KEEP if rule.keep else rule.kind)]
        return list(self._inside(value, 0, len(value)))

    def pairs(self, text: bytes, part: Part, begin: int = 0) -> list[Value]:
        """Of a query (QUERY) or form (NAME), which begins there."""
        out: list[Value] = []
        at = begin
        for pair in text[begin:].split(b"&"):
            name, sign, value = pair.partition(b"=")
            start, at = at + len(name) + len(sign), at + len(pair) + 1
            rule = self.of_name(part, unquote_plus(name.decode("latin-1"))) if sign and value else None
            if rule is not None:
                out.append(Value(start, start + len(value), KEEP if rule.keep else rule.kind))
            else:
                out += self._inside(text, start, start + len(value))
        return out

    def target(self, target: bytes) -> list[Value]:
        """Of a target: its path, then its query."""
        path, _mark, query = target.partition(b"?")
        text = path.decode("latin-1")
        out = []
        for pattern, rule in self._paths:
            found = pattern.fullmatch(text)
            for begin, end in found.regs[1:] if found else ():
                if end > begin:
                    out.append(Value(begin, end, KEEP if rule.keep else rule.kind))
        out += self._inside(target, 0, len(path))
        if query:
            out += self.pairs(target, Part.QUERY, len(path) + 1)
        return out

    def body(self, text: bytes) -> list[Value]:
        """Of a body that is no form."""
        if text.lstrip()[:1] not in (b"{", b"["):
            return list(self._inside(text, 0, len(text)))
        return list(self._json(text))

    def _json(self, text: bytes) -> Iterator[Value]:
        """Of each value of a JSON text, or of several; where it is cut, of what is here."""
        stack: list[list[object]] = []  # of each level: is it an object, the name or number of its member
        name: bytes | None = None  # the last string, if it may be a name
        tokens = list(_TOKEN.finditer(text))
        for number, found in enumerate(tokens):
            token = found.group()
            if token in (b"{", b"["):
                stack.append([token == b"{", b"" if token == b"{" else 0])
            elif token in (b"}", b"]"):
                if stack:
                    stack.pop()
            elif token == b",":
                if stack and not stack[-1][0]:
                    stack[-1][1] = int(str(stack[-1][1])) + 1
            elif token == b":":
                if stack and name is not None:
                    stack[-1][1] = name
            else:
                behind = tokens[number + 1].group() if number + 1 < len(tokens) else b""
                if token[:1] == b'"' and behind == b":" and stack and stack[-1][0]:
                    name = _plain(token)
                    continue
                yield from self._value(text, found.start(), found.end(), stack)

    def _value(self, text: bytes, begin: int, end: int, stack: Sequence[Sequence[object]]) -> Iterator[Value]:
        quoted = text[begin : begin + 1] == b'"'
        if quoted:
            begin += 1
            end -= text[end - 1 : end] == b'"' and end > begin
        elif text[begin:end] in (b"true", b"false", b"null"):
            return
        path = b"".join((key if isinstance(key, bytes) else str(key).encode()) + _END for _object, key in stack)
        rules = [rule for pattern, rule in self._pointers if pattern.fullmatch(path)]
        last = next((key for is_object, key in reversed(stack) if is_object), b"")
        named = self.of_name(Part.NAME, last.decode("utf-8", "replace")) if isinstance(last, bytes) and last else None
        if named is not None:
            rules.append(named)
        rule = self._first(iter(rules))
        if rule is not None:
            yield Value(begin, end, KEEP if rule.keep else rule.kind, quoted)
            return
        for value in self._inside(text, begin, end):
            yield value if quoted else Value(begin, end, value.kind, quoted)


def _plain(token: bytes) -> bytes:
    """A name of JSON without quotes and escapes."""
    name = token[1:].removesuffix(b'"')
    if b"\\" not in name:
        return name
    return re.sub(rb"\\u([0-9a-fA-F]{4})", lambda one: chr(int(one[1], 16)).encode("utf-8", "replace"), name)


class Rules:
    """All rules of a policy: which of them are in force for a host and path, by number."""

    def __init__(self, redaction: Redaction) -> None:
        self._rules = [(_scope(rule.scope), rule) for rule in redaction.rules]
        self.scoped = any(rule.scope != Scope() for rule in redaction.rules)
        self._numbers: dict[tuple[int, ...], int] = {}
        self.sets: list[RuleSet | None] = [None]
        everything = tuple(range(len(self._rules)))
        self._all = self._number_of(everything)
        self.number = lru_cache(REMEMBERED)(self._number)

    def _number_of(self, chosen: tuple[int, ...]) -> int:
        if not chosen:
            return 0
        number = self._numbers.get(chosen)
        if number is None:
            if len(self.sets) > SETS:
                return self._all
            number = self._numbers[chosen] = len(self.sets)
            self.sets.append(RuleSet([self._rules[one][1] for one in chosen]))
        return number

    def _number(self, host: bytes, target: bytes) -> int:
        """Of the set for a request."""
        if not self.scoped:
            return self._all
        name = host.decode("latin-1").lower().partition(":")[0]
        path = target.partition(b"?")[0].decode("latin-1")
        return self._number_of(tuple(n for n, (holds, _rule) in enumerate(self._rules) if holds(name, path)))

    def set_of(self, number: int) -> RuleSet:
        """The rules with this number, which is not 0."""
        found = self.sets[number]
        assert found is not None
        return found


def apply(text: bytes, values: Sequence[Value], replacement: Callable[[str, bytes], bytes]) -> tuple[bytes, list[int], int]:
    """(the text with its values replaced, begin and end of each that is to be kept, one behind the other, how many were
    replaced). Of values that overlap the earlier one counts; of those that begin together, the earlier rule's.
    """
    out, kept, count, done, size = [], list[int](), 0, 0, 0
    for value in sorted(values, key=lambda one: one.begin):
        if value.begin < done:
            continue
        before = text[done : value.begin]
        now = text[value.begin : value.end]
        if value.kind != KEEP:
            now = replacement(value.kind, now)
            if not value.quoted:
                now = b'"' + now + b'"'
            count += 1
        out += [before, now]
        size += len(before)
        kept += [size, size + len(now)]  # what was replaced is not replaced once more
        size += len(now)
        done = value.end
    out.append(text[done:])
    return b"".join(out), kept, count
