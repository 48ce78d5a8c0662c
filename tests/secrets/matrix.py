"""What is tried: every place with every kind of secret, and what leaked of them."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from collector.policy.model import Policy
from tests.secrets.carriers import CARRIERS, Carrier
from tests.secrets.documents import DOCUMENTS, Document
from tests.secrets.heads import HEADS, Head
from tests.secrets.kinds import FEW, KINDS, Secret, make
from tests.secrets.names import FIELDS, HEADERS
from tests.secrets.running import Calls, written
from tests.secrets.search import found

ASCII_FIELDS = tuple(name for name in FIELDS if name.isascii())
# bodies of HTTP have types; parts of a form anywhere else are only text
NO_HTTP = ("connect-json-stream", "grpc-json", "server-sent-events", *(name for name in CARRIERS if "websocket" in name))
NARROW = ("latin", "latin-unsaid", "windows", "shift-jis")  # charsets that not every name can be written in
EVERYWHERE = ("json", "json-in-json", "form", "text", "xml", "multipart-field")  # documents that every carrier carries


@dataclass(frozen=True, slots=True)
class Case:
    """A conversation with one secret. ``due``: by which policies it must be taken out. ``body``: as it was sent."""

    place: str
    secret: Secret
    calls: Calls
    due: tuple[str, ...]
    body: bytes = b""
    settings: dict[str, Any] = field(default_factory=dict)
    recorded: bool = True

    def __str__(self) -> str:
        return f"{self.place}, {self.secret.kind}"


def _due(place: Head | Document, secret: Secret) -> tuple[str, ...]:
    return tuple(policy for policy in ("secrets", "strict") if place.due(secret, policy))


def head_cases(place: Head, kinds: Iterable[str] = KINDS, seed: object = 0) -> Iterator[Case]:
    """A kind after the other, each with another name."""
    names = HEADERS if place.name.startswith("header-by-name") else ASCII_FIELDS
    for number, kind in enumerate(kinds):
        secret = make(kind, seed)
        if place.fits(secret):
            calls = place.build(secret, names[(number * 7) % len(names)])
            yield Case(place.name, secret, calls, _due(place, secret), recorded=place.recorded)


def body_of(document: Document, secret: Secret, name: str) -> tuple[str, bytes]:
    kind, body = document.make(secret, name)
    return kind, body if isinstance(body, bytes) else body.encode()


def body_cases(carrier: Carrier, document: Document, kinds: Iterable[str] = KINDS, seed: object = 0) -> Iterator[Case]:
    """The same of a document on its way in a carrier."""
    for number, kind in enumerate(kinds):
        secret = make(kind, seed)
        if not document.fits(secret):
            continue
        name = FIELDS[(number * 7) % len(FIELDS)]
        if document.name in ("xml-attribute", "multipart-bare-name") or carrier.name in NARROW:
            name = ASCII_FIELDS[(number * 7) % len(ASCII_FIELDS)]
        media, body = body_of(document, secret, name)
        if carrier.text and document.name in ("binary", "json-with-bad-bytes"):
            continue
        named = carrier.named and not (carrier.name in NO_HTTP and document.name.startswith("multipart"))
        due = tuple(policy for policy in _due(document, secret) if policy == "strict" or named or secret.form)
        place = f"{carrier.name}: {document.name}"
        yield Case(place, secret, carrier.carry(media, body), due, body, carrier.settings)


def carrier_cases(carrier: Carrier, seed: object = 0, kinds: Iterable[str] = FEW) -> Iterator[Case]:
    """A few kinds in a few documents."""
    kinds = list(kinds)
    for name in EVERYWHERE:
        yield from body_cases(carrier, DOCUMENTS[name], kinds, seed)


def some(place: str) -> list[str]:
    """A few kinds, other ones at each place; always one by its form and one by its name."""
    all_kinds = list(KINDS)
    first = zlib.crc32(place.encode())
    return ["jwt", "password", *dict.fromkeys(all_kinds[(first + 17 * n) % len(all_kinds)] for n in range(2))]


def document_cases(document: Document, seed: object = 0, kinds: Iterable[str] = KINDS) -> Iterator[Case]:
    """As request and as response in turns."""
    kinds = list(kinds)
    sides = [body_cases(CARRIERS[side], document, kinds, seed) for side in ("request", "response")]
    for number, pair in enumerate(zip(*sides, strict=True)):
        yield pair[number % 2]


def everything(seed: object = 0) -> Iterator[Case]:
    """All of it."""
    for place in HEADS.values():
        yield from head_cases(place, seed=seed)
    for document in DOCUMENTS.values():
        yield from document_cases(document, seed)
    for carrier in CARRIERS.values():
        yield from carrier_cases(carrier, seed)


def leaks(cases: Iterable[Case], policy: str | Policy, key: bytes = b"") -> tuple[list[str], int]:
    """(what is still there, of how many)."""
    out, number = [], count()
    name = policy if isinstance(policy, str) else "secrets"
    for case in cases:
        if name not in case.due:
            continue
        next(number)
        everything_written, _records = written(case.calls, policy, key, **case.settings)
        out += [f"{case}: {hit!r}" for _kind, hit in found(everything_written, case.secret)]
    return out, next(number)
