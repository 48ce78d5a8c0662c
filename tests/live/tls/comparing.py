"""What client, servers and collector say of the same exchanges: the logs against the plan, the records against the logs."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.live.tls.bed import Bed
from tests.live.tls.exchanges import FIRST, Connection, Exchange, all_exchanges, content
from tests.live.tls.programs import Pair, Program, Server
from tests.live.tls.starting import Site

SERVED, CALLED = "1", "2"
ONE_CALL = 128 << 10  # a longer body may be cut: the kernel side copies so much of one call, and a little more
CUT_AT_LEAST = 60 << 10  # and then at least so much is there
NO_PEER = "0.0.0.0:0"
CUTS = frozenset({"request_body_cut", "response_body_cut"})


@dataclass
class Run:
    """What was done, and the logs of it, by number of exchange; numbers of warming up are left out."""

    pair: Pair
    bed: Bed
    connections: list[Connection]
    site: Site
    client: list[dict[str, Any]] = field(default_factory=list)
    server: list[dict[str, Any]] = field(default_factory=list)
    behind: list[dict[str, Any]] = field(default_factory=list)

    def abandoned(self) -> set[int]:
        """Exchanges whose answers the client did not wait for."""
        return {e.number for c in self.connections for e in c.exchanges if c.abandoned(e)}


@dataclass(frozen=True)
class Side:
    """One record that must be there."""

    direction: str
    program: Program | Server
    exchange: Exchange
    path: str
    ip: str
    dest: str
    abandoned: bool


def by_number(lines: Iterable[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """The last line of each exchange."""
    return {line["number"]: line for line in lines}


def log_problems(run: Run) -> list[str]:
    """Where the logs differ from the plan or from each other."""
    problems = []
    planned = all_exchanges(run.connections)
    passed_on = [e for e in planned if run.site.behind and not run.site.answers(e)]
    for name, lines, wanted in (
        ("client", run.client, planned),
        ("server", run.server, planned),
        ("behind", run.behind, passed_on),
    ):
        times = Counter(line["number"] for line in lines)
        for number, count in (times - Counter(e.number for e in wanted)).items():
            problems.append(f"{name}: {number} logged {count} times too often")
        problems += [f"{name}: {e.path} is missing" for e in wanted if not times[e.number]]
    client, server, behind = by_number(run.client), by_number(run.server), by_number(run.behind)
    abandoned = run.abandoned()
    for e in planned:
        if e.number in client and e.number in server:
            problems += _answer_problems(run, e, client[e.number], e.number in abandoned)
            problems += _request_problems(run, e, behind.get(e.number, server[e.number]))
            if client[e.number]["local"] not in ("", server[e.number]["peer"]):
                problems.append(f"{e.path}: {client[e.number]['local']} called {server[e.number]['peer']}")
    return problems


def _answer_problems(run: Run, e: Exchange, line: dict[str, Any], abandoned: bool) -> Iterator[str]:
    answer = content(run.bed.letters, e.number, e.answer)
    if not abandoned and line["bytes"] != e.answer or line["bytes"] > e.answer:
        yield f"{e.path}: answer of {line['bytes']} bytes"
    elif line["sha256"] != hashlib.sha256(answer[: line["bytes"]]).hexdigest():
        yield f"{e.path}: answer of other bytes"
    if line["status"] not in (e.status, 0):
        yield f"{e.path}: status {line['status']}, not {e.status}"


def _request_problems(run: Run, e: Exchange, line: dict[str, Any]) -> Iterator[str]:
    if line["method"] != e.method:
        yield f"{e.path}: method {line['method']}, not {e.method}"
    body = content(run.bed.letters, e.number, e.request, request=True)
    if "sha256" in line and line["sha256"] != hashlib.sha256(body).hexdigest():
        yield f"{e.path}: request of other bytes ({line['bytes']}, not {e.request})"


def sides(run: Run) -> list[Side]:
    """All records that the run must have made."""
    server, behind = by_number(run.server), by_number(run.behind)
    abandoned = run.abandoned()
    out = []
    for e in all_exchanges(run.connections):
        left = e.number in abandoned
        ends = (server[e.number]["peer"], run.site.address, left)
        out.append(Side(CALLED, run.pair.client, e, e.path, *ends))
        out.append(Side(SERVED, run.pair.server, e, e.path, *ends))
        if e.number in behind:
            assert run.pair.behind is not None and run.site.behind is not None
            path = e.path.replace(f"/{run.site.name}/", f"/{run.site.behind.name}/")
            ends = (behind[e.number]["peer"], run.site.behind.address, left)
            out.append(Side(CALLED, run.pair.server, e, path, *ends))
            out.append(Side(SERVED, run.pair.behind, e, path, *ends))
    return out


@dataclass
class Row:
    """One program on one side of a pair: a row of the table. ``wrong``: records that differ in anything from what the logs
    say, an address of another connection included; ``no_peer``: an address is missing; ``doubtful``: marked."""

    pair: str
    role: str
    program: str
    version: str
    library: str
    exchanges: int = 0
    records: int = 0
    lost: int = 0
    wrong: int = 0
    no_peer: int = 0
    doubtful: int = 0
    doubled: int = 0
    foreign: int = 0
    examples: dict[str, list[Any]] = field(default_factory=dict)

    def tell(self, what: str, example: object) -> None:
        """Keep some examples of a difference."""
        told = self.examples.setdefault(what, [])
        if len(told) < 4:
            told.append(example)

    def good(self) -> bool:
        """Each exchange once and right; one in a thousand may say of itself that something is missing (a busy machine)."""
        marked = 1000 * (self.no_peer + self.doubtful) <= self.exchanges
        return marked and not (self.lost or self.wrong or self.doubled or self.foreign)

    def write(self, directory: Path) -> None:
        """As JSON, for the table."""
        directory.mkdir(parents=True, exist_ok=True)
        name = f"{self.pair}.{self.role.replace(' ', '-')}.json"
        (directory / name).write_text(json.dumps(asdict(self), indent=1) + "\n")


def roles(pair: Pair) -> dict[tuple[str, str], tuple[str, Program | Server]]:
    """What each (direction, name of a server) is in a pair."""
    out: dict[tuple[str, str], tuple[str, Program | Server]] = {
        (CALLED, ""): ("client", pair.client),
        (SERVED, ""): ("server", pair.server),
    }
    if pair.behind:
        out[CALLED, "behind"] = ("proxy's client", pair.server)
        out[SERVED, "behind"] = ("server behind", pair.behind)
    return out


def compare(run: Run, records: Iterable[dict[str, Any]]) -> list[Row]:
    """A row for each side: which records are missing, wrong, in doubt, too many."""
    rows = {
        key: Row(run.pair.name, role, program.name, program.version(), program.library())
        for key, (role, program) in roles(run.pair).items()
    }

    def row(direction: str, path: str) -> Row:
        return rows[direction, "behind" if path.startswith(f"/{behind_name(run.pair)}/") else ""]

    found: defaultdict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for record in records:
        if int(record["path"].split("/")[-2]) >= FIRST:
            found[record["direction"], record["path"]].append(record)
            row(record["direction"], record["path"]).records += 1
    for side in sides(run):
        one = row(side.direction, side.path)
        one.exchanges += 1
        its = found.pop((side.direction, side.path), [])
        if not its:
            one.lost += 1
            one.tell("lost", side.path)
        for surplus in its[1:]:
            one.doubled += 1
            one.tell("doubled", (side.path, surplus["marks"]))
        for record in its[:1]:
            judge(one, record, side, run.bed.letters)
    for (direction, path), surplus_ones in found.items():
        row(direction, path).foreign += len(surplus_ones)
        row(direction, path).tell("foreign", path)
    return list(rows.values())


def behind_name(pair: Pair) -> str:
    """The first part of the paths behind a proxy."""
    return f"{pair.name}-behind"


def judge(row: Row, record: dict[str, Any], side: Side, letters: bytes) -> None:
    """Count what is wrong with one record."""
    words = {mark.partition(":")[0] for mark in json.loads(record["marks"])}
    wrong = list(_ends_differ(row, record, side)) + list(_facts_differ(record, side))
    wrong += _body_differs(record, side, "request", words, letters)
    if record["statusCode"] != "0":
        wrong += _body_differs(record, side, "response", words, letters)
    for what, example in wrong:
        row.tell(f"wrong {what}", (side.path, example))
    row.wrong += bool(wrong)
    allowed = {"peer_unknown"}
    if side.exchange.request > ONE_CALL:
        allowed.add("request_body_cut")
    if side.exchange.answer > ONE_CALL:
        allowed.add("response_body_cut")
    if not side.abandoned and words - allowed:
        row.doubtful += 1
        row.tell("marked", (side.path, record["marks"]))


def _ends_differ(row: Row, record: dict[str, Any], side: Side) -> Iterator[tuple[str, object]]:
    ends = ((record["ip"], side.ip), (record["destIp"], side.dest))
    if any(said == NO_PEER for said, _ in ends):
        row.no_peer += 1
        row.tell("no peer", (side.path, ends))
    if any(said not in (NO_PEER, true) for said, true in ends):
        yield "peer", ends


def _facts_differ(record: dict[str, Any], side: Side) -> Iterator[tuple[str, object]]:
    facts = {"method": side.exchange.method, "tls": "true", "process_name": side.program.process}
    if record["statusCode"] != "0":  # without an answer: marked
        facts["statusCode"] = str(side.exchange.status)
    for name, true in facts.items():
        if record[name] != true:
            yield name, (record[name], true)


def _body_differs(
    record: dict[str, Any], side: Side, which: str, words: set[str], letters: bytes
) -> Iterator[tuple[str, object]]:
    request = which == "request"
    size = side.exchange.request if request else side.exchange.answer
    true = content(letters, side.exchange.number, size, request=request).decode()
    payload = record[f"{which}Payload"]
    broken = {f"{which}_bytes_lost", f"{which}_incomplete"} & words  # a prefix, at least
    cut = f"{which}_body_cut" in words
    if not true.startswith(payload):
        yield f"{which} body", (payload[:30], len(payload), "of", size)
    elif len(payload) < (min(size, CUT_AT_LEAST) if cut else size) and not broken:
        yield f"{which} body's length", (len(payload), "of", size, sorted(words))
    if record[f"{which}Size"] != str(size) and not broken:
        yield f"{which}Size", (record[f"{which}Size"], size)
