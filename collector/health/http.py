"""One request and its answer, without a socket: bytes in, bytes out (h11 reads and writes HTTP)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus

import h11

MAX_REQUEST_BYTES = 8192
TEXT = "text/plain; charset=utf-8"


@dataclass(frozen=True)
class Answer:
    """What a page says."""

    status: int
    body: bytes
    content_type: str = TEXT


class Conversation:
    """``page`` makes the answer for a path, or None for a path that is none; ``known`` says which there are."""

    def __init__(self, page: Callable[[str], Answer | None], known: str) -> None:
        self._page = page
        self._known = known
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_REQUEST_BYTES)
        self._head_only = False
        self.status = 0  # of the answer; 0 while there is none

    def feed(self, data: bytes) -> bytes | None:
        """More bytes of the client, or b"" at their end. The whole answer as soon as it can be given (b"" when there is
        nothing to answer), None before. Not to be called again after an answer.
        """
        try:
            self._http.receive_data(data)
            event = self._http.next_event()
        except h11.RemoteProtocolError as error:
            return self._write(Answer(error.error_status_hint, b"not a request for this server\n")) if data else b""
        if isinstance(event, h11.Request):
            self._head_only = event.method == b"HEAD"
            if event.method not in (b"GET", b"HEAD"):
                return self._write(Answer(405, b"GET and HEAD only\n"))
            found = self._page(event.target.partition(b"?")[0].decode("ascii", "replace"))
            return self._write(found or Answer(404, f"{self._known}\n".encode()))
        return None if event is h11.NEED_DATA else b""

    def too_late(self) -> bytes:
        """The answer to a client that has not sent its request in time."""
        return self._write(Answer(408, b"the request did not come in time\n"))

    def _write(self, answer: Answer) -> bytes:
        self.status = answer.status
        headers = [
            ("Content-Type", answer.content_type),
            ("Content-Length", str(len(answer.body))),
            ("Cache-Control", "no-store"),
            ("Connection", "close"),
        ]
        if answer.status == 405:
            headers.append(("Allow", "GET, HEAD"))
        reason = HTTPStatus(answer.status).phrase.encode()
        out: bytes = self._http.send(h11.Response(status_code=answer.status, headers=headers, reason=reason)) or b""
        if not self._head_only and answer.body:
            out += self._http.send(h11.Data(data=answer.body)) or b""
        return out
