"""WebSocket conversations by another implementation (websockets), with what was said in them: to compare records with."""

from __future__ import annotations

import base64
import dataclasses
import json
import random
from typing import Any

from websockets.client import ClientProtocol
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory, ServerPerMessageDeflateFactory
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from tests.events import Conversation

CLIENT, SERVER = 0, 1


@dataclasses.dataclass
class Sent:
    """A message as its sender knows it."""

    side: int
    text: str | None
    data: bytes

    def shown_in(self, event: dict[str, Any]) -> bool:
        """Is this the whole message?"""
        return (
            event["from"] == ("client" if self.side == CLIENT else "server")
            and event["opcode"] == (2 if self.text is None else 1)
            and event["fin"]
            and payload(event) == self.data
            and not event.get("truncated")
            and not event.get("undecoded")
        )


def payload(event: dict[str, Any]) -> bytes:
    """The bytes that an event shows."""
    text = event["payload"]
    assert isinstance(text, str)
    return base64.b64decode(text) if event.get("payloadEncoding") else text.encode()


def events_of(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of all records, in their order."""
    return [event for record in records if "events" in record for event in json.loads(record["events"])]


class Chat:
    """Two ends that talk; ``calls`` has what went by, as (side, bytes) of one call each."""

    def __init__(self, *, deflate: bool = True, seed: int = 0, takeover: bool = True, control: bool = True) -> None:
        self.rng = random.Random(seed)
        self.client = ClientProtocol(
            parse_uri("ws://chat.example/room?id=7"),
            extensions=[
                ClientPerMessageDeflateFactory(
                    server_no_context_takeover=not takeover, client_no_context_takeover=not takeover
                )
            ]
            if deflate
            else None,
        )
        self.server = ServerProtocol(extensions=[ServerPerMessageDeflateFactory()] if deflate else None)
        self.ends = (self.client, self.server)
        self.control = control
        self.calls: list[tuple[int, bytes]] = []
        self.sent: list[Sent] = []
        self.client.send_request(self.client.connect())
        self.flush()
        (request,) = self.server.events_received()
        assert isinstance(request, Request)
        self.server.send_response(self.server.accept(request))
        self.flush()

    def flush(self) -> None:
        """What both have to say goes out."""
        for side, end in enumerate(self.ends):
            data = b"".join(end.data_to_send())
            if data:
                self.calls.append((side, data))
                self.ends[1 - side].receive_data(data)
                if self.ends[1 - side].handshake_exc is not None:
                    raise AssertionError(self.ends[1 - side].handshake_exc)

    def say(self, side: int, text: str | bytes, *, fragments: int = 1, flush: bool = True) -> None:
        """One message."""
        data = text.encode() if isinstance(text, str) else text
        opcode = Opcode.TEXT if isinstance(text, str) else Opcode.BINARY
        end = self.ends[side]
        pieces = [data[len(data) * i // fragments : len(data) * (i + 1) // fragments] for i in range(fragments)]
        for i, piece in enumerate(pieces):
            end.send_frame(Frame(opcode if i == 0 else Opcode.CONT, piece, i == fragments - 1))
            if i and self.control and self.rng.random() < 0.3:
                end.send_ping(b"still there?")
        self.sent.append(Sent(side, text if isinstance(text, str) else None, data))
        if flush:
            self.flush()

    def close(self) -> None:
        """Both say goodbye."""
        self.client.send_close(1000, "bye")
        self.flush()
        self.flush()


def random_chat(seed: int, messages: int = 12, **how: Any) -> Chat:
    """A chat of all kinds of messages."""
    rng = random.Random(seed)
    chat = Chat(deflate=rng.random() < 0.6, seed=seed, takeover=rng.random() < 0.7, **how)
    words = ["lorem", "ipsum", "straße", "\u6f22\u5b57", '"quoted"', "\\", "\n", "\x01", "😀"]
    for _ in range(messages):
        size = rng.choice([0, 1, 5, 30, 200, 3000])
        text: str | bytes = " ".join(rng.choice(words) for _ in range(size)) if rng.random() < 0.7 else rng.randbytes(size)
        chat.say(rng.choice([CLIENT, SERVER]), text, fragments=rng.choice([1, 1, 1, 2, 5]), flush=rng.random() < 0.8)
    chat.flush()
    chat.close()
    return chat


def play(chat: Chat, c: Conversation | None = None) -> Conversation:
    """Feed it, a call at a time."""
    c = c if c is not None else Conversation()
    for side, data in chat.calls:
        (c.request if side == CLIENT else c.response)(data)
    return c
