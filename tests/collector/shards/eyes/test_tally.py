"""Sums of requests by process, host and endpoint."""

from __future__ import annotations

import json
import random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from collector.eyes.figures import bucket_middle
from collector.shards.eyes.tally import DURATION_BUCKETS
from collector.shards.eyes.tap import Tap
from collector.shards.folding import folded


def record(path: str = "/p", status: str = "200", duration: str = "1.000", **more: str) -> bytes:
    fields = {
        "method": "GET",
        "path": path,
        "requestHeaders": json.dumps({"host": "a.example"}, separators=(",", ":")),
        "statusCode": status,
        "direction": "1",
        "process_name": "server",
        "durationMs": duration,
        "requestSize": "10",
        "responseSize": "20",
        "marks": "[]",
        **more,
    }
    return json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def rows(*records: bytes) -> list[list[Any]]:
    tap = Tap()
    tap.count_figures(True)
    tap.feed(b"".join(records))
    return [json.loads(line) for line, _count in tap.figures()]


def test_counts_of_one_endpoint() -> None:
    (row,) = rows(
        record("/users/1"),
        record("/users/2", "404", "2.000"),
        record("/users/3", "503"),
        record("/users/4", "0"),
        record("/users/5", marks='["no_response"]'),
    )
    assert row[:4] == ["server", 1, "a.example", "GET /users/{id}"]
    assert row[4:11] == [5, 1, 1, 1, 1, 50, 100]
    assert sum(row[11][1::2]) == 4  # without the one that had no answer


def test_parts_of_one_exchange_are_one_request_without_a_latency() -> None:
    (row,) = rows(*(record(part=str(number), lastPart="false") for number in range(1, 13)))
    assert row[4] == 1 and row[9:12] == [120, 240, []]


def test_keys_that_differ_in_one_thing_are_rows_of_their_own() -> None:
    made = rows(record(), record(direction="2"), record(process_name="other"), record(method="PUT"), record("/q"))
    assert len(made) == 5 and all(row[4] == 1 for row in made)


@given(
    st.lists(st.sampled_from(["/", "7", "users/", "%41", "\x1f", '"', "\\", "é", "€", "😀", "x" * 60]), max_size=60).map(
        "".join
    )
)
def test_a_long_path_is_cut_behind_a_character(path: str) -> None:
    (row,) = rows(record(path))
    text = json.dumps(path, ensure_ascii=False)[1:-1]  # escapes are folded with what is around them
    whole = json.loads(f'"GET {folded(text.encode()).decode()}"')
    assert whole.startswith(row[3]) and (row[3] == whole or len(json.dumps(row[3], ensure_ascii=False).encode()) > 160)


@given(st.lists(st.tuples(st.text(max_size=30), st.text(max_size=30), st.text(max_size=30)), max_size=20))
def test_rows_are_json_whatever_is_in_the_names(names: list[tuple[str, str, str]]) -> None:
    lines = [
        record(path, process_name=process, requestHeaders=json.dumps({"host": host}, separators=(",", ":")))
        for process, host, path in ((p.encode("utf-8", "replace").decode(), h, q) for p, h, q in names)
        if not any("\ud800" <= letter <= "\udfff" for letter in process + host + path)
    ]
    assert sum(row[4] for row in rows(*lines)) == len(lines)


def test_a_flood_of_paths_costs_no_count_and_does_not_push_out_what_is_frequent() -> None:
    source = random.Random(1)
    lines = []
    for number in range(20_000):
        lines.append(
            record("/frequent") if number % 4 == 0 else record("/" + "".join(source.choices("ghijklmn", k=20)), "500")
        )
    made = rows(*lines)
    assert len(made) <= 256
    assert sum(row[4] for row in made) == 20_000 and sum(row[6] for row in made) == 15_000
    assert sum(sum(row[11][1::2]) for row in made) == 20_000
    found = {row[3]: row[4] for row in made}
    assert found["GET /frequent"] >= 4_900
    assert found[""] > 0  # the others


@given(st.integers(0, 1 << 62))
def test_a_bucket_is_at_most_six_percent_off(us: int) -> None:
    (row,) = rows(record(duration=f"{us // 1000}.{us % 1000:03d}"))
    bucket, count = row[11]
    assert count == 1 and 0 <= bucket < DURATION_BUCKETS
    if us < 1 << 39:
        assert abs(bucket_middle(bucket) * 1000 - us) <= max(0.5, us / 16)


def test_what_was_taken_is_not_counted_again() -> None:
    tap = Tap()
    tap.count_figures(True)
    tap.feed(record())
    assert [count for _line, count in tap.figures()] == [1]
    assert tap.figures() == []
    tap.count_figures(False)
    tap.feed(record())
    assert tap.figures() == []
