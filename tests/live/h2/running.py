"""A run of a pair: servers are started, the client makes its connections, and logs and records are compared."""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.conftest import ROOT
from tests.live.h2.pairs import Pair, Start
from tests.live.harness import Collector, wait_for
from tests.live.tls import starting
from tests.live.tls.bed import Bed
from tests.live.tls.exchanges import FIRST, Connection, Exchange, all_exchanges, content, warm_up
from tests.live.tls.starting import Running, log_lines

ROWS = ROOT / "build" / "h2-matrix"  # the figures of the last run, a file for each pair
ONE_CALL = 128 << 10  # a longer body may be cut: the kernel side copies so much of one call, and a little more
# of a longer one: what was not copied, and the frames whose beginning was in it
CUT = ("_body_cut", "_bytes_lost", "_incomplete")
MOST_WARMING = 40
LARGE = ((0, 700_000), (300_000, 20), (0, 200_000))


def plan(name: str, connections: int) -> list[Connection]:
    """Exchanges of many lengths, those of a connection at the same time; the same for each ``name``."""
    rng, out, number = random.Random(name), [], FIRST

    for _ in range(connections):
        connection = Connection()
        count = rng.choice((1, 2, 10, 40))
        # so many at a time that what a program sends in one call is copied
        sizes = (0, 1, 1_500, 16_000, 50_000) if count < 10 else (0, 1, 1_500, 1_500, 4_000)
        for _ in range(count):
            method = rng.choice(("GET", "GET", "POST", "PUT", "DELETE"))
            asked = rng.randint(0, rng.choice(sizes)) if method in ("POST", "PUT") else 0
            answer = rng.randint(0, rng.choice(sizes))
            connection.exchanges.append(Exchange(number, method, f"/{name}/{number}/{answer}", asked, answer))
            number += 1
        out.append(connection)
    for asked, answer in LARGE:
        method = "POST" if asked else "GET"
        out.append(Connection("whole", [Exchange(number, method, f"/{name}/{number}/{answer}", asked, answer)]))
        number += 1
    return out


@dataclass
class Site:
    """Servers that run."""

    front: Running
    start: Start
    behind: Running | None = None
    behind_start: Start | None = None


@contextmanager
def servers(pair: Pair, bed: Bed, directory: Path, *, clear: bool) -> Iterator[Site]:
    """All servers of a pair, while they run."""
    directory.mkdir()
    directory.chmod(0o777)
    with ExitStack() as stack:
        behind = behind_start = None
        if pair.behind:
            behind_start = Start(bed, directory, pair.behind_name, clear, stack)
            behind = pair.behind.start(behind_start)
            stack.callback(behind.close)
        address = f"127.0.0.1:{behind.port}" if behind else ""
        start = Start(bed, directory, pair.name, clear, stack, address, pair.behind_name)
        front = pair.server.start(start)
        stack.callback(front.close)
        yield Site(front, start, behind, behind_start)


@dataclass
class Outcome:
    """What a run has shown: a program's record for an exchange is right, or here is why not."""

    pair: str
    exchanges: int = 0
    records: int = 0
    marked: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def write(self) -> None:
        """The figures, for whoever asks for them later."""
        ROWS.mkdir(parents=True, exist_ok=True)
        (ROWS / f"{self.pair}.json").write_text(json.dumps(self.__dict__, indent=1) + "\n")


def seen(collector: Collector, pair: Pair, number: int) -> bool:
    """All sides of a warming exchange are recorded, with their addresses, and so will be those of the next."""
    sides = {(r["direction"], r["path"].split("/")[1]) for r in collector.records(f"/{number}/40") if r["ip"] != "0.0.0.0:0"}
    return set(pair.roles()) <= sides and collector.settled()


class Run:
    """One pair with one collector."""

    def __init__(
        self,
        collector: Collector,
        pair: Pair,
        bed: Bed,
        directory: Path,
        *,
        clear: bool,
        version: str = "HTTP/2.0",
        environment: dict[str, str] | None = None,
    ) -> None:
        """``version`` stands in requests to the front; ``environment`` is for the client."""
        self.collector, self.pair, self.bed, self.directory, self.clear = collector, pair, bed, directory, clear
        self._versions = {("http2", pair.name): version, ("http2", pair.behind_name): "HTTP/2.0"}
        self._environment = {**({"H2_CLEAR": "1"} if clear else {}), **(environment or {})}

    def converse(self, connections: list[Connection], *, first: int, name: str) -> tuple[Site, list[dict[str, Any]]]:
        """Servers and a client that makes ``connections``; before them, inside TLS, some until all sides are seen."""
        with servers(self.pair, self.bed, self.directory / name, clear=self.clear) as site:
            client = starting.Client(
                self.bed, site.start.directory, self.pair.client.command(), site.front.port, 1, **self._environment
            )
            try:
                for number in range(first, first + (0 if self.clear else MOST_WARMING), 2):
                    client.say(warm_up(self.pair.name, number))
                    wait_for(lambda last=number + 1: client.has_made(last), 20)  # type: ignore[misc]
                    if wait_for(lambda last=number + 1: seen(self.collector, self.pair, last), 1, quiet=True):  # type: ignore[misc]
                        break
                for connection in connections:
                    client.say(connection)
                client.finish()
                log = client.lines()
            finally:
                client.close()
            wait_for(lambda: len(logged(site.start.log)) >= len(all_exchanges(connections)), 5, quiet=True)
        return site, [line for line in log if line["number"] >= FIRST]

    def compare(self, connections: list[Connection]) -> Outcome:
        """All of it. A proxy is started twice inside TLS: the first keeps connections that are older than the probes."""
        if self.pair.behind and not self.clear:
            self.converse([], first=0, name="before")
        site, client = self.converse(connections, first=MOST_WARMING, name="run")
        out = Outcome(self.pair.name)
        exchanges = all_exchanges(connections)
        out.exchanges = len(exchanges)
        by_number = {line["number"]: line for line in client}
        for e in exchanges:
            line = by_number.get(e.number)
            right = content(self.bed.letters, e.number, e.answer)
            if line is None or (line["status"], line["sha256"]) != (e.status, hashlib.sha256(right).hexdigest()):
                out.problems.append(f"client: {e.path} {line}")
        records = self._records(len(exchanges) * len(self.pair.roles()))
        out.records = len(records)
        self._judge(out, site, exchanges, records)
        out.write()
        return out

    def _records(self, count: int) -> list[dict[str, Any]]:
        names = (self.pair.name, self.pair.behind_name)

        def found() -> list[dict[str, Any]]:
            mine = [r for r in self.collector.records(f"/{self.pair.name}") if r["path"].split("/")[1] in names]
            return [r for r in mine if int(r["path"].split("/")[-2]) >= FIRST]

        wait_for(lambda: len(found()) >= count, 10, quiet=True)
        wait_for(lambda: len(found()) > count, 0.3, quiet=True)  # surplus ones
        return found()

    def _judge(self, out: Outcome, site: Site, exchanges: list[Exchange], records: list[dict[str, Any]]) -> None:
        found: defaultdict[tuple[str, str, int], list[dict[str, Any]]] = defaultdict(list)
        for record in records:
            words = record["path"].split("/")
            found[record["direction"], words[1], int(words[-2])].append(record)
        logs = {self.pair.name: logged(site.start.log)}
        ends = {self.pair.name: f"127.0.0.1:{site.front.port}"}
        if site.behind and site.behind_start:
            logs[self.pair.behind_name] = logged(site.behind_start.log)
            ends[self.pair.behind_name] = f"127.0.0.1:{site.behind.port}"
        for (direction, name), (process, protocol) in self.pair.roles().items():
            for e in exchanges:
                its = found.pop((direction, name, e.number), [])
                if len(its) != 1:
                    out.problems.append(f"{len(its)} records of /{name}/{e.number}, direction {direction}")
                if e.number not in logs[name]:
                    out.problems.append(f"/{name}/{e.number} is not in the server's log")
                for record in its[:1]:
                    facts = {
                        "process_name": process,
                        "protocol": protocol,
                        "tls": "false" if self.clear else "true",
                        "destIp": ends[name],
                        "ip": logs[name].get(e.number, {}).get("peer"),
                    }
                    self._judge_one(out, record, e, facts)
        out.problems += [f"not of the plan: {key}" for key in found]

    def _judge_one(self, out: Outcome, record: dict[str, Any], e: Exchange, facts: dict[str, Any]) -> None:
        facts |= {
            "method": e.method,
            "statusCode": str(e.status),
            "type": self._versions.get((facts["protocol"], record["path"].split("/")[1]), "HTTP/1.1"),
        }
        where = f"{record['path']}, direction {record['direction']}, {record['mark']}"
        allowed: set[str] = set()
        for side, size in (("request", e.request), ("response", e.answer)):
            right = content(self.bed.letters, e.number, size, request=side == "request").decode()
            shown = record[f"{side}Payload"]
            if size > ONE_CALL and record["words"] & (words := {f"{side}{word}" for word in CUT}):
                allowed |= words
                right = right[: len(shown)]
            else:
                facts[f"{side}Size"] = str(size)
            if shown != right:
                out.problems.append(f"{side} body: {len(shown)} of {size}: {where}")
        out.problems += [
            f"{name} is {record[name]}, not {right}: {where}" for name, right in facts.items() if record[name] != right
        ]
        if record["words"] - allowed:
            out.problems.append(f"marked: {where}")
        out.marked.update(record["words"])


def logged(log: Path) -> dict[int, dict[str, Any]]:
    """What a server has written down, by number."""
    return {line["number"]: line for line in log_lines(log) if line["number"] >= FIRST}
