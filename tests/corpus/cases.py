"""The cases of the HTTP/1 corpora: the bytes of each, what its authors state, and what the collector reports of it.

    gunicorn   requests in files, some of which a server must refuse
    llhttp     requests in Markdown, each with the events of a strict or lenient parser
    libhtp     whole connections, both sides

What the collector should report stands beside this file in expected/*.json; expected/README.md says how to read it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.events import Conversation

EXPECTED = Path(__file__).with_name("expected")
# What says that bytes were seen of which there is no record.
COUNTERS = ("connections_not_http", "orphan_responses", "skipped_bytes", "interim_responses", "upgraded", "resyncs")
WHOLE = 1 << 30


@dataclass(frozen=True, slots=True)
class Case:
    """One connection: chunks of (is a request, bytes), and the words of the corpus about it."""

    name: str
    chunks: tuple[tuple[bool, bytes], ...]
    stated: Any


def unescape(text: bytes) -> bytes:
    """gunicorn's notation: LF dropped, then escapes."""
    text = text.replace(b"\n", b"")
    for a, b in ((b"\\r\\n", b"\r\n"), (b"\\0", b"\0"), (b"\\n", b"\n"), (b"\\t", b"\t")):
        text = text.replace(a, b)
    return re.sub(rb"\\x([0-9a-fA-F]{2})", lambda m: bytes([int(m[1], 16)]), text)


def gunicorn(corpora: Path) -> Iterator[Case]:
    """Named `valid/001.http`."""
    stated = json.loads((corpora / "gunicorn" / "expected.json").read_text())
    for kind in ("valid", "invalid"):
        for name, case in stated[kind].items():
            data = unescape((corpora / "gunicorn" / kind / name).read_bytes())
            assert len(data) == case["wire_len"], name
            yield Case(f"{kind}/{name}", ((True, data),), case)


@dataclass(frozen=True, slots=True)
class Log:
    """llhttp's events."""

    kind: str
    messages: tuple[tuple[str, str, int], ...]  # method, target, bytes of body
    error: str

    @classmethod
    def read(cls, kind: str, text: str) -> Log:
        """From a `log` block."""
        messages = []
        for part in text.split("message begin")[1:]:
            method = "".join(re.findall(r'span\[method\]="(.*)"', part))
            url = "".join(re.findall(r'span\[url\]="(.*)"', part))
            body = sum(int(n) for n in re.findall(r"len=(\d+) span\[body\]", part))
            messages.append((method, url, body))
        error = re.search(r"error code=(\d+)", text)
        pause = ("21", "22", "23")  # the caller asked for it; CONNECT or Upgrade; the preface of HTTP/2
        return cls(kind, tuple(messages), error[1] if error is not None and error[1] not in pause else "")


def llhttp(corpora: Path) -> Iterator[Case]:
    """Named `uri.md#3 Heading`: the third block of that file."""
    block = re.compile(r"<!-- meta=(\{.*?\}) -->\s*```http\n(.*?)^```$(?:(?!<!-- meta).)*?^```log\n(.*?)^```$", re.S | re.M)
    for path in sorted((corpora / "llhttp" / "request").glob("*.md")):
        text = path.read_text()
        for number, match in enumerate(block.finditer(text), 1):
            heading = re.findall(r"^#+ (.*)$", text[: match.start()], re.M)[-1]
            data = re.sub(r"\\\n", "", match[2].removesuffix("\n")).replace("\n", "\r\n").encode()
            data = re.sub(rb"\\(r|n|t|f|x[0-9a-fA-F]+|[0-7]{1,3})", _byte, data)
            yield Case(f"{path.name}#{number} {heading}", ((True, data),), Log.read(json.loads(match[1])["type"], match[3]))


def _byte(match: re.Match[bytes]) -> bytes:
    what = match[1].decode()
    named = {"r": 13, "n": 10, "t": 9, "f": 12}
    if what in named:
        return bytes([named[what]])
    return bytes([(int(what[1:], 16) if what[0] == "x" else int(what, 8)) & 0xFF])


def libhtp(corpora: Path) -> Iterator[Case]:
    """Named `00-adhoc.t`."""
    for name, stated in json.loads((corpora / "libhtp" / "expected.json").read_text()).items():
        lines = map(json.loads, libhtp_file(corpora, name).read_text().splitlines())
        yield Case(
            name,
            tuple((line["dir"] == "c2s", base64.b64decode(line["data_b64"])) for line in lines if "data_b64" in line),
            stated,
        )


def libhtp_file(corpora: Path, name: str) -> Path:
    """The connection in the form that `collector replay` reads."""
    return corpora / "libhtp" / "files" / f"{name}.streams.jsonl"


CORPORA = {"gunicorn": gunicorn, "llhttp": llhttp, "libhtp": libhtp}


def expected(corpus: str) -> dict[str, dict[str, Any]]:
    """The project's own words: case -> what a passive observer reports."""
    cases: dict[str, dict[str, Any]] = json.loads((EXPECTED / f"{corpus}.json").read_text())
    return cases


# ---- what the collector says ----


def short(text: bytes) -> str:
    """Enough to know it by."""
    return hashlib.sha256(text).hexdigest()[:8]


def digest(record: dict[str, Any]) -> dict[str, Any]:
    """A record in the form of the expected files."""
    path = record["path"]
    out: dict[str, Any] = {
        "request": f"{record['method']} {path if len(path) < 100 else f'({len(path)} {short(path.encode())})'}"
    }
    if record["statusCode"] != "0":
        out["status"] = int(record["statusCode"])
    for side, name in (("request", "body"), ("response", "answer")):
        shown = record[f"{side}Payload"].encode()
        if f"{side}PayloadEncoding" in record:
            shown = base64.b64decode(shown)
        if record[f"{side}Size"] != "0" or shown:
            out[name] = f"{record[f'{side}Size']} {short(shown)}"
    marks = sorted(record["words"] - {"ambiguous_framing"})
    if record["statusCode"] == "0":
        marks.remove("no_response")  # the missing status says it
    if marks:
        out["marks"] = marks
    reasons = sorted(r for m in record["mark"] if m.startswith("ambiguous_framing") for r in m.split(":")[1:])
    if reasons:
        out["ambiguous"] = reasons
    return out


def report(records: Iterable[dict[str, Any]], counters: dict[str, int]) -> dict[str, Any]:
    """A whole case in that form."""
    out: dict[str, Any] = {"records": [digest(record) for record in records]}
    counted = {name: counters[name] for name in COUNTERS if counters.get(name)}
    if counted:
        out["counters"] = counted
    return out


def observe(case: Case, step: int) -> dict[str, Any]:
    """The case through the pipeline, in events of at most `step` bytes, and then the connection is closed."""
    c = Conversation()
    for is_request, data in case.chunks:
        for at in range(0, len(data), step):
            (c.request if is_request else c.response)(data[at : at + step])
    c.close()
    return report(c.records(), c.counters())
