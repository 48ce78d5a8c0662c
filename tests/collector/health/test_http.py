"""The health server's reading and writing of HTTP, without a socket: any bytes, cut anywhere."""

from __future__ import annotations

import http.client
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.health.http import MAX_REQUEST_BYTES, Answer, Conversation

PAGES = {"/healthz": Answer(200, b"ok\n"), "/readyz": Answer(503, b"not ready: loader\n")}


class _Socket:
    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, *_arguments: object) -> io.BytesIO:
        return io.BytesIO(self._data)


def read(answer: bytes, method: str = "GET") -> tuple[http.client.HTTPResponse, bytes]:
    """The answer as the standard library's client understands it; nothing may follow it."""
    response = http.client.HTTPResponse(_Socket(answer), method=method)  # type: ignore[arg-type]
    response.begin()
    body = response.read()
    assert response.getheader("Connection") == "close" and answer.endswith(body)
    assert method == "HEAD" or len(answer) == answer.index(b"\r\n\r\n") + 4 + len(body)
    return response, body


def talk(data: bytes, sizes: list[int] | None = None) -> bytes | None:
    """What is answered when ``data`` comes in pieces of these sizes, and then the end."""
    conversation = Conversation(PAGES.get, "/healthz, /readyz")
    at = 0
    for size in [*(sizes or []), len(data)]:
        piece = data[at : at + size]
        at += len(piece)
        answer = conversation.feed(piece) if piece else None
        if answer is not None:
            return answer
    return conversation.feed(b"")


@pytest.mark.parametrize(
    ("request_line", "status", "body"),
    [
        ("GET /healthz HTTP/1.1", 200, b"ok\n"),
        ("GET /readyz?verbose HTTP/1.1", 503, b"not ready: loader\n"),
        ("HEAD /healthz HTTP/1.1", 200, b""),
        ("GET /healthz HTTP/1.0", 200, b"ok\n"),
        ("GET / HTTP/1.1", 404, b"/healthz, /readyz\n"),
        ("POST /healthz HTTP/1.1", 405, b"GET and HEAD only\n"),
        ("GET /healthz HTTP/x", 400, None),
        ("GET  HTTP/1.1", 400, None),
        ("\x16\x03\x01", 400, None),
    ],
)
def test_answers(request_line: str, status: int, body: bytes | None) -> None:
    answer = talk(f"{request_line}\r\nHost: h\r\n\r\n".encode())
    assert answer is not None
    response, found = read(answer, request_line.partition(" ")[0])
    assert response.status == status and (body is None or found == body)
    assert (response.getheader("Allow") == "GET, HEAD") == (status == 405)


def test_a_body_is_not_waited_for() -> None:
    answer = Conversation(PAGES.get, "").feed(b"GET /healthz HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n")
    assert answer is not None and read(answer)[1] == b"ok\n"


def test_a_head_without_end_is_refused() -> None:
    conversation = Conversation(PAGES.get, "")
    sent = 0
    answer = conversation.feed(b"GET /healthz HTTP/1.1\r\n")
    while answer is None:
        answer = conversation.feed(b"X: " + b"x" * 1000 + b"\r\n")
        sent += 1000
        assert sent <= 2 * MAX_REQUEST_BYTES
    assert read(answer)[0].status == 431


def test_a_request_that_is_late_is_told_so() -> None:
    conversation = Conversation(PAGES.get, "")
    assert conversation.feed(b"GET /hea") is None
    assert read(conversation.too_late())[0].status == 408


requests = st.one_of(
    st.binary(max_size=300),
    st.builds(
        lambda m, p, v, h: b"%s %s %s\r\n%s\r\n\r\n" % (m, p, v, h),
        st.sampled_from([b"GET", b"HEAD", b"POST", b"get", b"CONNECT", b"OPTIONS"]) | st.binary(max_size=8),
        st.sampled_from([b"/healthz", b"/readyz", b"/", b"*", b"http://h/healthz"]) | st.binary(max_size=20),
        st.sampled_from([b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2", b""]),
        st.sampled_from(
            [
                b"Host: h",
                b"Host: h\r\nTransfer-Encoding: chunked",
                b"Host: h\r\nContent-Length: 5",
                b"Host: h\r\nContent-Length: x",
                b"Host: h\r\nUpgrade: h2c\r\nConnection: upgrade",
                b"",
            ]
        )
        | st.binary(max_size=60),
    ),
)


@given(requests, st.lists(st.integers(1, 20), max_size=30))
def test_any_bytes_get_a_whole_answer_or_none_however_they_are_cut(data: bytes, sizes: list[int]) -> None:
    answer = talk(data)
    if answer:
        method = "HEAD" if b"HEAD " in data else "GET"
        assert read(answer, method)[0].status in (200, 400, 404, 405, 431, 501, 503)
    assert talk(data, sizes) == answer
