"""Conversations for the sans-I/O tests: bytes with positions, holes and ends in; records out.

    c = Conversation()
    c.request(b"GET / HTTP/1.1\\r\\n\\r\\n")
    c.response(b"HTTP/1.1 204 No Content\\r\\n\\r\\n")
    assert c.records()[0]["path"] == "/"

"Event lost" is `lose=True`: the position moves on and nothing is fed.
"""

from __future__ import annotations

import array
import dataclasses
import json
from pathlib import Path
from typing import Any

import jsonschema

from collector import abi, config
from collector.policy.model import BUILTIN, Policy
from collector.settings import ShardSettings
from collector.shards.filters import Filters
from collector.shards.filters.rules import parse_rules
from collector.shards.pipeline import Pipeline
from collector.shards.records.content import Decoder
from collector.shards.records.descriptors import Methods

_SCHEMA = jsonschema.Draft202012Validator(
    json.loads((Path(__file__).resolve().parents[1] / "docs" / "records.schema.json").read_text())
)
MS = 1_000_000


def ident(tgid: int, fd: int, number: int = 1) -> tuple[int, int, int]:
    """(conn_id, process, descriptor) of a connection: the ``number``-th under this descriptor."""
    return (tgid << 44 | fd << 20 | number) << 4, tgid, fd


def validate(record: dict[str, Any]) -> dict[str, Any]:
    """A record in its documented form; returned with headers and marks parsed, under `request`, `response`, `mark`."""
    _SCHEMA.validate(record)
    marks = json.loads(record["marks"])
    assert isinstance(marks, list)
    return {
        **record,
        "request": json.loads(record["requestHeaders"]),
        "response": json.loads(record["responseHeaders"]),
        "mark": marks,
        "words": {mark.partition(":")[0] for mark in marks},
    }


DEFAULTS = dataclasses.replace(
    ShardSettings.of(config.load({}), record_prefix="test-", daemonset_id="d"),
    max_connections=4096,
    buffer_bytes=1 << 28,
    ignore_ports=(),
)


def settings(**changes: Any) -> ShardSettings:
    """Pipeline settings, the product's defaults with room for everything, and these changes."""
    return dataclasses.replace(DEFAULTS, **changes)


def pipeline(
    rules: str | None = "[]", methods: Any = None, policy: Policy = BUILTIN["off"], key: bytes = b"", **changes: Any
) -> Pipeline:
    """A pipeline with ordinary memory for its counters."""
    memory = memoryview(array.array("Q", [0] * 128))
    out = Pipeline(settings(**changes), Filters(parse_rules(rules)), Decoder(methods), memory)
    out.use_policy(policy, key)
    return out


def one_line(c: Conversation) -> bytes:
    """The one record that the conversation has made, as JSON."""
    batch = c.pipe.take()
    assert batch is not None and isinstance(batch[0], bytes)
    (line,) = batch[0].splitlines()
    return line


def take(pipe: Pipeline) -> list[dict[str, Any]]:
    """The records that are ready, validated."""
    batch = pipe.take()
    if batch is None:
        return []
    assert isinstance(batch[0], bytes)  # no slots here
    return [validate(json.loads(line)) for line in batch[0].splitlines()]


class Conversation:
    """One connection of a pipeline."""

    def __init__(
        self,
        pipe: Pipeline | None = None,
        *,
        conn: tuple[int, int, int] = ident(100, 5),
        role: int = abi.SERVER,
        start: int = abi.SEEN,
        opened: bool = True,
        local: tuple[str, int] = ("10.0.0.1", 80),
        remote: tuple[str, int] = ("10.0.0.2", 40000),
        rules: str | None = "[]",
        source: int = 0,
        methods: Methods | None = None,
        policy: Policy = BUILTIN["off"],
        key: bytes = b"",
        **changes: Any,
    ) -> None:
        self.pipe = pipe if pipe is not None else pipeline(rules, methods, policy, key, **changes)
        self.conn = conn
        self.now = 1_000_000_000
        self.positions = [0, 0]
        self.source = source
        self.requests = abi.OUT if role == abi.CLIENT else abi.IN
        if opened:
            self.feed(abi.pack_process(conn[1], b"server", ts_ns=self.now))
            self.feed(abi.pack_open(conn, ts_ns=self.now, role=role, start=start, local=local, remote=remote, source=source))

    def feed(self, events: bytes) -> None:
        """Ring records, as they are."""
        self.pipe.feed(events, 1_795_000_000 * 10**9)

    def send(
        self,
        direction: int,
        data: bytes,
        *,
        lose: bool = False,
        true_length: int | None = None,
        flags: int = 0,
        step_ms: float = 1,
    ) -> Conversation:
        """One event of a direction."""
        self.now += int(step_ms * MS)
        size = len(data) if true_length is None else true_length
        if not lose:
            self.feed(
                abi.pack_data(
                    self.conn,
                    direction,
                    self.positions[direction],
                    data,
                    ts_ns=self.now,
                    len_true=size,
                    flags=flags,
                    source=self.source,
                )
            )
        self.positions[direction] += size
        return self

    def request(self, data: bytes, **how: Any) -> Conversation:
        """Bytes towards the server."""
        return self.send(self.requests, data, **how)

    def response(self, data: bytes, **how: Any) -> Conversation:
        """Bytes from the server."""
        return self.send(1 - self.requests, data, **how)

    def ahead(self) -> Conversation:
        """The kernel says that a request is on its way whose event comes behind that of its answer."""
        self.feed(abi.pack_ahead(self.conn, ts_ns=self.now))
        return self

    def eof(self, direction: int) -> Conversation:
        """The peer ended that direction."""
        self.feed(abi.pack_eof(self.conn, direction, self.positions[direction], ts_ns=self.now, source=self.source))
        return self

    def close(self) -> Conversation:
        """The descriptor was closed."""
        self.now += MS
        self.feed(
            abi.pack_close(
                self.conn, ts_ns=self.now, final_in=self.positions[0], final_out=self.positions[1], source=self.source
            )
        )
        return self

    def wait(self, seconds: float) -> Conversation:
        """Silence, with the timers of a live shard."""
        self.now += int(seconds * 1e9)
        self.pipe.tick(self.now)
        return self

    def records(self) -> list[dict[str, Any]]:
        """What has come out since the last call."""
        return take(self.pipe)

    def counters(self) -> dict[str, int]:
        """The pipeline's counters."""
        return dict(self.pipe.statistics())


GET = b"GET /x HTTP/1.1\r\nHost: a.example\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
