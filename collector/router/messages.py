"""The one message layout between our processes: a header frame, then payload frames.

    offset  size  field
    0       4     magic "ECM1" (version in the last character)
    4       1     kind
    5       3     zero
    8       8     token of this start: a stranger's message is refused
    16      8     sender epoch: differs for each life of the sending process
    24      8     receiver epoch that the sender believes in (0 in HELLO)
    32      8     number: of this message (DATA, SPAN, SLOT, FILE, END), or cumulative (ACK), or of the next one (HELLO)
    40      8     argument: wall offset ns (DATA, SPAN to a shard), number of the recorded file (FILE; DATA, SLOT to the
                  sink; 0 live), window bytes (WELCOME, ACK), oldest number not acknowledged (HELLO)
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from collector.errors import ProtocolError

_HEADER = struct.Struct("<4sB3x8sQQQq")
MAGIC = b"ECM1"

HELLO, WELCOME, DATA, ACK, END, SPAN, SLOT, FILE = 1, 2, 3, 4, 5, 6, 7, 8

# Payload of SPAN: a span that stays in its ring.
_SPAN = struct.Struct("=QQQ")


def pack_span(ring: int, position: int, length: int) -> bytes:
    """The payload of SPAN: ring number, position in the ring's stream of bytes, bytes."""
    return _SPAN.pack(ring, position, length)


def unpack_span(frame: bytes | memoryview) -> tuple[int, int, int]:
    """(ring, position, bytes). Raises ProtocolError."""
    if len(frame) != _SPAN.size:
        raise ProtocolError(f"span message of {len(frame)} bytes")
    ring, position, length = _SPAN.unpack(frame)
    return ring, position, length


@dataclass(frozen=True, slots=True)
class Header:
    """One decoded header; see the module."""

    kind: int
    sender_epoch: int
    receiver_epoch: int
    number: int
    argument: int


def pack(token: bytes, kind: int, sender_epoch: int, receiver_epoch: int, number: int, argument: int = 0) -> bytes:
    """The header frame. ``token`` is 8 bytes."""
    return _HEADER.pack(MAGIC, kind, token, sender_epoch, receiver_epoch, number, argument)


def unpack(frame: bytes | memoryview, token: bytes) -> Header:
    """Raises ProtocolError for anything that is not ours."""
    if len(frame) != _HEADER.size:
        raise ProtocolError(f"message header of {len(frame)} bytes")
    magic, kind, theirs, sender, receiver, number, argument = _HEADER.unpack(frame)
    if magic != MAGIC:
        raise ProtocolError(f"message of another version: {magic!r}")
    if theirs != token:
        raise ProtocolError("message with a foreign token")
    if not HELLO <= kind <= FILE:
        raise ProtocolError(f"message of unknown kind {kind}")
    return Header(kind, sender, receiver, number, argument)
