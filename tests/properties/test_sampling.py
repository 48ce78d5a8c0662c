"""Sampling against a simple model: which exchanges are recorded, and what their records tell of the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from collector import abi
from collector.policy.model import Policy, Sampling
from collector.router import partition
from collector.shards.folding import folded
from collector.shards.pipeline import Pipeline
from tests.events import ident, pipeline, take

MINUTE = 60 * 10**9
RINGS = 8
ENDS: dict[str, Any] = {"local": ("10.0.0.1", 80), "remote": ("10.0.0.2", 40000)}
PATHS = (b"/users", b"/users/%d", b"/users/%d/items", b"/orders/%d", b"/")


class Step(NamedTuple):
    """An exchange on one of some connections. ``status`` 0: it has a connection of its own, which ends without an answer."""

    connection: int
    method: bytes
    path: bytes
    status: int
    seconds: int  # since the one before


class Exchange(NamedTuple):
    record_id: str
    endpoint: tuple[int, str, str, str]  # with the ring and the direction
    minute: int
    status: int


class Shown(NamedTuple):
    """What a record says."""

    record_id: str
    told: int
    whole: bool


steps = st.lists(
    st.builds(
        Step,
        st.integers(0, 7),
        st.sampled_from([b"GET", b"PUT"]),
        st.sampled_from(PATHS),
        st.sampled_from([200, 200, 200, 200, 302, 404, 500, 0]),
        st.sampled_from([0, 0, 0, 1, 20, 61]),
    ),
    max_size=150,
)
rates = st.sampled_from([0, 1, 2, 3, 10])


def samplings(endpoints: st.SearchStrategy[int]) -> st.SearchStrategy[Sampling]:
    return st.builds(
        Sampling,
        first=st.integers(0, 4),
        one_in=rates,
        heads_only=st.booleans(),
        errors_one_in=rates,
        marked_one_in=rates,
        endpoints=endpoints,
    )


class Traffic:
    """The events of these steps with their rings, and the exchanges that they are."""

    def __init__(self, taken: list[Step]) -> None:
        self.events: list[tuple[int, bytes]] = []
        self.exchanges: list[Exchange] = []
        self._positions: dict[int, list[int]] = {}
        self._now = MINUTE
        for number, step in enumerate(taken):
            self._now += step.seconds * 10**9 + 1000
            self._exchange(number, step)

    def _exchange(self, number: int, step: Step) -> None:
        conn = ident(1, step.connection + 1, 1) if step.status else ident(2, number + 1, 1)
        ring, served = partition.ring_of(conn[0], RINGS), step.connection & 1
        asks = abi.IN if served else abi.OUT
        if conn[0] not in self._positions:
            self._positions[conn[0]] = [0, 0]
            role = abi.SERVER if served else abi.CLIENT
            self.events.append((ring, abi.pack_open(conn, ts_ns=self._now, role=role, ring=ring, **ENDS)))
        target = step.path % (number * 7) if b"%" in step.path else step.path
        record_id = f"test-{conn[0]:x}-{self._positions[conn[0]][asks]:x}"
        self._data(ring, conn, asks, b"%s %s?n=%d HTTP/1.1\r\nHost: a\r\n\r\n" % (step.method, target, number))
        if step.status:
            self._data(ring, conn, 1 - asks, b"HTTP/1.1 %d X\r\nContent-Length: 2\r\n\r\nhi" % step.status)
        else:
            final = self._positions[conn[0]]
            self.events.append((ring, abi.pack_close(conn, ts_ns=self._now, final_in=final[0], final_out=final[1])))
        endpoint = (ring, "1" if served else "2", step.method.decode(), folded(target).decode())
        self.exchanges.append(Exchange(record_id, endpoint, self._now // MINUTE, step.status))

    def _data(self, ring: int, conn: tuple[int, int, int], direction: int, data: bytes) -> None:
        self.events.append(
            (ring, abi.pack_data(conn, direction, self._positions[conn[0]][direction], data, ts_ns=self._now))
        )
        self._positions[conn[0]][direction] += len(data)


def through(traffic: Traffic, policies: list[Sampling], shards: int = 1) -> tuple[list[dict[str, Any]], list[Pipeline]]:
    """The records of all of it in their order, each policy being in force for its part of the events."""
    pipes = [pipeline() for _ in range(shards)]
    records: list[dict[str, Any]] = []
    in_force = -1
    for number, (ring, event) in enumerate(traffic.events):
        if number * len(policies) // len(traffic.events) != in_force:
            in_force = number * len(policies) // len(traffic.events)
            for pipe in pipes:
                pipe.use_policy(Policy(sampling=policies[in_force]))
        pipe = pipes[partition.shard_of_ring(ring, shards)]
        pipe.feed(event)
        records += take(pipe)
    return records, pipes


def model(exchanges: list[Exchange], sampling: Sampling, chosen: set[str]) -> Iterator[Shown]:
    """The records by the rules. ``chosen``: those that were recorded whole, where a rate may choose any."""
    begun: Counter[Any] = Counter()
    left_out: Counter[Any] = Counter()
    for exchange in exchanges:
        rate = sampling.one_in
        if exchange.status == 0:
            rate = sampling.marked_one_in or rate
        elif exchange.status >= 400:
            rate = sampling.errors_one_in or rate
        whole = begun[exchange.endpoint, exchange.minute] < sampling.first
        begun[exchange.endpoint, exchange.minute] += 1
        whole = whole or rate == 1 or (rate > 1 and exchange.record_id in chosen)
        if whole or sampling.heads_only:
            yield Shown(exchange.record_id, left_out.pop(exchange.endpoint, 0), whole)
        else:
            left_out[exchange.endpoint] += 1


@given(steps, samplings(st.just(1000)))
def test_records_are_made_by_the_rules_and_each_tells_of_its_endpoint(taken: list[Step], sampling: Sampling) -> None:
    traffic = Traffic(taken)
    records, _pipes = through(traffic, [sampling])
    shown = [Shown(r["recordId"], int(r.get("sampledOut", 0)), r.get("sampled") != "heads") for r in records]
    assert not any("sampledOutOthers" in record for record in records)
    assert shown == list(model(traffic.exchanges, sampling, {record.record_id for record in shown if record.whole}))


@given(steps, st.lists(samplings(st.sampled_from([1, 2, 5, 1000])), min_size=1, max_size=4))
def test_whatever_the_policies_what_was_delivered_and_told_is_what_went_by(
    taken: list[Step], policies: list[Sampling]
) -> None:
    records, (pipe,) = through(Traffic(taken), policies)
    told = sum(int(r.get("sampledOut", 0)) + int(r.get("sampledOutOthers", 0)) for r in records)
    assert len(records) + told + pipe.untold() == len(taken)
    counted = pipe.statistics()
    left_out = sum(counted[f"sampling_left_out{which}"] for which in ("", "_errors", "_marked"))
    assert (left_out, counted["sampling_told"]) == (len(taken) - len(records), told)


@given(steps, samplings(st.sampled_from([2, 1000])), st.integers(2, 8))
def test_it_is_the_same_again_and_with_another_number_of_shards(taken: list[Step], sampling: Sampling, shards: int) -> None:
    traffic = Traffic(taken)
    once, again, spread = (through(traffic, [sampling], number)[0] for number in (1, 1, shards))
    assert once == again == spread
