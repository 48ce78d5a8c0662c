"""Bytes that waited and turn out to be another protocol's: they stay with their connection."""

from __future__ import annotations

import pytest

from collector import abi
from tests.events import GET, OK, Conversation, ident, pipeline, take

FOREIGN = b"GET /foreign HTTP/1.1\r\nHost: of.a\r\nAuthorization: secret\r\n\r\n"


@pytest.mark.parametrize("ends", ["eof", "silence", "hole", "close"])
def test_what_waits_behind_the_answer_of_a_connect_is_nobody_elses(ends: str) -> None:
    pipe = pipeline()
    a = Conversation(pipe, conn=ident(100, 5), role=abi.CLIENT).ahead()
    a.response(b"HTTP/1.1 200 OK\r\n\r\n" + FOREIGN).request(b"CONNECT a:1 HTTP/1.1\r\nHo")
    if ends == "eof":
        a.eof(abi.OUT)
    elif ends == "silence":
        a.wait(200)
    elif ends == "hole":
        a.request(b"st: h\r\n\r\n", lose=True).request(b"tunnel")
    else:
        a.close()
    b = Conversation(pipe, conn=ident(200, 7))
    b.now = a.now
    b.request(b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n").request(b"PO").request(b"ST / HTTP/1.1\r\nHost: b\r\n\r\n").response(OK)
    assert [(r["method"], r["path"], r["mark"]) for r in take(pipe) if r["process_id"] == "200"] == [("POST", "/", [])]
    a.close()
    b.request(GET).response(OK).close()
    assert all("foreign" not in r["path"] and "secret" not in r["requestHeaders"] for r in take(pipe))
    pipe.close_all()
    pipe.set_budget(0)
    assert pipe.statistics()["buffer_bytes"] == 0
