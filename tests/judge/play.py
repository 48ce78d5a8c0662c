"""Batches of interleaved conversations through the collector's pipeline, in this process."""

from __future__ import annotations

import json
from dataclasses import dataclass
from random import Random
from typing import Any

from collector import abi
from collector.shards.pipeline import Pipeline
from tests.events import ident, pipeline
from tests.judge import generator
from tests.judge.truth import CLIENT_BYTES, SERVER_BYTES, Conversation

BATCH = 200
WALL_NS = 1_795_000_000 * 10**9  # wall clock minus event time
BASE_NS = 10**9
_SPAN_BYTES = 1 << 16
_CLOSES = {"normal": abi.NORMAL, "reset": abi.RESET, "swept": abi.SWEPT}


@dataclass
class Batch:
    """Conversations that share a pipeline, its settings, and what came out."""

    seed: int
    number: int
    limits: dict[str, int]  # settings that are not the usual ones
    conversations: list[Conversation]
    patient: bool  # the timers are left to fire before the end


def process_of(conversation: Conversation) -> tuple[int, int]:
    """Process and descriptor of the traced end."""
    return 1000 + conversation.number % 50_000, 5 + conversation.number % 7


def connection_of(conversation: Conversation) -> tuple[int, int, int]:
    """(conn_id, process, descriptor)."""
    tgid, fd = process_of(conversation)
    return ident(tgid, fd, conversation.number % 1_000_000 + 1)


def ends_of(conversation: Conversation) -> tuple[tuple[str, int], tuple[str, int]]:
    """Address and port of the client and of the server."""
    n = conversation.number
    return (f"10.{1 + n % 200}.{n // 200 % 250}.9", 20_000 + n % 40_000), (f"10.250.{n % 250}.1", 80 + n % 9)


def make_batch(seed: int, number: int, kinds: tuple[str, ...] = generator.KINDS, count: int = BATCH) -> Batch:
    """The batch of this number; all of it follows from the arguments."""
    rng = Random(f"{seed}/batch/{number}")
    limits: dict[str, int] = {}
    if "evict" in kinds and (kinds == ("evict",) or rng.random() < 0.08):
        limits = rng.choice(({"max_connections": 12}, {"buffer_bytes": 60_000}, {"connection_bytes": 4_000}))
    evicting = bool(limits)
    if rng.random() < 0.1:
        limits["header_bytes"] = 600
    if rng.random() < 0.2:
        limits["body_bytes"] = 700
    conversations = []
    for n in range(number * BATCH, number * BATCH + count):
        own = Random(f"{seed}/{n}")
        plan = generator.draw_plan(own, kinds, evicting=evicting)
        conversations.append(generator.conversation(own, n, plan))
    return Batch(seed, number, limits, conversations, rng.random() < 0.5)


def ring_records(conversation: Conversation) -> list[tuple[int, bytes]]:
    """(time, event) of all that the collector is given of a conversation."""
    conn = connection_of(conversation)
    client = conversation.plan.client
    out: list[tuple[int, bytes]] = []
    direction = {CLIENT_BYTES: abi.OUT if client else abi.IN, SERVER_BYTES: abi.IN if client else abi.OUT}
    if conversation.opened != "none":
        asking, answering = ends_of(conversation)
        at = conversation.open_positions
        ns = BASE_NS + (conversation.fed[0].ns if conversation.fed else conversation.close_ns) - 1
        out.append(
            (
                ns,
                abi.pack_open(
                    conn,
                    ts_ns=ns,
                    role=abi.CLIENT if client else abi.SERVER,
                    start=abi.SEEN if conversation.opened == "seen" else abi.MID,
                    local=asking if client else answering,
                    remote=answering if client else asking,
                    positions=(at[SERVER_BYTES], at[CLIENT_BYTES]) if client else at,
                ),
            )
        )
    for e in conversation.fed:
        ns = BASE_NS + e.ns
        if e.ahead:
            out.append((ns, abi.pack_ahead(conn, ts_ns=ns)))
        if e.eof:
            out.append((ns, abi.pack_eof(conn, direction[e.sender], e.pos, ts_ns=ns)))
        else:
            out.append(
                (ns, abi.pack_data(conn, direction[e.sender], e.pos, e.data, ts_ns=ns, len_true=e.size, flags=e.flags))
            )
    if conversation.close != "none":
        ns = BASE_NS + conversation.close_ns
        sent = conversation.sent
        final = (sent[SERVER_BYTES], sent[CLIENT_BYTES]) if client else sent
        out.append(
            (ns, abi.pack_close(conn, ts_ns=ns, final_in=final[0], final_out=final[1], reason=_CLOSES[conversation.close]))
        )
    return out


def take(pipe: Pipeline) -> list[dict[str, Any]]:
    """The records that are ready."""
    batch = pipe.take()
    if batch is None:
        return []
    assert isinstance(batch[0], bytes)
    return [json.loads(line) for line in batch[0].splitlines()]


def play(batch: Batch, only: frozenset[int] | None = None) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """The records, in order, and the counters; of some of the conversations if `only` names them."""
    pipe = pipeline("[]", **dict[str, Any](batch.limits))
    events: list[tuple[int, int, int, bytes]] = []
    for c in batch.conversations:
        if only is None or c.number in only:
            events += [(ns, c.number, n, event) for n, (ns, event) in enumerate(ring_records(c))]
    events.sort(key=lambda e: e[:3])
    records: list[dict[str, Any]] = []
    span: list[bytes] = []
    size = 0

    def feed() -> None:
        data, at = b"".join(span), 0
        while True:
            at = pipe.feed(data, WALL_NS, at)
            records.extend(take(pipe))
            if at == len(data):
                break
        span.clear()

    for event in events:
        span.append(event[3])
        size += len(event[3])
        if size > _SPAN_BYTES:
            feed()
            size = 0
    feed()
    if batch.patient:
        pipe.finish_timers()
        records.extend(take(pipe))
    while not pipe.close_all():
        records.extend(take(pipe))
    records.extend(take(pipe))
    return records, dict(pipe.statistics())
