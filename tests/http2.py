"""HTTP/2 conversations by another implementation (h2), with what was said in them: to compare records with."""

from __future__ import annotations

import dataclasses
import random
import re
from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.settings import SettingCodes

from tests.events import Conversation

Fields = list[tuple[bytes, bytes]]
REQUEST, RESPONSE = 0, 1


@dataclasses.dataclass
class Message:
    """One side of a stream."""

    fields: Fields
    body: bytes = b""
    trailers: Fields = dataclasses.field(default_factory=list)
    ended: bool = False

    def pseudo(self, name: bytes) -> str:
        return dict(self.fields).get(name, b"").decode("latin-1")

    def shown(self) -> dict[str, str]:
        """The header object of a record: names once, pseudo-header fields not among them."""
        found: dict[str, list[str]] = {}
        for name, value in self.fields:
            if name == b":authority":
                name = b"host"
            if not name.startswith(b":"):
                found.setdefault(name.decode(), []).append(value.decode("latin-1"))
        for name, value in self.trailers:
            found.setdefault(name.decode(), []).append(value.decode("latin-1"))
        between = {"cookie": "; ", "set-cookie": "\n"}
        return {name: between.get(name, ", ").join(values) for name, values in found.items()}


@dataclasses.dataclass
class Said:
    """What went over one stream."""

    request: Message
    response: Message | None = None
    reset: bool = False


class Talk:
    """Two ends that talk; ``events`` has what went by, as (direction, bytes) of one call each."""

    def __init__(self) -> None:
        self.ends = [
            H2Connection(H2Configuration(client_side=side == REQUEST, header_encoding=None)) for side in (REQUEST, RESPONSE)
        ]
        self.events: list[tuple[int, bytes]] = []
        self.said: dict[int, Said] = {}
        self.heads = [0, 0]  # since the size of the table was changed
        for end in self.ends:
            end.initiate_connection()
        self.flush()
        self.flush()

    def flush(self) -> None:
        """What both have to say goes out, the client's first."""
        for side in (REQUEST, RESPONSE):
            data = self.ends[side].data_to_send()
            if data:
                self.events.append((side, data))
                self.ends[1 - side].receive_data(data)

    def ask(self, fields: Fields, *, end: bool = False, **how: Any) -> int:
        """A new stream's head."""
        stream = self.ends[REQUEST].get_next_available_stream_id()
        self.ends[REQUEST].send_headers(stream, fields, end_stream=end, **how)
        self.said[stream] = Said(Message(fields, ended=end))
        self.heads[REQUEST] += 1
        return stream

    def answer(self, stream: int, fields: Fields, *, end: bool = False) -> None:
        """The head of the final answer."""
        self.flush()
        self.ends[RESPONSE].send_headers(stream, fields, end_stream=end)
        self.heads[RESPONSE] += 1
        self.said[stream].response = Message(fields, ended=end)

    def interim(self, stream: int, fields: Fields) -> None:
        self.flush()
        self.ends[RESPONSE].send_headers(stream, fields)
        self.heads[RESPONSE] += 1

    def message(self, stream: int, side: int) -> Message:
        said = self.said[stream]
        found = said.request if side == REQUEST else said.response
        assert found is not None
        return found

    def body(self, stream: int, side: int, data: bytes, *, end: bool = False, padding: int | None = None) -> None:
        self.ends[side].send_data(stream, data, end_stream=end, pad_length=padding)
        self.message(stream, side).body += data
        self.message(stream, side).ended = end

    def trailers(self, stream: int, side: int, fields: Fields) -> None:
        self.ends[side].send_headers(stream, fields, end_stream=True)
        self.message(stream, side).trailers = fields
        self.message(stream, side).ended = True

    def reset(self, stream: int, side: int) -> None:
        self.ends[side].reset_stream(stream)
        self.said[stream].reset = True

    def table_size(self, side: int, size: int) -> None:
        """What this end allows the other one for its table of header fields. Once between two of its heads: h2's encoder
        tells of each change, and its decoder takes only the last.
        """
        if self.heads[1 - side]:
            self.flush()
            self.ends[side].update_settings({SettingCodes.HEADER_TABLE_SIZE: size})
            self.flush()
            self.heads[1 - side] = 0


def request(path: str, method: str = "GET", *fields: tuple[str, str]) -> Fields:
    head = [(":method", method), (":scheme", "http"), (":authority", "api.example"), (":path", path), *fields]
    return [(name.encode(), value.encode()) for name, value in head]


def response(status: int = 200, *fields: tuple[str, str]) -> Fields:
    return [(name.encode(), value.encode()) for name, value in [(":status", str(status)), *fields]]


NAMES = ["user-agent", "accept", "cookie", "x-request-id", "authorization", "content-type", "set-cookie", "x-a", "etag"]


def some_fields(rng: random.Random) -> list[tuple[str, str]]:
    """Some that come again and again, so that they are indexed, and some that are new."""
    out = []
    for _ in range(rng.randrange(6)):
        name = rng.choice(NAMES)
        often = rng.random() < 0.7
        out.append((name, f"{name}-{rng.randrange(3)}" if often else rng.randbytes(rng.randrange(1, 40)).hex()))
    return out


def random_talk(seed: int, steps: int = 60) -> Talk:
    """Streams side by side with everything that may happen to them."""
    rng = random.Random(seed)
    talk = Talk()
    asking: list[int] = []
    answering: list[int] = []
    for n in range(steps):
        what = rng.randrange(12)
        if what < 3 or not (asking or answering):
            end = rng.random() < 0.5
            method = rng.choice(["GET", "POST", "PUT"])
            stream = talk.ask(request(f"/{seed}/{n}?q={rng.randrange(1000)}", method, *some_fields(rng)), end=end)
            answering.append(stream)
            if not end:
                asking.append(stream)
        elif what < 6 and asking:
            stream = rng.choice(asking)
            end = rng.random() < 0.5
            padding = rng.choice([None, None, 0, 7, 200])
            if end and rng.random() < 0.2:
                talk.trailers(stream, REQUEST, [(b"x-checksum", b"%d" % n)])
            else:
                data = rng.randbytes(rng.randrange(300)).hex().encode()
                talk.body(stream, REQUEST, data, end=end, padding=padding)
            if end:
                asking.remove(stream)
        elif what < 10 and answering:
            stream = rng.choice(answering)
            if talk.said[stream].response is None:
                if rng.random() < 0.1:
                    talk.interim(stream, response(103, ("link", "</a>; rel=preload")))
                    continue
                end = rng.random() < 0.3
                talk.answer(stream, response(rng.choice([200, 200, 201, 404, 418]), *some_fields(rng)), end=end)
            else:
                end = rng.random() < 0.5
                if end and rng.random() < 0.3:
                    talk.trailers(stream, RESPONSE, [(b"grpc-status", b"0"), (b"grpc-message", b"%d" % n)])
                else:
                    talk.body(stream, RESPONSE, b"%d," % n * rng.randrange(200), end=end, padding=rng.choice([None, 3]))
            if end:
                answering.remove(stream)
                if stream in asking:  # refuses the rest
                    talk.flush()
                    talk.reset(stream, RESPONSE)
                    asking.remove(stream)
        elif what == 10:
            talk.table_size(rng.randrange(2), rng.choice([0, 64, 200, 4096, 8192]))
        elif rng.random() < 0.3 and answering:
            stream = rng.choice(answering)
            talk.flush()
            talk.reset(stream, rng.randrange(2))
            answering.remove(stream)
            if stream in asking:
                asking.remove(stream)
        else:
            talk.ends[rng.randrange(2)].ping(b"8 octets")
        if rng.random() < 0.7:
            talk.flush()
    talk.flush()
    return talk


def play(talk: Talk, c: Conversation | None = None) -> Conversation:
    """All of it, each call an event."""
    c = c if c is not None else Conversation()
    for side, data in talk.events:
        (c.request if side == REQUEST else c.response)(data)
    return c


def stream_of(record: dict[str, Any]) -> int:
    """The number of the stream that a record is of."""
    number = record["recordId"].rpartition("-h")[2]
    return int(number, 16)


BODY_MARKS = {
    REQUEST: {"request_body_cut", "request_bytes_lost", "request_incomplete"},
    RESPONSE: {"response_body_cut", "response_bytes_lost", "response_incomplete", "no_response"},
}


def judge(record: dict[str, Any], said: Said) -> None:
    """What the record shows was said, whole unless a mark says that something is missing."""
    words = record["words"]
    if "method_unknown" not in words:
        assert record["method"] == said.request.pseudo(b":method")
    if "path_unknown" not in words:
        assert record["path"] == said.request.pseudo(b":path")
    assert "ambiguous_framing" not in words, record["mark"]
    doubtful = "headers_unknown" in words
    judge_fields(record["request"], said.request, doubtful)
    judge_body(record["requestPayload"], said.request, words, REQUEST)
    if record["statusCode"] == "0":
        assert words & {"no_response", "status_unknown"}
    else:
        assert said.response is not None and record["statusCode"] == said.response.pseudo(b":status")
    if said.response is not None:
        judge_fields(record["response"], said.response, doubtful or bool(words & BODY_MARKS[RESPONSE]))
        judge_body(record["responsePayload"], said.response, words, RESPONSE)


def judge_fields(shown: dict[str, str], message: Message, doubtful: bool) -> None:
    right = message.shown()
    if not doubtful:
        missing = set(right) - set(shown)
        assert not missing or missing <= {"x-checksum"}, (right, shown)  # trailers of a request are not shown
    for name, value in shown.items():
        if doubtful:  # one of several values may not be known
            assert name in right or (name == "host" and value == ""), name
            assert all(part in right.get(name, "") for part in re.split(", |; |\n", value)), (name, value, right)
        else:
            assert right[name] == value


def judge_body(shown: str, message: Message, words: set[str], side: int) -> None:
    right = message.body.decode() or ""
    if shown == "{}":  # for an empty one of an answer
        shown = ""
    if words & BODY_MARKS[side]:
        assert right.startswith(shown), (shown, right)
    else:
        assert shown == right and message.ended
