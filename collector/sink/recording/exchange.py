"""A record, read again: the exchange that it tells of.

Only what a conversation between two programs can say again is taken. A record that is doubtful (its marks say that two
parsers may see different messages, or that a part of a head is unknown) would come back without its doubt; a part of a
stream would come back as a whole exchange. Those are left out, and counted by reason.
"""

from __future__ import annotations

import ipaddress
import json
import re
from dataclasses import dataclass
from typing import Any

from collector import abi

Fields = tuple[tuple[str, str], ...]
Address = tuple[str, int]  # text ("" when unknown), port

# Why an exchange is not in the file.
DOUBTFUL, IN_PARTS, WEBSOCKET, NOT_HTTP = "doubtful", "parts", "websocket", "not_http"
REASONS = (DOUBTFUL, IN_PARTS, WEBSOCKET, NOT_HTTP)

# Marks (docs/records.md) of what is missing; the same is missing from the conversation, so a replay says so again.
_SAID_AGAIN = frozenset(
    f"{side}_{what}"
    for side in ("request", "response")
    for what in ("body_cut", "bytes_lost", "incomplete", "body_omitted", "body_undecoded")
) | {"joined_mid_stream", "no_response", "end_unseen", "peer_unknown"}
# These come with the first exchange of a connection that was joined in the middle, and so they do again.
_OF_THE_JOINED = frozenset({"pairing_uncertain", "request_framing_uncertain", "response_framing_uncertain"})

_RECORD_ID = re.compile(r"[^-]*-([0-9a-f]{1,16})(?:-s([0-9a-f]{1,2}))?-(h?)([0-9a-f]{1,16})")
_ADDRESS = re.compile(r"\[?([0-9a-f:.]+)\]?:([0-9]{1,5})")
_MILLISECONDS = re.compile(r"([0-9]{1,16})(?:\.([0-9]{1,6}))?")
_TLS_VERSIONS = {"1.3": 0x0304, "1.2": 0x0303, "1.1": 0x0302, "1.0": 0x0301, "3.0": 0x0300}


class NotTold(Exception):
    """The exchange is left out of the file; the argument is one of REASONS."""


@dataclass(frozen=True, slots=True)
class Message:
    """One side. ``payload`` is text, or base64 of bytes if ``is_base64``, or of so many ``messages`` of gRPC and the like
    (None: it is a body like others). ``size``: bytes of the body on the wire. ``missing``: the payload is not all of it, and
    if ``lost``, because nobody saw the rest; ``incomplete``: the message did not come to its end. ``undecoded``: the payload
    is as it was on the wire.
    """

    fields: Fields
    payload: str
    is_base64: bool
    messages: int | None
    size: int
    missing: bool
    lost: bool
    incomplete: bool
    undecoded: bool

    def field(self, name: str) -> str:
        """The value of a field, "" where there is none."""
        return next((value for key, value in self.fields if key.lower() == name), "")


@dataclass(frozen=True, slots=True)
class Tls:
    """What the library told. ``version`` as in the protocol, 0 unknown."""

    version: int
    library: str
    alpn: str
    sni: str


@dataclass(frozen=True, slots=True)
class Exchange:
    """``connection``, ``source`` and ``position`` (of the request's first byte, or the number of the stream) are those of
    its recordId. Times are ns of CLOCK_MONOTONIC; ``first_ns`` of the response's first byte, None without one.
    ``wall_offset_ns`` is what to add for Unix time.
    """

    method: str
    target: str
    version: str
    status: str
    request: Message
    response: Message | None
    client: Address
    server: Address
    outbound: bool
    process: int
    process_name: str
    descriptor: int
    tls: Tls | None
    connection: int
    source: int
    position: int
    start_ns: int
    first_ns: int | None
    end_ns: int
    wall_offset_ns: int
    joined: bool
    end_unseen: bool

    @property
    def status_code(self) -> int:
        """0 without one."""
        return int(self.status[:3]) if self.status[:3].isdecimal() else 0


def read(record: bytes, end_ns: int) -> Exchange:
    """The exchange of a record that ended at ``end_ns``, as its index says. Raises NotTold."""
    try:
        return _read(json.loads(record), end_ns)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        raise NotTold(NOT_HTTP) from None


def _read(record: dict[str, Any], end_ns: int) -> Exchange:
    if not all(isinstance(value, str) for value in record.values()):
        raise ValueError("not a record")
    if "connection_type" in record:
        raise NotTold(WEBSOCKET)
    if "part" in record:
        raise NotTold(IN_PARTS)
    words = {mark.partition(":")[0] for mark in json.loads(record["marks"])}
    doubts = words - _SAID_AGAIN
    if "joined_mid_stream" in words:
        doubts -= _OF_THE_JOINED
    if doubts or not record["method"]:
        raise NotTold(DOUBTFUL)
    found = _RECORD_ID.fullmatch(record["recordId"])
    if found is None:
        raise ValueError("recordId")
    numbered = bool(found[3])
    if numbered != (record["type"] == "HTTP/2.0"):
        raise ValueError("recordId")
    start_ns = max(0, end_ns - _nanoseconds(record["durationMs"]))
    outbound = record["direction"] == "2"
    return Exchange(
        method=record["method"],
        target=record["path"],
        version=record["type"],
        status=record["status"],
        request=_message(record, "request", words),
        response=None if "no_response" in words else _message(record, "response", words),
        client=_address(record["ip"]),
        server=_address(record["destIp"]),
        outbound=outbound,
        process=int(record["process_id"]),
        process_name=record["process_name"],
        descriptor=int(record["socket_id"] or -1),
        tls=_tls(record) if record["tls"] == "true" else None,
        connection=int(found[1], 16),
        source=int(found[2] or "0", 16),
        position=int(found[4], 16),
        start_ns=start_ns,
        first_ns=start_ns + _nanoseconds(record["firstByteMs"]) if record["firstByteMs"] else None,
        end_ns=end_ns,
        wall_offset_ns=int(record["startTimeMs"]) * 1_000_000 - start_ns,
        joined="joined_mid_stream" in words,
        end_unseen="end_unseen" in words,
    )


def _message(record: dict[str, Any], side: str, words: set[str]) -> Message:
    payload, size = record[f"{side}Payload"], int(record[f"{side}Size"])
    missing = {f"{side}_body_cut", f"{side}_bytes_lost", f"{side}_body_omitted"} & words
    return Message(
        fields=tuple(_fields(record[f"{side}Headers"])),
        payload=payload,
        is_base64=f"{side}PayloadEncoding" in record,
        messages=int(record[f"{side}Messages"]) if f"{side}Messages" in record else None,
        size=size,
        missing=bool(missing) or (size > 0 and not payload and f"{side}Messages" not in record),
        lost=f"{side}_bytes_lost" in words,
        incomplete=f"{side}_incomplete" in words,
        undecoded=f"{side}_body_undecoded" in words,
    )


def _fields(text: str) -> list[tuple[str, str]]:
    """Fields of a message; those of Set-Cookie stand one below the other in a record."""
    out: list[tuple[str, str]] = []
    for name, value in json.loads(text).items():
        out += [(name, each) for each in (value.split("\n") if name.lower() == "set-cookie" else [value])]
    return out


def _nanoseconds(milliseconds: str) -> int:
    found = _MILLISECONDS.fullmatch(milliseconds)
    if found is None:
        raise ValueError("no time")
    return int(found[1]) * 1_000_000 + int((found[2] or "").ljust(6, "0"))


def _address(text: str) -> Address:
    found = _ADDRESS.fullmatch(text)
    if found is None or int(found[2]) > 65535:
        raise ValueError("no address")
    host = str(ipaddress.ip_address(found[1]))
    return ("", 0) if text == "0.0.0.0:0" else (host, int(found[2]))


def _tls(record: dict[str, Any]) -> Tls:
    version = record.get("tlsVersion", "")
    return Tls(
        version=_TLS_VERSIONS.get(version) or (int(version, 16) & 0xFFFF if version.startswith("0x") else 0),
        library=record.get("tlsLibrary", ""),
        alpn=record.get("alpn", ""),
        sni=record.get("sni", ""),
    )


def conn(exchange: Exchange) -> tuple[int, int, int]:
    """As the functions of collector.abi want it."""
    return exchange.connection, exchange.process, exchange.descriptor


def role(exchange: Exchange) -> int:
    """Of the traced process."""
    return abi.CLIENT if exchange.outbound else abi.SERVER
