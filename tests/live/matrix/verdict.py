"""What the records of a collector say about exchanges, against what is known of them."""

from __future__ import annotations

import json
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tests.events import validate
from tests.live.harness import Collector
from tests.live.matrix.traffic import Exchange, text

ONE_CALL = 128 << 10  # a longer body may be cut: the kernel side copies so much of one call, and a little more


@dataclass(frozen=True)
class Expected:
    """One record: whose it is, and its addresses."""

    direction: str
    exchange: Exchange
    path: str
    ip: str
    dest: str
    pids: frozenset[int]
    name: str


class Records:
    """Records as they come: each line is read once."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector
        # a line may be under way, so not the size: what is read has to begin with a line
        self._at = collector.output.read_bytes().rfind(b"\n") + 1 if collector.output.exists() else 0
        self._rest = b""
        self._found: list[dict[str, Any]] = []

    def _read(self) -> int:
        if not self._collector.output.exists():
            return 0
        with self._collector.output.open("rb") as file:
            file.seek(self._at)
            data = file.read()
        self._at += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._found += [validate(json.loads(line)) for line in lines]
        return len(lines)

    def wait(self, prefixes: tuple[str, ...], count: int, quiet: float = 20) -> list[dict[str, Any]]:
        """``count`` records under these prefixes and a moment for surplus ones; or all there are after some quiet."""
        changed = time.monotonic()
        while time.monotonic() < changed + quiet and len(self._under(prefixes)) < count:
            if self._read():
                changed = time.monotonic()
            time.sleep(0.05)
        time.sleep(0.3)
        self._read()
        return self._under(prefixes)

    def _under(self, prefixes: tuple[str, ...]) -> list[dict[str, Any]]:
        return [r for r in self._found if r["path"].startswith(tuple(p + "/" for p in prefixes))]


class Verdict:
    """Differences, by direction and kind, with the first examples of each."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.examples: defaultdict[str, list[Any]] = defaultdict(list)

    def add(self, direction: str, what: str, example: object = None) -> None:
        """One more difference."""
        key = f"direction {direction}: {what}"
        self.counts[key] += 1
        if example is not None and len(self.examples[key]) < 3:
            self.examples[key].append(example)

    def update(self, other: Verdict) -> None:
        """The other's differences too."""
        self.counts.update(other.counts)
        self.examples.update(other.examples)

    def __bool__(self) -> bool:
        return bool(self.counts)

    def __str__(self) -> str:
        lines = [f"{count} x {what}  {self.examples[what] or ''}" for what, count in sorted(self.counts.items())]
        return "\n".join(["what the records say is not what happened:", *lines])


def is_pair(record: dict[str, Any], exchange: Exchange) -> bool:
    """The answer in the record is that to the question in it."""
    number: str = record["responsePayload"].partition(".")[0]
    return record["statusCode"] == "200" and number == str(exchange.number)


def compare(records: Iterable[dict[str, Any]], expected: list[Expected], *, words: frozenset[str] = frozenset()) -> Verdict:
    """Exactly the records that are expected, whole, right, and without marks (but for ``words``)."""
    verdict = Verdict()
    found: defaultdict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for record in records:
        found[record["direction"], record["path"]].append(record)
    for one in expected:
        its = found.pop((one.direction, one.path), [])
        if not its:
            verdict.add(one.direction, "missing", one.path)
        for surplus in its[1:]:
            verdict.add(one.direction, "surplus", (surplus["path"], surplus["mark"]))
        for record in its[:1]:
            judge(verdict, record, one, words)
    for (direction, path), its in found.items():
        verdict.add(direction, "of nobody", (path, len(its)))
    return verdict


def judge(verdict: Verdict, record: dict[str, Any], one: Expected, words: frozenset[str]) -> None:
    """All differences of one record."""
    exchange = one.exchange
    allowed = words | {"response_body_cut"} if exchange.size > ONE_CALL else words
    marks = record["words"] - allowed
    if marks:
        verdict.add(one.direction, "marked " + " ".join(sorted(marks)), record["path"])
    if record["statusCode"] != "0" and not is_pair(record, exchange):
        verdict.add(
            one.direction,
            "WRONG PAIR" + (", marked" if record["mark"] else ""),
            (record["path"], record["status"], record["responsePayload"][:20]),
        )
    if (record["ip"], record["destIp"]) != (one.ip, one.dest):
        verdict.add(one.direction, "addresses", (record["ip"], record["destIp"], "not", one.ip, one.dest))
    if int(record["process_id"]) not in one.pids:
        verdict.add(one.direction, "process_id", (record["process_id"], "not", *sorted(one.pids)))
    if record["process_name"] != one.name:
        verdict.add(one.direction, "process_name", (record["process_name"], "not", one.name))
    if not marks:
        bytes_differ(verdict, record, one)


def bytes_differ(verdict: Verdict, record: dict[str, Any], one: Expected) -> None:
    """Method, sizes and bodies of a record that says it is whole."""
    exchange = one.exchange
    wanted = text(exchange.number, exchange.size)
    if "response_body_cut" in record["words"]:
        wanted = wanted[: max(ONE_CALL, len(record["responsePayload"]))]
    facts = {
        "method": exchange.method,
        "statusCode": "200",
        "requestSize": str(len(exchange.body)),
        "requestPayload": exchange.body,
        "responseSize": str(exchange.size),
        "responsePayload": wanted,
    }
    for field, value in facts.items():
        if record[field] != value:
            verdict.add(one.direction, field, (record["path"], record[field][:40], len(record[field])))


def never_wrong(records: Iterable[dict[str, Any]], expected: list[Expected]) -> Verdict:
    """A record may be missing, and it may be marked. One without marks is right in everything. A pair that is wrong must
    say `pairing_uncertain`: another mark is no warning of that."""
    verdict = Verdict()
    known = {(one.direction, one.path): one for one in expected}
    for record in records:
        one = known.pop((record["direction"], record["path"]), None)
        if one is None:
            verdict.add(record["direction"], "surplus or of nobody", (record["path"], record["mark"]))
        elif not record["mark"]:
            judge(verdict, record, one, frozenset())
        elif record["responsePayload"] and not is_pair(record, one.exchange) and "pairing_uncertain" not in record["words"]:
            verdict.add(
                one.direction,
                "WRONG PAIR without pairing_uncertain",
                (record["path"], record["mark"], record["responsePayload"][:20]),
            )
    return verdict
