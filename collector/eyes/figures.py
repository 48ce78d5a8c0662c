"""What `collector top` knows: the shards' rows (shards/eyes/tally.pyx), put together over one interval."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

OTHERS = "(others)"
_ARROWS = {1: " in", 2: " out"}  # it serves; it calls
_SUB_BUCKETS = 8
_MOST_ROWS = 20_000  # of one interval; a shard has 256 a second


def bucket_middle(bucket: int) -> float:
    """The middle of a bucket of durations, in ms."""
    if bucket < _SUB_BUCKETS:
        return (bucket + 0.5) / 1000
    octave = bucket // _SUB_BUCKETS + 2
    width = 1 << (octave - 3)
    return ((_SUB_BUCKETS + bucket % _SUB_BUCKETS) * width + width / 2) / 1000


@dataclass
class Sums:
    """Of some requests. Sizes in bytes; ``durations`` are numbers of requests by bucket."""

    requests: int = 0
    client_errors: int = 0
    server_errors: int = 0
    unanswered: int = 0
    marked: int = 0
    request_bytes: int = 0
    response_bytes: int = 0
    durations: dict[int, int] = field(default_factory=dict)

    def add(self, other: Sums) -> None:
        """Count what the other has counted, too."""
        self.requests += other.requests
        self.client_errors += other.client_errors
        self.server_errors += other.server_errors
        self.unanswered += other.unanswered
        self.marked += other.marked
        self.request_bytes += other.request_bytes
        self.response_bytes += other.response_bytes
        for bucket, number in other.durations.items():
            self.durations[bucket] = self.durations.get(bucket, 0) + number

    @property
    def size(self) -> int:
        """Bytes of bodies, both ways."""
        return self.request_bytes + self.response_bytes

    @property
    def errors(self) -> int:
        """Of the server: 5xx, and no answer at all."""
        return self.server_errors + self.unanswered

    def percentile(self, part: float) -> float | None:
        """The duration in ms within which this part of the answers came, at most 6 % off; None without an answer."""
        total = sum(self.durations.values())
        wanted = part * total
        for bucket in sorted(self.durations):
            wanted -= self.durations[bucket]
            if wanted <= 0:
                return bucket_middle(bucket)
        return None


Key = tuple[str, int, str, str]  # process, direction (1 in, 2 out, 0 unknown), host, endpoint

# What rows are put together by, in the order of the key `g`: the name of the column, and what stands in it
GROUPS: dict[str, Callable[[Key], str]] = {
    "endpoint": lambda key: _endpoint(key),
    "host": lambda key: (key[2] or "-") if key[3] else OTHERS,
    "process": lambda key: (key[0] or "-") + _ARROWS.get(key[1], "") if key[3] else OTHERS,
    "all": lambda key: f"{key[0] or '-'}{_ARROWS.get(key[1], '')} {_endpoint(key)}" if key[3] else OTHERS,
}
SORTS: dict[str, Callable[[Sums], float]] = {
    "requests": lambda sums: sums.requests,
    "errors": lambda sums: sums.errors * 1_000_000 + sums.client_errors,
    "p99": lambda sums: sums.percentile(0.99) or 0.0,
    "bytes": lambda sums: sums.size,
}


def _endpoint(key: Key) -> str:
    if not key[3]:
        return OTHERS
    method, _, path = key[3].partition(" ")
    return f"{method} {key[2]}{path}"


class Interval:
    """What came since the last one. ``seconds`` is what the shards' figures are about, on average."""

    def __init__(self) -> None:
        self.rows: dict[Key, Sums] = {}
        self._seconds: dict[int, float] = {}

    @property
    def seconds(self) -> float:
        """0 before the first figures."""
        return sum(self._seconds.values()) / len(self._seconds) if self._seconds else 0.0

    def add(self, shard: int, seconds: float, body: bytes) -> None:
        """The rows of one message; raises ValueError for what is none of them."""
        self._seconds[shard] = self._seconds.get(shard, 0.0) + seconds
        for line in body.splitlines():
            key, sums = _row(line)
            if key in self.rows:
                self.rows[key].add(sums)
            elif len(self.rows) < _MOST_ROWS:
                self.rows[key] = sums

    def total(self) -> Sums:
        """Of everything."""
        return put_together(self.rows.items(), lambda _key: "").get("", Sums())

    def grouped(self, group: str, *, sort: str, wanted: str = "") -> list[tuple[str, Sums]]:
        """Rows by a name of GROUPS, the first by a name of SORTS first; only those that hold ``wanted``, in any case."""
        rows = put_together(self.rows.items(), GROUPS[group])
        found = [(name, sums) for name, sums in rows.items() if wanted.lower() in name.lower()]
        return sorted(found, key=lambda row: (-SORTS[sort](row[1]), -row[1].requests, row[0]))


def put_together(rows: Iterable[tuple[Key, Sums]], name_of: Callable[[Key], str]) -> dict[str, Sums]:
    """The rows of one name as one."""
    out: dict[str, Sums] = {}
    for key, sums in rows:
        out.setdefault(name_of(key), Sums()).add(sums)
    return out


def _row(line: bytes) -> tuple[Key, Sums]:
    """Raises ValueError."""
    try:
        process, direction, host, endpoint, *numbers, durations = json.loads(line)
        sums = Sums(*map(int, numbers), dict(zip(map(int, durations[::2]), map(int, durations[1::2]), strict=True)))
        return (str(process), int(direction), str(host), str(endpoint)), sums
    except (TypeError, RecursionError) as error:
        raise ValueError(str(error)) from None
