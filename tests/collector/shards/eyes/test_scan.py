"""The fields of a record, found in its line."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from collector.shards.eyes.scan import fields
from tests.events import Conversation, pipeline

NAMES = ("method", "path", "statusCode", "process_name", "durationMs", "marks", "protocol", "part", "startTimeMs")


def escaped(value: bytes) -> str:
    text = json.loads(b'"' + value + b'"')
    assert isinstance(text, str)
    return text


@given(
    st.dictionaries(st.sampled_from((*NAMES, "requestPayload", "other", "x" * 60)), st.text(max_size=60), min_size=1),
    st.dictionaries(st.text(max_size=8), st.text(max_size=20), max_size=4),
)
def test_each_field_is_the_one_of_the_parsed_record(values: dict[str, str], headers: dict[str, str]) -> None:
    record = {**values, "requestHeaders": json.dumps(headers, ensure_ascii=False, separators=(",", ":"))}
    line = json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
    found = fields(line)
    assert found is not None
    for name in NAMES:
        assert (name in found) == (name in values)
        if name in values:
            assert json.loads(b'"' + found[name] + b'"') == values[name]
    if "host" in headers:
        inner = json.loads('"' + escaped(found["host"]) + '"')
        assert inner == headers["host"]
    else:
        assert "host" not in found


@given(st.lists(st.sampled_from(["\\", '"', "a", "\x01", "é", "\U0001f600", "/"]), max_size=70).map("".join))
def test_runs_of_escapes_end_where_json_says(text: str) -> None:
    line = json.dumps({"other": text, "path": "/p"}, ensure_ascii=False, separators=(",", ":")).encode()
    assert fields(line) == {"path": b"/p"}


@given(st.binary(max_size=120))
def test_what_is_no_record_is_none_and_does_no_harm(data: bytes) -> None:
    fields(data)
    fields(b'{"path":"' + data)
    fields(b'{"requestHeaders":"{\\"host\\":\\"' + data + b'"}')


def test_every_prefix_of_a_record_is_no_record() -> None:
    line = b'{"method":"GET","path":"/","requestHeaders":"{\\"host\\":\\"a\\"}","statusCode":"200"}'
    assert fields(line) is not None
    assert all(fields(line[:n]) is None for n in range(len(line)))


def test_the_host_of_a_real_record_wherever_it_stands() -> None:
    c = Conversation(pipeline())
    for head in (b"Host: A.Example", b'X: ,"host":"no"\r\nHost: A.Example', b"Hosts: no\r\nHost: A.Example\r\nY: 1"):
        c.request(b"GET /p HTTP/1.1\r\n" + head + b"\r\n\r\n")
        c.response(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    batch = c.pipe.take()
    assert batch is not None and isinstance(batch[0], bytes)
    lines = batch[0].splitlines()
    assert len(lines) == 3
    for line in lines:
        host = json.loads(json.loads(line)["requestHeaders"])["host"]
        found = fields(line)
        assert found is not None and found["host"].decode() == host
