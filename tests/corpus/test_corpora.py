"""Public test data, case by case, against the project's own words on what a passive observer reports (expected/*.json):
in one event, in events of seven bytes and byte by byte, and through the replay command. And those words against the
ones of the corpora's authors: where the two differ, the case says why."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from collector.loader import streams
from tests.corpus.cases import CORPORA, WHOLE, Case, Log, expected, libhtp_file, observe, report, short
from tests.events import pipeline, take, validate

Expectation = dict[str, Any]


def pairs(corpus: str, corpora: Path) -> list[tuple[Case, Expectation]]:
    """Every case of the data with what we say of it; neither side may have more."""
    cases, words = list(CORPORA[corpus](corpora)), expected(corpus)
    assert [case.name for case in cases] == list(words)
    return [(case, words[case.name]) for case in cases]


@pytest.mark.parametrize("step", [WHOLE, 7, 1])
@pytest.mark.parametrize(("corpus", "count"), [("gunicorn", 137), ("llhttp", 166), ("libhtp", 51)])
def test_the_observer_reports_what_is_expected(corpora: Path, corpus: str, count: int, step: int) -> None:
    differing = {}
    cases = pairs(corpus, corpora)
    assert len(cases) == count
    for case, words in cases:
        # what begins in the middle of lost framing is found again at an event's start only: the one thing that a cut moves
        want = words.get("cut", {}).get(str(step)) or {k: words[k] for k in ("records", "counters") if k in words}
        got = observe(case, step)
        if got != want:
            differing[case.name] = {"expected": want, "reported": got}
    assert not differing, json.dumps(differing, indent=1)


def as_file(case: Case, folder: Path, number: int) -> Path:
    """The case in the form that `collector replay` reads: a connection seen from its opening to its end."""
    head = {"connection": 0, "client": "10.0.0.2:40000", "server": "10.0.0.1:80", "start": "open"}
    lines = [
        head,
        *(
            {"dir": "c2s" if asks else "s2c", "t": at * 0.001, "data_b64": base64.b64encode(data).decode()}
            for at, (asks, data) in enumerate(case.chunks)
        ),
        *({"dir": side, "t": len(case.chunks) * 0.001, "end": "close"} for side in ("c2s", "s2c")),
    ]
    path = folder / f"{number}.streams.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.mark.parametrize("corpus", ["gunicorn", "llhttp", "libhtp"])
def test_the_replay_command_reports_the_same(corpora: Path, tmp_path: Path, corpus: str) -> None:
    cases = pairs(corpus, corpora)
    files = [
        str(libhtp_file(corpora, case.name) if corpus == "libhtp" else as_file(case, tmp_path, number))
        for number, (case, _) in enumerate(cases)
    ]
    done = subprocess.run([sys.executable, "-m", "collector", "replay", *files], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    by_file: dict[int, list[dict[str, Any]]] = {}
    for line in done.stdout.splitlines():
        record = validate(json.loads(line))
        by_file.setdefault(int(record["process_id"]), []).append(record)  # the file's number
    for number, (case, words) in enumerate(cases, 1):
        # the command prints in the order of their ends; their numbers are the order of their beginnings
        records = sorted(by_file.get(number, []), key=lambda r: int(r["recordId"].rpartition("-")[2], 16))
        assert report(records, {})["records"] == words["records"], case.name


# ---- our words against those of the corpora ----


def unmarked(words: Expectation) -> list[str]:
    """The corpus says that this is invalid."""
    clean = [r["request"] for r in words["records"] if not r.keys() & {"ambiguous", "marks"}]
    return [f"recorded as if it were valid: {clean}"] if clean else []


def disagree_gunicorn(case: Case, words: Expectation) -> list[str]:
    """A valid file is its requests, unmarked; an invalid one is marked, cut, or no record."""
    if case.name.startswith("invalid/"):
        return unmarked(words)
    said = [
        {
            "request": f"{r['method']} {r['uri']}".encode("latin-1").decode(),
            "body": f"{r['body_len']} {short(base64.b64decode(r.get('body_b64', '')))}",
        }
        for r in case.stated["requests"]
    ]
    for r in said:
        method, _, path = r["request"].partition(" ")
        if len(path) >= 100:
            r["request"] = f"{method} ({len(path)} {short(path.encode())})"
        if r["body"].startswith("0 "):
            del r["body"]
    return [] if said == words["records"] else [f"stated {said}"]


def disagree_llhttp(case: Case, words: Expectation) -> list[str]:
    """What the strict parser takes is its messages, unmarked; what it refuses is marked, cut, or no record."""
    log: Log = case.stated
    if log.error:
        return unmarked(words)
    out = []
    got = [(*r["request"].split(" ", 1), int(r.get("body", "0 ").split(" ")[0])) for r in words["records"]]
    if got != list(log.messages):
        out.append(f"stated {log.messages}")
    if log.kind in ("request", "request-finish") and any("ambiguous" in r for r in words["records"]):
        out.append("valid, but marked")
    return out


def disagree_libhtp(case: Case, words: Expectation) -> list[str]:
    """Transactions, methods, targets, statuses and lengths as stated; what it cannot parse is marked."""
    out = []
    for test in case.stated:
        records = words["records"]
        if test.get("parse") == "error":
            if not any("ambiguous" in r for r in records):
                out.append("an error there, no mark here")
            continue
        if test.get("transaction_count", len(records)) != len(records):
            out.append(f"{test['transaction_count']} transactions")
        for want, got in zip(test.get("transactions", []), records, strict=False):
            method, path = got["request"].split(" ", 1)
            size = int(got.get("body", "0 ").split(" ")[0])
            have = {"method": method, "uri": path, "status": got.get("status", 0), "request_body_len": size}
            out += [f"{k} {want[k]!r}" for k, v in have.items() if k in want and want[k] != v]
            flags = {k for k, v in want.get("flags", {}).items() if v}
            if flags & {"REQUEST_SMUGGLING", "REQUEST_INVALID", "HOST_AMBIGUOUS"} and "ambiguous" not in got:
                out.append(f"{flags}, no mark here")
        if len(test.get("transactions", [])) > len(records):
            out.append(f"stated {test['transactions']}")
    return out


@pytest.mark.parametrize(
    ("corpus", "disagree"), [("gunicorn", disagree_gunicorn), ("llhttp", disagree_llhttp), ("libhtp", disagree_libhtp)]
)
def test_where_we_differ_from_the_corpus_the_case_says_why(corpora: Path, corpus: str, disagree: Any) -> None:
    unexplained = {
        case.name: found for case, words in pairs(corpus, corpora) if (found := disagree(case, words)) and "why" not in words
    }
    assert not unexplained, json.dumps(unexplained, indent=1)


@pytest.mark.parametrize("corpus", list(CORPORA))
def test_nothing_unrecorded_goes_uncounted_and_every_odd_expectation_has_a_reason(corpus: str) -> None:
    for name, words in expected(corpus).items():
        assert words["records"] or words.get("counters"), name
        assert "why" in words or (words["records"] and "cut" not in words), name


# ---- captures ----


def load(path: Path) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Records and counters of a `.streams.jsonl` file."""
    pipe = pipeline()
    file = streams.StreamsFile(str(path))
    assert file.error is None
    for event in file.events(1, streams.BASE_NS):
        pipe.feed(event.record, 0)
    pipe.finish_timers()
    pipe.close_all()
    return take(pipe), pipe.statistics()


def test_a_captured_exchange_with_a_hole_in_its_request(corpora: Path) -> None:
    (r,), _ = load(corpora / "deepflow-http" / "client-ip.streams.jsonl")
    stated = (corpora / "deepflow-http" / "client-ip.result").read_text()
    assert r["method"] == "POST" and f'path: "{r["path"]}"' in stated and f'host: "{r["request"]["host"]}"' in stated
    assert (r["statusCode"], r["ip"], r["destIp"]) == ("200", "192.168.2.1:54034", "192.168.10.37:8080")
    # 308 bytes of the request were not captured, its head's end among them; the last chunk of the answer is not there
    assert r["words"] == {
        "joined_mid_stream",
        "headers_cut",
        "request_incomplete",
        "response_incomplete",
        "pairing_uncertain",
        "request_framing_uncertain",
        "response_framing_uncertain",
    }
    assert r["request"]["content-length"] == "50" and r["requestPayload"] == ""
    assert json.loads(r["responsePayload"].strip())["success"] is True


@pytest.mark.parametrize(
    ("name", "path", "status"),
    [
        ("grpc-segmented", "/agent.Synchronizer/Push", "0"),
        ("grpc-server-stream", "/timeseriesquery.TimeSeriesQueryService/ServerStreamQuery", "200"),
        ("grpc-service-name", "/StreamingService/ClientStreamRPC", "200"),
        ("grpc-unary", "/agent.Synchronizer/Sync", "200"),
        ("grpc-unknown", "", "200"),
    ],
)
def test_captured_http2(corpora: Path, name: str, path: str, status: str) -> None:
    """All but one were captured in the middle of a connection: what was said before that is unknown."""
    records, _counters = load(corpora / "deepflow-http" / f"{name}.streams.jsonl")
    record = records[-1]
    assert {(r["protocol"], r["method"], r["path"]) for r in records} == {("grpc", "POST", path)}
    assert record["statusCode"] == status and record.get("lastPart", "true") == "true"
    assert record["request"]["content-type"] == "application/grpc"
    assert sum(int(r.get("requestMessages", "0")) for r in records) == (3 if name == "grpc-service-name" else 1)
    stated = (corpora / "deepflow-http" / f"{name}.result").read_text()
    assert path in stated
    assert ("path_unknown" in record["words"]) == (path == "")
    assert ("joined_mid_stream" in record["words"]) == (name != "grpc-service-name")
