"""A record in one line, and its payloads below it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.eyes.tail import Output, bodies, line
from tests.collector.shards.eyes.test_tally import record

RECORD = {
    "startTimeMs": "1795286574123",
    "direction": "2",
    "process_name": "curl",
    "process_id": "812",
    "method": "POST",
    "host": "a.example",
    "path": "/v1/users?id=7",
    "statusCode": "201",
    "durationMs": "2.047",
    "requestSize": "512",
    "responseSize": "1048576",
    "marks": '["response_body_cut:5","evicted"]',
}


def without_time(text: str) -> str:
    return text.partition(" ")[2]


def test_all_of_it() -> None:
    assert without_time(line(RECORD)) == (
        "out curl/812 POST a.example/v1/users?id=7 201 2.05ms 512/1.0M response_body_cut:5 evicted"
    )
    assert line(RECORD).split()[0].endswith(".123")


def test_a_whole_record_has_its_host_among_the_headers() -> None:
    whole = {**RECORD, "requestHeaders": json.dumps({"host": "b.example"}), "statusCode": "0", "marks": "[]", "part": "3"}
    del whole["host"]
    assert without_time(line(whole)) == "out curl/812 POST b.example/v1/users?id=7 - 2.05ms 512/1.0M part 3"


def test_an_absolute_target_stands_alone() -> None:
    assert " POST http://x.example/p 201 " in line({**RECORD, "path": "http://x.example/p"})


@given(st.dictionaries(st.sampled_from([*RECORD, "requestHeaders", "requestPayload", "part", "events"]), st.text()))
def test_whatever_a_record_holds_it_is_one_line_that_steers_nothing(values: dict[str, str]) -> None:
    assert line({**RECORD, **values}).isprintable()
    assert all(one.isprintable() for one in bodies(values))


def test_payloads() -> None:
    given_ = {
        "requestPayload": '{"a":1}',
        "responsePayload": "AAE=",
        "responsePayloadEncoding": "base64",
        "events": "[1,\n2]",
    }
    assert list(bodies(given_)) == ['    > {"a":1}', "    < (base64) AAE=", "    = [1,", "    = 2]"]


@pytest.mark.parametrize("as_json", [False, True])
def test_so_many_and_no_more(as_json: bool, capfdbinary: Any) -> None:
    output = Output(as_json=as_json, with_bodies=False, most=3)
    output.write(record("/1") + record("/2"))
    assert not output.done
    output.write(record("/3") + record("/4"))
    assert output.done
    lines = capfdbinary.readouterr().out.splitlines(keepends=True)
    assert len(lines) == 3 and b"/3" in lines[2]
    assert not as_json or lines[2] == record("/3")


def test_what_is_no_record_is_no_line(capfdbinary: Any) -> None:
    Output(as_json=False, with_bodies=True, most=None).write(b"nonsense\n[]\n" + b"[" * 100_000 + b"\n")
    assert capfdbinary.readouterr().out == b""


def test_json_of_a_shard_that_was_taken_over_steers_nothing(capfdbinary: Any) -> None:
    Output(as_json=True, with_bodies=False, most=None).write(b'{"a":"\x1b[2J\xc2\x9b\x7f"}\n')
    assert capfdbinary.readouterr().out == b'{"a":"?[2J??"}\n'
