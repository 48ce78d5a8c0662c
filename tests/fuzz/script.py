"""The language of the fuzzer's inputs, and what runs them.

Four bytes of settings, then steps. A step begins with 0xF5 - a byte that UTF-8 never has, so that text can be cut,
repeated and moved between inputs without counting - and is: one byte of verb, one byte of argument, text. Every byte
string is a valid script: an unknown verb is taken modulo their number. Verbs are letters, so that inputs can be read:

    I O   data received, sent; argument: size of the pieces (low half), which of them gets lost (high half)
    i o   bytes lost on the way, as many as LENGTHS[argument]
    Z     bytes only counted; argument: direction, length, flags
    F     data whose last bytes were not copied (argument: direction, how many)
    V     data at an older position (argument: direction, how far back)
    Y     the text, LENGTHS[argument] bytes of it in all, as one event; with two 0xF6 in it only what lies between grows
    r     the last data step again, REPEATS[argument] times
    c     goes to another connection, and opens it (argument: which, role, start, seen at all)
    g     another connection under the same descriptor, without a close
    M     MANY[argument] further connections, with the text as first data, in one span
    P A   OPEN, ADDRESS told again (argument: role, start, ports)
    E C   EOF, CLOSE (argument: direction, reason, bytes that were never seen)
    X     the process ends
    T     time goes by (argument: how long; with the timers of a silent shard, with all timers, or without)
    H     data with one byte of its header changed (argument: which; the text's first byte: to what)
    D     data that the kernel threw away (ring record with the discard bit)
    B     another byte budget
    K     the records are taken (argument: the slot they lay in is given back at once, or some time later)
    S     connections to skip (argument: how many)
    L     from here on the connection's bytes are a library's (argument: which, new positions, an OPEN)
    b     it is the socket of another one: BIND (argument: which, ends, role)
    n     from here on its descriptor is not known (argument: or known again)
    t     the library tells something: TLS (argument: version, library; the text: a third of it ALPN, the rest SNI)
    l     the text is the name of a library: LIBRARY (argument: its number)
    p     another policy (argument: which of POLICIES)
    h     another share of the connections is read (argument: 255 is all)
    w     whose the process is: OWNER (argument: flags, another process, which pod)
    q     who has an address: PEER (argument: which address, which pod)
"""

from __future__ import annotations

import array
import dataclasses
import sys
from collections.abc import Callable, Iterator
from typing import Any

from collector import abi
from collector.counter_names import CORE_NAMES
from collector.policy.model import (
    BUILTIN,
    Match,
    Mode,
    Part,
    Policy,
    Redaction,
    RedactionRule,
    Rule,
    Sampling,
    Scope,
)
from collector.settings import ShardSettings
from collector.shards.filters import Filters
from collector.shards.filters.rules import parse_rules
from collector.shards.pipeline import Pipeline
from collector.shards.records.content import Decoder
from tests.events import ident, settings
from tests.fuzz.check import check_batch
from tests.fuzz.schema import METHODS

# A span in memory of its own, of exactly its size: reading past its end is a fault. Without the fuzzer, as it is.
PLACE: Callable[[bytes], Any] = getattr(sys.modules.get("harness"), "place", bytes)
STEP = b"\xf5"
GROWS = b"\xf6"
HEADER = 4
STRUCTURED, CUTS, RAW, TEXT = b"SURT"  # the first byte of an input
PIECES = (0, 1, 2, 3, 5, 7, 13, 16, 31, 33, 64, 100, 200, 500, 1000, 1500)  # 0: whole
LENGTHS = (
    1,
    2,
    3,
    7,
    16,
    64,
    255,
    256,
    257,
    383,
    384,
    577,
    1000,
    2047,
    2048,
    2049,
    4095,
    4096,
    4097,
    5000,
    8191,
    8193,
    20_000,
    66_000,
    70_000,
)
MANY = (2, 7, 30, 200, 600, 1100)
REPEATS = (1, 2, 3, 8, 17, 65, 130, 1030)
STEPS_MS = (0, 1, 3, 400, 1000, 1600, 2900, 3100, 4600, 30_000, 61_000, 200_000, -1, -2000)
# Fed to one pipeline: more shows little and takes long. What is done by the thousand is done once.
MOST_BYTES = 150_000
MOST_EVENTS = 400
CROWD = 500
NEVER = 10 << 20  # bytes that no connection can hold: they are not even fed
SLOTS, SLOT_BYTES, BATCH_BYTES = 3, 8192, 5000
ADDRESSES = (
    ("10.0.0.1", 80),
    ("10.0.0.2", 40000),
    ("", 0),
    ("2001:db8::7", 8080),
    ("169.254.169.254", 80),
    ("127.0.0.1", 443),
)
_BUFFER_BYTES = CORE_NAMES.index("buffer_bytes")
_CONNECTIONS = CORE_NAMES.index("connections")
WALL_NS = 1_795_000_000 * 10**9

RULES = (
    "[]",
    None,
    '[{"key":{"eq":"Host","ifAbsent":"reject"},"value":{"regex":"^[a-z.]+$"}},'
    '{"key":{"eq":"x-a","ifAbsent":"accept"},"value":{"regex":"1"}}]',
)
EVERYTHING = Redaction(
    Mode.SECRETS,
    (
        RedactionRule("own", Part.JSON, "/a/*/**/b"),
        RedactionRule("own", Part.NAME, "x-.*|id"),
        RedactionRule("own", Part.VALUE, "[0-9]{4}", Scope(("*",), ("/*",))),
        RedactionRule("own", Part.PATH, "/a/{id}"),
        RedactionRule("own", Part.QUERY, "q", keep=True),
    ),
)
POLICIES = (
    *BUILTIN.values(),
    Policy("own", redaction=EVERYTHING),
    Policy("some", rules=(Rule(False, Match(paths=("/x*",))), Rule(False, Match(statuses=((200, 299),), hosts=("h",))))),
    Policy("none", rules=(Rule(False, Match(statuses=((0, 599),))),)),
    Policy("doubt", rules=(Rule(False, Match(content_types=("text/*",))),)),
    Policy("few", sampling=Sampling(1, 2, errors_one_in=2, marked_one_in=2, endpoints=2)),
    Policy("no", sampling=Sampling(0, 0, errors_one_in=0, marked_one_in=0)),
    Policy("heads", sampling=Sampling(0, 0, heads_only=True, errors_one_in=0, marked_one_in=3)),
)
FILTERS = [Filters(parse_rules(text)) for text in RULES]


def settings_of(header: bytes) -> tuple[ShardSettings, Filters]:
    """Two bytes of an input as the pipeline's settings: limits so small that they are reached."""
    a, b = header[1], header[3]
    rules = FILTERS[(b >> 4 & 3) % 3]
    wide = b & 12 == 12  # a table that grows
    tight = b >> 4 & 3 == 3  # what one connection may hold, and what a minute may bring
    chosen = settings(
        header_bytes=2048,
        body_bytes=64 if b & 2 else 20_000 if b & 64 else 2048,
        record_bytes=6000 if b & 1 else 100_000,
        max_connections=2000 if wide else 3 if b & 4 else 6,
        buffer_bytes=3_000_000 if wide else 50_000 if b & 8 else 200_000,
        connection_bytes=12_000 if tight else NEVER,
        input_bytes_per_minute=20_000 if tight else 0,
        output_bytes_per_minute=20_000 if tight else 0,
        response_bodies=not a & 1,
        want_details=bool(a & 2),
        ignore_ip_hosts=bool(a & 4),
        ignore_metadata=bool(a & 4),
        disable_egress=bool(a & 8),
        ignore_ports=(443,) if a & 16 else (),
        only_ports=(80, 8080) if a & 32 else (),
        record_prefix="fuzz-",
        daemonset_id="d",
        real_ip_header="X-Forwarded-For",
        trusted_networks="10.0.0.0/8,2001:db8::/32",
    )
    return chosen, rules


def steps(script: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(verb, argument, text) of each step."""
    for part in script[HEADER:].split(STEP):
        if part:
            yield part[0], part[1] if len(part) > 1 else 0, part[2:]


class Connection:
    """What the traced side knows of one connection."""

    __slots__ = ("conn", "fd", "positions", "source")

    def __init__(self, conn: tuple[int, int, int]) -> None:
        self.conn = conn
        self.fd = conn[2]
        self.positions = [0, 0]
        self.source = 0


class Runner:
    """One pipeline, fed by a script; every fed span and every taken record is checked."""

    def __init__(self, header: bytes, **changes: Any) -> None:
        chosen, filters = settings_of(header)
        self.settings = dataclasses.replace(chosen, **changes)
        self.memory = array.array("Q", [0] * 128)
        self.pipe = Pipeline(self.settings, filters, Decoder(METHODS), memoryview(self.memory))
        self.budget = self.settings.buffer_bytes
        self.slots: list[int] = []  # taken, and not given back yet
        self.slot_memory = bytearray(SLOTS * SLOT_BYTES)
        if header[1] & 64:
            self.pipe.use_unwanted(memoryview(array.array("Q", [0] * 256)))
            self.pipe.use_slots(self.slot_memory, SLOTS, BATCH_BYTES)
        self.dropped = bool(header[3] & 128)  # at the end the pipeline is let go as it is
        self.batched = bool(header[1] & 128)  # several events in a span, or each in its own: reading past its end shows
        self.waiting: list[bytes] = []
        self.waiting_bytes = 0
        self.now = 1_000_000_000
        self.bytes_left = MOST_BYTES
        self.events_left = MOST_EVENTS
        self.crowds: set[int] = set()
        self.generation = 1
        self.connections: dict[int, Connection] = {}
        self.records: list[dict[str, Any]] = []
        self.again: tuple[int, int, bytes] = (0, 0, b"")
        self.here = self.select(header[2])

    # -- events --

    def event(self, record: bytes) -> None:
        """One ring record, now or with the next ones."""
        if self.events_left <= 0:
            return
        self.events_left -= 1
        self.waiting.append(record)
        self.waiting_bytes += len(record)
        if not self.batched or self.waiting_bytes > 30_000:
            self.flush()

    def flush(self) -> None:
        """Feed what waits, as one span."""
        if self.waiting:
            span = b"".join(self.waiting)
            self.waiting.clear()
            self.waiting_bytes = 0
            self.feed(span)

    def feed(self, span: bytes) -> None:
        """One span, whole; and the limits hold afterwards."""
        at = 0
        placed = PLACE(span)
        while at < len(span):
            at = self.pipe.feed(placed, WALL_NS, at)
            if at < len(span):
                self.take(span[0])
        self.limits()

    def limits(self) -> None:
        """The byte budget holds whenever the pipeline gives back control."""
        assert self.memory[_BUFFER_BYTES] <= self.budget, (self.memory[_BUFFER_BYTES], self.budget)
        assert self.memory[_CONNECTIONS] <= self.settings.max_connections, self.memory[_CONNECTIONS]

    def data(self, direction: int, text: bytes, *, length: int | None = None, flags: int = 0) -> None:
        """One DATA event at the present position."""
        if len(text) > self.bytes_left:
            return
        self.bytes_left -= len(text)
        here = self.here
        length = len(text) if length is None else length
        self.event(
            abi.pack_data(
                here.conn,
                direction,
                here.positions[direction],
                text,
                ts_ns=self.now,
                len_true=length,
                flags=flags,
                source=here.source,
            )
        )
        here.positions[direction] += length

    # -- steps --

    def run(self, script: bytes) -> None:
        """Every step, then the end."""
        for verb, argument, text in steps(script):
            self.step(verb, argument, text)
        self.finish()

    def step(self, verb: int, argument: int, text: bytes) -> None:
        """One step of the script."""
        if verb not in _VERBS:
            verb = _LETTERS[verb % len(_LETTERS)]
        if verb in _REPEATABLE:
            self.again = (verb, argument, text)
        _VERBS[verb](self, argument, text)

    def pieces(self, direction: int, argument: int, text: bytes) -> None:
        """Data, in pieces; one of them may get lost."""
        size = PIECES[argument & 15] or len(text) or 1
        lost = argument >> 4
        for number, at in enumerate(range(0, len(text), size), 1):
            piece = text[at : at + size]
            if number == lost:
                self.here.positions[direction] += len(piece)
            else:
                self.data(direction, piece)

    def received(self, argument: int, text: bytes) -> None:
        self.pieces(abi.IN, argument, text)

    def sent(self, argument: int, text: bytes) -> None:
        self.pieces(abi.OUT, argument, text)

    def lost_in(self, argument: int, text: bytes) -> None:
        self.here.positions[abi.IN] += LENGTHS[argument % len(LENGTHS)]

    def lost_out(self, argument: int, text: bytes) -> None:
        self.here.positions[abi.OUT] += LENGTHS[argument % len(LENGTHS)]

    def counted(self, argument: int, text: bytes) -> None:
        length = LENGTHS[(argument >> 1 & 31) % len(LENGTHS)]
        self.data(argument & 1, b"", length=length, flags=abi.F_FAULT if argument & 64 else abi.F_SIZE_ONLY)

    def cut(self, argument: int, text: bytes) -> None:
        more = LENGTHS[(argument >> 1 & 31) % len(LENGTHS)]
        self.data(argument & 1, text, length=len(text) + more, flags=abi.F_FAULT if argument & 64 else abi.F_CUT)

    def overlap(self, argument: int, text: bytes) -> None:
        positions = self.here.positions
        back = min(positions[argument & 1], argument >> 1)
        positions[argument & 1] -= back
        self.data(argument & 1, text)
        positions[argument & 1] += max(0, back - len(text))

    def long(self, argument: int, text: bytes) -> None:
        length = LENGTHS[(argument >> 1) % len(LENGTHS)]
        before, text, after = text.split(GROWS, 2) if text.count(GROWS) > 1 else (b"", text, b"")
        if length <= self.bytes_left and text:
            self.data(argument & 1, before + (text * (length // len(text) + 1))[:length] + after)

    def many(self, argument: int, text: bytes) -> None:
        self.flush()
        direction = argument >> 7
        span = []
        count = MANY[(argument & 127) % len(MANY)]
        self.crowd(count, len(text))
        for number in range(min(count, self.events_left // 2)):
            conn = ident(100 + number % 7, 1000 + number)
            span.append(
                abi.pack_open(conn, ts_ns=self.now, role=abi.SERVER + direction, local=ADDRESSES[0], remote=ADDRESSES[1])
            )
            span.append(abi.pack_data(conn, direction, 0, text[:100], ts_ns=self.now))
        self.events_left -= len(span)
        if span:
            self.feed(b"".join(span))

    def repeat(self, argument: int, text: bytes) -> None:
        verb, old, what = self.again
        if verb:
            count = REPEATS[argument % len(REPEATS)]
            self.crowd(count, len(what))
            for _ in range(count):
                if self.events_left <= 0:
                    return
                self.step(verb, old, what)

    def crowd(self, count: int, size: int) -> None:
        """A great many small things: allowed once of each number."""
        if count > CROWD and size < 100 and count not in self.crowds:
            self.crowds.add(count)
            self.events_left += 2 * count

    def select(self, argument: int, text: bytes = b"") -> Connection:
        number = argument & 7
        if number not in self.connections:
            self.connections[number] = Connection(ident(100 + (number >> 2), 5 + (number & 3), self.generation))
            self.here = self.connections[number]
            if argument & 128:
                self.here.positions = [1000, 2000]  # joined by its data alone
            else:
                self.open(argument >> 3 & 3, argument >> 5 & 3)
        self.here = self.connections[number]
        return self.here

    def open(self, role: int, start: int, ports: int = 0, kind: int = abi.OPEN) -> None:
        if start == abi.REJOIN and kind == abi.OPEN:
            self.here.positions = [5000, 6000]
        local, remote = ADDRESSES[ports % 6], ADDRESSES[(ports + 1 + ports // 6) % 6]
        comm = (b"server", b'caf\xc3\xa9"\\', b"\xff\x01x", b"")[ports & 3]
        if comm:
            self.event(abi.pack_process(self.here.conn[1], comm, ts_ns=self.now))
        positions = self.here.positions[0], self.here.positions[1]
        self.event(
            abi.pack_open(
                self.here.conn,
                ts_ns=self.now,
                role=role % 3,
                start=start,
                local=local,
                remote=remote,
                positions=positions,
                type=kind,
                source=ports >> 3 & 1,
            )
        )

    def open_again(self, argument: int, text: bytes) -> None:
        self.open(argument & 3, argument >> 2 & 3, argument >> 4)

    def address(self, argument: int, text: bytes) -> None:
        self.open(argument & 3, argument >> 2 & 3, argument >> 4, abi.ADDRESS)

    def generate(self, argument: int, text: bytes) -> None:
        tgid, fd = self.here.conn[1], self.here.fd
        self.generation += 1
        number = (tgid - 100) << 2 | fd - 5
        self.here = self.connections[number] = Connection(ident(tgid, fd, self.generation))
        if argument & 128:
            self.here.positions = [argument & 7] * 2
        else:
            self.open(argument & 3, argument >> 2 & 3, argument >> 4)

    def eof(self, argument: int, text: bytes) -> None:
        direction = argument & 1
        self.event(
            abi.pack_eof(self.here.conn, direction, self.here.positions[direction] + (argument >> 1 & 15), ts_ns=self.now)
        )

    def close(self, argument: int, text: bytes) -> None:
        positions = self.here.positions
        reason = {7: abi.NOT_HTTP, 6: abi.SWEPT, 5: abi.RESET, 4: abi.REPLACED}.get(argument & 7, abi.NORMAL)
        self.event(
            abi.pack_close(
                self.here.conn,
                ts_ns=self.now,
                final_in=positions[0] + (argument >> 3 & 3),
                final_out=positions[1] + (argument >> 5),
                reason=reason,
            )
        )
        tgid, fd = self.here.conn[1], self.here.fd
        self.generation += 1
        self.here.conn = ident(tgid, fd, self.generation)
        self.here.positions = [0, 0]

    def exit(self, argument: int, text: bytes) -> None:
        for ring in range(3):
            self.event(abi.pack_exit(self.here.conn[1], ts_ns=self.now, ring=ring))

    def time(self, argument: int, text: bytes) -> None:
        self.now = max(1, self.now + STEPS_MS[(argument & 63) % len(STEPS_MS)] * 1_000_000)
        if argument & 128:
            self.flush()
            self.pipe.tick(self.now)
        if argument & 64:
            self.flush()
            self.pipe.finish_timers()

    def tampered(self, argument: int, text: bytes) -> None:
        if text and len(text) <= self.bytes_left:
            self.bytes_left -= len(text)
            direction = argument >> 7
            record = bytearray(
                abi.pack_data(self.here.conn, direction, self.here.positions[direction], text[1:], ts_ns=self.now)
            )
            record[(argument & 127) % min(len(record), 64)] = text[0]
            self.flush()
            self.feed(bytes(record))

    def discarded(self, argument: int, text: bytes) -> None:
        record = bytearray(abi.pack_data(self.here.conn, argument & 1, 0, text, ts_ns=self.now))
        record[3] |= 0x40
        self.event(bytes(record))

    def set_budget(self, argument: int, text: bytes) -> None:
        self.flush()
        self.budget = argument * 5000
        self.pipe.set_budget(self.budget)

    def policy(self, argument: int, text: bytes) -> None:
        self.flush()
        self.pipe.use_policy(POLICIES[argument % len(POLICIES)], b"k" * 16 if argument & 128 else b"")

    def share(self, argument: int, text: bytes) -> None:
        self.flush()
        self.pipe.set_share(argument * 65536 // 255)

    def take(self, argument: int = 0, text: bytes = b"") -> None:
        self.flush()
        batch = self.pipe.take()
        if batch is not None:
            records, index, details = batch
            if not isinstance(records, bytes):
                slot, length = records
                assert slot not in self.slots and length <= SLOT_BYTES, (slot, length, self.slots)
                records = bytes(self.slot_memory[slot * SLOT_BYTES : slot * SLOT_BYTES + length])
                self.slots.append(slot)
            self.records += check_batch((records, index, details), self.settings)
        while self.slots and not argument & 1:
            self.pipe.release(self.slots.pop(0 if argument & 2 else -1))

    def skip(self, argument: int, text: bytes) -> None:
        self.flush()
        known = [c.conn[0] for c in self.connections.values()]
        self.pipe.skip(known[: argument & 3])

    def library(self, argument: int, text: bytes) -> None:
        self.here.source = argument & 3
        if argument & 4:
            self.here.positions = [0, 0]
        if argument & 8:
            self.event(
                abi.pack_open(
                    self.here.conn,
                    ts_ns=self.now,
                    role=(argument >> 4) % 3,
                    start=argument >> 6,
                    positions=(self.here.positions[0], self.here.positions[1]),
                    source=self.here.source,
                )
            )

    def bind(self, argument: int, text: bytes) -> None:
        other = self.connections.get(argument & 7)
        socket = other.conn[0] if other is not None else argument
        local, remote = (ADDRESSES[0], ADDRESSES[1]) if argument & 8 else (ADDRESSES[2], ADDRESSES[2])
        self.event(
            abi.pack_bind(
                self.here.conn,
                socket,
                ts_ns=self.now,
                role=(argument >> 4) % 3,
                local=local,
                remote=remote,
                source=self.here.source,
            )
        )

    def descriptor(self, argument: int, text: bytes) -> None:
        conn_id, tgid, _ = self.here.conn
        self.here.conn = conn_id, tgid, self.here.fd if argument & 1 else -1

    def told(self, argument: int, text: bytes) -> None:
        third = len(text) // 3
        self.event(
            abi.pack_tls(
                self.here.conn,
                ts_ns=self.now,
                version=(0, 0x0300, 0x0303, 0x0304, 0xFEFD, 7, 0x0301, 0xFFFF)[argument & 7],
                library=argument >> 3,
                alpn=text[:third],
                sni=text[third:],
                source=self.here.source,
            )
        )

    def name(self, argument: int, text: bytes) -> None:
        self.event(abi.pack_library(argument if argument < 200 else argument << 3, text, ts_ns=self.now))

    def owner(self, argument: int, _text: bytes) -> None:
        fields = b'"pod":"pod-%d"' % (argument >> 3) if argument >> 3 else b""
        tgid = self.here.conn[1] + (argument >> 2 & 1)
        self.event(abi.pack_owner(tgid, fields, flags=argument & 3, start_ns=argument & 16, ts_ns=self.now))

    def peer(self, argument: int, _text: bytes) -> None:
        host = ADDRESSES[argument % len(ADDRESSES)][0] if argument & 128 else f"10.0.{argument >> 3}.{argument & 7}"
        fields = b'"peerPod":"pod-%d"' % argument if argument & 64 else b""
        self.event(abi.pack_peer(abi.address16(host), fields, ts_ns=self.now))

    def finish(self) -> None:
        """Everything that waits is recorded; nothing is left behind, not a byte."""
        self.flush()
        if self.dropped:
            self.take()
            del self.pipe
            return
        while not self.pipe.close_all():
            self.take()
        self.take()
        counters = self.pipe.statistics()
        assert counters["connections"] == counters["queued_exchanges"] == counters["callback_errors"] == 0, counters
        assert counters["connections_opened"] == counters["connections_closed"], counters
        assert not counters["evicted_connection_bytes"] or self.settings.connection_bytes != NEVER, counters
        assert counters["records"] == len(self.records), (counters["records"], len(self.records))
        self.pipe.set_budget(0)  # gives back what is kept for reuse
        self.pipe.tick(0)
        left = self.pipe.statistics()["buffer_bytes"]
        assert left == 0, left


_NAMED: dict[str, Callable[..., Any]] = {
    "I": Runner.received,
    "O": Runner.sent,
    "i": Runner.lost_in,
    "o": Runner.lost_out,
    "Z": Runner.counted,
    "F": Runner.cut,
    "V": Runner.overlap,
    "Y": Runner.long,
    "r": Runner.repeat,
    "c": Runner.select,
    "g": Runner.generate,
    "M": Runner.many,
    "P": Runner.open_again,
    "A": Runner.address,
    "E": Runner.eof,
    "C": Runner.close,
    "X": Runner.exit,
    "T": Runner.time,
    "H": Runner.tampered,
    "D": Runner.discarded,
    "B": Runner.set_budget,
    "K": Runner.take,
    "S": Runner.skip,
    "L": Runner.library,
    "b": Runner.bind,
    "n": Runner.descriptor,
    "t": Runner.told,
    "l": Runner.name,
    "h": Runner.share,
    "p": Runner.policy,
    "w": Runner.owner,
    "q": Runner.peer,
}
_VERBS = {ord(letter): method for letter, method in _NAMED.items()}
_LETTERS = list(_VERBS)
_REPEATABLE = frozenset(b"IOiFVYgM")
