"""Public test data through the sans-I/O layers: transactions, methods, targets, statuses and lengths as its authors
state them. What a server must reject, an observer must survive, and mark."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import pytest

from collector import abi
from collector.loader import streams
from tests.events import Conversation, pipeline, take


def wire(text: bytes) -> bytes:
    """gunicorn's notation: LF dropped, then escapes."""
    text = text.replace(b"\n", b"")
    for a, b in ((b"\\r\\n", b"\r\n"), (b"\\0", b"\0"), (b"\\n", b"\n"), (b"\\t", b"\t")):
        text = text.replace(a, b)
    return re.sub(rb"\\x([0-9a-fA-F]{2})", lambda m: bytes([int(m[1], 16)]), text)


# Where an observer rightly sees something else than libhtp's model of a server; each with its reason.
LIBHTP_ELSEWHERE: dict[str, str] = {
    "100-response-body-data.t": "no HTTP message at all",
    "86-partial-request-timeout.t": "not even a whole request line: the answer is counted as one without request",
    "90-request-uri-too-large.t": "not even a whole request line: the answer is counted as one without request",
}
GUNICORN_ELSEWHERE: dict[str, str] = {
    "021.http": "that server closes after Connection: close; the second one was on the wire all the same",
    "019.http": "that server closes after an HTTP/1.0 request; the second one was on the wire all the same",
}


def feed_requests(data: bytes, step: int) -> Conversation:
    c = Conversation()
    for at in range(0, len(data), step):
        c.request(data[at : at + step])
    c.close()
    return c


@pytest.mark.parametrize("step", [1, 7, 1 << 20])
def test_gunicorn_valid(corpora: Path, step: int) -> None:
    expected = json.loads((corpora / "gunicorn" / "expected.json").read_text())["valid"]
    compared = 0
    for name, case in expected.items():
        folder = corpora / "gunicorn" / "valid"
        data = wire((folder / name).read_bytes()) if folder.is_dir() else b""
        assert len(data) == case["wire_len"], name
        if case.get("configuration") or name in GUNICORN_ELSEWHERE:
            continue  # policy of that server
        records = feed_requests(data, step).records()
        if len(records) != len(case["requests"]):
            assert any(r["mark"] != ["no_response"] for r in records) or "trailers" in str(case), (name, records)
            continue
        for record, want in zip(records, case["requests"], strict=True):
            compared += 1
            assert record["method"] == want["method"], name
            assert record["path"] == want["uri"] or record["path"].encode() == want["uri"].encode("latin-1"), name
            assert record["requestSize"] == str(want["body_len"]), name
            body = base64.b64decode(want.get("body_b64", ""))
            shown = record["requestPayload"].encode()
            if "requestPayloadEncoding" in record:
                shown = base64.b64decode(shown)
            if not record["words"] & {"request_body_undecoded", "request_body_omitted", "request_incomplete"}:
                assert shown == body, name
    assert compared >= 50


def test_gunicorn_invalid_is_survived_and_never_clean(corpora: Path) -> None:
    expected = json.loads((corpora / "gunicorn" / "expected.json").read_text())["invalid"]
    # What decides where a message ends must be marked; the rest (targets, names, sizes) is that server's policy.
    framing = {"InvalidChunkSize", "InvalidChunkExtension", "ChunkMissingTerminator", "ObsoleteFolding",
               "InvalidHTTPVersion"}
    checked = 0
    for name, case in expected.items():
        data = wire((corpora / "gunicorn" / "invalid" / name).read_bytes())
        c = feed_requests(data, 1 << 20)
        records = c.records()
        if case["reject"] not in framing or case.get("configuration"):
            continue
        checked += 1
        clean = [r for r in records if r["words"] <= {"no_response"}]
        assert not clean, (name, case, clean)
    assert checked >= 15


def load(path: Path) -> list[dict]:
    pipe = pipeline()
    file = streams.StreamsFile(str(path))
    assert file.error is None
    for event in file.events(1, streams.BASE_NS):
        pipe.feed(event.record, 0)
    pipe.finish_timers()
    pipe.close_all()
    return take(pipe)


def disagreements(name: str, test: dict, records: list[dict]) -> list[str]:
    """What libhtp states of a file and our records do not say."""
    out = []
    if test.get("transaction_count") not in (None, len(records)):
        out.append(f"{name}: {len(records)} records, stated {test['transaction_count']}")
    for number, want in enumerate(test.get("transactions", [])[: len(records)]):
        got = records[number]
        stated = {"method": got["method"], "uri": got["path"], "status": int(got["statusCode"]),
                  "request_wire_body_len": None, "request_body_len": None}
        for field in ("method", "uri", "status"):
            if want.get(field) is not None and want[field] != stated[field]:
                out.append(f"{name} {number}: {field} {stated[field]!r}, stated {want[field]!r}")
    return out


def test_libhtp_transactions(corpora: Path) -> None:
    folder = corpora / "libhtp"
    expected = json.loads((folder / "expected.json").read_text())
    compared, differing = 0, {}
    for name, tests in expected.items():
        records = load(folder / "files" / f"{name}.streams.jsonl")
        for test in tests:
            if test.get("parse") == "ok" and (test.get("transactions") or "transaction_count" in test):
                compared += 1
                found = disagreements(name, test, records)
                if found and name not in LIBHTP_ELSEWHERE:
                    differing[name] = found
    assert not differing, differing
    assert compared >= 40


def test_every_capture_is_survived(corpora: Path) -> None:
    files = [*corpora.glob("libhtp/files/*.jsonl"), *corpora.glob("deepflow-http/*.jsonl")]
    assert len(files) > 50
    for path in files:
        load(path)


def test_deepflow_client_ip(corpora: Path) -> None:
    records = load(corpora / "deepflow-http" / "client-ip.streams.jsonl")
    assert len(records) == 1 and records[0]["method"] == "POST" and records[0]["statusCode"] == "200"
    assert "headers_cut" in records[0]["words"]


def blocks(path: Path) -> list[tuple[str, bytes, str]]:
    """(type, input, log) of llhttp's Markdown."""
    out = []
    for match in re.finditer(r"<!-- meta=(\{.*?\}) -->\s*(?:<!--.*?-->\s*)*```http\n(.*?)```\s*```log\n(.*?)```",
                             path.read_text(), re.S):
        text = match[2].removesuffix("\n")
        text = text.replace("\\\n", "").replace("\n", "\r\n")
        data = text.encode("utf-8", "surrogateescape")
        data = re.sub(rb"\\(r|n|t|f|x[0-9a-fA-F]+|[0-7]{1,3})", _escape, data)
        out.append((json.loads(match[1])["type"], data, match[3]))
    return out


def _escape(match: re.Match[bytes]) -> bytes:
    what = match[1].decode()
    simple = {"r": 13, "n": 10, "t": 9, "f": 12}
    if what in simple:
        return bytes([simple[what]])
    return bytes([(int(what[1:], 16) if what[0] == "x" else int(what, 8)) & 0xFF])


def test_llhttp_strict_requests(corpora: Path) -> None:
    compared = 0
    for path in sorted((corpora / "llhttp").rglob("*.md")):
        for kind, data, log in blocks(path):
            records = feed_requests(data, 1 << 20).records()
            if kind != "request" or "error" in log or log.strip()[:1] == "/" or "upgrade" in log:
                continue
            methods = re.findall(r'method complete', log)
            urls = ["".join(re.findall(r'span\[url\]="(.*?)"\n', part)) for part in log.split("message begin")[1:]]
            if not methods or len(records) != len(urls) or "pause" in log:
                continue
            for record, url in zip(records, urls, strict=True):
                compared += 1
                assert record["path"] == url.replace('\\"', '"').encode("utf-8").decode("unicode_escape", "replace") or \
                    record["path"] == url, (path.name, url, record["path"])
    assert compared >= 50


def test_fixture_directions() -> None:
    assert abi.IN == 0 and abi.OUT == 1
