"""The conversations as a file that `collector replay` reads, and what of a file of records belongs to which of them."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tests.secrets.carriers import CARRIERS
from tests.secrets.documents import DOCUMENTS
from tests.secrets.heads import HEADS
from tests.secrets.kinds import KINDS
from tests.secrets.matrix import Case, body_cases, carrier_cases, head_cases
from tests.secrets.running import CLIENT
from tests.secrets.search import found


def sample(seed: object, each: int = 3) -> Iterator[Case]:
    """At each place a few kinds, others at the next one; in every carrier a few documents. All that the settings of
    an ordinary collector are enough for.
    """
    kinds = list(KINDS)
    at = 0
    for head in HEADS.values():
        yield from head_cases(head, [kinds[(at + 11 * n) % len(kinds)] for n in range(each)], seed)
        at += 1
    for document in DOCUMENTS.values():
        for carrier in ("request", "response"):
            some = [kinds[(at + 13 * n) % len(kinds)] for n in range(each)]
            yield from body_cases(CARRIERS[carrier], document, some, seed)
            at += 1
    for way in CARRIERS.values():
        if not way.settings:
            yield from carrier_cases(way, seed)


def client_of(number: int) -> str:
    """The address of a case's client."""
    return f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}:40000"


def write_streams(path: Path, cases: Iterable[Case]) -> None:
    """One connection a case, one after the other."""
    with path.open("w") as file:
        now = 0.0
        for number, case in enumerate(cases):
            opening = {"connection": number, "client": client_of(number), "server": "10.250.0.1:80", "start": "syn"}
            lines: list[dict[str, object]] = [opening]
            for asks, data in case.calls:
                now += 0.001
                side = "c2s" if asks == CLIENT else "s2c"
                lines.append({"dir": side, "t": round(now, 3), "data_b64": base64.b64encode(data).decode()})
            lines += [{"dir": side, "t": round(now + 0.001, 3), "end": "fin"} for side in ("c2s", "s2c")]
            file.writelines(json.dumps(line) + "\n" for line in lines)


def plainly(blob: bytes, cases: list[Case], policy: str) -> list[str]:
    """Secrets that stand in it as they are, whatever it is: of those that are due at every place where they were sent."""
    shown = {core for case in cases if policy not in case.due for core in case.secret.cores}
    out = []
    for case in cases:
        cores = set(case.secret.cores) - shown
        if any(core.encode()[:16] in blob for core in cores):
            out.append(f"{case}: {case.secret.text[:40]!r}")
    return out


def leaks_of(cases: list[Case], parts: dict[str, bytes], policy: str, who: dict[str, int]) -> list[str]:
    """What can be found of each case in what was written of it; ``parts`` are by the client's address, ``who`` says whose
    they are.
    """
    out = []
    for client, written in parts.items():
        case = cases[who[client]]
        if policy in case.due:
            out += [f"{case}: {hit!r}" for _kind, hit in found(written, case.secret)]
    return out


def by_client(lines: Iterable[bytes]) -> dict[str, bytes]:
    """Records by their client."""
    out: dict[str, bytes] = {}
    for line in lines:
        client = json.loads(line)["ip"]
        out[client] = out.get(client, b"") + line + b"\n"
    return out


def by_client_of_messages(messages: Iterable[Any]) -> dict[str, bytes]:
    """Messages of Kafka by their client: value, headers and key."""
    out: dict[str, bytes] = {}
    for message in messages:
        for client, written in by_client([message.value]).items():
            headers = b"\n".join(key.encode() + b"\n" + value for key, value in message.headers)
            out[client] = out.get(client, b"") + written + headers + (message.key or b"")
    return out
