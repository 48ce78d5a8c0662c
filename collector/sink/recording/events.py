"""What two programs have said -> events (bpf/abi/event.h), as the kernel programs would have made them.

Each exchange is a connection that is opened and closed around it, under the number that it had: one after the other, however
they were interleaved. The first byte of a message comes at its time and the last one at its own; where much time lies
between them, bytes come now and then, or a replay would take the silence for an end (COLLECTOR_UNANSWERED_SECS).
"""

from __future__ import annotations

from collector import abi
from collector.router import partition
from collector.sink.recording import http1, http2
from collector.sink.recording.bodies import Hole, Piece
from collector.sink.recording.exchange import NOT_HTTP, Exchange, NotTold, conn, role

RINGS = 64  # what a capture file of such events says that it has
_SILENCE_NS = 5_000_000_000
_MOST_STEPS = 1000  # of a message that takes its time
_MOST_AT_ONCE = 1 << 30  # an event's length has 32 bits
_MAX_POSITION = 1 << 62
_MAX_NS = 1 << 62


def ring_of(exchange: Exchange) -> int:
    """The ring that its events stand in."""
    return partition.ring_of(exchange.connection, RINGS)


class Libraries:
    """Numbers for the names of TLS libraries, as the events have them."""

    MOST = 200  # numbers; the names of others are not told

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def number(self, name: str) -> int:
        """0 where there is none left."""
        if name and name not in self._numbers and len(self._numbers) < self.MOST:
            self._numbers[name] = len(self._numbers) + 1
        return self._numbers.get(name, 0)


def of(exchange: Exchange, libraries: Libraries) -> bytes:
    """The events of an exchange, back to back. Raises NotTold."""
    if not 0 <= exchange.start_ns <= exchange.end_ns < _MAX_NS or exchange.position >= _MAX_POSITION:
        raise NotTold(NOT_HTTP)
    numbered = exchange.version == "HTTP/2.0"
    try:
        asked, answered = (http2 if numbered else http1).told(exchange)
        return _Events(exchange, 0 if numbered else exchange.position).all(asked, answered, libraries)
    except (OverflowError, OSError, ValueError):  # what no event has room for, or is no text
        raise NotTold(NOT_HTTP) from None


class _Events:
    """Of one exchange, whose request begins at ``position`` of its stream."""

    def __init__(self, exchange: Exchange, position: int) -> None:
        self._exchange = exchange
        self._conn = conn(exchange)
        self._requests = abi.OUT if exchange.outbound else abi.IN
        self._at = {self._requests: position, 1 - self._requests: 0}
        self._out = bytearray()

    def all(self, asked: http1.Said, answered: http1.Said | None, libraries: Libraries) -> bytes:
        """From the opening to the end."""
        ex = self._exchange
        self._open(libraries)
        first = ex.end_ns if ex.first_ns is None else min(max(ex.first_ns, ex.start_ns), ex.end_ns)
        slow = answered is None or first - ex.start_ns > _SILENCE_NS
        self._say(self._requests, asked, ex.start_ns, first if slow else ex.start_ns)
        reset = False
        if answered is not None:
            self._say(1 - self._requests, answered, first, ex.end_ns)
            incomplete = ex.response is not None and ex.response.incomplete
            reset = incomplete and answered.to_the_end
            if not incomplete:
                end = self._at[1 - self._requests]
                self._out += abi.pack_eof(self._conn, 1 - self._requests, end, ts_ns=ex.end_ns, source=ex.source)
        self._out += abi.pack_close(
            self._conn,
            ts_ns=ex.end_ns,
            final_in=self._at[abi.IN],
            final_out=self._at[abi.OUT],
            reason=abi.RESET if reset else abi.SWEPT if ex.end_unseen else abi.NORMAL,
            source=ex.source,
        )
        return bytes(self._out)

    def _open(self, libraries: Libraries) -> None:
        ex = self._exchange
        ring, ts = ring_of(ex), ex.start_ns
        if ex.process_name:
            self._out += abi.pack_process(ex.process, ex.process_name.encode("latin-1", "replace"), ts_ns=ts, ring=ring)
        client, server = ex.client, ex.server
        self._out += abi.pack_open(
            self._conn,
            ts_ns=ts,
            role=role(ex),
            start=abi.MID if ex.joined else abi.SEEN,
            local=client if ex.outbound else server,
            remote=server if ex.outbound else client,
            positions=(self._at[abi.IN], self._at[abi.OUT]),
            ring=ring,
            source=ex.source,
        )
        if ex.tls is not None and ex.source:
            library = libraries.number(ex.tls.library)
            if library:
                self._out += abi.pack_library(library, ex.tls.library.encode(), ts_ns=ts, ring=ring)
            self._out += abi.pack_tls(
                self._conn,
                ts_ns=ts,
                version=ex.tls.version,
                library=library,
                alpn=ex.tls.alpn.encode(),
                sni=ex.tls.sni.encode(),
                source=ex.source,
                ring=ring,
            )

    def _say(self, direction: int, said: http1.Said, first_ns: int, last_ns: int) -> None:
        """A message whose first byte comes at ``first_ns`` and whose last one at ``last_ns``."""
        if said.before:
            self._piece(direction, said.before, first_ns)
        steps = _spread(said.pieces, last_ns - first_ns)
        for number, piece in enumerate(steps):
            self._piece(direction, piece, first_ns + (last_ns - first_ns) * number // max(len(steps) - 1, 1))

    def _piece(self, direction: int, piece: Piece, ts_ns: int) -> None:
        source = self._exchange.source
        if isinstance(piece, bytes):
            self._out += abi.pack_data(self._conn, direction, self._at[direction], piece, ts_ns=ts_ns, source=source)
            self._at[direction] += len(piece)
            return
        if self._at[direction] + piece.size > _MAX_POSITION:
            raise NotTold(NOT_HTTP)
        if not piece.lost:
            for at in range(0, piece.size, _MOST_AT_ONCE):
                self._out += abi.pack_data(
                    self._conn,
                    direction,
                    self._at[direction] + at,
                    b"",
                    ts_ns=ts_ns,
                    len_true=min(_MOST_AT_ONCE, piece.size - at),
                    flags=abi.F_SIZE_ONLY,
                    source=source,
                )
        self._at[direction] += piece.size  # what was lost has no event: the next one shows that it is missing


def _spread(pieces: list[Piece], duration_ns: int) -> list[Piece]:
    """Cut for a message that takes so long: its last byte stands alone, and there are enough pieces for one every few
    seconds.
    """
    if duration_ns <= 0 or not pieces:
        return pieces
    steps = min(duration_ns // _SILENCE_NS + 1, _MOST_STEPS)
    step = max(1, sum(len(piece) for piece in pieces if isinstance(piece, bytes)) // steps)
    out: list[Piece] = []
    for piece in pieces:
        if isinstance(piece, Hole):
            out.append(piece)
        else:
            out += [piece[at : at + step] for at in range(0, len(piece), step)]
    last = out[-1]
    if isinstance(last, bytes) and len(last) > 1:
        out[-1:] = [last[:-1], last[-1:]]
    return out
