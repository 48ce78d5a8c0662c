"""What a Kafka client has of ours, and what it has handed back."""

from __future__ import annotations

from dataclasses import dataclass

from collector.sink.batch import Batch


@dataclass(slots=True)
class Held:
    """A batch that a client has."""

    client: int  # which one, counted
    since: float
    partition: int


@dataclass(slots=True)
class Returned:
    """A batch that a client, or `_renew`, has handed back."""

    batch: Batch
    error: Exception
    since: float


@dataclass(slots=True)
class Single:
    """A record that is sent by itself, by that ``client``; ``attempts``: that the topic has refused it as too large.

    ``error``: why it came back, if that was no fault of its own; ``since``: when it did, or was sent.
    """

    batch: Batch
    key: bytes | None
    value: bytes
    headers: list[tuple[str, bytes]]
    partition: int | None
    attempts: int = 0
    client: int = -1
    since: float = 0.0
    error: BaseException | None = None
