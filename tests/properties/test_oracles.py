"""Valid HTTP/1 and what a record says of it."""

from __future__ import annotations

import pytest

from tests.events import Conversation


@pytest.mark.parametrize(("target", "host"), [
    ("http://x", "x"), ("https://x", "x"), ("HTTP://a.example:81?q", "a.example:81"), ("https://[::1]:8/p", "[::1]:8"),
    ("http://", ""), ("https://", ""), ("httpx://abc", ""), ("/http://x", "")])
def test_the_host_of_an_absolute_target_stands_for_the_missing_field(target: str, host: str) -> None:
    c = Conversation()
    c.request(f"GET {target} HTTP/1.0\r\n\r\n".encode()).response(b"HTTP/1.0 204 No Content\r\n\r\n")
    record = c.close().records()[0]
    assert (record["request"], record["path"], record["mark"]) == ({"host": host}, target, [])
