"""Ordinary values of the corpora: what a policy that takes secrets out has to leave alone.

Bodies: the examples of OpenAPI descriptions, as JSON and as forms, and generated ones for the operations. Heads: those of
browsers (the stories of the HPACK corpora) and of conversations. Texts: the harmless ones of gotestwaf.
"""

from __future__ import annotations

import base64
import json
import re
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

from tests.secrets.names import ORDINARY

# By its name the value is a secret. Written by hand before anything was counted, and not changed for single finds.
SECRET_NAME = re.compile(
    r"pass(word|wd|wort|phrase|code)|pwd|secret|token|api.?key|private.?key|access.?key|auth|credential|cookie|session"
    r"|\bsid\b|cvv|cvc|security.?code|\bpin\b|otp|ssn|social.?security|card.?number|iban|signature|bearer|jwt|assertion|verification.?code",
    re.I,
)
# By its form it is one: these are examples that look like the real ones.
SECRET_FORM = re.compile(
    r"eyJ[\w-]{8,}\.[\w-]+\.[\w-]*|-----BEGIN|\b(?:AC|SK)[0-9a-f]{32}\b|\b[A-Z]{2}\d\d[A-Z0-9]{11,30}\b|\bEAA[A-Za-z0-9]{20,}"
)
DIGITS = re.compile(r"\d(?:[ -]?\d){11,18}")
Path_ = tuple[str, ...]


def is_card(text: str) -> bool:
    """Digits that pass the check of ISO/IEC 7812-1."""
    for match in DIGITS.finditer(text):
        digits = [int(c) for c in match[0] if c.isdigit()]
        doubled = [n * 2 - 9 * (n > 4) for n in digits[-2::-2]]
        if (sum(doubled) + sum(digits[::-2])) % 10 == 0:
            return True
    return False


def counts(path: Path_, value: str) -> bool:
    """Is a redaction of it false?"""
    return not any(SECRET_NAME.search(name) for name in path) and not SECRET_FORM.search(value) and not is_card(value)


def leaves(value: Any, path: Path_ = ()) -> Iterator[tuple[Path_, Any]]:
    """Every value that holds no others, with the names above it."""
    if isinstance(value, dict):
        for name, member in value.items():
            yield from leaves(member, (*path, name))
    elif isinstance(value, list):
        for item in value:
            yield from leaves(item, path)
    else:
        yield path, value


def _operations(corpora: Path) -> Iterator[dict[str, Any]]:
    for vendor in ("twilio", "paypal"):
        yield from json.loads((corpora / "openapi" / f"{vendor}.json").read_text())["operations"]


def json_bodies(corpora: Path) -> Iterator[Any]:
    """Those of descriptions, their forms as objects, and harmless texts."""
    for operation in _operations(corpora):
        yield from operation.get("json_bodies", [])
        yield from operation.get("form_bodies", [])
    for name in ("crs", "gotestwaf"):
        for line in (corpora / "attacks" / f"{name}.jsonl").read_text().splitlines():
            request = json.loads(line)
            if request["expect"]["attack"] is False:
                yield {"comment": base64.b64decode(request["body_b64"]).decode("utf-8", "replace")}


def forms(corpora: Path) -> Iterator[dict[str, str]]:
    for operation in _operations(corpora):
        for form in operation.get("form_bodies", []):
            yield {name: value if isinstance(value, str) else json.dumps(value) for name, value in form.items()}


def targets(corpora: Path) -> Iterator[str]:
    """The operations' paths and queries with values as they are described."""
    rng = Random(1)
    for operation in _operations(corpora):
        values = {p["name"]: str(p.get("example") or _value(p, rng)) for p in operation["parameters"]}
        path = re.sub(r"\{(\w+)\}", lambda m, known=values: urllib.parse.quote(known.get(m[1], "7"), ""), operation["path"])  # type: ignore[misc]
        query = urllib.parse.urlencode({name: rng.choice(_WORDS)(rng) for name in operation["query"]})
        yield path + (f"?{query}" if query else "")


def _value(parameter: dict[str, Any], rng: Random) -> str:
    match = re.match(r"\^(\w\w)\[", parameter.get("pattern") or "")
    return (match[1] if match else "") + "".join(rng.choice("0123456789abcdef") for _ in range(32 if match else 8))


_WORDS = (
    lambda r: str(r.randrange(10**9)),
    lambda r: f"2026-{r.randrange(1, 13):02}-{r.randrange(1, 29):02}",
    lambda r: r.choice(["true", "false", "asc", "active", "completed"]),
    lambda r: f"+1{r.randrange(10**9, 10**10)}",
    lambda r: f"user{r.randrange(1000)}@example.com",
)


def made_bodies(rng: Random, count: int) -> Iterator[dict[str, Any]]:
    """Values as APIs have them, under names that look like others."""
    kinds = (
        lambda: rng.randrange(10 ** rng.randrange(1, 12)),
        lambda: round(rng.random() * 1000, 2),
        lambda: rng.randbytes(16).hex(),
        lambda: "-".join(rng.randbytes(n).hex() for n in (4, 2, 2, 2, 6)),
        lambda: f"2026-{rng.randrange(1, 13):02}-11T10:{rng.randrange(60):02}:00.123456Z",
        lambda: 1_700_000_000_000 + rng.randrange(10**11),  # milliseconds
        lambda: str(rng.randrange(10**9, 10**10)),
        lambda: f"+49 {rng.randrange(100, 999)} {rng.randrange(10**6, 10**7)}",
        lambda: f"https://cdn.example.com/img/{rng.randbytes(20).hex()}.png?w={rng.randrange(2000)}&fit=crop",
        lambda: base64.b64encode(rng.randbytes(rng.randrange(6, 60))).decode(),
        lambda: " ".join(rng.choice(ORDINARY) for _ in range(rng.randrange(1, 20))),
        lambda: f"{rng.randrange(256)}.{rng.randrange(256)}.{rng.randrange(256)}.{rng.randrange(256)}",
        lambda: f"v{rng.randrange(9)}.{rng.randrange(99)}.{rng.randrange(99)}-{rng.randbytes(4).hex()}",
        lambda: f"sha256:{rng.randbytes(32).hex()}",
        lambda: f"arn:aws:s3:::bucket-{rng.randrange(99)}/key/{rng.randrange(10**6)}",
        lambda: f"{rng.random() * 180 - 90:.6f},{rng.random() * 360 - 180:.6f}",
        lambda: rng.choice([True, False, None]),
    )
    for _ in range(count):
        yield {rng.choice(ORDINARY): rng.choice(kinds)() for _ in range(rng.randrange(2, 20))}


def header_lists(corpora: Path) -> Iterator[list[tuple[str, str]]]:
    """Of real browsers and servers; pseudo-fields are left out."""
    for path in sorted((corpora / "hpack" / "nghttp2").glob("story_*.json")):
        for case in json.loads(path.read_text())["cases"]:
            yield [(name, value) for field in case["headers"] for name, value in field.items() if name[0] != ":"]


def header_targets(corpora: Path) -> Iterator[str]:
    for path in sorted((corpora / "hpack" / "nghttp2").glob("story_*.json")):
        for case in json.loads(path.read_text())["cases"]:
            for field in case["headers"]:
                if ":path" in field:
                    yield field[":path"]
