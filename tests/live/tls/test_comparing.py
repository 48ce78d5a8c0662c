"""The judge of the TLS matrix, judged: what it must find in logs and records that were made up."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.live.tls.bed import Bed
from tests.live.tls.comparing import CALLED, SERVED, Run, compare, log_problems, sides
from tests.live.tls.exchanges import MEGABYTE, Connection, Exchange, all_exchanges, content, plan, pool
from tests.live.tls.programs import Pair, Program, Server
from tests.live.tls.starting import Site

LETTERS = pool()
PEER, ADDRESS = "127.0.0.1:40000", "127.0.0.1:443"
CONNECTIONS = [
    Connection("whole", [Exchange(1000, "POST", "/p/1000/5", 7, 5), Exchange(1001, "GET", "/p/1001/0", 0, 0)]),
    Connection("abandoned", [Exchange(1002, "GET", "/p/1002/900000", 0, 900_000)]),
]


def none() -> str:
    return "-"


def made_up() -> Run:
    """A client and a server that log what they should."""
    from hashlib import sha256

    pair = Pair(
        "p",
        Program("caller", "caller", none, none, list),
        Server("called", "called", none, none, lambda _: pytest.fail("not to be started")),
    )
    front: Any = SimpleNamespace(port=443)
    run = Run(pair, Bed(Path(), LETTERS), CONNECTIONS, Site("p", front, Path()))
    for e in all_exchanges(CONNECTIONS):
        asked = content(LETTERS, e.number, e.request, request=True)
        got = content(LETTERS, e.number, 100_000 if e.number == 1002 else e.answer)
        line = {"number": e.number, "method": e.method, "bytes": e.request, "sha256": sha256(asked).hexdigest()}
        run.server.append({**line, "peer": PEER})
        line = {"number": e.number, "status": e.status, "bytes": len(got), "sha256": sha256(got).hexdigest()}
        run.client.append({**line, "local": PEER})
    return run


def right_records() -> list[dict[str, Any]]:
    """A record for each side of each exchange."""
    return [
        {
            "direction": side.direction,
            "path": side.path,
            "method": side.exchange.method,
            "statusCode": str(side.exchange.status),
            "tls": "true",
            "process_name": "caller" if side.direction == CALLED else "called",
            "ip": PEER,
            "destIp": ADDRESS,
            "marks": '["response_incomplete"]' if side.abandoned else "[]",
            "requestPayload": content(LETTERS, side.exchange.number, side.exchange.request, request=True).decode(),
            "requestSize": str(side.exchange.request),
            "responsePayload": content(LETTERS, side.exchange.number, min(side.exchange.answer, 200_000)).decode(),
            "responseSize": str(min(side.exchange.answer, 300_000)),
        }
        for side in sides(made_up())
    ]


def figures(records: list[dict[str, Any]]) -> dict[str, int]:
    """What is not zero, of both rows together."""
    rows = compare(made_up(), records)
    assert [row.exchanges for row in rows] == [3, 3]
    names = ("lost", "wrong", "no_peer", "doubtful", "doubled", "foreign")
    sums = {name: sum(getattr(row, name) for row in rows) for name in names}
    return {name: value for name, value in sums.items() if value}


def test_what_is_right_is_found_right() -> None:
    assert not log_problems(made_up())
    assert not figures(right_records())


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"ip": "127.0.0.1:40001"}, "wrong"),
        ({"destIp": "127.0.0.1:444"}, "wrong"),
        ({"ip": "0.0.0.0:0", "marks": '["peer_unknown"]'}, "no_peer"),
        ({"method": "GET"}, "wrong"),
        ({"statusCode": "404"}, "wrong"),
        ({"tls": "false"}, "wrong"),
        ({"process_name": "other"}, "wrong"),
        ({"requestPayload": "1000.xx"}, "wrong"),
        ({"requestPayload": "1000."}, "wrong"),
        ({"responsePayload": ""}, "wrong"),
        ({"responseSize": "6"}, "wrong"),
        ({"marks": '["pairing_uncertain"]'}, "doubtful"),
        ({"marks": '["response_body_cut:1"]'}, "doubtful"),
    ],
    ids=str,
)
def test_one_difference(change: dict[str, str], found: str) -> None:
    records = right_records()
    records[0].update(change)
    assert figures(records) == {found: 1}


def test_too_few_and_too_many() -> None:
    records = right_records()
    assert figures(records[1:]) == {"lost": 1}
    assert figures([*records, records[0]]) == {"doubled": 1}
    assert figures([*records, {**records[0], "path": "/p/1999/5"}]) == {"foreign": 1}
    assert figures([*records, {**records[0], "path": "/p/12/5"}]) == {}  # of warming up
    assert [row.records for row in compare(made_up(), [r for r in records if r["direction"] == SERVED])] == [0, 3]


def test_logs_that_differ() -> None:
    run = made_up()
    run.client[0]["local"] = "127.0.0.1:1"
    run.client[1]["sha256"] = ""
    run.server[0]["sha256"] = ""
    run.server[2]["method"] = "PUT"
    run.server.append(run.server[1])
    assert len(log_problems(run)) == 5
    run.client.pop()
    assert "client: /p/1002/900000 is missing" in log_problems(run)


def test_a_plan() -> None:
    connections = plan("name")
    exchanges = all_exchanges(connections)
    assert connections == plan("name") != plan("other")
    assert len({e.path for e in exchanges}) == len(exchanges) == 1000
    assert {c.reading for c in connections} == {"whole", "stalled", "partial", "abandoned"}
    for sizes in ([e.request for e in exchanges], [e.answer for e in exchanges]):
        assert min(sizes) == 0
        assert max(sizes) == 5 * MEGABYTE
        assert sorted(sizes)[500] < 2000
    assert all(not e.request or len(c.exchanges) == 1 for c in plan("name", bodies_alone=True) for e in c.exchanges)
