"""What viewers (`collector tail`, `collector top`) and the collector say to each other.

A viewer connects to VIEW_SOCKET, a Unix socket of whole messages (SOCK_SEQPACKET) in the runtime directory that only the
collector's user can reach. It sends one Request; the supervisor answers with an object that has `version` and `shards`, or
`refused` with the reason. From then on the shards write into the same connection, without waiting:

    a line of JSON      {"shard": 0, "kind": "lines", "lost": 7, ...}
    what it is about    kind "lines": records, one a line; kind "figures": rows of the last `seconds`, one a line

`lost` counts what this shard could not hand over to this viewer, from the beginning: records of "lines", exchanges of
"figures". The queue is the socket's own buffer in the kernel. docs/decisions/0034.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from collector.errors import ProtocolError
from collector.settings import Message

VIEW_SOCKET = "view.sock"
MOST_VIEWERS = 8
QUEUE_BYTES = 1 << 20  # asked of the kernel for each viewer: it doubles the number, and may give less
MESSAGE_BYTES = 48 << 10  # of several lines; one line alone may be as long as a record
REQUEST_BYTES = 8192
GLOB_BYTES = 200
FIGURES_SECONDS = 1.0
DIRECTIONS = {"inbound": 1, "outbound": 2}
_STATUS = re.compile(r"[1-5]xx|[0-9]{1,3}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request(Message):
    """What a viewer wants to see.

    ``figures``: sums a second, else records; ``whole``: records as they are delivered, else without heads and payloads.
    ``host``, ``path``, ``process`` are patterns with `*` and `?`, "" for all; a ``process`` of digits is a process id.
    ``status``: codes and classes (`404`, `5xx`, `0` for no answer), none for all. ``direction``: 1 inbound, 2 outbound, 0
    both.
    """

    figures: bool = False
    whole: bool = False
    host: str = ""
    path: str = ""
    process: str = ""
    status: tuple[str, ...] = ()
    direction: int = 0

    def check(self) -> None:
        """Raises ProtocolError for what no shard can go by; the text is for people."""
        for name in ("host", "path", "process"):
            if len(pattern(getattr(self, name))) > GLOB_BYTES:
                raise ProtocolError(f"{name}: longer than {GLOB_BYTES} bytes")
        for one in self.status:
            if not _STATUS.fullmatch(one):
                raise ProtocolError(f"status {one!r}: must be a code (404), a class (5xx), or 0 for no answer")
        if self.direction not in (0, *DIRECTIONS.values()):
            raise ProtocolError("direction: must be inbound or outbound")

    def codes(self) -> bytes:
        """A byte for each code from 0 to 999: is it wanted? Empty when all are."""
        if not self.status:
            return b""
        wanted = bytearray(1000)
        for one in self.status:
            first, count = (int(one[0]) * 100, 100) if one.endswith("xx") else (int(one), 1)
            wanted[first : first + count] = b"\1" * count
        return bytes(wanted)


def pattern(text: str) -> bytes:
    """A pattern as it is held against the text of a record, where quotes, backslashes and control characters are escaped."""
    return json.dumps(text, ensure_ascii=False)[1:-1].encode("utf-8", "surrogatepass")


def pack(head: dict[str, Any], body: bytes = b"") -> bytes:
    """One message; see the module."""
    return json.dumps(head).encode() + b"\n" + body


def unpack(data: bytes) -> tuple[dict[str, Any], bytes]:
    """(head, body). Raises ProtocolError."""
    line, _, body = data.partition(b"\n")
    try:
        head = json.loads(line)
    except (ValueError, RecursionError):
        head = None
    if not isinstance(head, dict):
        raise ProtocolError("a message to a viewer that cannot be read")
    return head, body
