"""HTTP/0.9 beside other line protocols: cut anywhere, with events lost, and whoever ends it."""

from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from collector import abi
from tests.events import Conversation

LINES = [
    b"GET /x\r\n",
    b"GET /x\n",
    b"GET foo\r\n",
    b"GET /x y\r\n",
    b"PING\r\n",
    b"\r\n",
    b"GET /a",
    b"/b\r\n",
    b"get /x\r\n",
]
REPLIES = [
    b"$1\r\na\r\n",
    b"-ERR no\r\n",
    b"+OK\r\n",
    b"250 fine\r\n",
    b"ERROR\r\n",
    b"value\r\n",
    b" <html>",
    b"{}",
    b"\x00\x01",
    b"",
]

spoken = st.lists(
    st.one_of(st.tuples(st.just("asks"), st.sampled_from(LINES)), st.tuples(st.just("says"), st.sampled_from(REPLIES))),
    max_size=4,
)
cuts = st.lists(st.integers(1, 9), min_size=1, max_size=8)


def is_http09(steps: list[tuple[str, bytes]], first_end: str) -> bool:
    """By the words of docs/records.md."""
    asked = b"".join(data for who, data in steps if who == "asks")
    before = b""  # of that, when the answer begins
    for who, data in steps:
        if who == "says" and data:
            break
        before += data
    answered = b"".join(data for who, data in steps if who == "says")
    return (
        re.fullmatch(rb"GET /[!-~]*\r?\n(\r?\n)?", asked) is not None
        and b"\n" in before
        and answered.lstrip().startswith((b"<", b"{", b"[") if first_end == "server" else b"<")
    )


@settings(max_examples=600, deadline=None)
@given(spoken, cuts, st.sampled_from(["server", "client"]), st.sampled_from([abi.SERVER, abi.CLIENT]))
def test_a_record_only_when_the_whole_connection_bears_it_out(
    steps: list[tuple[str, bytes]], sizes: list[int], first_end: str, role: int
) -> None:
    c = Conversation(role=role)
    at = 0
    for who, data in steps:
        while data:
            size = sizes[at % len(sizes)]
            (c.request if who == "asks" else c.response)(data[:size])
            data = data[size:]
            at += 1
    if first_end == "client":
        c.eof(c.requests)
    c.eof(1 - c.requests).close()
    records = c.records()
    assert [r["type"] for r in records] == (["HTTP/0.9"] if is_http09(steps, first_end) else [])
    for r in records:
        assert r["responsePayload"].encode() == b"".join(data for who, data in steps if who == "says")
        assert r["mark"] == []
    assert c.counters()["queued_exchanges"] == 0


@settings(max_examples=300, deadline=None)
@given(
    st.text("abc/?&=%20", max_size=20),
    st.text("abc<> \n", min_size=1, max_size=60),
    cuts,
    st.sets(st.integers(0, 12)),
    st.sampled_from([abi.SERVER, abi.CLIENT]),
)
def test_lost_events_give_no_record_or_a_marked_one(
    path: str, body: str, sizes: list[int], lost: set[int], role: int
) -> None:
    path = "/" + path.replace(" ", "")
    c = Conversation(role=role)
    at = 0
    lost_of = {True: 0, False: 0}
    for asks, data in ((True, f"GET {path}\r\n".encode()), (False, b"<" + body.encode())):
        while data:
            part = data[: sizes[at % len(sizes)]]
            (c.request if asks else c.response)(part, lose=at in lost)
            lost_of[asks] += len(part) * (at in lost)
            data = data[len(part) :]
            at += 1
    c.eof(1 - c.requests).close()
    records = c.records()
    if lost_of[True]:
        assert records == []
    if not lost_of[True] and not lost_of[False]:
        assert len(records) == 1
    for r in records:
        assert (r["path"], r["type"]) == (path, "HTTP/0.9") and ("<" + body).startswith(r["responsePayload"])
        assert r["responseSize"] == str(1 + len(body))
        assert r["mark"] == ([f"response_bytes_lost:{lost_of[False]}"] if lost_of[False] else [])
