"""The kernel's place in a benchmark: puts synthetic events into memfd rings. Run as a process of its own.

argv: JSON {fds, ring_bytes, exchanges, body, zipped, rate}. Prints one JSON object when done.
"""

from __future__ import annotations

import json
import sys
import time

from collector import abi
from collector.loader.ringbuffer import Ring
from collector.router import partition
from tests.bench import traffic

ROUNDS = 16
_CONN_ID = 8 + abi.layout()["event_header"]["conn_id"]  # behind the ring's own header


def main() -> None:
    """Entry."""
    options = json.loads(sys.argv[1])
    rings = [Ring(fd, options["ring_bytes"], memfd=True) for fd in options["fds"]]
    per_round = traffic.CONNECTIONS * traffic.EXCHANGES_EACH
    rounds = []
    for number in range(ROUNDS):
        placed: list[tuple[int, bytes]] = []
        for piece in traffic.round_of(number, options["body"], zipped=options["zipped"]):
            conn_id = int.from_bytes(piece[_CONN_ID : _CONN_ID + 8], "little")
            ring = partition.ring_of(conn_id, len(rings))
            placed.append((ring, piece))
        rounds.append(placed)
    sent_bytes = refused = 0
    total = -(-options["exchanges"] // per_round)
    started = time.monotonic()
    sys.stdout.write("go\n")
    sys.stdout.flush()
    for number in range(total):
        for ring, piece in rounds[number % ROUNDS]:
            while not rings[ring].put(piece):
                if options["rate"]:
                    refused += 1
                    break
                time.sleep(0.0005)
            sent_bytes += len(piece)
        if options["rate"]:
            ahead = started + (number + 1) * per_round / options["rate"] - time.monotonic()
            if ahead > 0:
                time.sleep(ahead)
    print(
        json.dumps(
            {
                "exchanges": total * per_round,
                "bytes": sent_bytes,
                "refused_events": refused,
                "seconds": time.monotonic() - started,
            }
        )
    )


if __name__ == "__main__":
    main()
