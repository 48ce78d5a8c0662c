"""What docs/compatibility.md promises: no name goes, and what another version has left is refused or kept, never misread.

`promised.json` holds the names. Add what a new version promises; take nothing out within a major version.
"""

from __future__ import annotations

import json
import struct
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from collector import abi, capturefile, config, errors, lag, metrics, metrics_policy, unsupported
from collector.loader.streams import StreamsFile
from collector.metric import COUNTER, GAUGE
from tests.collector.test_files import CONN, HEAD, data, exchange, replay, stream_lines, write_capture
from tests.events import GET, OK

HERE = Path(__file__).resolve().parent
PROMISED: dict[str, Any] = json.loads((HERE / "promised.json").read_text())
SCHEMA: dict[str, Any] = json.loads((HERE.parents[1] / "docs" / "records.schema.json").read_text())


def test_no_field_of_a_record_goes() -> None:
    assert set(PROMISED["record fields"]) <= set(SCHEMA["properties"])
    assert set(PROMISED["record fields always there"]) <= set(SCHEMA["required"])


def test_every_value_of_a_record_is_a_string() -> None:
    for name, form in SCHEMA["properties"].items():
        values = form.get("enum", [form["const"]] if "const" in form else [])
        assert form.get("type") == "string" or (values and all(isinstance(value, str) for value in values)), name


def test_no_variable_goes() -> None:
    assert set(PROMISED["variables"]) <= config.known_names()


def test_no_metric_goes_nor_changes_its_kind_or_loses_a_label() -> None:
    kinds = {metric.name: metric.kind for metric in metrics.METRICS}
    labels: dict[str, set[str]] = defaultdict(set)
    for metric in metrics.METRICS:
        labels[metric.name] |= {name for name, _value in metric.labels}
    for further in unsupported.METRICS:
        kinds[further.name] = COUNTER
        labels[further.name] |= set(further.labels)
    kinds |= {lag.METRIC: "histogram", metrics.UNSEEN_METRIC: GAUGE, metrics_policy.INFO: GAUGE}
    labels[metrics_policy.INFO] = {"policy", "digest"}
    labels[metrics.UNSEEN_METRIC] = {"process", "reason"}
    for name, (kind, promised) in PROMISED["metrics"].items():
        assert kinds.get(name) == kind and labels[name] == set(promised), name


def test_exit_codes_keep_their_meaning() -> None:
    assert {name: getattr(errors, name) for name in PROMISED["exit codes"]} == PROMISED["exit codes"]
    text = (HERE.parents[1] / "docs" / "troubleshooting.md").read_text()
    for code in PROMISED["exit codes"].values():
        assert f"\n| {code} | " in text


@pytest.mark.parametrize(
    "versions",
    [
        *((version, abi.VERSION) for version in (capturefile.VERSION - 1, capturefile.VERSION + 1, 2**32 - 1)),
        *((capturefile.VERSION, version) for version in (abi.VERSION - 1, abi.VERSION + 1, 2**32 - 1)),
    ],
)
def test_a_recording_of_another_version_is_refused_by_name_with_both(tmp_path: Path, versions: tuple[int, int]) -> None:
    path = tmp_path / "a.cap"
    write_capture(path, [exchange(CONN)])
    recorded = path.read_bytes()
    # a longer header than ours, with a checksum that stands elsewhere
    path.write_bytes(recorded[:16] + struct.pack("<II", *versions) + b"\xff" * 100 + recorded[24:])
    done = replay(str(path))
    assert done.returncode == errors.EXIT_DAMAGED and done.stdout == ""
    said = "written by another version (file {}, events {}; this is {}, {})"
    assert said.format(*versions, capturefile.VERSION, abi.VERSION) in done.stderr


def test_members_of_a_later_stream_file_are_ignored(tmp_path: Path) -> None:
    path = tmp_path / "a.streams.jsonl"
    path.write_text(
        stream_lines(
            {**HEAD, "later": {"deep": [1]}}, {**data("c2s", 0, GET), "later": None}, {**data("s2c", 0.1, OK), "later": "x"}
        )
    )
    assert not StreamsFile(str(path)).errors
    (record,) = map(json.loads, replay(str(path)).stdout.splitlines())
    assert (record["path"], record["marks"]) == ("/x", "[]")


def test_a_recording_gives_the_record_ids_that_were_given_live_each_time(tmp_path: Path) -> None:
    path = tmp_path / "a.cap"
    write_capture(path, [exchange(CONN)])
    first, again = (json.loads(replay(str(path)).stdout)["recordId"] for _ in range(2))
    assert first == again and first.startswith(capturefile.boot_id() + "-")


def test_a_variable_of_another_version_is_named_and_stops_nothing() -> None:
    name = "TRAFFIC_OF_A_LATER_VERSION"
    (warning,) = config.load({name: "1"}).warnings
    assert f"unknown variable {name}" in warning
