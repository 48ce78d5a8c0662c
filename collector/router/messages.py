"""The one message layout between our processes: a header frame, then payload frames.

    offset  size  field
    0       4     magic "ECM2" (version in the last character)
    4       1     kind
    5       3     zero
    8       8     token of this start: a stranger's message is refused
    16      8     sender epoch: differs for each life of the sending process
    24      8     session: the receiver's name for what it and this sender have exchanged; 0 in HELLO
    32      8     number of the message in its session, from 1 (DATA, SPAN, SLOT, FILE, END)
    40      8     transmission: counts what the sender has put on the wire, repetitions and HELLO included; in WELCOME and
                  ACK the highest that has come
    48      8     wall offset, signed: ns from event time to the time of day (DATA, SPAN to a shard)
    56      4     number of the recorded file (FILE; DATA, SLOT to the sink); 0 live
    60      4     zero

Fields that a kind does not have are zero. WELCOME and ACK have one payload frame, an `Acknowledgement`:

    0       8     window: bytes that the sender may have on the way
    8       8     done: all messages below this number are done
    16      8     received: all messages below this number have come
    24      4     count of ranges of further messages that are done
    28      4     count of ranges of further messages that have come
    32      16 each   the ranges, done ones first: first number, one behind the last; ascending
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from collector.errors import ProtocolError
from collector.router.numbers import Numbers

_HEADER = struct.Struct("<4sB3x8sQQQQqI4x")
MAGIC = b"ECM2"

HELLO, WELCOME, DATA, ACK, END, SPAN, SLOT, FILE = 1, 2, 3, 4, 5, 6, 7, 8
NUMBERED = frozenset((DATA, END, SPAN, SLOT, FILE))

MAX_RANGES = 1024  # of each kind in an acknowledgement; higher ones wait until lower ones have closed
_MAX_NUMBER = 1 << 62

# Payload of SPAN: a span that stays in its ring.
_SPAN = struct.Struct("=QQQ")
_ACKNOWLEDGEMENT = struct.Struct("<QQQII")


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
    session: int
    number: int
    transmission: int
    wall_offset_ns: int
    file: int


def pack(
    token: bytes,
    kind: int,
    sender_epoch: int,
    session: int,
    *,
    number: int = 0,
    transmission: int = 0,
    wall_offset_ns: int = 0,
    file: int = 0,
) -> bytes:
    """The header frame. ``token`` is 8 bytes."""
    return _HEADER.pack(MAGIC, kind, token, sender_epoch, session, number, transmission, wall_offset_ns, file)


def unpack(frame: bytes | memoryview, token: bytes) -> Header:
    """Raises ProtocolError for anything that is not ours."""
    if len(frame) != _HEADER.size:
        raise ProtocolError(f"message header of {len(frame)} bytes")
    magic, kind, theirs, sender, session, number, transmission, wall_offset_ns, file = _HEADER.unpack(frame)
    if magic != MAGIC:
        raise ProtocolError(f"message of another version: {magic!r}")
    if theirs != token:
        raise ProtocolError("message with a foreign token")
    if not HELLO <= kind <= FILE:
        raise ProtocolError(f"message of unknown kind {kind}")
    if max(number, transmission) > _MAX_NUMBER:
        raise ProtocolError("message number out of range")
    return Header(kind, sender, session, number, transmission, wall_offset_ns, file)


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """What a receiver says of a session: always all of it, so a later one makes good for a lost one."""

    window: int
    done: Numbers
    received: Numbers

    def pack(self) -> bytes:
        """The payload frame of WELCOME and ACK."""
        done = list(itertools.islice(self.done.ranges(), MAX_RANGES))
        received = list(itertools.islice(self.received.ranges(), MAX_RANGES))
        flat = itertools.chain.from_iterable(itertools.chain(done, received))
        return _ACKNOWLEDGEMENT.pack(self.window, self.done.below, self.received.below, len(done), len(received)) + (
            struct.pack(f"<{2 * (len(done) + len(received))}Q", *flat)
        )


def unpack_acknowledgement(frame: bytes | memoryview) -> Acknowledgement:
    """The reverse of `Acknowledgement.pack`. Raises ProtocolError."""
    if len(frame) < _ACKNOWLEDGEMENT.size:
        raise ProtocolError(f"acknowledgement of {len(frame)} bytes")
    window, done, received, done_count, received_count = _ACKNOWLEDGEMENT.unpack_from(frame)
    count = done_count + received_count
    if max(done_count, received_count) > MAX_RANGES or len(frame) != _ACKNOWLEDGEMENT.size + 16 * count:
        raise ProtocolError(f"acknowledgement of {len(frame)} bytes with {count} ranges")
    flat = struct.unpack_from(f"<{2 * count}Q", frame, _ACKNOWLEDGEMENT.size)
    ranges = list(zip(flat[::2], flat[1::2], strict=True))
    return Acknowledgement(window, _numbers(done, ranges[:done_count]), _numbers(received, ranges[done_count:]))


def _numbers(below: int, ranges: Iterable[tuple[int, int]]) -> Numbers:
    ranges = list(ranges)
    bounds = [below, *itertools.chain.from_iterable(ranges)]
    if below < 1 or bounds[-1] > _MAX_NUMBER or any(b <= a for a, b in itertools.pairwise(bounds)):
        raise ProtocolError("acknowledgement with ranges out of order")
    return Numbers(below, ranges)
