"""A run of a pair: servers are started, the client makes all its connections, and the logs are taken."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from tests.live.harness import Collector, wait_for
from tests.live.tls.bed import Bed
from tests.live.tls.comparing import NO_PEER, Run, behind_name, roles
from tests.live.tls.exchanges import FIRST, Connection, all_exchanges, plan, warm_up
from tests.live.tls.programs import Pair
from tests.live.tls.starting import Client, Site, Start

MOST_WARMING = 20


@contextmanager
def servers(pair: Pair, bed: Bed, directory: Path, connections: list[Connection]) -> Iterator[Site]:
    """All servers of a pair, while they run."""
    with ExitStack() as stack:
        behind = None
        if pair.behind:
            behind = pair.behind.start(Start(bed, directory, behind_name(pair), connections, stack))
            stack.callback(behind.front.close)
        site = pair.server.start(Start(bed, directory, pair.name, connections, stack, behind))
        stack.callback(site.front.close)
        yield site


def run(pair: Pair, bed: Bed, directory: Path, count: int, seen: Callable[[int], bool] | None = None) -> Run:
    """``count`` exchanges. Before them some connections to warm up, until ``seen`` says that a collector sees all sides of
    the exchange of this number. Proxies are started again then: they keep connections that are older than the probes."""
    connections = plan(pair.name, count, bodies_alone=pair.client.bodies_alone)
    if seen and pair.behind:
        converse(pair, bed, directory / "before", [], 0, seen)
    return converse(pair, bed, directory / "run", connections, MOST_WARMING, seen)


def converse(
    pair: Pair, bed: Bed, directory: Path, connections: list[Connection], first: int, seen: Callable[[int], bool] | None
) -> Run:
    """Servers and a client, started for these connections; exchange ``first`` and those behind it are for warming up."""
    directory.mkdir()
    directory.chmod(0o777)
    with servers(pair, bed, directory, connections) as site:
        client = Client(bed, directory, pair.client.command(), site.front.port, pair.client.processes)
        try:
            warm(client, pair, first, seen)
            for connection in connections:
                client.say(connection)
            client.finish()
            made = Run(pair, bed, connections, site)
            collect(made, client)
        finally:
            client.close()
    return made


def warm(client: Client, pair: Pair, first: int, seen: Callable[[int], bool] | None) -> None:
    """Connections one by one, until one of them was made and seen; a collector that does not see all sides will be found out
    by the comparison."""
    for number in range(first, first + MOST_WARMING, 2):
        last = number + 1
        client.say(warm_up(pair.name, number))
        wait_for(partial(client.has_made, last), 30)
        if not seen or wait_for(partial(seen, last), 1, quiet=True):
            return


def collect(made: Run, client: Client) -> None:
    """Read the logs; proxies write theirs a little later."""
    planned = len(all_exchanges(made.connections))

    def logged(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [line for line in lines if line["number"] >= FIRST]

    wait_for(lambda: len(logged(made.site.lines())) >= planned, 5, quiet=True)
    made.client, made.server = logged(client.lines()), logged(made.site.lines())
    if made.site.behind:
        made.behind = logged(made.site.behind.lines())


class Records:
    """Records of a pair, as they come: each line is read once."""

    def __init__(self, collector: Collector, pair: Pair) -> None:
        self._collector, self._pair = collector, pair
        # a line may be under way, so not the size: what is read has to begin with a line
        self._at = collector.output.read_bytes().rfind(b"\n") + 1 if collector.output.exists() else 0
        self._rest = b""
        self.found: list[dict[str, Any]] = []

    def read(self) -> bool:
        """There were more."""
        if not self._collector.output.exists():
            return False
        with self._collector.output.open("rb") as file:
            file.seek(self._at)
            data = file.read()
        self._at += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        prefixes = (f"/{self._pair.name}/", f"/{behind_name(self._pair)}/")
        records = [record for record in map(json.loads, lines) if record["path"].startswith(prefixes)]
        self.found += records
        return bool(records)

    def seen(self, number: int) -> bool:
        """All sides of this exchange are there, out of TLS, with their addresses: in a process whose TLS works on memory the
        probes that those need come with its first exchanges (docs/tls.md). And so will be those of the next one.
        """
        self.read()
        sides = {
            (r["direction"], r["path"].split("/")[1])
            for r in self.found
            if r["tls"] == "true" and r["path"].split("/")[-2] == str(number) and r["ip"] != NO_PEER
        }
        return len(sides) == len(roles(self._pair)) and self._collector.settled()

    def wait(self, count: int, quiet: float = 5) -> list[dict[str, Any]]:
        """``count`` records of the plan and a moment for surplus ones; or all there are after some quiet."""

        def enough() -> bool:
            return sum(int(r["path"].split("/")[-2]) >= FIRST for r in self.found) >= count

        while not enough():
            if not wait_for(self.read, quiet, quiet=True):
                break
        wait_for(self.read, 0.3, quiet=True)
        return self.found
