"""What `collector status` says of traffic that is not read."""

from __future__ import annotations

import collections
from typing import Any

from collector import status
from collector.unsupported import QUIC, TLS, UNBOUND


def said(unsupported: list[list[Any]], unseen: list[list[Any]]) -> dict[str, Any]:
    return {
        "version": "1",
        "pid": 7,
        "live": True,
        "live_words": "ok",
        "ready": True,
        "ready_words": "ok",
        "health_address": "127.0.0.1:1",
        "health_problem": "",
        "children": [],
        "notes": ["a note"],
        "totals": collections.Counter(),
        "unsupported": unsupported,
        "policy": {"name": "off", "digest": "", "words": "off: nothing is redacted"},
        "unseen": unseen,
    }


def test_nothing_that_is_not_read_has_no_line() -> None:
    assert "not read" not in status.text(said([], [["curl", "quic", 1]]))


def test_what_is_not_read_is_named_with_its_connections() -> None:
    text = status.text(
        said(
            [
                [TLS.name, "jsse", "java", 20],
                [QUIC.name, "client", "curl", 3],
                [UNBOUND.name, "openssl", "nginx", 9],
                [QUIC.name, "server", "nginx", 5],
            ],
            [["curl", "quic", 1], ["nginx", "quic", 1], ["a\nb\x1b[2J", "io_uring", 2]],
        )
    )
    assert text.splitlines()[-5:] == [
        "not read  nginx: 5 QUIC connections as a server",
        "not read  curl: 3 QUIC connections as a client",
        "not read  java: 20 TLS connections by jsse",
        "not read  a?b?[2J: sends or receives through io_uring, which cannot be captured",
        "note      a note",
    ]


def test_few_are_named() -> None:
    text = status.text(said([[QUIC.name, "client", f"process{number}", number] for number in range(20)], []))
    lines = [line for line in text.splitlines() if line.startswith("not read")]
    assert (
        lines[0] == "not read  process19: 19 QUIC connections as a client" and lines[-1] == "not read  and 12 more: --json"
    )
    assert len(lines) == 9
