"""Conversations through the pipeline, with a policy in force: all that comes out of it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from collector.policy.model import BUILTIN, Policy
from collector.shards.pipeline import Pipeline
from tests.events import Conversation, pipeline

CLIENT, SERVER = True, False
Calls = list[tuple[bool, bytes]]  # (is it the client's?, what one call has moved)


def policed(policy: str | Policy | None, key: bytes = b"", **settings: Any) -> Pipeline:
    """A pipeline with this policy; None: it has never heard of policies."""
    made = pipeline(**{"want_details": True, **settings})
    if policy is not None:
        made.use_policy(BUILTIN[policy] if isinstance(policy, str) else policy, key)
    return made


def play(calls: Iterable[tuple[bool, bytes]], pipe: Pipeline, **how: Any) -> Conversation:
    """A connection that makes these calls and ends."""
    c = Conversation(pipe, **how)
    for asks, data in calls:
        (c.request if asks else c.response)(data)
    c.close()
    return c


def drained(pipe: Pipeline) -> tuple[bytes, list[dict[str, Any]]]:
    """(every byte that goes to the sink, the records among them)."""
    pipe.close_all()
    out, records = b"", []
    while (batch := pipe.take()) is not None:
        assert isinstance(batch[0], bytes)
        out += batch[0] + batch[1] + batch[2]
        records += [json.loads(line) for line in batch[0].splitlines()]
    return out, records


def written(
    calls: Calls,
    policy: str | Policy | None,
    key: bytes = b"",
    *,
    conversation: dict[str, Any] | None = None,
    **settings: Any,
) -> tuple[bytes, list[dict[str, Any]]]:
    """What comes out of these calls alone."""
    pipe = policed(policy, key, **settings)
    play(calls, pipe, **(conversation or {}))
    return drained(pipe)


def head(first: str, *fields: str, size: int | None = None) -> bytes:
    """A head of HTTP/1; fields as `Name: value`, in Latin-1 if they are, else in UTF-8."""
    lines = [first, *fields, *([f"Content-Length: {size}"] if size is not None else [])]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def asked(data: bytes = b"", kind: str = "", *fields: str, target: str = "/v1/login", method: str = "POST") -> bytes:
    """A request with this body."""
    typed = [f"Content-Type: {kind}"] if kind else []
    size = len(data) if data or method == "POST" else None
    return head(f"{method} {target} HTTP/1.1", "Host: api.example", *typed, *fields, size=size) + data


def answered(data: bytes = b"", kind: str = "", *fields: str, status: str = "200 OK") -> bytes:
    """An answer with this body."""
    return head(f"HTTP/1.1 {status}", *([f"Content-Type: {kind}"] if kind else []), *fields, size=len(data)) + data


JSON_TYPE = "application/json"
PLAIN_ANSWER = answered(b'{"ok":true}', "application/json")
PLAIN_REQUEST = asked(method="GET", target="/v1/things?page=2")
